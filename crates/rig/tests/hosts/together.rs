//! Several at once: one waits and says for whom, none breaks, and what was superseded says so.

use std::{process::Stdio, thread};

use rig::{Agent, Host, Load, Mode, crowd, findings};

use crate::{
    bundles::{good, script},
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
            command.args(verb.split(' ')).stdout(Stdio::null()).spawn().unwrap()
        };
        let others = [begin(), begin()];
        agent.deploy(&two.archive).expect_success();
        for mut other in others {
            other.wait().unwrap();
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
