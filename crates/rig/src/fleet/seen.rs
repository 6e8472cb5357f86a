//! What a run has come to, and how it is judged.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Row,
    balancer::{Failure, Server},
};
use crate::{Report, report::Activation};

/// What a run has come to, before it is judged.
pub(super) struct Seen {
    pub reports: Vec<Report>,
    pub failures: Vec<Failure>,
    /// How many of the requests that each server was sent it did not answer, where it was any.
    pub unanswered: BTreeMap<String, u64>,
    pub downs: u64,
    pub failed_checks: u64,
    pub faults: Vec<String>,
    pub activations: Vec<Activation>,
    pub took: Duration,
    pub batches: Vec<String>,
    pub hosts: usize,
}

impl Seen {
    /// Requests that were not answered as they should be.
    pub fn lost(&self) -> u64 {
        self.reports.iter().map(Report::lost).sum()
    }

    /// What of it a deployment must never do.
    pub fn hurt(&self) -> Vec<String> {
        let lost = self.reports.iter().filter(|report| report.lost() > 0);
        let lost = lost.map(|report| format!("{}: {} lost", report.mode, report.losses()));
        let failed =
            self.failures.iter().map(|failure| format!("the balancer says of {}: {}", failure.server, failure.ended));
        let unanswered =
            self.unanswered.iter().map(|(server, count)| format!("{server} did not answer {count} requests"));
        let downs = (self.downs > 0).then(|| format!("the balancer has marked a server down {} times", self.downs));
        lost.chain(failed).chain(unanswered).chain(downs).collect()
    }

    /// The row: what is said of it where nothing was wrong, and what was.
    pub fn row(mut self, name: &str, verdict: &str, faults: Vec<String>) -> Row {
        self.faults.extend(faults);
        Row {
            name: name.to_owned(),
            verdict: verdict.to_owned(),
            hosts: self.hosts,
            took: self.took,
            batches: self.batches.join(", then "),
            downs: self.downs,
            failed_checks: self.failed_checks,
            faults: self.faults,
            activations: self.activations,
            reports: self.reports,
        }
    }
}

/// The deployments at which a kind of client had nothing that could have been hurt.
pub(super) fn vacuous(reports: &[Report], activations: &[Activation]) -> Vec<String> {
    let lacks = |activation: &Activation| -> Vec<String> {
        let lack =
            |report: &Report| Some(format!("{}: {}: {}", activation.what, report.mode, report.lacks(activation.span)?));
        reports.iter().filter_map(lack).collect()
    };
    activations.iter().flat_map(lacks).collect()
}

/// What each server was sent and did not answer, where it was anything.
pub(super) fn unanswered(before: &BTreeMap<String, Server>, after: &BTreeMap<String, Server>) -> BTreeMap<String, u64> {
    let count = |server: &Server| server.requests.saturating_sub(server.answered);
    let since = |(name, server): (&String, &Server)| (name.clone(), count(server) - before.get(name).map_or(0, count));
    after.iter().map(since).filter(|(_, count)| *count > 0).collect()
}

/// The servers that no request was sent to.
pub(super) fn idle(before: &BTreeMap<String, Server>, after: &BTreeMap<String, Server>) -> Vec<String> {
    let had = |name: &String| before.get(name).map_or(0, |server| server.requests);
    let idle = after.iter().filter(|(name, server)| server.requests == had(name));
    idle.map(|(name, _)| format!("{name} was sent no request")).collect()
}
