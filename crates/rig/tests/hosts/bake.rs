//! Releases that are READY and turn bad: validation watches, and the last good one is back by itself.

use std::{thread, time::Duration};

use rig::{Agent, Deployment, Host, Load, Mode};
use serde_json::Value;

use crate::{
    boot::wait_for_boot,
    bundles::{bake, contents, good, serves_and, shipped, unit},
    deploy::{assert_converged, status},
};

/// What `releasectl list` says of a release.
pub fn listed(host: &Host, id: &str) -> Value {
    let all: Value = serde_json::from_str(&host.succeed("releasectl list --json")).unwrap();
    all.as_array().unwrap().iter().find(|release| release["id"] == id).cloned().unwrap_or_default()
}

#[track_caller]
fn says(deployment: &Deployment, words: &str) {
    let tail = deployment.last().tail();
    assert!(tail.contains(words), "wanted {words:?} in:\n{tail}");
}

/// Deploys a release over a good one, under load; while it bakes, `harm` is done. The deployment fails and says `words`, the
/// good one serves again, and no client but those of the bad one at that moment has noticed.
#[track_caller]
fn is_replaced(line: (&str, &str), harm: &str, words: &str) -> Host {
    let (host, good) = (Host::boot(), good("good"));
    Agent::new(&host).deploy(&good.archive).expect_success();
    let mut contents = contents();
    bake(&mut contents, 30);
    unit(&mut contents, line.0, line.1);
    let bad = contents.pack("bad").unwrap();
    let load = Load::start(&host, Mode::C1, 10);
    let deployment = thread::scope(|scope| {
        let deployment = scope.spawn(|| Agent::new(&host).deploy(&bad.archive));
        host.wait_until("it is validated", |host| host.run("pgrep -f '[r]eleasectl validate'").code == 0);
        // Beyond the first ten connections; were it not, the same would be said.
        thread::sleep(Duration::from_millis(300));
        host.succeed(&harm.replace("BAD", &format!("app-{}@*", bad.id)));
        deployment.join().unwrap().expect_failure("ValidateService")
    });
    says(&deployment, words);
    says(&deployment, &format!("serving now: release {}", good.id));
    let report = load.stop();
    assert!(report.lost() <= 10, "one of each client at most: {}", report.losses());
    assert_converged(&host, good.id.as_str());
    assert_eq!(status(&host)["validated"], good.id.as_str());
    let marks = listed(&host, bad.id.as_str());
    assert!(marks["bad"].as_str().is_some() && marks["passed"] == false, "{marks}");
    let said = host.fail("releasectl rollback");
    assert!(said.contains("no validated release was activated before"), "{said}");
    host
}

const AS_IT_IS: (&str, &str) = ("Type=notify", "Type=notify");

#[test]
fn a_release_that_crashes_while_it_bakes_is_replaced() {
    is_replaced(AS_IT_IS, "systemctl kill -s KILL 'BAD'", "its instance ended: systemd says signal, exit status 9");
}

#[test]
fn a_release_that_hangs_while_it_bakes_is_replaced() {
    is_replaced(AS_IT_IS, "systemctl kill -s STOP 'BAD'", "is not validated: ");
}

#[test]
fn a_release_whose_readiness_fails_while_it_bakes_is_replaced() {
    is_replaced(AS_IT_IS, "rm -r /var/lib/app", "/readyz answered 503");
}

#[test]
fn a_release_whose_watchdog_starves_while_it_bakes_is_replaced() {
    // Its runtime is stuck, and its socket full of clients: systemd is the first to know.
    is_replaced(
        ("WatchdogSec=10", "WatchdogSec=1"),
        "systemctl kill -s STOP 'BAD'",
        "its instance ended: systemd says watchdog",
    );
}

