//! Receipts: what each activation did, what clients felt of it, and how it ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    ReleaseId, Store,
    instance::{Instance, Report},
    prober::Probe,
    progress::Step,
    screen::without_controls,
};

/// Of what a line means.
pub(crate) const FORMAT: u32 = 1;

/// One activation. Its line is written when its verb returns; `validate` adds a line that closes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub(crate) format: u32,
    /// Its number: that of the instance that was started, so none comes twice.
    pub receipt: u64,
    /// What was called: `activate`, `restart`, `rollback`; `return` where one of them or `validate` went back by itself,
    /// `boot` where that made another release current.
    pub verb: String,
    /// CodeDeploy's name of the deployment, and the name of its group.
    pub deployment: Option<String>,
    /// See `deployment`.
    pub group: Option<String>,
    /// What was current before.
    pub from: Option<ReleaseId>,
    /// What was to become current.
    pub to: ReleaseId,
    /// What people call that.
    #[serde(default)]
    pub label: String,
    /// When the verb began, in seconds since 1970.
    pub time: f64,
    /// How long it took, in milliseconds, and of that each step.
    pub took_ms: u64,
    /// See `took_ms`.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// How long the instance took to say READY.
    pub ready_ms: Option<u64>,
    /// What the instances that retired say of their connections; what is open still when this is written is told by `status`.
    #[serde(default)]
    pub retired: Vec<Retired>,
    /// What the prober saw meanwhile; none where there was none, since nothing served before.
    pub probe: Option<Probe>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where it failed, or nobody had asked for it.
    pub reason: Option<String>,
    /// What took its place before it was validated.
    pub superseded_by: Option<ReleaseId>,
    /// What `validate` added.
    pub validation: Option<Validation>,
}

/// What an instance that retired says of its connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retired {
    /// Its unit.
    pub unit: String,
    /// Connections that another instance has.
    pub handed_over: u64,
    /// Those that ended by themselves.
    pub drained: u64,
    /// Those that were cut at the deadline.
    pub cut: u64,
    /// Those that were open still when this was written,
    pub open: u64,
    /// and the requests in flight on them.
    pub in_flight: u64,
}

/// How an activation ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The release is current; `validate` has yet to say whether it holds.
    Activated,
    /// The release is current, and nothing more is asked of it: a restart, a boot, or the way back from one that failed.
    Done,
    /// It has passed `validate`.
    Validated,
    /// It did not become ready, or did not hold.
    Failed,
    /// Another release became current before this one was validated.
    Superseded,
    /// The release became current, and there is no receipt: the verb was killed, or is an older tool's.
    Missing,
    /// A word of a later format.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The line that closes a receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    pub(crate) format: u32,
    /// The number of the receipt.
    pub closes: u64,
    /// When `validate` began, in seconds since 1970.
    pub time: f64,
    /// How long it took, in milliseconds, and of that each step.
    pub took_ms: u64,
    /// See `took_ms`.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What the instances that retired say by then.
    #[serde(default)]
    pub retired: Vec<Retired>,
    /// What the prober saw meanwhile.
    pub probe: Option<Probe>,
    /// How long nobody probed, between the activation and this.
    pub uncovered_ms: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where it failed.
    pub reason: Option<String>,
    /// What has its place.
    pub superseded_by: Option<ReleaseId>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Activated => "activated",
            Self::Done => "done",
            Self::Validated => "validated",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
            Self::Missing => "no receipt",
            Self::Unknown => "unknown",
        })
    }
}

impl Receipt {
    /// Of an activation that has left none: what the log of activations says.
    pub fn missing(n: u64, verb: &str, from: Option<ReleaseId>, to: ReleaseId, time: u64) -> Self {
        Self {
            format: FORMAT,
            receipt: n,
            verb: verb.to_owned(),
            deployment: None,
            group: None,
            from,
            to,
            label: String::new(),
            time: time as f64,
            took_ms: 0,
            steps: Vec::new(),
            ready_ms: None,
            retired: Vec::new(),
            probe: None,
            outcome: Outcome::Missing,
            reason: None,
            superseded_by: None,
            validation: None,
        }
    }

    /// The connections of those that retired, as far as is known.
    pub fn connections(&self) -> Retired {
        let retired = self.validation.as_ref().map_or(&self.retired, |validation| &validation.retired);
        retired.iter().fold(Retired::default(), Retired::plus)
    }

    /// What the probers of both verbs saw.
    pub fn probed(&self) -> Option<Probe> {
        let later = self.validation.as_ref().and_then(|validation| validation.probe.as_ref());
        let mut sum = self.probe.clone().or_else(|| later.map(|_| Probe::default()))?;
        if let Some(probe) = later {
            sum.asked += probe.asked;
            sum.failed += probe.failed;
            sum.gap_ms = sum.gap_ms.max(probe.gap_ms);
            sum.reason = sum.reason.or_else(|| probe.reason.clone());
        }
        Some(sum)
    }

    /// Whether `validate` is to close it.
    pub fn is_open(&self) -> bool {
        matches!(self.outcome, Outcome::Activated | Outcome::Missing) && self.validation.is_none()
    }

    /// Whether it is one that `validate` closes, sooner or later.
    pub fn is_of_a_deployment(&self) -> bool {
        matches!(self.verb.as_str(), "activate" | "rollback")
    }

