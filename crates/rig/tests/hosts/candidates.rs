//! Candidates that fail: the old release serves on as if nothing had been tried.

use std::thread;

use rig::{Agent, Deployment, Host, Load, Mode};
use serde_json::Value;

use crate::{
    bundles::{contents, damaged, dies_after, good, never_ready_again, script, unit},
    deploy::assert_converged,
};

/// Deploys `candidate` over a good release under load: the deployment fails in `event` and says `words`, no client notices
/// anything, and no answer is the candidate's.
#[track_caller]
fn harms_nothing(candidate: &[u8], event: &str, words: &str) {
    let (host, good) = (Host::boot(), good("good"));
    let mut agent = Agent::new(&host);
    agent.deploy(&good.archive).expect_success();
    let loads = [Mode::C1, Mode::C3].map(|mode| Load::start(&host, mode, 10));
    let deployment = agent.deploy(candidate).expect_failure(event);
    for report in loads.map(Load::stop) {
        assert_eq!((report.lost(), report.losses().as_str()), (0, "none"), "{}", report.mode);
        assert_eq!(report.answered_by.keys().collect::<Vec<_>>(), [good.id.as_str()], "{}", report.mode);
    }
    says(&deployment, words);
    assert_converged(&host, good.id.as_str());
}

#[track_caller]
fn says(deployment: &Deployment, words: &str) {
    let failure = deployment.failure().map(ToString::to_string).unwrap_or_default();
    let told = format!("{failure}\n{}", deployment.last().tail());
    assert!(told.contains(words), "wanted {words:?} in:\n{told}");
}

#[test]
fn a_candidate_that_exits_at_start_harms_nothing() {
    let candidate = script("exits", "#!/bin/sh\necho out of order >&2\nexit 3\n");
    harms_nothing(&candidate.archive, "ApplicationStart", "out of order");
}

#[test]
fn a_candidate_that_hangs_before_ready_harms_nothing() {
    let mut contents = contents();
    contents.put("bin/app", 0o755, b"#!/bin/sh\nexec sleep infinity\n");
    unit(&mut contents, "TimeoutStartSec=30", "TimeoutStartSec=3");
    harms_nothing(&contents.pack("hangs").unwrap().archive, "ApplicationStart", "systemd says timeout");
}

#[test]
fn a_candidate_whose_readyz_is_503_harms_nothing() {
    let mut contents = contents();
    let lines = "Environment=STATE_DIRECTORY=/nowhere APP_READY_SECONDS=1";
    unit(&mut contents, "StateDirectory=app\n", &format!("{lines}\n"));
    harms_nothing(&contents.pack("unready").unwrap().archive, "ApplicationStart", "no state folder at /nowhere");
}

#[test]
fn a_candidate_that_crash_loops_harms_nothing_and_is_stopped() {
    let mut contents = contents();
    contents.put("bin/app", 0o755, b"#!/bin/sh\nexit 1\n");
    // A later line wins, so the line that install asks for does not stop it.
    unit(&mut contents, "Restart=no", "Restart=no\nRestart=always\nRestartSec=10ms");
    harms_nothing(&contents.pack("crash loop").unwrap().archive, "ApplicationStart", "did not become ready");
}

#[test]
fn a_candidate_whose_unit_systemd_refuses_harms_nothing() {
    let mut contents = contents();
    unit(&mut contents, "ExecStart=/opt", "ExecStart=not/absolute");
    harms_nothing(&contents.pack("bad unit").unwrap().archive, "ApplicationStart", "did not become ready");
}

#[test]
fn a_candidate_that_would_not_say_ready_itself_harms_nothing() {
    let mut contents = contents();
    unit(&mut contents, "Type=notify", "Type=simple");
    harms_nothing(&contents.pack("simple").unwrap().archive, "AfterInstall", "lacks the line Type=notify");
}

#[test]
fn a_bundle_that_is_truncated_harms_nothing() {
    let archive = good("truncated").archive;
    harms_nothing(&archive[..archive.len() / 2], "DownloadBundle", "tar:");
}

#[test]
fn a_bundle_that_is_damaged_harms_nothing() {
    harms_nothing(&damaged(&good("damaged")), "AfterInstall", "SHA-256");
}

