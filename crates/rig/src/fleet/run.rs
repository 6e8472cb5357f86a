//! One run: clients at work, roll-outs meanwhile, and what the balancer says of its servers before and after.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use releases::ReleaseId;

use super::{
    Fleet,
    balancer::Server,
    name,
    seen::{self, Seen},
};
use crate::{
    Load, Mode,
    report::{Activation, Span},
    rollout::{Configuration, Rollout},
};

/// As many of each kind as two cores serve beside hosts that deploy.
const CLIENTS: [(Mode, usize); 6] =
    [(Mode::C1, 2), (Mode::C2, 1), (Mode::C3, 20), (Mode::C5, 10), (Mode::C6, 12), (Mode::C7, 12)];
/// Before the first deployment and after the last: each client comes to its next request, and each connection to rest.
const AROUND: Duration = Duration::from_secs(2);

/// A run that has not ended.
pub(super) struct Run<'a> {
    pub fleet: &'a mut Fleet,
    pub faults: Vec<String>,
    loads: Vec<Load>,
    before: BTreeMap<String, Server>,
    failures_before: usize,
    activations: Mutex<Vec<Activation>>,
    took: Duration,
    batches: Vec<String>,
}

impl<'a> Run<'a> {
    /// Sets the clients to work.
    pub fn begin(fleet: &'a mut Fleet) -> Self {
        let (before, failures_before) = (fleet.balancer.servers(), fleet.balancer.failures().len());
        let (network, address) = (fleet.network.clients(), fleet.network.balancer());
        let loads = CLIENTS.iter().map(|(mode, count)| Load::start_in(network, address, *mode, *count)).collect();
        thread::sleep(AROUND);
        let (faults, activations, batches) = (Vec::new(), Mutex::default(), Vec::new());
        Self { fleet, faults, loads, before, failures_before, activations, took: Duration::ZERO, batches }
    }

    /// A deployment to these hosts, each by `deploy`.
    pub fn roll_out(
        &mut self,
        configuration: Configuration,
        hosts: &[u8],
        release: &ReleaseId,
        deploy: impl Fn(&Fleet, u8) -> Result<(), String> + Sync,
    ) -> Rollout<u8> {
        let began = Instant::now();
        let (fleet, activations) = (&*self.fleet, &self.activations);
        let each = |n| {
            let began = Instant::now();
            let ended = deploy(fleet, n);
            let what = format!("{configuration}, {}", name(n));
            let activation = Activation { what, release: release.clone(), span: Span::since(began) };
            activations.lock().expect("no deployment panics").push(activation);
            ended
        };
        let rollout = configuration.roll_out(hosts, || true, each);
        self.took += began.elapsed();
        self.batches.push(rollout.sizes());
        rollout
    }

    /// The same of what must succeed on every host.
    pub fn succeed(
        &mut self,
        configuration: Configuration,
        hosts: &[u8],
        release: &ReleaseId,
        deploy: impl Fn(&Fleet, u8) -> Result<(), String> + Sync,
    ) {
        let rollout = self.roll_out(configuration, hosts, release, deploy);
        let failures = rollout.failures();
        self.faults.extend(failures.iter().map(|(n, why)| format!("the deployment to {} failed: {why}", name(*n))));
    }

    /// It must be so.
    pub fn must(&mut self, what: impl Into<String>, holds: bool) {
        if !holds {
            self.faults.push(format!("it must be that {}", what.into()));
        }
    }

    /// Has the clients end what they have begun, and counts.
    pub fn end(self) -> Seen {
        thread::sleep(AROUND);
        self.loads.iter().for_each(Load::halt);
        let reports: Vec<_> = self.loads.into_iter().map(Load::stop).collect();
        let activations = self.activations.into_inner().expect("no deployment panics");
        let after = self.fleet.balancer.servers();
        let mut faults = self.faults;
        faults.extend(seen::vacuous(&reports, &activations));
        faults.extend(seen::idle(&self.before, &after));
        faults.extend(seen::tried_again(&self.before, &after));
        let since = |count: fn(&Server) -> u64| {
            let all = |servers: &BTreeMap<String, Server>| servers.values().map(count).sum::<u64>();
            all(&after) - all(&self.before)
        };
        Seen {
            downs: since(|server| server.downs),
            failed_checks: since(|server| server.failed_checks),
            failures: self.fleet.balancer.failures().split_off(self.failures_before),
            unanswered: seen::unanswered(&self.before, &after),
            reports,
            faults,
            activations,
            took: self.took,
            batches: self.batches,
            hosts: self.fleet.hosts.len(),
        }
    }
}
