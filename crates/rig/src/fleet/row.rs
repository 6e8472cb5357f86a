//! One line of the table, and its part of the report.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use crate::{Report, chart::Chapter, report::Activation};

const HEAD: &str = "\
| deployment | hosts | duration | batches | requests | lost | marked down | |
| --- | --- | --- | --- | --- | --- | --- | --- |
";

/// What one run has come to.
#[derive(Debug)]
pub struct Row {
    /// What was done.
    pub name: String,
    /// What is said of it where nothing was wrong.
    pub(super) verdict: String,
    pub(super) hosts: usize,
    /// How long the deployments took, without what came before, between and after them.
    pub(super) took: Duration,
    pub(super) batches: String,
    /// How often the balancer marked a server down.
    pub(super) downs: u64,
    pub(super) failed_checks: u64,
    /// What was not as it must be.
    pub faults: Vec<String>,
    pub(super) activations: Vec<Activation>,
    pub(super) reports: Vec<Report>,
}

impl Row {
    /// Whether all was as it must be.
    pub fn is_good(&self) -> bool {
        self.faults.is_empty()
    }

    /// Requests that were begun.
    pub fn sent(&self) -> u64 {
        self.reports.iter().map(Report::sent).sum()
    }

    /// Requests that were not answered as they should be.
    pub fn lost(&self) -> u64 {
        self.reports.iter().map(Report::lost).sum()
    }

    /// For programs. Times are milliseconds.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "deployment": self.name,
            "hosts": self.hosts,
            "took_ms": self.took.as_secs_f64() * 1000.0,
            "batches": self.batches,
            "requests": self.sent(),
            "lost": self.lost(),
            "marked_down": self.downs,
            "failed_health_checks": self.failed_checks,
            "faults": self.faults,
            "activations": self.activations.iter().map(Activation::to_json).collect::<Vec<_>>(),
            "kinds": self.reports.iter().map(Report::to_json).collect::<Vec<_>>(),
        })
    }

    pub(super) fn chapter(&self) -> Chapter<'_> {
        Chapter { title: &self.name, activations: &self.activations, reports: &self.reports }
    }

    fn verdict(&self) -> &str {
        if self.is_good() { &self.verdict } else { "**not as it must be**" }
    }

    fn cells(&self) -> [String; 8] {
        [
            self.name.clone(),
            self.hosts.to_string(),
            format!("{:.1} s", self.took.as_secs_f64()),
            self.batches.clone(),
            self.sent().to_string(),
            self.lost().to_string(),
            self.downs.to_string(),
            self.verdict().to_owned(),
        ]
    }
}

/// For whoever watches.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cells().join("; "))?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// The table.
pub(super) fn markdown(rows: &[Row]) -> String {
    rows.iter().fold(HEAD.to_owned(), |text, row| format!("{text}| {} |\n", row.cells().join(" | ")))
}
