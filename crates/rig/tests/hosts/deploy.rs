//! Deploy, replace, go back.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use releases::ReleaseId;
use rig::{Agent, Host, demo::Campaign};
use serde_json::Value;

use crate::bundles::{contents, good};

pub fn status(host: &Host) -> Value {
    serde_json::from_str(&host.succeed("releasectl status --json")).unwrap()
}

/// R9: one instance accepts, and it is of `release`.
#[track_caller]
pub fn assert_converged(host: &Host, release: &str) {
    host.assert_serving(release);
    let status = status(host);
    let active: Vec<_> =
        status["instances"].as_array().unwrap().iter().filter(|instance| instance["active"] == "active").collect();
    assert_eq!(active.len(), 1, "{status:#}");
    assert_eq!((&active[0]["release"], &active[0]["accepting"]), (&release.into(), &true.into()), "{status:#}");
    assert_eq!((&status["current"], &status["socket"]), (&release.into(), &"active".into()), "{status:#}");
    assert_eq!(host.run("systemctl is-system-running").output.trim(), "running");
}

/// R5, R6, R7.
#[test]
fn a_first_deployment_serves_hardened_and_is_validated() {
    let (host, bundle) = (Host::boot(), good("first"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    assert_converged(&host, bundle.id.as_str());
    let status = status(&host);
    assert_eq!((&status["validated"], &status["provisional"]), (&bundle.id.as_str().into(), &false.into()));
    assert!(host.succeed("curl -s localhost/lambros").contains("Hello, lambros!"));
    assert!(host.succeed("curl -s localhost/version").contains(r#""label":"first""#));

    let unit = status["instances"][0]["unit"].as_str().unwrap();
    let exposure = host.succeed(&format!("systemd-analyze security --no-pager {unit} | tail -1"));
    let exposure: f64 = exposure.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(exposure <= 0.3, "{exposure}");
    assert_eq!(host.succeed(&format!("systemctl show -p StatusText --value {unit}")).trim(), "serving on [::]:80");
}

#[test]
fn clients_of_every_kind_lose_nothing_across_deployments_and_rollbacks() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    let campaign = Campaign::run(&host, &mut agent, [&one, &two], 4, |_, _| {});
    for report in &campaign.reports {
        assert_eq!(report.losses(), "none", "{}", report.mode);
    }
    assert_eq!(campaign.lacks(), Vec::<String>::new());
    assert_converged(&host, one.id.as_str());
}

#[test]
fn a_revision_that_is_installed_is_not_copied_again_and_gets_a_fresh_process() {
    let (host, bundle) = (Host::boot(), good("one"));
    let mut agent = Agent::new(&host);
    agent.deploy(&bundle.archive).expect_success();
    let inode = format!("stat -c %i /opt/app/releases/{}/bin/app", bundle.id);
    let (inode_before, before) = (host.succeed(&inode), status(&host)["instances"][0]["n"].clone());
    agent.deploy(&bundle.archive).expect_success();
    host.settle();
    assert_eq!(host.succeed(&inode), inode_before);
    assert_ne!(status(&host)["instances"][0]["n"], before);
    assert_converged(&host, bundle.id.as_str());
}

/// Deployed one after the other, and validated.
pub fn with_three_releases() -> (Host, [ReleaseId; 3]) {
    let host = Host::boot();
    let bundles = ["one", "two", "three"].map(good);
    let mut agent = Agent::new(&host);
    for bundle in &bundles {
        agent.deploy(&bundle.archive).expect_success();
    }
    (host, bundles.map(|bundle| bundle.id))
}

#[test]
fn rollbacks_go_further_back_each_time_and_bring_the_units_back() {
    let (host, [one, two, three]) = with_three_releases();
    host.succeed(&format!("rm /etc/systemd/system/app-{two}@.service"));
    host.succeed("releasectl rollback");
    assert_converged(&host, two.as_str());
    host.succeed(&format!("test -f /etc/systemd/system/app-{two}@.service"));
    host.succeed("releasectl rollback");
    assert_converged(&host, one.as_str());
    let said = host.fail("releasectl rollback");
    assert!(said.contains("no validated release was activated before"), "{said}");
    host.succeed(&format!("releasectl rollback {three}"));
    assert_converged(&host, three.as_str());
    assert_eq!(status(&host)["provisional"], false, "a release that one goes back to is validated at once");
}

/// R11.
#[test]
fn a_socket_that_differs_stays_the_hosts_until_it_is_applied() {
    let (host, one) = (Host::boot(), good("one"));
    let mut other = contents();
    let socket = String::from_utf8(other.get("units/app.socket").unwrap().to_vec()).unwrap();
    other.put("units/app.socket", 0o644, socket.replace("Backlog=4096", "Backlog=100").as_bytes());
    let other = other.pack("other socket").unwrap();
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    let deployment = agent.deploy(&other.archive).expect_success();
    assert!(deployment.last().tail().contains("releasectl socket apply"), "{}", deployment.last().tail());
    let backlog = || host.succeed("systemctl show -p Backlog --value app.socket").trim().to_owned();
    assert_eq!(backlog(), "4096");
    // The boot that follows would take one that is provisional for one that has died.
    host.succeed(&format!("releasectl activate {}", one.id));
    let said = host.fail("releasectl socket apply");
    assert!(said.contains("is provisional") && said.lines().count() == 1, "{said}");
    host.succeed(&format!("releasectl rollback {}", other.id));
    let said = host.succeed("releasectl socket apply");
    assert!(said.contains("listens again after"), "{said}");
    assert_eq!(backlog(), "100");
    assert_converged(&host, other.id.as_str());
    host.succeed("releasectl rollback");
    assert_converged(&host, one.id.as_str());
}

/// The two deployments of design.md that look easy: neither waits for a drain.
#[test]
fn going_back_and_deploying_again_wait_for_no_drain() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    let slow = || host.command("curl").args(["-s", "localhost/slow?ms=20000"]).stdout(Stdio::piped()).spawn().unwrap();
    let requests = |count: u64| {
        let in_flight = format!("cat /run/app/*.json | grep -o '\"requests\":{count}'");
        move |host: &Host| host.run(&in_flight).code == 0
    };
    let draining = slow();
    // The file is written at each change of state, so it shows the request once its instance retires.
    host.wait_until("the slow request has arrived", |host| {
        host.run("ss -Htn state established '( sport = :80 )' | grep .").code == 0
    });
    agent.deploy(&two.archive).expect_success();
    host.wait_until("the old instance drains", requests(1));

    let began = Instant::now();
    host.succeed("releasectl rollback");
    host.assert_serving(one.id.as_str());
    assert!(began.elapsed() < Duration::from_secs(10), "the rollback took {:?}", began.elapsed());

    let began = Instant::now();
    host.succeed(&format!("releasectl activate {}", one.id));
    host.assert_serving(one.id.as_str());
    assert!(began.elapsed() < Duration::from_secs(10), "the second activation took {:?}", began.elapsed());

    let answer = draining.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "after 20000 ms\n");
    host.settle();
    assert_converged(&host, one.id.as_str());
}

#[test]
fn the_drop_in_of_the_readme_applies_to_every_release() {
    let (host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    let readme = std::fs::read_to_string(rig::workspace().join("README.md")).unwrap();
    let path = "/etc/systemd/system/app-@.service.d/database.conf";
    let (_, drop_in) = readme.split_once(&format!("# {path}\n")).unwrap();
    let (drop_in, _) = drop_in.split_once("```").unwrap();
    host.succeed(&format!("mkdir -p $(dirname {path}); cat >{path} <<'EOF'\n{drop_in}EOF\nsystemctl daemon-reload"));
    host.succeed(&format!("releasectl activate {}", bundle.id));
    host.settle();
    let unit = status(&host)["instances"][0]["unit"].as_str().unwrap().to_owned();
    let shown = host.succeed(&format!("systemctl show -p PrivateNetwork,RestrictAddressFamilies,IPAddressDeny {unit}"));
    assert!(shown.contains("PrivateNetwork=no") && shown.contains("AF_INET6"), "{shown}");
    assert_converged(&host, bundle.id.as_str());
}

#[test]
fn two_deployments_at_once_take_turns_and_converge() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    std::thread::scope(|scope| {
        for bundle in [&one, &two] {
            scope.spawn(|| Agent::new(&host).deploy(&bundle.archive).expect_success());
        }
    });
    let current = status(&host)["current"].as_str().unwrap().to_owned();
    assert!([one.id.as_str(), two.id.as_str()].contains(&current.as_str()));
    assert_converged(&host, &current);
}

#[test]
fn a_validation_of_what_is_no_longer_current_says_so_and_changes_nothing() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    agent.deploy(&two.archive).expect_success();
    let said = host.succeed(&format!("releasectl validate {}", one.id));
    assert!(said.contains(&format!("superseded by {}", two.id)), "{said}");
    assert_converged(&host, two.id.as_str());
    assert_eq!(status(&host)["validated"], two.id.as_str());
}
