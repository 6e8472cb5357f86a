//! What the clients of one kind saw, without each of their requests.

use std::collections::BTreeMap;

use crate::{Mode, Report, outcome::Outcome};

#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub mode: Mode,
    pub sent: u64,
    /// How many by class.
    pub lost: BTreeMap<Outcome, u64>,
    /// HTTP/1.1 connections on which a client would have gone on.
    pub closed: u64,
    /// Where any was answered.
    pub times: Option<Times>,
}

/// Milliseconds, of the requests that were answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub p99_9: f64,
    pub longest: f64,
}

impl Seen {
    pub fn of(report: &Report) -> Self {
        let mut lost = report.outcomes();
        lost.remove(&Outcome::Answered);
        let times = || Times { p99_9: report.quantile(0.999), longest: report.longest().as_secs_f64() * 1e3 };
        Self {
            mode: report.mode,
            sent: report.sent(),
            lost,
            closed: if report.mode.is_handed_over() { report.connections_closed } else { 0 },
            times: (report.answered() > 0).then(times),
        }
    }

    pub fn lost(&self) -> u64 {
        self.lost.values().sum()
    }

    /// The same clients, another time.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        for (outcome, count) in &other.lost {
            *self.lost.entry(*outcome).or_default() += count;
        }
    }

    /// `c2 keep-alive, back to back: 2 closed, 1 reset of 1200 sent`
    pub fn tell_lost(&self) -> String {
        let classes: Vec<String> = self.lost.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        format!("{}: {} of {} sent", self.mode, classes.join(", "), self.sent)
    }
}