#[test]
fn a_release_that_says_it_is_another_is_replaced() {
    let (host, good) = (Host::boot(), good("good"));
    let mut agent = Agent::new(&host);
    agent.deploy(&good.archive).expect_success();
    let mut contents = contents();
    unit(&mut contents, "Environment=APP_RELEASE=%j", "Environment=APP_RELEASE=0123456789abcdef");
    let text = String::from_utf8(contents.get("hooks/validate-service").unwrap().to_vec()).unwrap();
    contents.put("hooks/validate-service", 0o755, (text.trim().to_owned() + " --within 1\n").as_bytes());
    let liar = contents.pack("liar").unwrap();
    let load = Load::start(&host, Mode::C3, 10);
    let deployment = agent.deploy(&liar.archive).expect_failure("ValidateService");
    says(&deployment, "release 0123456789abcdef answers");
    assert_eq!(load.stop().losses(), "none");
    assert_converged(&host, good.id.as_str());
}

/// It neither ends nor accepts no more, and asks systemd for another hour again and again.
#[test]
fn a_release_that_will_not_retire_is_ended_and_the_next_one_is_validated() {
    let (host, next) = (Host::boot(), good("next"));
    let mut contents = contents();
    let stays = "signal.signal(signal.SIGTERM, lambda *_: None); notify.send(b'EXTEND_TIMEOUT_USEC=3600000000')";
    contents.put("bin/app", 0o755, serves_and(stays).as_bytes());
    let mut agent = Agent::new(&host);
    agent.deploy(&contents.pack("stays").unwrap().archive).expect_success();
    let deployment = agent.deploy(&next.archive).expect_success();
    // Whoever validates has to meet it, and the next one may have been quicker ten times.
    let killed = "was told to retire and goes on answering clients: it is killed";
    host.wait_until("it is met and killed", |host| {
        deployment.last().tail().contains(killed) || host.succeed("releasectl validate --bake 0").contains(killed)
    });
    assert_converged(&host, next.id.as_str());
    assert_eq!(listed(&host, next.id.as_str())["bad"], Value::Null);
}

/// Deploys what bakes for 30 s over a good one; it fails and says one of `words`.
#[track_caller]
fn fails_by_itself(then: &str, words: &[&str]) {
    let (host, good) = (Host::boot(), good("good"));
    Agent::new(&host).deploy(&good.archive).expect_success();
    let mut contents = contents();
    bake(&mut contents, 30);
    unit(&mut contents, "MemoryMax=40%", "MemoryMax=64M");
    contents.put("bin/app", 0o755, serves_and(then).as_bytes());
    let bad = contents.pack("bad").unwrap();
    let deployment = thread::scope(|scope| {
        let deployment = scope.spawn(|| Agent::new(&host).deploy(&bad.archive));
        host.limit_memory(&format!("app-{}@*", bad.id), 64 << 20);
        deployment.join().unwrap().expect_failure("ValidateService")
    });
    let tail = deployment.last().tail();
    assert!(words.iter().any(|words| tail.contains(words)), "{tail}");
    assert_converged(&host, good.id.as_str());
}

// Nothing is handed over to these, so the one before accepts through its grace of 5 s, and they bake after that.

#[test]
fn a_release_that_goes_beyond_its_memory_while_it_bakes_is_replaced() {
    // systemd knows of the one where it has a memory controller.
    let ended = ["systemd says oom-kill", "systemd says signal, exit status 9"];
    fails_by_itself("if age > 15: hoard.append(b'x' * (4 << 20))", &ended);
}

#[test]
fn a_release_that_ends_by_itself_while_it_bakes_is_replaced() {
    fails_by_itself("if age > 15: os._exit(0)", &["is not validated: its instance ended"]);
}

