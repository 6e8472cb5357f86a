//! Several at once: one waits and says for whom, none breaks, and what was superseded says so.

use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use releases::bundle::Bundle;
use rig::{Agent, Host, Load, Mode, crowd, findings};
use serde_json::Value;

use crate::{
    bake::listed,
    bundles::{bake, contents, good, script},
    deploy::{assert_converged, status},
};

#[test]
fn whoever_waits_says_for_whom_and_a_holder_that_died_holds_nothing() {
    let (host, good) = (Host::boot(), good("good"));
    Agent::new(&host).deploy(&good.archive).expect_success();
    let hangs = script("hangs", "#!/bin/sh\nexec sleep infinity\n");
    thread::scope(|scope| {
        let deployment = scope.spawn(|| Agent::new(&host).deploy(&hangs.archive));
        host.wait_until("it holds the lock", |host| host.run("grep -q activate /opt/app/lock").code == 0);
        let pid = host.succeed("pgrep -f '[r]eleasectl activate'");
        let said = host.fail("releasectl prune --lock-wait 1");
        let holder = format!("is still held by releasectl activate (pid {}), which has it since ", pid.trim());
        assert!(said.contains(&holder) && said.contains("waiting for releasectl activate"), "{said}");
        host.succeed(&format!("kill -KILL {pid}"));
        host.succeed("releasectl prune --lock-wait 1");
        deployment.join().unwrap().expect_failure("ApplicationStart");
    });
    // What the dead one had begun is ended by the next.
    Agent::new(&host).deploy(&good.archive).expect_success();
    assert_converged(&host, good.id.as_str());
}

#[test]
fn ten_deployments_at_once_take_turns_under_load_and_one_of_them_serves() {
    assert!(findings::print(&[crowd::run(2).unwrap()]));
}

#[test]
fn rollbacks_prunes_restarts_and_boots_take_turns_with_deployments() {
    let (host, [one, two]) = (Host::boot(), ["one", "two"].map(good));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    agent.deploy(&two.archive).expect_success();
    let load = Load::start(&host, Mode::C3, 10);
    for verb in ["rollback", "prune", "restart", "boot", "validate", &format!("rollback {}", one.id)] {
        let begin = || {
            let mut command = host.command("releasectl");
            command.args(verb.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let others = [begin(), begin()];
        agent.deploy(&two.archive).expect_success();
        for other in others {
            let ended = other.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            // The second of two rollbacks finds nothing before the first release, and says so.
            let is_at_the_end = verb == "rollback" && said.contains("no validated release was activated before");
            assert!(ended.status.success() || is_at_the_end, "{verb} ended with {}: {said}", ended.status);
        }
        // Whoever came last: a deployment, or a rollback that did not know of it.
        let current = status(&host)["current"].as_str().unwrap().to_owned();
        assert_converged(&host, &current);
        assert_eq!(status(&host)["provisional"], false, "{verb}");
        agent.deploy(&two.archive).expect_success();
    }
    assert_eq!(load.stop().losses(), "none");
    assert_converged(&host, two.id.as_str());
}

/// A release that bakes for so many seconds.
fn bakes(label: &str, seconds: u32) -> Bundle {
    let mut contents = contents();
    bake(&mut contents, seconds);
    contents.pack(label).unwrap()
}

fn wait_until_it_bakes(host: &Host) {
    host.wait_until("it is validated", |host| host.run("pgrep -f '[r]eleasectl validate'").code == 0);
}

#[test]
fn while_a_release_bakes_nobody_waits_for_the_lock_and_a_boot_serves_at_once() {
    let (host, good) = (Host::boot(), good("good"));
    Agent::new(&host).deploy(&good.archive).expect_success();
    let next = bakes("next", 50);
    thread::scope(|scope| {
        let deployment = scope.spawn(|| Agent::new(&host).deploy(&next.archive));
        wait_until_it_bakes(&host);
        for verb in [&format!("pin {}", good.id), &format!("unpin {}", good.id), "prune", "status", "boot"] {
            host.succeed(&format!("releasectl {verb} --lock-wait 0"));
        }
        assert!(!deployment.is_finished(), "it bakes for 50 s");
        // Nobody is left to serve; the watcher has seen nothing yet, or is about to.
        let began = Instant::now();
        host.succeed("systemctl kill -s KILL 'app-*@*'");
        assert!(host.succeed("curl -s --max-time 20 localhost/lambros").contains("Hello, lambros!"));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        deployment.join().unwrap().expect_failure("ValidateService");
    });
    assert_converged(&host, good.id.as_str());
}

#[test]
fn what_is_superseded_while_it_bakes_says_so_and_is_not_validated() {
    let (host, [good, one, two]) = (Host::boot(), [good("good"), bakes("one", 50), bakes("two", 3)]);
    Agent::new(&host).deploy(&good.archive).expect_success();
    let load = Load::start(&host, Mode::C3, 10);
    let superseded = thread::scope(|scope| {
        let deployment = scope.spawn(|| Agent::new(&host).deploy(&one.archive));
        wait_until_it_bakes(&host);
        Agent::new(&host).deploy(&two.archive).expect_success();
        deployment.join().unwrap().expect_success()
    });
    let said = &superseded.last().output;
    assert!(said.contains(&format!("superseded by {}", two.id)), "{said}");
    assert_eq!(load.stop().losses(), "none");
    assert_converged(&host, two.id.as_str());
    assert_eq!(status(&host)["validated"], two.id.as_str());
    let marks = [&one, &two].map(|bundle| listed(&host, bundle.id.as_str()));
    assert_eq!([&marks[0]["passed"], &marks[1]["passed"]], [false, true]);
    assert_eq!([&marks[0]["bad"], &marks[1]["bad"]], [&Value::Null, &Value::Null], "neither did anything wrong");
}
