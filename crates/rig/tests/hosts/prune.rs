//! What the store keeps, and what it removes.

use rig::{Agent, Host};
use serde_json::Value;

use crate::{
    bake::listed,
    bundles::{contents, good, script},
    deploy::assert_converged,
};

/// Labels of the releases in the store, in order.
fn labels(host: &Host) -> Vec<String> {
    let all: Value = serde_json::from_str(&host.succeed("releasectl list --json")).unwrap();
    let mut labels: Vec<String> =
        all.as_array().unwrap().iter().map(|release| release["label"].as_str().unwrap().to_owned()).collect();
    labels.sort();
    labels
}

/// The releases' own units that are there.
fn units(host: &Host) -> usize {
    host.succeed("ls /etc/systemd/system | grep -c '^app-[0-9a-f]*@.service$'").trim().parse().unwrap()
}

#[test]
fn five_good_releases_are_kept_and_a_pinned_one() {
    let host = Host::boot();
    let mut agent = Agent::new(&host);
    for label in ["1", "2", "3", "4", "5"] {
        let bundle = good(label);
        agent.deploy(&bundle.archive).expect_success();
        if label == "1" {
            host.succeed(&format!("releasectl pin {}", bundle.id));
        }
    }
    agent.deploy(&script("bad", "#!/bin/sh\nexit 1\n").archive).expect_failure("ApplicationStart");
    assert_eq!(labels(&host), ["1", "2", "3", "4", "5", "bad"], "nothing is removed before another has passed");
    // As a killed install and a killed prune leave it.
    host.succeed("mkdir -p /opt/app/releases/.0123456789abcdef.new/bin /opt/app/releases/.0123456789abcdef.old");
    host.succeed("touch /etc/systemd/system/app-0123456789abcdef@.service");
    let last = good("6");
    agent.deploy(&last.archive).expect_success();
    assert_eq!(labels(&host), ["1", "2", "3", "4", "5", "6"], "five validated ones, and the pinned one beside them");
    assert_eq!((units(&host), host.succeed("ls -A /opt/app/releases").lines().count()), (6, 6));
    let pinned = good("1").id;
    assert_eq!(listed(&host, pinned.as_str())["pinned"], true);
    host.succeed(&format!("releasectl unpin {pinned}"));
    host.succeed("releasectl prune --keep 2");
    assert_eq!(labels(&host), ["5", "6"]);
    assert_eq!(units(&host), 2);
    host.succeed("releasectl prune --keep 0");
    assert_eq!(labels(&host), ["5", "6"], "the current one, and the one that a rollback goes to");
    host.succeed("releasectl rollback");
    assert_converged(&host, good("5").id.as_str());
    host.succeed(&format!("releasectl rollback {}", last.id));
    assert_converged(&host, last.id.as_str());
}

#[test]
fn what_is_running_or_being_deployed_is_kept() {
    let (host, [one, two, three]) = (Host::boot(), ["one", "two", "three"].map(good));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    let mut slow = host.command("curl").args(["-s", "localhost/slow?ms=60000"]).spawn().unwrap();
    host.wait_until("the slow request has arrived", |host| {
        host.run("ss -Htn state established '( sport = :80 )' | grep .").code == 0
    });
    agent.deploy(&two.archive).expect_success();
    // Installed and not yet activated, as between two events of a deployment.
    let mut contents = contents();
    contents.put("hooks/application-start", 0o755, b"#!/bin/sh\nexit 1\n");
    let under_way = contents.pack("under way").unwrap();
    agent.deploy(&under_way.archive).expect_failure("ApplicationStart");
    host.succeed("releasectl prune --keep 0");
    assert_eq!(labels(&host), ["one", "two", "under way"]);
    agent.deploy(&three.archive).expect_success();
    host.succeed("releasectl prune --keep 0");
    assert_eq!(labels(&host), ["one", "three", "two", "under way"], "one still answers a request");
    slow.kill().unwrap();
    slow.wait().unwrap();
    let listed = format!("systemctl list-units --all --plain --no-legend 'app-{}@*'", one.id);
    host.wait_until("it has ended", |host| host.succeed(&listed).is_empty());
    host.succeed("releasectl prune --keep 0");
    assert_eq!(labels(&host), ["three", "two", "under way"]);
    // An hour later: its deployment is over, however it ended.
    host.succeed("sed -i 's/\"time\":[0-9]*/\"time\":1/' /opt/app/activations.jsonl; releasectl prune --keep 0");
    assert_eq!(labels(&host), ["three", "two"]);
    assert_converged(&host, three.id.as_str());
}
