//! What is done to the fleet, a row of the table each. The last two must do worse.

use std::{io, sync::Arc};

use releases::bundle::Bundle;

use super::{
    Fleet, Row,
    bundles::Bundles,
    controls::{deregistered, stop_start},
    lost::lost_host,
    name,
    run::Run,
    seen::Seen,
};
use crate::rollout::Configuration::{self, AllAtOnce, HalfAtATime, OneAtATime};

pub(super) type Play = fn(&mut Fleet) -> io::Result<Row>;

/// In this order: the last one takes the product off the hosts.
pub(super) const ALL: [Play; 8] = [
    |fleet| good(fleet, AllAtOnce),
    |fleet| good(fleet, HalfAtATime),
    |fleet| good(fleet, OneAtATime),
    |fleet| bad(fleet, HalfAtATime, &NEVER_READY),
    |fleet| bad(fleet, HalfAtATime, &NOT_FOR_LONG),
    lost_host,
    deregistered,
    stop_start,
];
/// A pass of a minute.
pub(super) const FEW: [Play; 3] =
    [|fleet| good(fleet, OneAtATime), |fleet| bad(fleet, OneAtATime, &NEVER_READY), stop_start];

/// What is wrong with a release.
struct Defect {
    what: &'static str,
    /// Where its deployment must fail, and what the console must show.
    event: &'static str,
    says: &'static str,
    pack: fn(&Bundles) -> io::Result<Bundle>,
}

const NEVER_READY: Defect = Defect {
    what: "a release that does not become ready, then the rollback",
    event: "ApplicationStart",
    says: "out of order",
    pack: Bundles::never_ready,
};
const NOT_FOR_LONG: Defect = Defect {
    what: "a release that fails while it bakes, then the rollback",
    event: "ValidateService",
    says: "/readyz answered 503",
    pack: Bundles::not_for_long,
};

/// A release that is good, over the whole fleet.
fn good(fleet: &mut Fleet, configuration: Configuration) -> io::Result<Row> {
    let bundle = Arc::new(fleet.bundles.next()?);
    let mut run = Run::begin(fleet);
    go_over(&mut run, configuration, &bundle);
    let seen = end_on(run, bundle);
    let faults = seen.hurt();
    Ok(seen.row(&configuration.to_string(), "as it must be", faults))
}

/// A release that is not: it stops at its first batch, and CodeDeploy's automatic rollback is a deployment of the last good one
/// to every host.
fn bad(fleet: &mut Fleet, configuration: Configuration, defect: &Defect) -> io::Result<Row> {
    let (bundle, good) = ((defect.pack)(&fleet.bundles)?, fleet.last_good.clone());
    let hosts = fleet.numbers();
    let mut run = Run::begin(fleet);
    let rollout = run.roll_out(configuration, &hosts, &bundle.id, |fleet, n| fleet.deploy(n, &bundle.archive));
    run.must("the deployment fails", !rollout.succeeded());
    run.must("it stops at its first batch", rollout.batches.len() == 1);
    let failures = rollout.failures();
    run.must("it fails on each host of that batch", failures.len() == rollout.batches[0].len());
    for (n, why) in &failures {
        let is_it = why.starts_with(defect.event) && why.contains(defect.says);
        run.must(format!("it fails on {} in {} with {:?}: {why}", name(*n), defect.event, defect.says), is_it);
    }
    for n in hosts.into_iter().filter(|n| failures.iter().all(|(failed, _)| failed != n)) {
        let has_seen = run.fleet.has_seen(n, &bundle.id);
        run.must(format!("{} never sees it", name(n)), !has_seen);
    }
    go_over(&mut run, configuration, &good);
    let seen = end_on(run, good);
    let faults = seen.hurt();
    Ok(seen.row(&format!("{configuration}, {}", defect.what), "as it must be", faults))
}

fn go_over(run: &mut Run<'_>, configuration: Configuration, bundle: &Bundle) {
    let hosts = run.fleet.numbers();
    run.succeed(configuration, &hosts, &bundle.id, |fleet, n| fleet.deploy(n, &bundle.archive));
}

/// Ends a run after which every host must serve this release.
pub(super) fn end_on(mut run: Run<'_>, bundle: Arc<Bundle>) -> Seen {
    let wrong = run.fleet.not_serving(&bundle.id);
    run.faults.extend(wrong);
    run.fleet.last_good = bundle;
    run.end()
}
