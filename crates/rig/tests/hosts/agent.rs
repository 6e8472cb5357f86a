//! The stand-in for CodeDeploy's agent, held against what is known of the real one. Points are those of the list that it was
//! built by; what is known of version 2 from its change log alone is called assumed.

use std::{fs, time::Duration};

use flate2::{Compression, write::GzEncoder};
use rig::{
    Agent, Deployment, Host,
    agent::{self, Code, Incident, Kind, Source, Status, Version, What},
};

const ROOT: &str = "/opt/codedeploy-agent/deployment-root";
const ALL: [&str; 11] = [
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    "BeforeInstall",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
    "DownloadBundle",
    "Install",
];

/// A small bundle: files with their modes, and an appspec that names scripts.
#[derive(Default)]
struct Small {
    hooks: String,
    files: Vec<(String, u32, String)>,
}

impl Small {
    /// One script for one event.
    fn hook(event: &str, script: &str) -> Self {
        Self::default().and(event, script)
    }

    fn and(self, event: &str, script: &str) -> Self {
        self.with(event, &format!("{{location: hooks/{event}}}")).file(&format!("hooks/{event}"), 0o755, script)
    }

    /// An event's script as the appspec has it.
    fn with(mut self, event: &str, script: &str) -> Self {
        self.hooks += &format!("  {event}:\n    - {script}\n");
        self
    }

    fn file(mut self, path: &str, mode: u32, text: &str) -> Self {
        self.files.push((path.to_owned(), mode, text.to_owned()));
        self
    }

    fn appspec(&self) -> String {
        let hooks = if self.hooks.is_empty() { "" } else { "hooks:\n" };
        format!("version: 0.0\nos: linux\n{hooks}{}", self.hooks)
    }

    fn tgz(self) -> Vec<u8> {
        let appspec = self.appspec();
        let files = [vec![("appspec.yml".to_owned(), 0o644, appspec)], self.files].concat();
        pack(&files)
    }
}

