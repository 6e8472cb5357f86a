//! What clients saw.

use std::{
    collections::BTreeMap,
    sync::LazyLock,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use releases::ReleaseId;
use serde_json::{Value, json};

use crate::{Mode, outcome::Outcome};

/// The time that spans are counted from: one for all clients of this process.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Spans are counted from here, or from the first report.
pub(crate) fn start_clock() {
    LazyLock::force(&ORIGIN);
}

/// From, until, since an origin that all spans share.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub until: Duration,
}

impl Span {
    /// From `began` until now.
    pub fn since(began: Instant) -> Self {
        Self::between(began, Instant::now())
    }

    /// From now on, for so long.
    pub fn from_now(length: Duration) -> Self {
        let now = Instant::now();
        Self::between(now, now + length)
    }

    /// Whether a moment is in it.
    pub fn contains(self, moment: Duration) -> bool {
        self.from <= moment && moment <= self.until
    }

    fn between(from: Instant, until: Instant) -> Self {
        Self { from: from.duration_since(*ORIGIN), until: until.duration_since(*ORIGIN) }
    }

    /// How long it is.
    pub fn length(self) -> Duration {
        self.until.saturating_sub(self.from)
    }

    fn meets(self, other: Self) -> bool {
        self.from <= other.until && other.from <= self.until
    }
}

/// One change of the release that serves.
#[derive(Debug)]
pub struct Activation {
    /// `deployment` or `rollback`; of a fleet, how it is gone over, and the host.
    pub what: String,
    /// What serves since.
    pub release: ReleaseId,
    /// How long the agent, or `releasectl`, was at it.
    pub span: Span,
}

impl Activation {
    /// For programs. Times are milliseconds.
    pub(crate) fn to_json(&self) -> Value {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        json!({
            "what": self.what,
            "release": self.release.as_str(),
            "from_ms": milliseconds(self.span.from),
            "took_ms": milliseconds(self.span.length()),
        })
    }
}

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// From its beginning, connecting included, to its end.
    pub span: Span,
    /// How it ended.
    pub outcome: Outcome,
}

/// The requests of one kind of client, each counted once.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the clients did.
    pub mode: Mode,
    /// Every one.
    pub requests: Vec<Request>,
    /// Kept connections that the server ended, none of them with a request on its way.
    pub connections_closed: u64,
    /// How many requests each release answered, where the answer says.
    pub answered_by: BTreeMap<String, u64>,
    /// When a connection was open with nothing in flight.
    idle: Vec<Span>,
}

impl Report {
    /// Nothing yet.
    pub fn new(mode: Mode) -> Self {
        start_clock();
        Self { mode, requests: Vec::new(), connections_closed: 0, answered_by: BTreeMap::new(), idle: Vec::new() }
    }

    /// Requests that were begun.
    pub fn sent(&self) -> u64 {
        self.requests.len() as u64
    }

    /// Requests that were answered as they should be.
    pub fn answered(&self) -> u64 {
        self.outcomes().get(&Outcome::Answered).copied().unwrap_or(0)
    }

    /// Requests that were not.
    pub fn lost(&self) -> u64 {
        self.sent() - self.answered()
    }

    /// How many requests ended in which way.
    pub fn outcomes(&self) -> BTreeMap<Outcome, u64> {
        let mut outcomes = BTreeMap::new();
        for request in &self.requests {
            *outcomes.entry(request.outcome).or_default() += 1;
        }
        outcomes
    }

    /// The losses by class: `2 closed, 1 reset`; `none`.
    pub fn losses(&self) -> String {
        let mut outcomes = self.outcomes();
        outcomes.remove(&Outcome::Answered);
        let words: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    }

    /// The longest request that was answered; zero where none was.
    pub fn longest(&self) -> Duration {
        self.times().max().unwrap_or_default()
    }