/// Neither hurts the next deployment, nor the host.
#[test]
fn a_release_that_fills_the_log_and_never_ends_is_replaced_by_the_next() {
    let (host, good) = (Host::boot(), good("good"));
    let mut agent = Agent::new(&host);
    let mut contents = contents();
    let then = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x' * 500 * 1000, flush=True)";
    contents.put("bin/app", 0o755, serves_and(then).as_bytes());
    unit(&mut contents, "TimeoutStopSec=45", "TimeoutStopSec=15");
    let bad = contents.pack("bad").unwrap();
    agent.deploy(&bad.archive).expect_success();
    let deployment = agent.deploy(&good.archive).expect_success();
    let said: String = deployment.events.iter().map(|event| event.output.as_str()).collect();
    assert!(said.contains("has not said within 10 s that it accepts no more; systemd ends it"), "{said}");
    let units = format!("systemctl list-units --all --plain --no-legend 'app-{}@*'", bad.id);
    host.wait_until("systemd has ended it", |host| !host.succeed(&units).contains("deactivating"));
    agent.deploy(&good.archive).expect_success();
    assert_converged(&host, good.id.as_str());
}

/// With what is shipped: ten seconds, in which it is provisional.
#[test]
fn what_is_shipped_bakes_for_ten_seconds_and_a_reboot_meanwhile_comes_up_on_the_validated_one() {
    let (mut host, good) = (Host::boot(), good("good"));
    Agent::new(&host).deploy(&good.archive).expect_success();
    let next = shipped().pack("next").unwrap();
    let validated = Agent::new(&host).deploy(&next.archive).expect_success();
    let took = validated.last().duration;
    assert!(Duration::from_secs(10) <= took && took < Duration::from_secs(15), "{took:?}");
    says(&validated, "it bakes for 10 s");

    host.succeed(&format!("releasectl activate {}", good.id));
    assert_eq!(status(&host)["provisional"], true);
    host.reboot();
    assert_converged(&host, next.id.as_str());
    assert_eq!(listed(&host, good.id.as_str())["bad"], Value::Null, "a reboot is not its fault");
}

/// Nobody validates it: whoever activates by hand, or an agent that died.
#[test]
fn a_provisional_release_that_crashes_is_replaced_by_the_validated_one_at_once() {
    let (host, good) = (Host::boot(), good("good"));
    let mut agent = Agent::new(&host);
    agent.deploy(&good.archive).expect_success();
    let mut contents = contents();
    contents.put("hooks/validate-service", 0o755, b"#!/bin/sh\n");
    let bad = contents.pack("bad").unwrap();
    agent.deploy(&bad.archive).expect_success();
    assert_eq!(status(&host)["provisional"], true);
    host.succeed(&format!("systemctl kill -s KILL 'app-{}@*'", bad.id));
    assert!(host.succeed("curl -s --max-time 5 localhost/lambros").contains("Hello, lambros!"));
    wait_for_boot(&host);
    assert_converged(&host, good.id.as_str());
    let marks = listed(&host, bad.id.as_str());
    assert!(marks["bad"].as_str().unwrap().contains("systemd says signal"), "{marks}");
    let said = host.fail(&format!("releasectl validate {}", bad.id));
    assert!(said.contains("is not validated: its instance ended"), "{said}");
}

#[test]
fn a_bare_rollback_passes_over_what_has_passed_and_failed_since() {
    let (host, [one, two, three]) = (Host::boot(), ["one", "two", "three"].map(good));
    let mut agent = Agent::new(&host);
    for bundle in [&one, &two, &three] {
        agent.deploy(&bundle.archive).expect_success();
    }
    host.succeed(&format!("releasectl activate {}", two.id));
    host.succeed(&format!("systemctl kill -s KILL 'app-{}@*'", two.id));
    assert!(host.succeed("curl -s --max-time 20 localhost/lambros").contains("Hello, lambros!"));
    wait_for_boot(&host);
    assert_converged(&host, three.id.as_str());
    let marks = listed(&host, two.id.as_str());
    assert!(marks["passed"] == true && marks["bad"].as_str().is_some(), "{marks}");
    host.succeed("releasectl rollback");
    assert_converged(&host, one.id.as_str());
}
