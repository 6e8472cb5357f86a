//! What is done to the fleet, a row of the table each; the last ones must do worse.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
};

use releases::bundle::{Bundle, Contents};

use super::{
    Configuration::{self, AllAtOnce, HalfAtATime, OneAtATime},
    Fleet, Row, name,
    run::{Run, Seen},
};
use crate::{Agent, table::Server};

/// So many seconds does a release bake here; what is shipped bakes for ten.
const BAKE: u32 = 3;
const VALIDATE: &str = "hooks/validate-service";
/// In the first batch of any configuration but one host at a time.
const LOST: u8 = 2;
const STOP_START: [(&str, u32, &str); 5] = [
    ("appspec.yml", 0o644, include_str!("stop-start/appspec.yml")),
    ("hooks/stop", 0o755, include_str!("stop-start/stop")),
    ("hooks/copy", 0o755, include_str!("stop-start/copy")),
    ("hooks/start", 0o755, include_str!("stop-start/start")),
    ("units/web.service", 0o644, include_str!("stop-start/web.service")),
];
const DEREGISTERED: &str = "OneAtATime, each host deregistered first";

pub(super) type Play = fn(&mut Fleet) -> io::Result<Row>;

/// In this order: the last one takes the product off the hosts.
pub(super) const ALL: [Play; 8] = [
    |fleet| whole(fleet, AllAtOnce),
    |fleet| whole(fleet, HalfAtATime),
    |fleet| whole(fleet, OneAtATime),
    |fleet| bad(fleet, "HalfAtATime, a release that is not ready; rolled back", HalfAtATime, Bundles::never_ready),
    |fleet| {
        bad(fleet, "HalfAtATime, a release that fails as it bakes; rolled back", HalfAtATime, Bundles::not_for_long)
    },
    lost_host,
    deregistered,
    stop_start,
];
/// A pass of a minute.
pub(super) const FEW: [Play; 3] = [
    |fleet| whole(fleet, OneAtATime),
    |fleet| bad(fleet, "OneAtATime, a release that is not ready; rolled back", OneAtATime, Bundles::never_ready),
    stop_start,
];

/// What is deployed.
#[derive(Debug)]
pub(super) struct Bundles {
    contents: Contents,
    count: AtomicU32,
}

impl Bundles {
    /// Of what is shipped; it bakes for a shorter time.
    pub fn of(shipped: &Contents) -> io::Result<Self> {
        let mut contents = shipped.clone();
        contents.put(VALIDATE, 0o755, validate("exec bin/releasectl", "").as_bytes());
        Ok(Self { contents, count: AtomicU32::new(0) })
    }

    /// A release that was not before.
    pub fn next(&self) -> io::Result<Bundle> {
        self.pack(&self.contents)
    }

    fn never_ready(&self) -> io::Result<Bundle> {
        let mut contents = self.contents.clone();
        contents.put("bin/app", 0o755, b"#!/bin/sh\necho out of order >&2\nexit 3\n");
        self.pack(&contents)
    }

    /// Once it bakes it loses what it must have to be ready.
    fn not_for_long(&self) -> io::Result<Bundle> {
        let mut contents = self.contents.clone();
        let breaks =
            " | while read -r line; do echo \"$line\"; case $line in *bakes*) rm -r /var/lib/app ;; esac; done";
        contents.put(VALIDATE, 0o755, validate("bin/releasectl", breaks).as_bytes());
        self.pack(&contents)
    }

    /// The same router behind `axum::serve`, in a unit that is stopped and started.
    fn stop_start(&self) -> io::Result<Bundle> {
        let mut contents = self.contents.clone();
        for (path, mode, text) in STOP_START {
            contents.put(path, mode, text.as_bytes());
        }
        contents.put("bin/stock", 0o755, &std::fs::read(Server::Stock.build()?)?);
        self.pack(&contents)
    }

    fn pack(&self, contents: &Contents) -> io::Result<Bundle> {
        let label = format!("fleet {}", self.count.fetch_add(1, Ordering::Relaxed));
        contents.pack(&label).map_err(io::Error::other)
    }
}

fn validate(releasectl: &str, and: &str) -> String {
    format!(
        "#!/bin/bash\nset -o pipefail\ncd \"${{0%/*}}/..\" || exit 1\n{releasectl} validate . --bake {BAKE} 2>&1{and}\n"
    )
}

/// A release that is good, over the whole fleet.
fn whole(fleet: &mut Fleet, configuration: Configuration) -> io::Result<Row> {
    let bundle = fleet.bundles.next()?;
    let mut run = Run::begin(fleet);
    go_over(&mut run, configuration, &bundle);
    let seen = end_on(run, Arc::new(bundle));
    let faults = seen.hurt();
    Ok(seen.row(&configuration.to_string(), faults))
}

/// A release that is not good: it stops at its first batch, and CodeDeploy's automatic rollback is a deployment of the last
/// good one to every host.
fn bad(
    fleet: &mut Fleet,
    name: &str,
    configuration: Configuration,
    pack: fn(&Bundles) -> io::Result<Bundle>,
) -> io::Result<Row> {
    let bundle = pack(&fleet.bundles)?;
    let (good, hosts) = (fleet.last_good.clone(), fleet.numbers().collect::<Vec<_>>());
    let mut run = Run::begin(fleet);
    let rollout = run.roll_out(configuration, &hosts, &bundle.id, |fleet, n| fleet.deploy(n, &bundle.archive));
    run.must("the deployment fails", !rollout.succeeded());
    run.must("it stops at its first batch", rollout.batches.len() == 1);
    let failed: Vec<u8> = rollout.failures().iter().map(|(n, _)| *n).collect();
    run.must("it fails on each host of its batch", failed.len() == rollout.batches[0].len());
    for n in hosts.iter().copied().filter(|n| !failed.contains(n)) {
        let has_seen = run.fleet.has_seen(n, &bundle.id);
        run.must(format!("{} never sees it", super::name(n)), !has_seen);
    }
    go_over(&mut run, configuration, &good);
    let seen = end_on(run, good);
    let faults = seen.hurt();
    Ok(seen.row(name, faults))
}