/// An archive of files, or of links where the mode is 0.
fn pack(files: &[(String, u32, String)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, mode, text) in files {
        let mut header = tar::Header::new_gnu();
        if *mode == 0 {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, text).unwrap();
            continue;
        }
        header.set_mode(*mode);
        header.set_size(text.len() as u64);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        if path.contains("owned") || path == "./" {
            header.set_uid(1234);
            header.set_gid(5678);
        }
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Every event's script writes its event to /root/ran.
fn tells_each_event() -> Small {
    let script = "#!/bin/sh\necho $LIFECYCLE_EVENT >>/root/ran\n";
    ALL.into_iter().fold(Small::default(), |small, event| small.and(event, script))
}

fn ran(host: &Host) -> String {
    let ran = host.run("cat /root/ran; rm -f /root/ran").output;
    ran.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn code(deployment: &Deployment) -> Option<Code> {
    deployment.failure().map(|failure| failure.code)
}

fn folder(host: &Host, deployment: &Deployment) -> String {
    host.succeed(&format!("echo {ROOT}/*/{}", deployment.id)).trim().to_owned()
}

fn archive(host: &Host, deployment: &Deployment) -> String {
    folder(host, deployment) + "/deployment-archive"
}

// Point 1.
#[test]
fn a_deployment_is_laid_out_in_a_folder_of_its_own_below_its_groups() {
    let host = Host::boot();
    let bundle = Small::hook("AfterInstall", "#!/bin/sh\necho here\n").tgz();
    let deployments = [(); 2].map(|()| Agent::new(&host).deploy(&bundle).expect_success());
    assert_ne!(deployments[0].id, deployments[1].id);
    for deployment in &deployments {
        let id = deployment.id.strip_prefix("d-").unwrap();
        assert!(id.len() == 9 && id.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()), "{id}");
        host.succeed(&format!(
            "cd {} && test -s bundle.tar && test -s deployment-archive/appspec.yml && grep -q here logs/scripts.log",
            folder(&host, deployment)
        ));
    }
}

// Point 2.
#[test]
fn events_run_in_order_and_with_a_load_balancer_its_events_around_them() {
    let host = Host::boot();
    let bundle = tells_each_event().tgz();
    Agent::new(&host).deploy(&bundle).expect_success();
    // The first has no bundle before it, and what is called DownloadBundle or Install runs no script.
    assert_eq!(ran(&host), "BeforeInstall AfterInstall ApplicationStart ValidateService");
    Agent::new(&host).deploy(&bundle).expect_success();
    assert_eq!(ran(&host), "ApplicationStop BeforeInstall AfterInstall ApplicationStart ValidateService");
    Agent::new(&host).behind_a_load_balancer().deploy(&bundle).expect_success();
    assert_eq!(
        ran(&host),
        "BeforeBlockTraffic AfterBlockTraffic ApplicationStop BeforeInstall AfterInstall ApplicationStart \
         ValidateService BeforeAllowTraffic AfterAllowTraffic"
    );
}

#[test]
fn the_first_event_that_fails_ends_the_deployment_and_of_its_scripts_no_more_run() {
    let host = Host::boot();
    let fails = "#!/bin/sh\necho $LIFECYCLE_EVENT >>/root/ran\nexit 3\n";
    let bundle = tells_each_event().file("fails", 0o755, fails);
    let hooks = bundle.hooks.replace("location: hooks/AfterInstall}", "location: fails}\n    - {location: fails}");
    let deployment = Agent::new(&host).deploy(&Small { hooks, ..bundle }.tgz()).expect_failure("AfterInstall");
    assert_eq!(ran(&host), "BeforeInstall AfterInstall");
    let failure = deployment.failure().unwrap();
    assert_eq!((failure.code, failure.script.as_str()), (Code::ScriptFailed, "fails"));
    assert!(failure.message.contains("failed with exit code 3"), "{failure}");
}

#[test]
fn failures_of_the_previous_bundle_alone_are_ignored_where_that_is_asked_for() {
    let host = Host::boot();
    let bundle = Small::hook("ApplicationStop", "#!/bin/sh\nexit 1\n").tgz();
    Agent::new(&host).deploy(&bundle).expect_success();
    Agent::new(&host).deploy(&bundle).expect_failure("ApplicationStop");
    let mut lenient = Agent::new(&host).ignoring_previous_failures();
    let deployment = lenient.deploy(&bundle).expect_success();
    assert!(
        matches!(&deployment.event("ApplicationStop").status, Status::Ignored(failure) if failure.code == Code::ScriptFailed)
    );
    lenient.deploy(&Small::hook("BeforeInstall", "#!/bin/sh\nexit 1\n").tgz()).expect_failure("BeforeInstall");
}

// Point 3.
#[test]
fn three_events_are_the_last_installed_bundles_and_get_the_new_deployments_environment() {
    let host = Host::boot();
    let stop = |label: &str| {
        let script = format!("#!/bin/sh\necho {label} $DEPLOYMENT_ID\n");
        ["BeforeBlockTraffic", "AfterBlockTraffic"]
            .into_iter()
            .fold(Small::hook("ApplicationStop", &script), |all, event| all.and(event, &script))
    };
    let deploy = |bundle: Small| Agent::new(&host).behind_a_load_balancer().deploy(&bundle.tgz());
    let first = deploy(stop("one")).expect_success();
    assert_eq!(first.event("ApplicationStop").output, "", "no bundle was before");
    // Its Install succeeds, and what comes after does not.
    deploy(stop("two").and("AfterInstall", "#!/bin/sh\nexit 1\n")).expect_failure("AfterInstall");
    // Its Install is never reached.
    deploy(stop("three").and("BeforeInstall", "#!/bin/sh\nexit 1\n")).expect_failure("BeforeInstall");
    let last = deploy(stop("four")).expect_success();
    for event in ["BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop"] {
        let output = &last.event(event).output;
        assert!(output.contains(&format!("[stdout]two {}\n", last.id)), "{event}: {output}");
    }
    // And its log.
    host.succeed(&format!("grep -q 'two {}' {}/logs/scripts.log", last.id, folder(&host, &last)));
}

#[test]
fn each_group_has_a_last_bundle_of_its_own() {
    let host = Host::boot();
    let bundle = |label| Small::hook("ApplicationStop", &format!("#!/bin/sh\necho {label}\n")).tgz();
    Agent::new(&host).group("blue").deploy(&bundle("blue")).expect_success();
    let green = Agent::new(&host).group("green").deploy(&bundle("green")).expect_success();
    assert_eq!(green.event("ApplicationStop").output, "");
    let blue = Agent::new(&host).group("blue").deploy(&bundle("blue again")).expect_success();
    assert!(blue.event("ApplicationStop").output.contains("[stdout]blue\n"));
}

fn deploys_without_the_last_archive(version: Version) -> Deployment {
    let host = Host::boot();
    let bundle = Small::hook("ApplicationStop", "#!/bin/sh\n").tgz();
    let mut agent = Agent::new(&host).version(version);
    let first = agent.deploy(&bundle).expect_success();
    host.succeed(&format!("rm -r {}", archive(&host, &first)));
    agent.deploy(&bundle)
}

#[test]
fn a_record_whose_archive_is_gone_fails_the_next_deployment_in_version_1() {
    let deployment = deploys_without_the_last_archive(Version::V1).expect_failure("ApplicationStop");
    assert_eq!(code(&deployment), Some(Code::UnknownError));
}

#[test]
fn assumed_a_record_whose_archive_is_gone_is_passed_over_in_version_2() {
    deploys_without_the_last_archive(Version::V2).expect_success();
}

// Point 4.
#[test]
fn the_appspec_is_read_anew_at_each_event() {
    let host = Host::boot();
    let spoil = "#!/bin/sh\nsed -i 's/0.0/0.1/' \"${0%/*}/../appspec.yml\"\n";
    let deployment = Agent::new(&host).deploy(&Small::hook("BeforeInstall", spoil).tgz()).expect_failure("Install");
    assert_eq!(code(&deployment), Some(Code::UnknownError));
    let spoil = spoil.replace("0.0/0.1", "linux/windows");
    Agent::new(&host).deploy(&Small::hook("AfterInstall", &spoil).tgz()).expect_failure("ApplicationStart");
}

#[test]
fn a_bundle_without_a_sound_appspec_fails_in_the_first_event_that_reads_it() {
    let host = Host::boot();
    for text in [
        "version: 1.0\nos: linux\n",
        "version: 0.0\nos: windows\n",
        "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - timeout: 3\n",
    ] {
        let bundle = pack(&[("appspec.yml".to_owned(), 0o644, text.to_owned())]);
        let deployment = Agent::new(&host).deploy(&bundle).expect_failure("BeforeInstall");
        assert_eq!(code(&deployment), Some(Code::UnknownError), "{text}");
    }
    let deployment = Agent::new(&host).deploy(&pack(&[("file".to_owned(), 0o644, String::new())]));
    assert!(deployment.expect_failure("BeforeInstall").failure().unwrap().message.contains("did not find an AppSpec"));
}

#[test]
fn an_event_that_nobody_knows_is_passed_over_or_refused_at_install() {
    let host = Host::boot();
    let bundle = Small::hook("Sometime", "#!/bin/sh\n").tgz();
    Agent::new(&host).deploy(&bundle).expect_success();
    let deployment = Agent::new(&host).rejecting_unknown_events().deploy(&bundle).expect_failure("Install");
    assert!(deployment.failure().unwrap().message.contains("unknown lifecycle events: Sometime"));
}

#[test]
fn a_script_that_is_not_there_or_cannot_start_is_told_apart() {
    let host = Host::boot();
    let deploy = |bundle: Small| Agent::new(&host).deploy(&bundle.tgz()).expect_failure("AfterInstall");
    let missing = deploy(Small::default().with("AfterInstall", "{location: nowhere}"));
    assert_eq!(code(&missing), Some(Code::ScriptMissing));
    // There is no shell that would make an argument of it.
    let argument =
        deploy(Small::default().with("AfterInstall", "{location: hook now}").file("hook", 0o755, "#!/bin/sh\n"));
    assert_eq!(code(&argument), Some(Code::ScriptMissing));
    let returns = deploy(Small::hook("AfterInstall", "#!/bin/sh\r\nexit 0\r\n"));
    assert_eq!(code(&returns), Some(Code::ScriptFailed));
    let killed = deploy(Small::hook("AfterInstall", "#!/bin/sh\nkill -KILL $$\n"));
    assert_eq!(code(&killed), Some(Code::ScriptFailed));
}

// Point 5.
#[test]
fn a_tgz_sets_modes_setuid_and_owners_of_its_root_folder_too() {
    let host = Host::boot();
    let small = Small::default().file("./", 0o711, "").file("owned", 0o4750, "x").file("link", 0, "owned");
    let deployment = Agent::new(&host).deploy(&small.tgz()).expect_success();
    let stat = |name: &str| host.succeed(&format!("cd {}; stat -c '%a %u:%g' {name}", archive(&host, &deployment)));
    assert_eq!((stat("owned").trim(), stat(".").trim()), ("4750 1234:5678", "711 1234:5678"));
    host.succeed(&format!("test -L {}/link", archive(&host, &deployment)));
}

fn zipped() -> Vec<u8> {
    let small = Small::default().file("tool", 0o755, "x").file("setuid", 0o4755, "x").file("link", 0, "tool");
    agent::as_zip(&small.tgz()).unwrap()
}

#[test]
fn a_zip_keeps_stored_modes_and_links_and_drops_setuid() {
    let host = Host::boot();
    let deployment = Agent::new(&host).deploy(&zipped()).expect_success();
    let modes = host.succeed(&format!("cd {}; stat -c %a tool setuid; readlink link", archive(&host, &deployment)));
    assert_eq!(modes.split_whitespace().collect::<Vec<_>>(), ["755", "755", "tool"]);
}

#[test]
fn where_unzip_is_missing_every_file_is_0644_links_are_left_out_and_it_is_called_a_success() {
    let host = Host::boot();
    host.succeed("rm /usr/bin/unzip");
    let deployment = Agent::new(&host).deploy(&zipped()).expect_success();
    let modes = host.succeed(&format!("cd {}; stat -c %a tool setuid appspec.yml", archive(&host, &deployment)));
    assert_eq!(modes.split_whitespace().collect::<Vec<_>>(), ["644"; 3]);
    host.fail(&format!("test -L {0}/link || test -e {0}/link", archive(&host, &deployment)));
}

#[test]
fn without_unzip_a_path_that_leads_outside_is_followed() {
    let host = Host::boot();
    let script = "import sys, zipfile\nwith zipfile.ZipFile('/root/bundle', 'w') as to:\n  to.writestr('../outside', 'x')\n  to.writestr('appspec.yml', 'version: 0.0\\nos: linux\\n')\n";
    host.command("python3").args(["-c", script]).status().unwrap();
    let bundle = fs::read(host.path("/root/bundle")).unwrap();
    let deployment = Agent::new(&host).deploy(&bundle).expect_success();
    host.fail(&format!("test -e {}/outside", folder(&host, &deployment)));
    host.succeed("rm /usr/bin/unzip");
    let deployment = Agent::new(&host).deploy(&bundle).expect_success();
    host.succeed(&format!("test -e {}/outside", folder(&host, &deployment)));
}

/// It writes into what unzip has left, and changes no mode of that.
#[test]
fn where_unzip_only_warns_all_is_unpacked_again_over_it() {
    let host = Host::boot();
    let bundle = [b"junk before it".as_slice(), &zipped()].concat();
    let deployment = Agent::new(&host).kind(Kind::Zip).deploy(&bundle).expect_success();
    host.succeed(&format!("cd {}; test -x tool && test -L link", archive(&host, &deployment)));
    let torn = &zipped()[..200];
    let deployment = Agent::new(&host).deploy(torn).expect_failure("DownloadBundle");
    assert_eq!(code(&deployment), Some(Code::UnknownError));
}

// Point 6.
#[test]
fn a_sole_folder_that_holds_an_appspec_is_stripped_and_no_other() {
    let host = Host::boot();
    let appspec = Small::default().appspec();
    let at = |path: &str| (path.to_owned(), 0o644, appspec.clone());
    let deployment = Agent::new(&host).deploy(&pack(&[at("app-1/appspec.yml"), at("app-1/.hidden")])).expect_success();
    host.succeed(&format!(
        "cd {}; test -e appspec.yml && test -e .hidden && test ! -e app-1",
        archive(&host, &deployment)
    ));
    // A second entry, a hidden one even, or a folder without an appspec.
    for bundle in [pack(&[at("app-1/appspec.yml"), at(".hidden")]), pack(&[at("app-1/file")])] {
        Agent::new(&host).deploy(&bundle).expect_failure("BeforeInstall");
    }
}

#[test]
fn before_a_download_old_deployments_are_pruned_and_never_the_last_that_was_installed() {
    let host = Host::boot();
    let (good, bad) = (Small::default().tgz(), b"no archive".to_vec());
    let mut agent = Agent::new(&host).max_revisions(2);
    let ids = |deployments: &[&Deployment]| {
        let mut ids: Vec<_> = deployments.iter().map(|deployment| deployment.id.clone()).collect();
        ids.sort();
        ids
    };
    let there = || {
        let listed = host.succeed(&format!("cd {ROOT}; ls -d */d-*"));
        listed.lines().map(|line| line.split_once('/').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    let first = agent.deploy(&good).expect_success();
    let installed = agent.deploy(&good).expect_success();
    assert_eq!(sorted(there()), ids(&[&first, &installed]));
    let failed = agent.deploy(&bad).expect_failure("DownloadBundle");
    assert_eq!(sorted(there()), ids(&[&installed, &failed]), "the oldest is gone, though the download failed");
    let again = agent.deploy(&bad).expect_failure("DownloadBundle");
    assert_eq!(sorted(there()), ids(&[&installed, &again]), "the oldest is the last that was installed, and stays");
    Agent::new(&host).group("other").max_revisions(1).deploy(&good).expect_success();
    assert_eq!(there().len(), 3, "another group's are no concern of it");
}

// Point 7.
/// Prints the environment, byte for byte, and then itself.
const ENVIRONMENT: &str = "#!/bin/cat /proc/self/environ\n";

fn environment(agent: Agent<'_>) -> (String, Vec<String>) {
    let mut agent = agent;
    let deployment = agent.deploy(&Small::hook("AfterInstall", ENVIRONMENT).tgz()).expect_success();
    let output = deployment.event("AfterInstall").output.clone();
    let line = output.lines().find_map(|line| line.strip_prefix("[stdout]")).unwrap();
    let mut variables: Vec<_> = line.split('\0').filter(|word| word.contains('=')).map(str::to_owned).collect();
    variables.sort();
    (deployment.id, variables)
}

#[test]
fn a_hook_has_these_variables_and_no_others() {
    let host = Host::boot();
    let (id, variables) = environment(Agent::new(&host).group("blue").source(Source::S3Exactly));
    let names: Vec<_> = variables.iter().map(|variable| variable.split_once('=').unwrap().0).collect();
    assert_eq!(
        names.join(" "),
        "APPLICATION_NAME BUNDLE_BUCKET BUNDLE_ETAG BUNDLE_KEY BUNDLE_VERSION DEPLOYMENT_GROUP_ID \
         DEPLOYMENT_GROUP_NAME DEPLOYMENT_ID LIFECYCLE_EVENT PATH"
    );
    for wanted in [
        format!("DEPLOYMENT_ID={id}"),
        "LIFECYCLE_EVENT=AfterInstall".to_owned(),
        "DEPLOYMENT_GROUP_NAME=blue".to_owned(),
    ] {
        assert!(variables.contains(&wanted), "{variables:?}");
    }
    let group = variables.iter().find_map(|variable| variable.strip_prefix("DEPLOYMENT_GROUP_ID=")).unwrap();
    host.succeed(&format!("test -d {ROOT}/{group}/{id}"));
}

#[test]
fn version_and_etag_may_be_missing_and_github_tells_a_commit_alone() {
    let host = Host::boot();
    let bundle = |source| {
        let (_, variables) = environment(Agent::new(&host).source(source));
        let names = variables.iter().filter(|variable| variable.starts_with("BUNDLE_"));
        names.map(|variable| variable.split_once('=').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(bundle(Source::S3), ["BUNDLE_BUCKET", "BUNDLE_KEY"]);
    assert_eq!(bundle(Source::GitHub), ["BUNDLE_COMMIT"]);
}

/// One line of each: umask, standard input, group and process, folder.
const SURROUNDINGS: &str = "#!/bin/sh\numask\ncat | wc -c\n[ $(cut -d ' ' -f 5 /proc/$$/stat) = $$ ] && echo leads\nid -u\nreadlink /proc/self/cwd\ngrep -o codedeploy-agent.service /proc/self/cgroup | head -1\n";

fn surroundings(agent: Agent<'_>) -> Vec<String> {
    let mut agent = agent;
    let deployment = agent.deploy(&Small::hook("AfterInstall", SURROUNDINGS).tgz()).expect_success();
    let output = &deployment.event("AfterInstall").output;
    output.lines().filter_map(|line| line.strip_prefix("[stdout]")).map(str::to_owned).collect()
}

#[test]
fn a_hook_begins_in_the_root_folder_leads_its_group_and_reads_nothing() {
    let host = Host::boot();
    assert_eq!(surroundings(Agent::new(&host)), ["0022", "0", "leads", "0", "/", "codedeploy-agent.service"]);
}

#[test]
fn a_hook_may_begin_in_a_folder_that_is_gone() {
    let host = Host::boot();
    let folder = &surroundings(Agent::new(&host).in_a_deleted_folder())[4];
    assert!(folder.ends_with(" (deleted)"), "{folder}");
}

#[test]
fn both_pipes_are_read_at_once() {
    let host = Host::boot();
    // More than a pipe holds, of each.
    let script = "#!/bin/sh\nseq 50000 >&2\nseq 50000\nseq 50000 >&2\n";
    let deployment = Agent::new(&host).deploy(&Small::hook("AfterInstall", script).tgz()).expect_success();
    let output = &deployment.event("AfterInstall").output;
    let count = |mark: &str| output.lines().filter(|line| line.starts_with(mark)).count();
    assert_eq!((count("[stdout]"), count("[stderr]")), (50_000, 100_000));
}

#[test]
fn a_script_without_the_execute_bit_is_given_it_and_what_it_calls_is_not() {
    let host = Host::boot();
    let calls = "#!/bin/sh\necho started\nexec \"${0%/*}/other\"\n";
    let small = Small::hook("AfterInstall", "").file("hooks/AfterInstall", 0o644, calls).file(
        "hooks/other",
        0o644,
        "#!/bin/sh\n",
    );
    let deployment = Agent::new(&host).deploy(&small.tgz()).expect_failure("AfterInstall");
    let tail = deployment.last().tail();
    assert!(tail.contains("[stdout]started") && tail.contains("Permission denied"), "{tail}");
}

/// A shell and a session between: what the agent signals is su, and the script has a HOME and a group that it does not lead.
#[test]
fn a_script_with_runas_is_started_by_su() {
    let host = Host::boot();
    let script = "#!/bin/sh\necho \"home $HOME\"; cat /proc/$PPID/comm\n";
    let small = Small::default().with("AfterInstall", "{location: hook, runas: root}").file("hook", 0o755, script);
    let deployment = Agent::new(&host).deploy(&small.tgz()).expect_success();
    let output = &deployment.event("AfterInstall").output;
    assert!(output.contains("[stdout]home /root\n[stdout]su\n"), "{output}");
}

// Point 8.
fn times_out(host: &Host, version: Version, script: &str) -> Deployment {
    let small = Small::default().with("AfterInstall", "{location: hook, timeout: 1}").file("hook", 0o755, script);
    Agent::new(host).version(version).deploy(&small.tgz()).expect_failure("AfterInstall")
}

#[test]
fn at_its_timeout_a_scripts_whole_group_is_told_to_end() {
    let host = Host::boot();
    let script = "#!/bin/sh\ntrap 'touch /root/told; exit 0' TERM\n(trap 'touch /root/child-told; exit 0' TERM; sleep 600 & wait) &\nwait\n";
    let deployment = times_out(&host, Version::V1, script);
    assert_eq!(code(&deployment), Some(Code::ScriptTimedOut), "though it exited with 0");
    host.succeed("test -e /root/told");
    host.wait_until("the child was told", |host| host.run("test -e /root/child-told").code == 0);
}

/// For 8 s it does not mind, and then says so.
const STUBBORN: &str = "#!/bin/sh\ntrap '' TERM\nsleep 8\ntouch /root/whole\n";

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
    assert!(deployment.last().duration >= Duration::from_secs(6), "{:?}", deployment.last().duration);
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
        assert!(deployment.last().duration >= Duration::from_secs(1));
        host.succeed("pgrep -x sleep && pkill -x sleep");
    }
}

// Point 9.
#[test]
fn output_goes_to_the_log_with_marks_and_its_last_2047_characters_into_the_report() {
    let host = Host::boot();
    let script = "#!/bin/sh\necho out\n(seq 1000; echo why) >&2\nexit 1\n";
    let deployment =
        Agent::new(&host).deploy(&Small::hook("AfterInstall", script).tgz()).expect_failure("AfterInstall");
    let log = host.succeed(&format!("cat {}/logs/scripts.log", folder(&host, &deployment)));
    let head = "LifecycleEvent - AfterInstall\nScript - hooks/AfterInstall\n";
    assert!(log.starts_with(head) && log.contains("[stdout]out\n") && log.contains("[stderr]why\n"), "{log}");
    let tail = deployment.last().tail();
    assert!(tail.len() <= 2047 && tail.len() > 2000 && tail.contains("[stderr]why\n") && !tail.contains("[stdout]out"));
    let told = agent::tell(&deployment);
    assert!(told.contains("AfterInstall       Failed") && told.contains("ScriptFailed (4)"), "{told}");
}

#[test]
fn a_disk_that_takes_no_log_fails_the_event_before_its_script_runs() {
    let host = Host::boot();
    host.succeed("mkdir -p /opt/codedeploy-agent && mount -t tmpfs -o size=1m tmpfs /opt/codedeploy-agent");
    let fill = "head -c 2M /dev/zero >/opt/codedeploy-agent/filler";
    let bundle = Small::hook("AfterInstall", "#!/bin/sh\ntouch /root/ran\n").tgz();
    let mut agent = Agent::new(&host).with(Incident::before("AfterInstall", fill));
    let deployment = agent.deploy(&bundle).expect_failure("AfterInstall");
    assert_eq!((code(&deployment), agent.missed()), (Some(Code::UnknownError), Vec::new()));
    host.fail("test -e /root/ran");
    Agent::new(&host).deploy(&bundle).expect_failure("DownloadBundle");
    host.succeed("rm /opt/codedeploy-agent/filler");
    Agent::new(&host).deploy(&bundle).expect_success();
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
    let restart = agent.restart(&bundle("download")).expect_success();
    assert_ne!(first.id, restart.id);
    assert!(restart.event("AfterInstall").output.contains("[stdout]copy\n"));
    host.succeed(&format!("rm -r {}", archive(&host, &restart)));
    let restart = agent.restart(&bundle("download")).expect_success();
    assert!(restart.event("AfterInstall").output.contains("[stdout]download\n"));
}