    /// What a run must have had at `activation` to have shown anything, and had not.
    pub fn lacks(&self, activation: Span) -> Option<&'static str> {
        if !self.requests.iter().any(|request| request.span.meets(activation)) {
            return Some("no request in flight");
        }
        let must_idle = self.mode.is_idle_at_times();
        (must_idle && !self.idle.iter().any(|span| span.meets(activation))).then_some("no idle connection")
    }

    pub(crate) fn count(&mut self, outcome: Outcome, began: tokio::time::Instant) {
        self.count_until(outcome, began, tokio::time::Instant::now());
    }

    pub(crate) fn count_until(&mut self, outcome: Outcome, began: tokio::time::Instant, ended: tokio::time::Instant) {
        self.requests.push(Request { span: Span::between(began.into_std(), ended.into_std()), outcome });
    }

    pub(crate) fn count_release(&mut self, release: Option<String>) {
        if let Some(release) = release {
            *self.answered_by.entry(release).or_default() += 1;
        }
    }

    pub(crate) fn count_closed(&mut self, is_closed: bool) {
        self.connections_closed += u64::from(is_closed);
    }

    pub(crate) fn idled(&mut self, began: tokio::time::Instant) {
        self.idle.push(Span::since(began.into_std()));
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.requests.extend(other.requests);
        self.idle.extend(other.idle);
        self.connections_closed += other.connections_closed;
        for (release, count) in other.answered_by {
            *self.answered_by.entry(release).or_default() += count;
        }
    }

    /// A time that this part of the answered requests does not exceed, in milliseconds; zero where none was answered.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let mut histogram = Histogram::<u64>::new(3).expect("three digits are a precision that it can have");
        for time in self.times() {
            // It grows as it must, so only a value beyond u64 could fail.
            let _ = histogram.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        }
        histogram.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Of those that were answered: else one that is lost at once would count as a fast one.
    fn times(&self) -> impl Iterator<Item = Duration> {
        let answered = self.requests.iter().filter(|request| request.outcome.is_answered());
        answered.map(|request| request.span.length())
    }

    /// The same for programs. Times are milliseconds.
    pub fn to_json(&self) -> Value {
        let mut lost = self.outcomes();
        lost.remove(&Outcome::Answered);
        let lost: BTreeMap<String, u64> = lost.iter().map(|(outcome, count)| (outcome.to_string(), *count)).collect();
        json!({
            "kind": self.mode.to_string(),
            "sent": self.sent(),
            "answered": self.answered(),
            "lost": lost,
            "connections_closed": self.connections_closed,
            "p50_ms": self.quantile(0.5),
            "p99_9_ms": self.quantile(0.999),
            "longest_ms": self.longest().as_secs_f64() * 1000.0,
            "answered_by": self.answered_by,
        })
    }
}

/// A line for each report.
pub fn table(reports: &[Report]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["CLIENT", "SENT", "ANSWERED", "LOST", "CONNECTIONS CLOSED", "P50 MS", "P99.9 MS", "LONGEST MS"]);
    for report in reports {
        table.add_row([
            report.mode.to_string(),
            report.sent().to_string(),
            report.answered().to_string(),
            report.losses(),
            report.connections_closed.to_string(),
            format!("{:.1}", report.quantile(0.5)),
            format!("{:.1}", report.quantile(0.999)),
            format!("{:.1}", report.longest().as_secs_f64() * 1000.0),
        ]);
    }
    // Without the spaces that the last column is padded with.
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_neither_fast_nor_slow() {
        let mut report = Report::new(Mode::C3);
        assert_eq!((report.quantile(0.999), report.longest()), (0.0, Duration::ZERO));
        for (outcome, milliseconds) in
            [(Outcome::Answered, 20), (Outcome::Answered, 40), (Outcome::Reset, 1), (Outcome::TimedOut, 60_000)]
        {
            let span = Span { from: Duration::ZERO, until: Duration::from_millis(milliseconds) };
            report.requests.push(Request { span, outcome });
        }
        assert_eq!(report.longest(), Duration::from_millis(40));
        assert!((20.0..20.1).contains(&report.quantile(0.5)), "{}", report.quantile(0.5));
        assert!((40.0..40.1).contains(&report.quantile(0.999)), "{}", report.quantile(0.999));
    }
}
