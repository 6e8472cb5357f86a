//! Boot, and whatever dies: somebody serves what is current, at a pace.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use releases::bundle::Bundle;
use rig::{Agent, Host, Load, Mode};

use crate::{
    bundles::{dies_after, good, script},
    deploy::{assert_converged, status},
    receipts::told,
};

fn boot_id(host: &Host) -> String {
    host.succeed("cat /proc/sys/kernel/random/boot_id")
}

/// Until no boot is under way on a host that runs.
pub fn wait_for_boot(host: &Host) {
    host.wait_until("boot has ended", |host| {
        host.succeed("systemctl show -p ActiveState --value app.service").trim() == "inactive"
    });
}

#[test]
fn current_serves_after_a_reboot_and_after_a_crash() {
    let (mut host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    let first = boot_id(&host);
    host.reboot();
    let second = boot_id(&host);
    assert_ne!(first, second);
    assert_converged(&host, bundle.id.as_str());
    host.crash();
    assert_ne!(second, boot_id(&host));
    assert_converged(&host, bundle.id.as_str());
}

#[test]
fn clients_of_an_instance_that_was_stopped_or_killed_are_answered_by_a_fresh_one() {
    let (host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    for how in ["stop", "kill -s KILL"] {
        let unit = status(&host)["instances"][0]["unit"].as_str().unwrap().to_owned();
        host.succeed(&format!("systemctl {how} {unit}"));
        host.wait_until("it has ended", |host| host.run(&format!("systemctl is-active {unit}")).code != 0);
        assert!(host.succeed("curl -s --max-time 20 localhost/lambros").contains("Hello, lambros!"));
        wait_for_boot(&host);
        assert_converged(&host, bundle.id.as_str());
    }
}

#[test]
fn a_host_whose_current_was_lost_serves_what_was_validated() {
    let (mut host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    host.succeed("rm /opt/app/current");
    host.reboot();
    assert_converged(&host, bundle.id.as_str());
}

#[test]
fn a_host_whose_current_was_damaged_serves_another_sound_release() {
    let mut host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    Agent::new(&host).deploy(&one.archive).expect_success();
    Agent::new(&host).deploy(&two.archive).expect_success();
    host.succeed(&format!("cd /opt/app/releases/{}/bin && echo rotten >rotten && mv rotten app", two.id));
    host.reboot();
    assert_converged(&host, one.id.as_str());
}

/// R10: how often it is started in 30 s while clients come all the time; then a good deployment heals the host.
#[track_caller]
fn is_paced_and_healed(bad: &str) {
    let (host, good) = (Host::boot(), good("good"));
    let bad = script("bad", bad);
    let mut agent = Agent::new(&host);
    agent.deploy(&good.archive).expect_success();
    assert!(!agent.deploy(&bad.archive).succeeded());
    // The death of the bad one has begun one, which may still be about to look at what is current.
    wait_for_boot(&host);
    // No verb makes such a release current and leaves it so: its host did, by a configuration that changed, say.
    host.succeed(&format!("cd /opt/app; for link in current validated; do ln -sfn releases/{} $link; done", bad.id));
    host.succeed("systemctl stop 'app-*@*'");

    let load = Load::start(&host, Mode::C1, 2);
    let count = || host.succeed("cat /opt/app/counter").trim().parse::<u64>().unwrap();
    let (before, began) = (count(), Instant::now());
    thread::sleep(Duration::from_secs(30));
    let starts = count() - before;
    assert!((2..=10).contains(&starts), "{starts} starts in {:?}", began.elapsed());
    assert_eq!(host.succeed("systemctl is-active app.socket").trim(), "active");

    agent.deploy(&good.archive).expect_success();
    drop(load.stop());
    assert_converged(&host, good.id.as_str());
}

#[test]
fn a_current_that_cannot_start_is_paced_and_the_next_deployment_heals_it() {
    is_paced_and_healed("#!/bin/sh\nexit 1\n");
}

#[test]
fn a_current_that_is_ready_and_dies_is_paced_and_the_next_deployment_heals_it() {
    is_paced_and_healed(&dies_after(1));
}

/// A candidate that hangs holds the lock; whoever serves may die meanwhile.
#[test]
fn an_instance_that_dies_while_a_candidate_starts_is_replaced() {
    let (host, good) = (Host::boot(), good("good"));
    Agent::new(&host).deploy(&good.archive).expect_success();
    current_dies_while_a_candidate_starts(&host, &good);
}

/// It was not validated: what was validated takes its place, and the receipts tell.
#[test]
fn a_provisional_one_that_dies_while_a_candidate_starts_is_replaced_by_the_validated_one() {
    let (host, provisional, validated) = (Host::boot(), good("provisional"), good("validated"));
    let mut agent = Agent::new(&host);
    agent.deploy(&provisional.archive).expect_success();
    agent.deploy(&validated.archive).expect_success();
    host.succeed(&format!("releasectl activate {}", provisional.id));
    current_dies_while_a_candidate_starts(&host, &validated);
    let told: Vec<_> = told(&host).split_off(2);
    let wanted = [("activate", "failed"), ("activate", "failed"), ("boot", "done")];
    assert_eq!(told, wanted.map(|(verb, outcome)| (verb.to_owned(), outcome.to_owned())));
}

/// Kills what serves while a candidate is starting: `by` answers soon, and is what serves when the candidate has failed.
fn current_dies_while_a_candidate_starts(host: &Host, by: &Bundle) {
    host.settle();
    let unit = status(host)["instances"][0]["unit"].as_str().unwrap().to_owned();
    let candidate = script("hangs", "#!/bin/sh\nexec sleep infinity\n");
    thread::scope(|scope| {
        let deployment = scope.spawn(|| Agent::new(host).deploy(&candidate.archive));
        host.wait_until("the candidate starts", |host| {
            host.run(&format!("systemctl is-active 'app-{}@*' | grep activating", candidate.id)).code == 0
        });
        host.succeed(&format!("systemctl kill -s KILL {unit}"));
        assert!(host.succeed("curl -s --max-time 15 localhost/lambros").contains("Hello, lambros!"));
        // It need not run out its 30 s.
        host.succeed(&format!("systemctl kill -s KILL 'app-{}@*'", candidate.id));
        deployment.join().unwrap().expect_failure("ApplicationStart");
    });
    assert_converged(host, by.id.as_str());
}

/// What was installed and never activated is not started, and a client that knocks all the time does not make systemd spin.
#[test]
fn a_host_that_was_installed_and_never_activated_serves_nothing_at_a_pace() {
    let (mut host, bundle) = (Host::boot(), good("one"));
    fs::write(host.path("/root/bundle.tgz"), &bundle.archive).unwrap();
    host.succeed("mkdir /root/bundle && tar -xzf /root/bundle.tgz -C /root/bundle && /root/bundle/hooks/after-install");
    host.reboot_to("degraded");
    host.run("curl -s --max-time 5 localhost");
    let tries = host.succeed("journalctl -b -o cat -u app.service | grep -c 'no release is current'");
    assert!((1..=5).contains(&tries.trim().parse::<u32>().unwrap()), "{tries} tries in 5 s");
    host.succeed("/root/bundle/hooks/application-start && /root/bundle/hooks/validate-service");
    assert_converged(&host, bundle.id.as_str());
}

#[test]
fn an_instance_that_hangs_is_ended_by_its_watchdog_and_replaced() {
    let (host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    let unit = status(&host)["instances"][0]["unit"].as_str().unwrap().to_owned();
    host.succeed(&format!("systemctl kill -s STOP {unit}"));
    host.wait_until("the watchdog ends it", |host| host.run(&format!("systemctl is-active {unit}")).code != 0);
    assert!(host.succeed("curl -s --max-time 20 localhost/lambros").contains("Hello, lambros!"));
    wait_for_boot(&host);
    assert_converged(&host, bundle.id.as_str());
}

#[test]
fn a_disk_that_takes_nothing_more_keeps_no_instance_from_being_started() {
    let (host, bundle) = (Host::boot(), good("one"));
    host.succeed("mkdir /opt/app && mount -t tmpfs -o size=100m,nr_inodes=500,mode=755 tmpfs /opt/app");
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    host.succeed(
        "mkdir /opt/app/.fillers && cd /opt/app/.fillers && ! seq 999 | xargs touch 2>/dev/null && ! touch more",
    );
    host.run("head -c 1G /dev/zero >/opt/app/.fillers/1");
    host.succeed("systemctl kill -s KILL 'app-*@*'");
    assert!(host.succeed("curl -s --max-time 20 localhost/lambros").contains("Hello, lambros!"));
    wait_for_boot(&host);
    host.succeed("rm -r /opt/app/.fillers");
    assert_converged(&host, bundle.id.as_str());
}