/// A host's network is cut while it is deployed to, and then it is killed. The others go on; when it is back, it is deployed to
/// as an outdated host (`updateOutdatedInstancesOnly`).
fn lost_host(fleet: &mut Fleet) -> io::Result<Row> {
    let bundle = fleet.bundles.next()?;
    let hosts: Vec<u8> = fleet.numbers().collect();
    let mut run = Run::begin(fleet);
    let in_flight = AtomicU64::new(0);
    let rollout = run.roll_out(HalfAtATime, &hosts, &bundle.id, |fleet, n| match n {
        LOST => lose(fleet, &bundle, &in_flight),
        _ => fleet.deploy(n, &bundle.archive),
    });
    run.must("the deployment succeeds without it", rollout.succeeded());
    let failed: Vec<u8> = rollout.failures().iter().map(|(n, _)| *n).collect();
    run.must("it fails on that host alone", failed == [LOST]);
    bring_back(run.fleet);
    run.succeed(OneAtATime, &[LOST], &bundle.id, |fleet, n| fleet.deploy(n, &bundle.archive));
    let seen = end_on(run, Arc::new(bundle));
    let faults = beyond(&seen, in_flight.into_inner());
    Ok(seen.row("HalfAtATime, a host lost; deployed to when it is back", faults))
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
    let (lost, lost_host) = (seen.lost(), name(LOST));
    let mut faults = Vec::new();
    if lost == 0 {
        faults.push("the lost host had nothing in flight: it shows nothing".to_owned());
    }
    if lost > in_flight {
        faults.push(format!("{lost} requests were lost, and {in_flight} were in flight on the lost host"));
    }
    if lost != seen.failures.len() as u64 {
        faults.push(format!("{lost} requests were lost, and the balancer knows of {}", seen.failures.len()));
    }
    let elsewhere = seen.failures.iter().filter(|failure| failure.server != lost_host);
    faults.extend(elsewhere.map(|failure| format!("a request was lost on {}: {}", failure.server, failure.ended)));
    if seen.downs != 1 {
        faults.push(format!("the balancer has marked servers down {} times, and one was lost", seen.downs));
    }
    faults
}

/// A control: what a deployment takes that leaves the rotation.
fn deregistered(fleet: &mut Fleet) -> io::Result<Row> {
    let bundle = fleet.bundles.next()?;
    let hosts: Vec<u8> = fleet.numbers().collect();
    let mut run = Run::begin(fleet);
    run.succeed(OneAtATime, &hosts, &bundle.id, |fleet, n| {
        fleet.balancer.deregister(&name(n));
        let ended = fleet.deploy(n, &bundle.archive);
        fleet.balancer.register(&name(n));
        ended
    });
    let seen = end_on(run, Arc::new(bundle));
    let faults = seen.hurt();
    Ok(seen.row(DEREGISTERED, faults))
}

/// A control: the old process ends, then the new one starts.
fn stop_start(fleet: &mut Fleet) -> io::Result<Row> {
    let [first, second] = [fleet.bundles.stop_start()?, fleet.bundles.stop_start()?];
    fleet.for_each(|host| {
        host.succeed("releasectl uninstall");
        Agent::new(host).group("web").deploy(&first.archive).expect_success();
    });
    fleet.numbers().for_each(|n| fleet.balancer.wait_until_up(&name(n)));
    let hosts: Vec<u8> = fleet.numbers().collect();
    let mut run = Run::begin(fleet);
    run.succeed(OneAtATime, &hosts, &second.id, |fleet, n| {
        let deployment = Agent::new(fleet.host(n)).group("web").deploy(&second.archive);
        if deployment.succeeded() { Ok(()) } else { Err(deployment.ended()) }
    });
    let seen = run.end();
    let faults = (seen.lost() == 0).then(|| "it must lose requests, and did not".to_owned());
    Ok(seen.row("OneAtATime, stopped and started", faults.into_iter().collect()))
}

/// Deregistering must take longer.
pub(super) fn compare(rows: &mut [Row]) {
    let plain = rows.iter().find(|row| row.name == OneAtATime.to_string()).map(|row| row.took).unwrap_or_default();
    for row in rows.iter_mut().filter(|row| row.name == DEREGISTERED && row.took <= plain) {
        row.faults.push(format!("it must take longer than {:.1} s, and did not", plain.as_secs_f64()));
    }
}

fn go_over(run: &mut Run<'_>, configuration: Configuration, bundle: &Bundle) {
    let hosts: Vec<u8> = run.fleet.numbers().collect();
    run.succeed(configuration, &hosts, &bundle.id, |fleet, n| fleet.deploy(n, &bundle.archive));
}

/// Ends a run after which every host must serve this release.
fn end_on(mut run: Run<'_>, bundle: Arc<Bundle>) -> Seen {
    let wrong = run.fleet.not_serving(&bundle.id);
    run.faults.extend(wrong);
    run.fleet.last_good = bundle;
    run.end()
}