/// What the releases of `id` logged as accepted.
fn accepted(host: &Host, id: &str) -> u64 {
    let log = host.succeed(&format!("journalctl --sync; journalctl -o cat --no-pager -u 'app-{id}@*'"));
    log.lines().filter_map(|line| line.strip_prefix("accepted ")?.parse::<u64>().ok()).sum()
}

fn probes_failed(host: &Host) -> u64 {
    let receipts: Value = serde_json::from_str(&host.succeed("releasectl history --json")).unwrap();
    let failed = |receipt: &Value| receipt["probe"]["failed"].as_u64().unwrap_or(0);
    receipts.as_array().unwrap().iter().map(failed).sum()
}

/// What it accepted is lost and counted, and nothing else is, on the way forward and on the way back.
#[test]
fn a_candidate_that_is_ready_and_dies_costs_only_what_it_accepted() {
    let (host, good) = (Host::boot(), good("good"));
    let mut agent = Agent::new(&host);
    agent.deploy(&good.archive).expect_success();
    let load = Load::start(&host, Mode::C1, 10);
    let candidate = script("dies", &dies_after(5));
    let deployment = agent.deploy(&candidate.archive).expect_failure("ApplicationStart");
    says(&deployment, "was ready and died at once");
    host.assert_serving(good.id.as_str());
    let said = host.fail(&format!("releasectl rollback {}", candidate.id));
    assert!(said.contains("was ready and died at once"), "{said}");
    let report = load.stop();
    // `releasectl` is among its clients: its prober says what it was refused.
    let probes = probes_failed(&host);
    assert_eq!(accepted(&host, candidate.id.as_str()), 10);
    assert_eq!(report.lost() + probes, 10, "{}, and {probes} of the prober", report.losses());
    assert_converged(&host, good.id.as_str());
}

/// It is READY, lives, and answers everybody with an error.
#[test]
fn a_release_that_fails_while_it_is_validated_is_replaced_at_the_cost_of_its_own_failures() {
    let (host, good) = (Host::boot(), good("good"));
    let mut agent = Agent::new(&host);
    agent.deploy(&good.archive).expect_success();
    let load = Load::start(&host, Mode::C1, 2);
    let candidate = script("fails", &never_ready_again());
    let deployment = agent.deploy(&candidate.archive).expect_failure("ValidateService");
    let report = load.stop();
    says(&deployment, "the last validated release was brought back");
    let accepted = accepted(&host, candidate.id.as_str());
    assert!(accepted > 0, "it served nobody");
    assert_eq!(report.lost(), accepted, "{}", report.losses());
    assert_eq!(report.answered_by.keys().collect::<Vec<_>>(), [good.id.as_str()]);
    assert_converged(&host, good.id.as_str());
}

/// A host without a release must not be left with a socket that answers nobody.
#[test]
fn a_first_release_that_fails_leaves_nothing_listening_and_the_next_one_serves() {
    let (host, good) = (Host::boot(), good("good"));
    let mut agent = Agent::new(&host);
    agent.deploy(&script("exits", "#!/bin/sh\nexit 1\n").archive).expect_failure("ApplicationStart");
    assert_eq!(host.run("curl -s localhost").code, 7, "refused, and not left to wait");
    assert_eq!(host.run("systemctl is-system-running").output.trim(), "running");
    agent.deploy(&good.archive).expect_success();
    assert_converged(&host, good.id.as_str());
}

#[test]
fn an_instance_that_is_started_by_hand_while_a_candidate_starts_retires_too() {
    let (host, good, mut contents) = (Host::boot(), good("good"), contents());
    unit(&mut contents, "Type=notify\n", "Type=notify\nExecStartPre=/bin/sleep 6\n");
    let candidate = contents.pack("slow").unwrap();
    Agent::new(&host).deploy(&good.archive).expect_success();
    thread::scope(|scope| {
        let deployment = scope.spawn(|| Agent::new(&host).deploy(&candidate.archive));
        host.wait_until("the candidate starts", |host| {
            host.run(&format!("systemctl is-active 'app-{}@*' | grep activating", candidate.id)).code == 0
        });
        host.succeed(&format!("systemctl start app-{}@1000000", good.id));
        deployment.join().unwrap().expect_success();
    });
    assert_converged(&host, candidate.id.as_str());
}
