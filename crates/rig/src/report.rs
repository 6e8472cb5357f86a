//! What clients saw.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{Table, presets};
use hdrhistogram::Histogram;

use crate::outcome::Outcome;

/// The requests of one kind of client, each counted once.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the clients did.
    pub mode: String,
    /// How many requests ended in which way.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Kept connections that the server ended, none of them with a request on its way.
    pub connections_closed: u64,
    /// How many requests each release answered, where the answer says.
    pub answered_by: BTreeMap<String, u64>,
    /// Microseconds from the beginning of a request to its end, connecting included.
    latency: Histogram<u64>,
}

impl Report {
    /// Nothing yet.
    ///
    /// # Panics
    /// Never: three digits are a precision that a histogram can have.
    pub fn new(mode: &str) -> Self {
        Self {
            mode: mode.to_owned(),
            outcomes: BTreeMap::new(),
            connections_closed: 0,
            answered_by: BTreeMap::new(),
            latency: Histogram::new(3).expect("three digits"),
        }
    }

    /// Requests that were begun.
    pub fn sent(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Requests that were answered as they should be.
    pub fn answered(&self) -> u64 {
        self.outcomes.get(&Outcome::Answered).copied().unwrap_or(0)
    }

    /// Requests that were not.
    pub fn lost(&self) -> u64 {
        self.sent() - self.answered()
    }

    /// The losses by class: `2 closed, 1 reset`; `none`.
    pub fn losses(&self) -> String {
        let lost = self.outcomes.iter().filter(|(outcome, _)| !outcome.is_answered());
        let words: Vec<String> = lost.map(|(outcome, count)| format!("{count} {outcome}")).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    }

    /// The longest request.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.latency.max())
    }

    pub(crate) fn count(&mut self, outcome: Outcome, took: Duration) {
        *self.outcomes.entry(outcome).or_default() += 1;
        // It grows as it must, so only a value beyond u64 could fail.
        let _ = self.latency.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn count_release(&mut self, release: &Option<String>) {
        if let Some(release) = release {
            *self.answered_by.entry(release.clone()).or_default() += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(*outcome).or_default() += count;
        }
        for (release, count) in &other.answered_by {
            *self.answered_by.entry(release.clone()).or_default() += count;
        }
        self.connections_closed += other.connections_closed;
        self.latency.add(&other.latency).expect("histograms of one precision");
    }

    fn at(&self, quantile: f64) -> String {
        milliseconds(Duration::from_micros(self.latency.value_at_quantile(quantile)))
    }
}

/// A line for each report.
pub fn table(reports: &[Report]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["CLIENT", "SENT", "ANSWERED", "LOST", "CONNECTIONS CLOSED", "P50 MS", "P99.9 MS", "LONGEST MS"]);
    for report in reports {
        table.add_row([
            report.mode.clone(),
            report.sent().to_string(),
            report.answered().to_string(),
            report.losses(),
            report.connections_closed.to_string(),
            report.at(0.5),
            report.at(0.999),
            milliseconds(report.longest()),
        ]);
    }
    table.to_string()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}
