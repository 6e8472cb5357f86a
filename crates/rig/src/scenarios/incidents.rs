//! Scenarios in which something happens to the agent or to its host in the midst of a deployment.

use super::{
    Scenario,
    stage::{Stage, Tale},
    usual::HOOKS,
};
use crate::{
    Agent,
    agent::{Incident, Version, What},
};

const HERE: &str = "test -e /run/here";
const ARCHIVES: &str = "/opt/codedeploy-agent/deployment-root/*/d-*";

pub(super) fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (event, verb, script) in HOOKS {
        all.extend([Version::V1, Version::V2].map(|version| out_of_time(event, verb, script, version)));
        all.push(interrupted(event, verb, What::Killed));
        all.push(interrupted(event, verb, What::Restarted));
    }
    all.extend(full_disks());
    all.extend(pruned());
    all
}

/// The script hangs in the middle of its verb.
fn out_of_time(event: &'static str, verb: &'static str, script: &'static str, version: Version) -> Scenario {
    let scenario = Scenario::new(format!("{event} times out ({version:?})"), move |stage, tale| {
        let steps = stage.steps(tale, verb);
        stage.hold(verb, steps / 2 + 1);
        let [from, to] = [300, 6].map(|seconds| format!("{script}\n      timeout: {seconds}\n"));
        let hurried = stage.bundles.with_appspec(&from, &to);
        let agent = Agent::new(&stage.host).version(version);
        stage.deploy_by(tale, &format!("{event} ScriptTimedOut"), agent, &hurried);
        tale.must("it hung", stage.host.run(HERE).code == 0);
    });
    if event == "ApplicationStart" && version == Version::V1 { scenario.short() } else { scenario }
}

/// The agent goes away in the middle of the verb. An orphan goes on beside the next deployment.
fn interrupted(event: &'static str, verb: &'static str, what: What) -> Scenario {
    let is_short = event == "ApplicationStart";
    let scenario = Scenario::new(format!("{what:?} in {event}"), move |stage: &Stage<'_>, tale: &mut Tale| {
        let steps = stage.steps(tale, verb);
        stage.hold(verb, steps / 2 + 1);
        let agent = Agent::new(&stage.host).with(Incident::during(event, HERE, what.clone()));
        stage.deploy_by(tale, &format!("{event} FailedAfterRestart"), agent, &stage.bundles.three.archive);
        let lives = stage.host.run(&format!("pgrep -f '[r]eleasectl {verb}'")).code == 0;
        tale.must("an orphan lives, and only an orphan", lives == matches!(what, What::Killed));
        stage.host.run("touch /run/go");
    });
    if is_short { scenario.short() } else { scenario }
}

/// From before an event on the disk is full, for the agent and for the store; then there is room again.
fn full_disks() -> Vec<Scenario> {
    let full = |event: &'static str, wanted: &'static str| {
        Scenario::new(format!("disk full at {event}"), move |stage: &Stage<'_>, tale: &mut Tale| {
            let fill = "head -c 1G /dev/zero >/opt/.filler; ! echo >>/opt/.filler";
            let agent = Agent::new(&stage.host).with(Incident::before(event, fill));
            stage.deploy_by(tale, wanted, agent, &stage.bundles.two.archive);
            stage.host.run("rm /opt/.filler");
        })
    };
    vec![
        full("ApplicationStop", "DownloadBundle UnknownError"),
        full("DownloadBundle", "DownloadBundle UnknownError"),
        full("BeforeInstall", "AfterInstall UnknownError"),
        full("Install", "AfterInstall UnknownError"),
        full("AfterInstall", "AfterInstall UnknownError"),
        // What is left to do then are lines in pages that are there already, and links.
        full("ApplicationStart", "ok").short(),
        full("ValidateService", "ok"),
    ]
}

/// Somebody clears the agent's archives while a deployment is under way.
fn pruned() -> Vec<Scenario> {
    let before = |event: &'static str, wanted: &'static str| {
        Scenario::new(format!("archives pruned before {event}"), move |stage: &Stage<'_>, tale: &mut Tale| {
            let agent = Agent::new(&stage.host).with(Incident::before(event, format!("rm -rf {ARCHIVES}")));
            stage.deploy_by(tale, wanted, agent, &stage.bundles.two.archive);
            // Version 1 holds its record for more than the archive, for ever.
            stage.deploy(tale, "ApplicationStop UnknownError", &stage.bundles.two.archive);
            let lenient = Agent::new(&stage.host).ignoring_previous_failures();
            stage.deploy_by(tale, "ok", lenient, &stage.bundles.two.archive);
        })
    };
    let mut all = vec![
        before("BeforeInstall", "BeforeInstall UnknownError"),
        before("AfterInstall", "AfterInstall UnknownError").short(),
        before("ApplicationStart", "ApplicationStart UnknownError"),
        before("ValidateService", "ValidateService UnknownError"),
    ];
    all.push(Scenario::new("archives pruned during AfterInstall (v2, assumed)", |stage, tale| {
        let steps = stage.steps(tale, "install");
        stage.hold("install", steps / 2 + 1);
        let prune = What::Command(format!("rm -rf {ARCHIVES}; touch /run/go"));
        let agent = Agent::new(&stage.host).version(Version::V2).with(Incident::during("AfterInstall", HERE, prune));
        stage.deploy_by(tale, "AfterInstall ScriptFailed", agent, &stage.bundles.three.archive);
        let next = Agent::new(&stage.host).version(Version::V2);
        stage.deploy_by(tale, "ok", next, &stage.bundles.three.archive);
    }));
    all
}
