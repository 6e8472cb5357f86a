//! Points 8 to 10: how a script ends, what is told of it, and an agent that goes away.

use super::*;

// Point 8.
fn times_out(host: &Host, version: Version, script: &str) -> Deployment {
    let small = Small::default().with("AfterInstall", "{location: hook, timeout: 3}").file("hook", 0o755, script);
    Agent::new(host).version(version).deploy(&small.tgz()).expect_failure("AfterInstall")
}

#[test]
fn at_its_timeout_a_scripts_whole_group_is_told_to_end() {
    let host = Host::boot();
    let script = "#!/bin/sh\ntrap 'touch /root/told; exit 0' TERM\n(trap 'touch /root/child-told; exit 0' TERM; sleep 20 & wait) &\nwait\n";
    let deployment = times_out(&host, Version::V1, script);
    assert_eq!(code(&deployment), Some(Code::ScriptTimedOut), "though it exited with 0");
    host.succeed("test -e /root/told");
    host.wait_until("the child was told", |host| host.run("test -e /root/child-told").code == 0);
}

/// For 16 s it does not mind, and then says so.
const STUBBORN: &str = "#!/bin/sh\ntrap '' TERM\nsleep 16\ntouch /root/whole\n";

#[test]
fn version_1_waits_for_ever_for_a_script_that_does_not_end_when_it_is_told_to() {
    let host = Host::boot();
    let deployment = times_out(&host, Version::V1, STUBBORN);
    assert_eq!(code(&deployment), Some(Code::ScriptTimedOut));
    host.succeed("test -e /root/whole");
}

#[test]
fn assumed_version_2_kills_a_script_5_s_after_it_was_told_to_end() {
    let host = Host::boot();
    let deployment = times_out(&host, Version::V2, STUBBORN);
    assert_eq!(code(&deployment), Some(Code::ScriptTimedOut));
    assert!(deployment.last().duration >= Duration::from_secs(8), "{:?}", deployment.last().duration);
    host.fail("test -e /root/whole || pgrep -x sleep");
}

#[test]
fn a_child_that_holds_a_pipe_fails_the_script_at_its_deadline_and_lives_on() {
    let host = Host::boot();
    for (held, other) in [("STDOUT", "2"), ("STDERR", "1")] {
        let script = format!("#!/bin/sh\nsleep 600 {other}>/dev/null &\nexit 0\n");
        let deployment = times_out(&host, Version::V1, &script);
        assert_eq!(code(&deployment), Some(Code::OutputsLeftOpen));
        assert!(deployment.failure().unwrap().message.contains(held), "{held}");
        assert!(deployment.last().duration >= Duration::from_secs(3));
        host.succeed("pgrep -x sleep && pkill -x sleep");
    }
}

#[test]
fn one_deadline_holds_for_the_exit_and_for_both_pipes() {
    let host = Host::boot();
    // It exits in time; what holds its pipes lets go of them too late, and within a second deadline that began then.
    let script = "#!/bin/sh\nsleep 3\nsleep 12 &\n";
    let small = Small::default().with("AfterInstall", "{location: hook, timeout: 10}").file("hook", 0o755, script);
    let deployment = Agent::new(&host).deploy(&small.tgz()).expect_failure("AfterInstall");
    assert_eq!(code(&deployment), Some(Code::OutputsLeftOpen));
}

// Point 9.
/// A line of the log, without the time that it begins with.
fn untimed(line: &str) -> &str {
    let (time, rest) = line.split_at("2026-11-26 02:22:53 ".len());
    let time = jiff::civil::DateTime::strptime("%F %T ", time).unwrap_or_else(|error| panic!("{line}: {error}"));
    let ago = jiff::Timestamp::now().duration_since(time.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp());
    assert!(ago < jiff::SignedDuration::from_mins(1), "{line}");
    rest
}

#[test]
fn output_goes_to_the_log_with_marks_and_its_last_2047_characters_into_the_report() {
    let host = Host::boot();
    // Whose pipe is read first nobody knows, so what must be told apart comes through one of them.
    let script = "#!/bin/sh\necho out\n(echo first; seq 1000; echo why) >&2\nexit 1\n";
    let deployment =
        Agent::new(&host).deploy(&Small::hook("AfterInstall", script).tgz()).expect_failure("AfterInstall");
    let log = host.succeed(&format!("cat {}/logs/scripts.log", folder(&host, &deployment)));
    let lines: Vec<_> = log.lines().map(untimed).collect();
    assert_eq!(lines[..2], ["LifecycleEvent - AfterInstall", "Script - hooks/AfterInstall"]);
    assert!(lines.contains(&"[stdout]out") && lines.contains(&"[stderr]why"), "{log}");
    let tail = deployment.last().tail();
    assert!(tail.len() <= 2047 && tail.len() > 2000 && tail.contains("[stderr]why\n") && !tail.contains("first"));
    let told = agent::tell(&deployment);
    assert!(told.contains("AfterInstall       Failed") && told.contains("ScriptFailed (4)"), "{told}");
}

#[test]
fn all_events_of_a_deployment_go_to_one_log() {
    let host = Host::boot();
    let script = "#!/bin/sh\necho $LIFECYCLE_EVENT\n";
    let bundle = Small::hook("BeforeInstall", script).and("AfterInstall", script).tgz();
    let deployment = Agent::new(&host).deploy(&bundle).expect_success();
    let log = host.succeed(&format!("cat {}/logs/scripts.log", folder(&host, &deployment)));
    let said: Vec<_> = log.lines().filter_map(|line| untimed(line).strip_prefix("[stdout]")).collect();
    assert_eq!(said, ["BeforeInstall", "AfterInstall"]);
}

