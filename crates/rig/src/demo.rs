//! The demo: a host, a first deployment, a second one under load, and the way back.

use std::{
    thread,
    time::{Duration, Instant},
};

use releases::{ReleaseId, bundle::Contents};

use crate::{Agent, Host, Load, Mode, Report, report};

/// How long the clients run before and after each change, so that each has requests in flight at it.
const AROUND: Duration = Duration::from_secs(1);

/// Runs it, telling what happens; returns whether nothing was lost.
///
/// # Panics
/// Where the host does not boot, or a deployment fails.
pub fn run() -> bool {
    println!("building the bundle of two revisions");
    let contents = Contents::build(crate::workspace()).unwrap_or_else(|error| panic!("{error}"));
    let pack = |label| contents.pack(label).unwrap_or_else(|error| panic!("{error}"));
    let (first, second) = (pack("demo one"), pack("demo two"));

    let began = Instant::now();
    let host = Host::boot();
    println!("a systemd host booted in {} ms", began.elapsed().as_millis());
    let mut agent = Agent::new(&host);
    step("first deployment", || drop(agent.deploy(&first.archive).expect_success()));
    serving(&host, &first.id);

    let clients = [(Mode::Fresh, 4), (Mode::BackToBack, 2), (Mode::Thinking, 50), (Mode::Slow, 20)];
    let loads: Vec<Load> = clients.iter().map(|(mode, count)| Load::start(&host, *mode, *count)).collect();
    println!("clients of {} kinds are at work", loads.len());
    thread::sleep(AROUND);
    step("second deployment, under load", || drop(agent.deploy(&second.archive).expect_success()));
    serving(&host, &second.id);
    thread::sleep(AROUND);
    step("rollback, under load", || drop(host.succeed("releasectl rollback")));
    serving(&host, &first.id);
    thread::sleep(AROUND);

    let reports: Vec<Report> = loads.into_iter().map(Load::stop).collect();
    println!("\n{}\n", report::table(&reports));
    let lost: u64 = reports.iter().map(Report::lost).sum();
    println!("{} requests, {lost} lost", reports.iter().map(Report::sent).sum::<u64>());
    lost == 0
}

fn step(what: &str, act: impl FnOnce()) {
    let began = Instant::now();
    act();
    println!("{what}: {} ms", began.elapsed().as_millis());
}

fn serving(host: &Host, id: &ReleaseId) {
    host.assert_serving(id.as_str());
    println!("  release {id} serves");
}
