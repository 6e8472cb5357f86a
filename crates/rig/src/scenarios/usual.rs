//! Scenarios in which nothing happens to the agent: what is deployed, and how it is handed to us.

use std::thread;

use super::{
    Scenario,
    stage::{Stage, Tale},
};
use crate::{
    Agent,
    agent::{self, Source, Version},
};

/// Our events, the verb of each, and its script.
pub(super) const HOOKS: [(&str, &str, &str); 3] = [
    ("AfterInstall", "install", "hooks/after-install"),
    ("ApplicationStart", "activate", "hooks/application-start"),
    ("ValidateService", "validate", "hooks/validate-service"),
];
const FAILS: &str = "#!/bin/sh\nexit 1\n";

pub(super) fn all() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new("first deployment", |_, _| {}),
        Scenario::new("upgrade", |stage, tale| stage.deploy(tale, "ok", &stage.bundles.two.archive)).short(),
        Scenario::new("same revision twice", |stage, tale| stage.deploy(tale, "ok", &stage.bundles.one.archive)),
    ];
    all.extend(failures());
    all.extend(ways_back());
    all.extend(hand_overs());
    all
}

/// Each event is made to fail, and then the deployment comes by which CodeDeploy rolls back.
fn failures() -> Vec<Scenario> {
    let back = |stage: &Stage<'_>, tale: &mut Tale| {
        let Stage { bundles, .. } = stage;
        stage.deploy(tale, "ok", &bundles.one.archive);
        tale.must("the release before serves", stage.current() == bundles.one.id.as_str());
    };
    let mut all = vec![
        Scenario::new("ApplicationStop fails, then is ignored", |stage, tale| {
            stage.deploy(tale, "ok", &stage.bundles.with_hook("ApplicationStop", FAILS));
            stage.deploy(tale, "ApplicationStop ScriptFailed", &stage.bundles.one.archive);
            let lenient = Agent::new(&stage.host).ignoring_previous_failures();
            stage.deploy_by(tale, "ok", lenient, &stage.bundles.one.archive);
        }),
        Scenario::new("DownloadBundle fails, then rollback", move |stage, tale| {
            stage.deploy(tale, "DownloadBundle UnknownError", &stage.bundles.two.archive[..1000]);
            back(stage, tale);
        }),
        Scenario::new("BeforeInstall fails, then rollback", move |stage, tale| {
            stage.deploy(tale, "BeforeInstall ScriptFailed", &stage.bundles.with_hook("BeforeInstall", FAILS));
            back(stage, tale);
        }),
        Scenario::new("Install fails, then rollback", move |stage, tale| {
            let strict = Agent::new(&stage.host).rejecting_unknown_events();
            stage.deploy_by(tale, "Install UnknownError", strict, &stage.bundles.with_hook("Sometime", FAILS));
            back(stage, tale);
        }),
    ];
    for (event, verb, script) in HOOKS {
        let after = format!("#!/bin/sh\ncd \"${{0%/*}}/..\" || exit 1\nbin/releasectl {verb} .\nexit 1\n");
        for (name, text) in [("at once", FAILS.to_owned()), ("once it is done", after)] {
            all.push(Scenario::new(format!("{event} fails {name}, then rollback"), move |stage, tale| {
                stage.deploy(tale, &format!("{event} ScriptFailed"), &stage.bundles.with(script, &text));
                back(stage, tale);
            }));
        }
    }
    all
}

fn ways_back() -> Vec<Scenario> {
    vec![
        Scenario::new("rollback to a release that is installed", |stage, tale| {
            for bundle in [&stage.bundles.two, &stage.bundles.one] {
                stage.deploy(tale, "ok", &bundle.archive);
            }
        }),
        Scenario::new("rollback to a release that was pruned", |stage, tale| {
            let b = stage.bundles;
            let fourth = b.with_hook("BeforeInstall", "#!/bin/sh\n");
            for bundle in [&b.two.archive, &b.three.archive, &fourth] {
                stage.deploy(tale, "ok", bundle);
            }
            // As a `prune` an hour later.
            stage.host.run("sed -i '/installed/d' /opt/app/activations.jsonl; releasectl prune --keep 0");
            let is_there = stage.host.path(&format!("/opt/app/releases/{}", b.one.id)).exists();
            tale.must("it was pruned", !is_there);
            stage.deploy(tale, "ok", &b.one.archive);
        }),
        Scenario::new("rollback to the release that is current", |stage, tale| {
            let failing = stage.bundles.with("hooks/after-install", FAILS);
            stage.deploy(tale, "AfterInstall ScriptFailed", &failing);
            tale.must("it is current", stage.current() == stage.bundles.one.id.as_str());
            stage.deploy(tale, "ok", &stage.bundles.one.archive);
        }),
        Scenario::new("RESTART (v2, assumed)", |stage, tale| {
            let mut agent = Agent::new(&stage.host).version(Version::V2);
            let pid = "systemctl show -P MainPID --state=active 'app-*@*'";
            let before = stage.host.run(pid).output;
            tale.tell("ok", &agent.restart(&stage.bundles.one.archive));
            tale.must("a fresh process serves", stage.host.run(pid).output != before);
        })
        .short(),
        Scenario::new("two groups at once", |stage, tale| {
            let deployments = thread::scope(|scope| {
                let deploy = |group: &'static str, bundle: &'static str| {
                    let bundle = if bundle == "two" { &stage.bundles.two } else { &stage.bundles.three };
                    scope.spawn(move || Agent::new(&stage.host).group(group).deploy(&bundle.archive))
                };
                [deploy("blue", "two"), deploy("green", "three")].map(|one| one.join().expect("no deployment panics"))
            });
            deployments.iter().for_each(|deployment| tale.tell("ok", deployment));
        })
        .short(),
    ]
}

/// How the bundle comes to the host, and what a hook finds around it.
fn hand_overs() -> Vec<Scenario> {
    let zip = |stage: &Stage<'_>| agent::as_zip(&stage.bundles.two.archive).expect("tar and zip are here");
    let by = |name: &str, agent: fn(Agent<'_>) -> Agent<'_>| {
        Scenario::new(name, move |stage: &Stage<'_>, tale: &mut Tale| {
            stage.deploy_by(tale, "ok", agent(Agent::new(&stage.host)), &stage.bundles.two.archive);
        })
    };
    vec![
        Scenario::new("zip", move |stage, tale| stage.deploy(tale, "ok", &zip(stage))).short(),
        Scenario::new("zip without unzip: no file is executable", move |stage, tale| {
            stage.host.succeed("rm /usr/bin/unzip");
            stage.deploy(tale, "AfterInstall ScriptFailed", &zip(stage));
        })
        .short(),
        by("in a folder that is gone", |agent| agent.in_a_deleted_folder()).short(),
        by("BUNDLE_VERSION and BUNDLE_ETAG set", |agent| agent.source(Source::S3Exactly)),
        by("BUNDLE_* absent (GitHub)", |agent| agent.source(Source::GitHub)),
        by("with load balancer events", |agent| agent.behind_a_load_balancer()),
        by("version 2", |agent| agent.version(Version::V2)),
    ]
}