const FILL: &str = "head -c 2M /dev/zero >/opt/codedeploy-agent/filler";

#[test]
fn a_disk_that_takes_no_log_fails_the_event_before_its_script_runs() {
    let host = host_with_a_small_disk();
    let bundle = Small::hook("AfterInstall", "#!/bin/sh\ntouch /root/ran\n").tgz();
    let mut agent = Agent::new(&host).with(Incident::before("AfterInstall", FILL));
    let deployment = agent.deploy(&bundle).expect_failure("AfterInstall");
    assert_eq!((code(&deployment), agent.missed()), (Some(Code::UnknownError), Vec::new()));
    host.fail("test -e /root/ran");
    Agent::new(&host).deploy(&bundle).expect_failure("DownloadBundle");
    host.succeed("rm /opt/codedeploy-agent/filler");
    Agent::new(&host).deploy(&bundle).expect_success();
}

#[test]
fn a_disk_that_takes_no_more_of_the_log_fails_the_script_once_it_has_ended() {
    let host = host_with_a_small_disk();
    let script =
        "#!/bin/sh\ntouch /root/here\nuntil [ -e /root/go ]; do sleep 0.01; done\nseq 1000\ntouch /root/ended\n";
    let fill = What::Command(format!("{FILL}; touch /root/go"));
    let mut agent = Agent::new(&host).with(Incident::during("AfterInstall", HERE, fill));
    let deployment = agent.deploy(&Small::hook("AfterInstall", script).tgz()).expect_failure("AfterInstall");
    assert_eq!((code(&deployment), agent.missed()), (Some(Code::ScriptFailed), Vec::new()));
    assert!(deployment.failure().unwrap().message.contains("failed with error"), "{:?}", deployment.failure());
    host.succeed("test -e /root/ended");
}

// Point 10.
const HERE: &str = "test -e /root/here";

#[test]
fn an_agent_that_is_killed_leaves_an_orphan_that_dies_of_its_next_line() {
    let host = Host::boot();
    let script = "#!/bin/sh\necho $$ >/root/here.new; mv /root/here.new /root/here\nuntil [ -e /root/go ]; do sleep 0.01; done\ntouch /root/went\necho more\ntouch /root/after\n";
    let bundle = Small::hook("AfterInstall", script).tgz();
    let mut agent = Agent::new(&host).with(Incident::during("AfterInstall", HERE, What::Killed));
    let deployment = agent.deploy(&bundle).expect_failure("AfterInstall");
    assert_eq!((code(&deployment), agent.missed()), (Some(Code::FailedAfterRestart), Vec::new()));
    let pid = host.succeed("cat /root/here");
    assert_eq!(host.succeed(&format!("ps -o ppid= {pid}")).trim(), "1");
    host.succeed("touch /root/go");
    host.wait_until("it is gone", |host| host.run(&format!("ps {pid}")).code != 0);
    host.succeed("test -e /root/went && test ! -e /root/after");
    agent.deploy(&bundle).expect_success();
}

#[test]
fn an_agent_that_is_restarted_takes_the_script_and_what_it_started_along() {
    let host = Host::boot();
    let script = "#!/bin/sh\n[ -e /root/here ] && exit\nsetsid sleep 600 &\necho $! >/root/here.new; mv /root/here.new /root/here\nwait\n";
    let bundle = Small::hook("AfterInstall", script).tgz();
    let mut agent = Agent::new(&host).with(Incident::during("AfterInstall", HERE, What::Restarted));
    let deployment = agent.deploy(&bundle).expect_failure("AfterInstall");
    assert_eq!((code(&deployment), agent.missed()), (Some(Code::FailedAfterRestart), Vec::new()));
    host.fail("ps $(cat /root/here)");
    host.succeed("systemctl is-active codedeploy-agent.service");
    agent.deploy(&bundle).expect_success();
}

#[test]
fn an_incident_that_never_came_is_told() {
    let host = Host::boot();
    let mut agent = Agent::new(&host).with(Incident::during("AfterInstall", "false", What::Killed));
    agent.deploy(&Small::hook("AfterInstall", "#!/bin/sh\n").tgz()).expect_success();
    assert_eq!(agent.missed(), ["Killed in AfterInstall"]);
}

/// What is known of it: the last successful revision, without a download where its copy is there.
#[test]
fn assumed_a_restart_installs_the_copy_that_is_there_and_downloads_where_it_is_gone() {
    let host = Host::boot();
    let bundle = |label| Small::hook("AfterInstall", &format!("#!/bin/sh\necho {label}\n")).tgz();
    let mut agent = Agent::new(&host).version(Version::V2);
    let first = agent.deploy(&bundle("copy")).expect_success();
    // Its copy is there too, and it was never installed.
    agent.deploy(&Small::hook("BeforeInstall", "#!/bin/sh\nexit 1\n").tgz()).expect_failure("BeforeInstall");
    let restart = agent.restart(&bundle("download")).expect_success();
    assert_ne!(first.id, restart.id);
    assert!(restart.event("AfterInstall").output.contains("[stdout]copy\n"));
    host.succeed(&format!("rm -r {}", archive(&host, &restart)));
    let restart = agent.restart(&bundle("download")).expect_success();
    assert!(restart.event("AfterInstall").output.contains("[stdout]download\n"));
}
