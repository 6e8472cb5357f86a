//! A host that is lost in the middle of a roll-out, and comes back.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use releases::bundle::Bundle;

use super::{Fleet, Row, name, plays::end_on, run::Run, seen::Seen};
use crate::rollout::Configuration::{HalfAtATime, OneAtATime};

/// In the first batch, where there are four hosts or more.
const LOST: u8 = 2;

/// Its network is cut while it is deployed to, and then it is killed. The others go on; when it is back, it is deployed to as an
/// outdated host (`updateOutdatedInstancesOnly` of CreateDeployment).
pub(super) fn lost_host(fleet: &mut Fleet) -> io::Result<Row> {
    let bundle = Arc::new(fleet.bundles.next()?);
    let hosts = fleet.numbers();
    let mut run = Run::begin(fleet);
    let in_flight = AtomicU64::new(0);
    let rollout = run.roll_out(HalfAtATime, &hosts, &bundle.id, |fleet, n| match n {
        LOST => lose(fleet, &bundle, &in_flight),
        _ => fleet.deploy(n, &bundle.archive),
    });
    run.must("the deployment succeeds without it", rollout.succeeded());
    let failed: Vec<u8> = rollout.failures().iter().map(|(n, _)| *n).collect();
    run.must(format!("it fails on that host alone: {:?}", rollout.failures()), failed == [LOST]);
    bring_back(run.fleet);
    run.succeed(OneAtATime, &[LOST], &bundle.id, |fleet, n| fleet.deploy(n, &bundle.archive));
    let (seen, in_flight) = (end_on(run, bundle), in_flight.into_inner());
    let faults = beyond(&seen, in_flight);
    let verdict = format!("as it must be: {in_flight} were in flight on the lost host");
    Ok(seen.row(&format!("{HalfAtATime}, a host lost, then a deployment to it"), &verdict, faults))
}

/// Cuts its network as soon as the release serves there, and kills it when the balancer has noticed. Counts what it had in
/// flight then, and what it was sent until it was noticed.
fn lose(fleet: &Fleet, bundle: &Bundle, in_flight: &AtomicU64) -> Result<(), String> {
    let (host, name) = (fleet.host(LOST), name(LOST));
    thread::scope(|scope| {
        let deployment = scope.spawn(|| fleet.deploy(LOST, &bundle.archive));
        host.wait_until("the release serves", |_| fleet.is_current(LOST, &bundle.id));
        let before = fleet.balancer.server(&name);
        fleet.network.cut(LOST);
        fleet.balancer.wait_until_down(&name);
        let sent = fleet.balancer.server(&name).requests - before.requests;
        in_flight.store(before.in_flight + sent, Ordering::Relaxed);
        host.kill();
        // However it ended there: nobody could tell CodeDeploy.
        let _ = deployment.join();
    });
    Err("it was not heard of again".to_owned())
}

/// It has booted by itself; the network is what it lacks.
fn bring_back(fleet: &mut Fleet) {
    let host = &mut fleet.hosts[usize::from(LOST) - 1];
    host.come_back();
    fleet.network.connect(LOST, host.leader());
    fleet.balancer.wait_until_up(&name(LOST));
}

/// What the loss of one host must not cost.
fn beyond(seen: &Seen, in_flight: u64) -> Vec<String> {
    let lost = seen.lost();
    // A response that has begun counts as an answer, until the log says that it did not end.
    let truncated = seen.failures.iter().filter(|failure| failure.ended.starts_with("200 ")).count() as u64;
    let known = seen.unanswered.values().sum::<u64>() + truncated;
    let failed = seen.failures.iter().map(|failure| &failure.server).chain(seen.unanswered.keys());
    let elsewhere = failed.filter(|server| **server != name(LOST));
    let elsewhere = elsewhere.map(|server| format!("a request was lost on {server}"));
    let wrong = [
        (lost == 0, "nothing was lost with the host: it shows nothing".to_owned()),
        (lost > in_flight, format!("{lost} requests were lost, and {in_flight} were in flight on the lost host")),
        (lost != known, format!("{lost} requests were lost, and the balancer knows of {known}")),
        (seen.downs != 1, format!("the balancer has marked servers down {} times, and one was lost", seen.downs)),
    ];
    wrong.into_iter().filter_map(|(is_wrong, fault)| is_wrong.then_some(fault)).chain(elsewhere).collect()
}
