//! Points 1 to 4: the layout, the order of the events, whose bundle they come from, and the appspec.

use super::*;

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

/// What the agent does with them is in codedeploy.md; no bundle of ours has them.
#[test]
fn files_are_not_copied_and_a_bundle_that_has_some_is_refused_at_install() {
    let host = Host::boot();
    let appspec = "version: 0.0\nos: linux\nfiles:\n  - source: a\n    destination: /root/b\n".to_owned();
    let bundle = pack(&[("appspec.yml".to_owned(), 0o644, appspec), ("a".to_owned(), 0o644, String::new())]);
    let deployment = Agent::new(&host).deploy(&bundle).expect_failure("Install");
    assert!(deployment.failure().unwrap().message.contains("`files:`"));
}

#[test]
fn a_script_that_cannot_be_made_executable_is_told_so() {
    let host = Host::boot();
    let read_only =
        format!("for a in {ROOT}/*/d-*/deployment-archive; do mount --bind $a $a; mount -o remount,bind,ro $a; done");
    let bundle = Small::default().with("AfterInstall", "{location: hook}").file("hook", 0o644, "#!/bin/sh\n").tgz();
    let mut agent = Agent::new(&host).with(Incident::before("AfterInstall", read_only));
    let deployment = agent.deploy(&bundle).expect_failure("AfterInstall");
    assert_eq!((code(&deployment), agent.missed()), (Some(Code::ScriptNotExecutable), Vec::new()));
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
