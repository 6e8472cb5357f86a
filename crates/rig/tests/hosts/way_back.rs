//! There is always a way back: what fails, and how, must not take it away.

use std::thread;

use rig::{Agent, Host};
use serde_json::Value;

use crate::{
    bake::listed,
    bundles::{good, script},
    deploy::{assert_converged, status, with_three_releases},
};

/// The last good one, and one that is deployed again: it had been validated, and fails now.
#[test]
fn a_validated_release_that_fails_when_it_is_deployed_again_is_no_way_back_for_a_boot() {
    let mut host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    agent.deploy(&two.archive).expect_success();
    host.succeed(&format!("releasectl activate {}", two.id));
    thread::scope(|scope| {
        let validation = scope.spawn(|| host.fail("releasectl validate --bake 30"));
        host.wait_until("it is validated", |host| host.run("pgrep -f '[r]eleasectl validate'").code == 0);
        // Its readiness fails; the next start makes the folder again.
        host.succeed("rm -r /var/lib/app");
        let said = validation.join().unwrap();
        assert!(said.contains(&format!("serving now: release {}", one.id)), "{said}");
    });
    assert_converged(&host, one.id.as_str());
    let status_now = status(&host);
    assert_eq!((&status_now["validated"], &status_now["provisional"]), (&one.id.as_str().into(), &false.into()));
    host.reboot();
    assert_converged(&host, one.id.as_str());
    assert!(listed(&host, two.id.as_str())["bad"].is_string());
    assert_eq!(listed(&host, one.id.as_str())["bad"], Value::Null);
}

/// What is wrong is the configuration, and not the release: once that is mended, it is as good as before.
#[test]
fn a_restart_with_a_wrong_configuration_makes_no_release_bad() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    host.succeed("mkdir -p /etc/app; echo APP_CONNECTIONS=many >/etc/app/env");
    host.fail("releasectl restart");
    assert_eq!(listed(&host, one.id.as_str())["bad"], Value::Null);
    host.succeed("rm /etc/app/env");
    agent.deploy(&two.archive).expect_success();
    // Nor one that has passed before, and is gone back to meanwhile.
    host.succeed("echo APP_CONNECTIONS=many >/etc/app/env");
    host.fail("releasectl rollback");
    assert_converged(&host, two.id.as_str());
    host.succeed("rm /etc/app/env");
    assert_eq!(status(&host)["previous"], one.id.as_str());
    host.succeed("releasectl rollback");
    assert_converged(&host, one.id.as_str());
}

/// The one that bakes was replaced for a moment by one that died at once.
#[test]
fn a_release_that_bakes_does_not_pay_for_another_that_was_current_for_a_moment() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let dies = script(
        "dies",
        "#!/usr/bin/python3\nimport os, socket\nnotify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
         path = os.environ['NOTIFY_SOCKET']\nnotify.connect('\\0' + path[1:] if path[0] == '@' else path)\n\
         notify.send(b'READY=1')\nos._exit(1)\n",
    );
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    agent.deploy(&two.archive).expect_success();
    host.succeed(&format!("releasectl activate {}", one.id));
    thread::scope(|scope| {
        let validation = scope.spawn(|| host.succeed(&format!("releasectl validate {} --bake 4", one.id)));
        host.wait_until("it is validated", |host| host.run("pgrep -f '[r]eleasectl validate'").code == 0);
        Agent::new(&host).deploy(&dies.archive).expect_failure("ApplicationStart");
        validation.join().unwrap();
    });
    assert_converged(&host, one.id.as_str());
    assert_eq!(status(&host)["validated"], one.id.as_str());
    assert_eq!(listed(&host, one.id.as_str())["bad"], Value::Null);
}

/// While another is provisional, what is validated and the one before it are both needed.
#[test]
fn a_prune_while_a_release_is_provisional_keeps_the_one_before_the_validated_one() {
    let (host, [one, two, three]) = with_three_releases();
    host.succeed(&format!("releasectl rollback {two}; releasectl activate {three}"));
    // An hour later nothing is kept for being new.
    host.succeed("sed -i '/installed/d' /opt/app/activations.jsonl; releasectl prune --keep 0");
    host.succeed("releasectl rollback");
    assert_converged(&host, two.as_str());
    host.succeed("releasectl rollback");
    assert_converged(&host, one.as_str());
}

/// Names that only begin and end as ours do are somebody else's, and a folder is none of ours.
#[test]
fn what_an_operator_has_set_aside_beside_the_units_stays() {
    let host = Host::boot();
    let mut agent = Agent::new(&host);
    agent.deploy(&good("one").archive).expect_success();
    host.succeed("cd /etc/systemd/system; mkdir app-@.service.d.new; touch apparmor.service.new app.service.new");
    agent.deploy(&good("two").archive).expect_success();
    host.succeed("cd /etc/systemd/system; test -d app-@.service.d.new; test -e apparmor.service.new");
    host.fail("test -e /etc/systemd/system/app.service.new");
}

#[test]
fn going_back_needs_no_room_on_the_disk() {
    let host = Host::boot();
    host.succeed("mkdir -p /opt/app && mount -t tmpfs -o size=64m,nr_inodes=1000,mode=755 tmpfs /opt/app");
    let bundles = ["one", "two", "three"].map(good);
    let mut agent = Agent::new(&host);
    for bundle in &bundles {
        agent.deploy(&bundle.archive).expect_success();
    }
    host.succeed(
        "mkdir /opt/app/.many; cd /opt/app/.many; ( n=0; while : >$n; do n=$((n+1)); done ) 2>/dev/null; true",
    );
    host.run("head -c 1G /dev/zero >/opt/app/.many/0");
    host.fail("touch /opt/app/x");
    let said = host.succeed("releasectl rollback");
    assert!(said.contains("using what was kept free"), "{said}");
    assert_converged(&host, bundles[1].id.as_str());
    host.succeed("releasectl rollback");
    assert_converged(&host, bundles[0].id.as_str());
    host.succeed("rm -r /opt/app/.many");
    agent.deploy(&bundles[1].archive).expect_success();
    host.succeed("test -s /opt/app/reserve");
    assert_converged(&host, bundles[1].id.as_str());
}