    /// Whether its release was current, if only until it failed.
    pub fn has_flipped(&self) -> bool {
        // A boot flips first.
        self.outcome != Outcome::Failed || self.validation.is_some() || self.verb == "boot"
    }

    pub(crate) fn close(&mut self, validation: Validation) {
        self.outcome = validation.outcome;
        self.reason.clone_from(&validation.reason);
        self.superseded_by.clone_from(&validation.superseded_by);
        self.validation = Some(validation);
    }

    /// In one line, for the journal.
    pub fn line(&self) -> String {
        let from = self.from.as_ref().map_or("nothing".to_owned(), ToString::to_string);
        let Retired { handed_over, drained, cut, .. } = self.connections();
        let mut line = format!(
            "receipt {}: {} from {from} to {} ({}): {}; connections: {handed_over} handed over, {drained} drained, \
             {cut} cut",
            self.receipt, self.verb, self.to, self.label, self.outcome
        );
        if let Some(Probe { asked, failed, gap_ms, .. }) = self.probed() {
            line.push_str(&format!("; {failed} of {asked} probes failed, longest gap {gap_ms} ms"));
        }
        if let Some(reason) = &self.reason {
            line.push_str(&format!("; {reason}"));
        }
        without_controls(&line.replace('\n', " "))
    }
}

impl Retired {
    /// What it says by now.
    pub fn of(instance: &Instance, report: Option<&Report>) -> Self {
        Self {
            unit: instance.unit(),
            handed_over: report.map_or(0, |report| report.handed_over),
            drained: report.map_or(0, |report| report.drained),
            cut: report.map_or(0, |report| report.cut),
            open: report.map_or(0, |report| report.connections),
            in_flight: report.map_or(0, |report| report.requests),
        }
    }

    /// What it says now; what was known before, where it is gone with its file.
    pub(crate) fn now(&self, store: &Store) -> Self {
        let said = self.unit.parse::<Instance>().ok().and_then(|instance| {
            let report = instance.report(store.host())?;
            Some(Self::of(&instance, Some(&report)))
        });
        said.unwrap_or_else(|| self.clone())
    }

    fn plus(self, other: &Self) -> Self {
        Self {
            unit: String::new(),
            handed_over: self.handed_over + other.handed_over,
            drained: self.drained + other.drained,
            cut: self.cut + other.cut,
            open: self.open + other.open,
            in_flight: self.in_flight + other.in_flight,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, time::Duration};

    use tempfile::TempDir;

    use super::*;
    use crate::ledger::FILE;

    /// A store on the files of a host that does not run.
    pub(crate) fn store() -> (TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), Duration::ZERO);
        fs::create_dir_all(store.path("releases")).unwrap();
        (root, store)
    }

    pub(crate) fn id(letter: char) -> ReleaseId {
        letter.to_string().repeat(16).parse().unwrap()
    }

    /// As its verb writes it.
    pub(crate) fn receipt(receipt: u64, verb: &str, to: char, outcome: Outcome) -> Receipt {
        let mut this = Receipt::missing(receipt, verb, Some(id('0')), id(to), 1_790_000_000 + receipt);
        (this.outcome, this.label, this.took_ms) = (outcome, format!("release {to}"), 158);
        let steps = [("lock", 0), ("verify", 15), ("prepare", 1), ("start", 106), ("flip", 0), ("retire", 36)];
        this.steps = steps.map(|(name, ms)| Step { name: name.to_owned(), ms }).to_vec();
        this.ready_ms = Some(106);
        let unit = format!("app-{}@{}.service", id('0'), receipt - 1);
        this.retired = vec![Retired { unit, handed_over: 1_984, drained: 3, cut: 1, open: 2, in_flight: 2 }];
        this.probe = Some(Probe { asked: 2, failed: 0, gap_ms: 7, reason: None });
        this
    }

    pub(crate) fn closing(closes: u64, outcome: Outcome) -> Validation {
        let step = |name: &str, ms| Step { name: name.to_owned(), ms };
        Validation {
            format: FORMAT,
            closes,
            time: 1_790_000_001.0,
            took_ms: 10_046,
            steps: vec![step("answer", 31), step("bake", 10_014), step("settle", 1)],
            retired: vec![Retired { handed_over: 1_985, drained: 3, cut: 2, ..Retired::default() }],
            probe: Some(Probe { asked: 101, failed: 4, gap_ms: 312, reason: Some("/livez: refused".to_owned()) }),
            uncovered_ms: 35,
            outcome,
            reason: (outcome == Outcome::Failed).then(|| "/readyz answered 503".to_owned()),
            superseded_by: None,
        }
    }

    pub(crate) fn write(store: &Store, lines: &[String]) {
        fs::write(store.path(FILE), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    pub(crate) fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn the_line_for_the_journal_is_one_line_without_what_steers_a_terminal() {
        let mut receipt = receipt(1, "activate", 'a', Outcome::Failed);
        (receipt.label, receipt.reason) = ("a\u{1b}[2J\u{202e}".to_owned(), Some("two\nlines".to_owned()));
        let line = receipt.line();
        assert!(!line.contains('\n') && !line.contains('\u{1b}') && !line.contains('\u{202e}'), "{line:?}");
        assert!(line.contains("1984 handed over, 3 drained, 1 cut") && line.ends_with("two lines"), "{line}");
    }
}
