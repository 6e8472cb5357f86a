//! What the product is held against: hosts that leave the rotation first, and hosts that stop and start.

use std::{io, sync::Arc};

use super::{Fleet, Row, name, plays::end_on, run::Run};
use crate::{Agent, rollout::Configuration::OneAtATime};

const DEREGISTERED: &str = "OneAtATime, each host deregistered first";
/// The agent's record of the product must not be that of what comes after it.
const GROUP: &str = "stop-start";

/// Each host leaves the rotation, has nothing in flight, is deployed to, and comes back.
pub(super) fn deregistered(fleet: &mut Fleet) -> io::Result<Row> {
    let bundle = Arc::new(fleet.bundles.next()?);
    let hosts = fleet.numbers();
    let mut run = Run::begin(fleet);
    run.succeed(OneAtATime, &hosts, &bundle.id, |fleet, n| {
        fleet.balancer.deregister(&name(n));
        let ended = fleet.deploy(n, &bundle.archive);
        fleet.balancer.register(&name(n));
        ended
    });
    let seen = end_on(run, bundle);
    let faults = seen.hurt();
    Ok(seen.row(DEREGISTERED, "as it must be: slower", faults))
}

/// The old process ends, then the new one starts.
pub(super) fn stop_start(fleet: &mut Fleet) -> io::Result<Row> {
    let [first, second] = [fleet.bundles.stop_start()?, fleet.bundles.stop_start()?];
    fleet.for_each(|host| {
        host.succeed("releasectl uninstall --yes");
        Agent::new(host).group(GROUP).deploy(&first.archive).expect_success();
    });
    let hosts = fleet.numbers();
    hosts.iter().for_each(|n| fleet.balancer.wait_until_up(&name(*n)));
    let mut run = Run::begin(fleet);
    run.succeed(OneAtATime, &hosts, &second.id, |fleet, n| {
        Agent::new(fleet.host(n)).group(GROUP).deploy(&second.archive).outcome()
    });
    let seen = run.end();
    let faults = (seen.lost() == 0).then(|| "it must lose requests, and did not".to_owned());
    Ok(seen.row("OneAtATime, stopped and started", "as it must be: it loses", faults.into_iter().collect()))
}

/// Deregistering must take longer.
pub(super) fn compare(rows: &mut [Row]) {
    let plain = rows.iter().find(|row| row.name == OneAtATime.to_string()).expect("it is a row of each table").took;
    for row in rows.iter_mut().filter(|row| row.name == DEREGISTERED && row.took <= plain) {
        row.faults.push(format!("it must take longer than {:.1} s, and did not", plain.as_secs_f64()));
    }
}
