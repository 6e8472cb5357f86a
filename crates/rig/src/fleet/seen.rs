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

/// The servers that no request was sent to, or none on a connection that was kept: what they could lose was not there.
pub(super) fn idle(before: &BTreeMap<String, Server>, after: &BTreeMap<String, Server>) -> Vec<String> {
    let all = after.iter().flat_map(|(name, server)| {
        let had = before.get(name).cloned().unwrap_or_default();
        let asked = (server.requests == had.requests).then(|| format!("{name} was sent no request"));
        let kept = (server.reused == had.reused).then(|| format!("{name} was sent none on a connection that was kept"));
        asked.into_iter().chain(kept)
    });
    all.collect()
}

/// The servers whose requests were tried once more, which hides what was lost.
pub(super) fn tried_again(before: &BTreeMap<String, Server>, after: &BTreeMap<String, Server>) -> Vec<String> {
    let had = |name: &String| before.get(name).map_or(0, |server| server.again);
    let again = after.iter().filter(|(name, server)| server.again > had(name));
    again.map(|(name, _)| format!("the balancer has tried requests to {name} again")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One server before a run, and after it.
    fn servers(before: Server, after: Server) -> [BTreeMap<String, Server>; 2] {
        [before, after].map(|server| BTreeMap::from([("host1".to_owned(), server)]))
    }

    fn busy() -> Server {
        Server { requests: 20, answered: 20, reused: 15, ..Server::default() }
    }

    #[test]
    fn a_server_that_was_busy_and_answered_all_is_found_well() {
        let [before, after] = servers(
            Server { requests: 9, answered: 7, reused: 6, ..Server::default() },
            Server { requests: 29, answered: 27, ..busy() },
        );
        assert!(unanswered(&before, &after).is_empty(), "what it lost before is no part of it");
        assert!(idle(&before, &after).is_empty() && tried_again(&before, &after).is_empty());
    }

    #[test]
    fn what_it_lost_hid_or_was_not_asked_is_found() {
        let [before, after] = servers(Server::default(), Server { answered: 18, again: 1, ..busy() });
        assert_eq!(unanswered(&before, &after)["host1"], 2);
        assert_eq!(tried_again(&before, &after).len(), 1);
        let [before, after] = servers(busy(), busy());
        assert_eq!(idle(&before, &after).len(), 2);
        let [before, after] = servers(busy(), Server { requests: 30, answered: 30, ..busy() });
        assert_eq!(idle(&before, &after), ["host1 was sent none on a connection that was kept"]);
    }
}
