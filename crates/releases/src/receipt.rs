//! Receipts: what each activation did, what clients felt of it, and how it ended.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, ReleaseId, Result, Store, effect, history,
    instance::{Instance, Report},
    notify,
    prober::{Hold, Probe, Prober},
    progress::{Progress, Step},
    screen::{printable, say, without_controls},
    store::{self, Link, Locked},
    trail,
};

/// Of what a line means.
const FORMAT: u32 = 1;
const FILE: &str = "receipts.jsonl";
/// As much of the end of the log is read first; it mostly has what is asked for.
const TAIL: u64 = 256 << 10;
/// How far back a receipt may be that is still to be closed.
const RECENT: usize = 32;

/// One activation. Its line is written when its verb returns; `validate` adds a line that closes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    format: u32,
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
    format: u32,
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

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Activation(Box<Receipt>),
    Validation(Box<Validation>),
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
        self.outcome != Outcome::Failed || self.validation.is_some()
    }

    fn close(&mut self, validation: Validation) {
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
    fn now(&self, store: &Store) -> Self {
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

/// An activation that is under way.
#[derive(Debug)]
pub struct Draft {
    verb: &'static str,
    time: f64,
    began: Instant,
    prober: Option<Prober>,
    progress: Progress,
    /// What is current before it.
    pub(crate) from: Option<ReleaseId>,
    /// The instance that was started.
    pub(crate) instance: Option<Instance>,
    /// See [`Receipt::ready_ms`].
    pub(crate) ready_ms: Option<u64>,
    /// See [`Receipt::retired`].
    pub(crate) retired: Vec<Retired>,
    /// Why it is made, where nobody asked for it.
    pub(crate) reason: Option<String>,
}

impl Draft {
    /// Begins it with its first step.
    pub fn begin(verb: &'static str, first: &'static str) -> Self {
        Self {
            verb,
            time: store::now_precisely(),
            began: Instant::now(),
            prober: None,
            progress: Progress::begin(verb, first),
            from: None,
            instance: None,
            ready_ms: None,
            retired: Vec::new(),
            reason: None,
        }
    }

    /// The lock has been taken. Where a release is current, clients may come, and the prober is one of them.
    pub fn locked(&mut self, store: &Locked) {
        self.from = store.named_by(Link::Current);
        if self.from.is_some() && store.host().is_live() && self.verb != "boot" {
            self.prober = Prober::find(store.host());
        }
    }

    /// What begins now is called so.
    pub fn step(&mut self, name: &'static str) {
        self.progress.step(name);
    }

    /// The prober begins no question meanwhile: what an instance that retires has is to be its clients'.
    pub fn hold_prober(&self) -> Option<Hold> {
        self.prober.as_ref().map(Prober::hold)
    }

    /// Writes the receipt of an activation of `to`, which ended so; an error learns its number. That it cannot be written
    /// fails nothing.
    pub fn end<T>(self, store: &Locked, to: &ReleaseId, result: Result<T>) -> Result<T> {
        // One that failed before anything was started has a number too.
        let number = self.instance.as_ref().map(|instance| instance.n);
        let number = number.map_or_else(|| store.new_instance(to).map(|instance| instance.n), Ok);
        let outcome = match (&result, self.verb) {
            (Err(_), _) => Outcome::Failed,
            (Ok(_), "activate" | "rollback") => Outcome::Activated,
            _ => Outcome::Done,
        };
        let named = |variable: &str| env::var(variable).ok().map(|text| printable(&text));
        let receipt = number.map(|receipt| Receipt {
            format: FORMAT,
            receipt,
            verb: self.verb.to_owned(),
            deployment: named("DEPLOYMENT_ID"),
            group: named("DEPLOYMENT_GROUP_NAME"),
            from: self.from,
            to: to.clone(),
            label: store.release(to).map(|release| release.manifest.label).unwrap_or_default(),
            time: self.time,
            took_ms: self.began.elapsed().as_millis() as u64,
            steps: self.progress.end(),
            ready_ms: self.ready_ms,
            retired: self.retired,
            probe: self.prober.and_then(Prober::end),
            outcome,
            reason: result.as_ref().err().map(|error| first_line(&error.to_string())).or(self.reason),
            superseded_by: None,
            validation: None,
        });
        match receipt.and_then(|receipt| file(store, &receipt).map(|()| receipt.receipt)) {
            Ok(number) => result.map_err(|error| error.with_receipt(number)),
            Err(error) => {
                say(&format!("no receipt: {error}"));
                result
            }
        }
    }
}

fn file(store: &Locked, receipt: &Receipt) -> Result<()> {
    append(store, receipt)?;
    publish(store, receipt);
    if receipt.has_flipped() && receipt.is_of_a_deployment() {
        supersede(store, receipt)?;
    }
    Ok(())
}

/// Closes what this deployment has taken the place of, before it was validated. What a boot or a way back has replaced is left
/// to the `validate` that may be watching it.
fn supersede(store: &Locked, by: &Receipt) -> Result<()> {
    let (receipts, _) = read_last(store, RECENT)?;
    let records = store.records_after(receipts.first().map_or(0, |receipt| receipt.receipt.saturating_sub(1)))?;
    for mut receipt in receipts {
        if receipt.is_open() && receipt.is_of_a_deployment() && receipt.receipt < by.receipt {
            // One that has died before that failed.
            let died = trail::failure_after(receipt.receipt, &records).map(str::to_owned);
            let outcome = if died.is_some() { Outcome::Failed } else { Outcome::Superseded };
            let place = Some(by.to.clone());
            let mut closing = Closing::begin(None).close(store, &receipt, outcome, died.as_deref(), place);
            closing.steps.clear();
            append(store, &closing)?;
            receipt.close(closing);
            publish(store, &receipt);
        }
    }
    Ok(())
}

fn first_line(text: &str) -> String {
    printable(text.lines().next().unwrap_or_default())
}

/// A validation that is under way.
#[derive(Debug)]
pub struct Closing {
    time: f64,
    began: Instant,
    prober: Option<Prober>,
    pub(crate) progress: Progress,
    receipt: Option<Receipt>,
}

impl Closing {
    /// Begins it.
    pub fn begin(prober: Option<Prober>) -> Self {
        Self {
            time: store::now_precisely(),
            began: Instant::now(),
            prober,
            progress: Progress::begin("validate", "answer"),
            receipt: None,
        }
    }

    /// Finds the receipt of the activation that made `id` current.
    pub fn look(&mut self, store: &Store, id: &ReleaseId) {
        match history::gather(store, RECENT) {
            Ok((receipts, _)) => {
                let is_of_it = |receipt: &Receipt| receipt.to == *id && receipt.is_of_a_deployment();
                let newest = receipts.into_iter().rev().find(is_of_it).filter(Receipt::is_open);
                let number = |receipt: &Option<Receipt>| receipt.as_ref().map(|receipt| receipt.receipt);
                if number(&newest) != number(&self.receipt) {
                    self.receipt = newest;
                }
            }
            Err(error) => say(&format!("no receipt: {error}")),
        }
        self.hear(store);
    }

    /// Hears what those say that retired: whoever activates next removes the files of those that have ended.
    pub fn hear(&mut self, store: &Store) {
        for retired in self.receipt.iter_mut().flat_map(|receipt| &mut receipt.retired) {
            *retired = retired.now(store);
        }
    }

    /// Closes the receipt that was found, and returns its number.
    pub fn end(mut self, store: &Locked, id: &ReleaseId, outcome: Outcome, reason: Option<&str>) -> Option<u64> {
        let mut receipt = self.receipt.take()?;
        let number = receipt.receipt;
        let current = store.named_by(Link::Current).filter(|current| current != id && outcome != Outcome::Validated);
        let is_missing = receipt.outcome == Outcome::Missing;
        let closing = self.close(store, &receipt, outcome, reason, current);
        // What a killed verb did not write is written now.
        let written = if is_missing { append(store, &receipt) } else { Ok(()) };
        match written.and_then(|()| append(store, &closing)) {
            Ok(()) => {
                receipt.close(closing);
                publish(store, &receipt);
                Some(number)
            }
            Err(error) => {
                say(&format!("no receipt: {error}"));
                None
            }
        }
    }

    fn close(
        self,
        store: &Locked,
        receipt: &Receipt,
        outcome: Outcome,
        reason: Option<&str>,
        superseded_by: Option<ReleaseId>,
    ) -> Validation {
        let ended = receipt.time + receipt.took_ms as f64 / 1000.0;
        Validation {
            format: FORMAT,
            closes: receipt.receipt,
            time: self.time,
            took_ms: self.began.elapsed().as_millis() as u64,
            steps: self.progress.end(),
            retired: receipt.retired.iter().map(|retired| retired.now(store)).collect(),
            probe: self.prober.and_then(Prober::end),
            uncovered_ms: Duration::try_from_secs_f64(self.time - ended).unwrap_or_default().as_millis() as u64,
            outcome,
            reason: reason.map(first_line),
            superseded_by,
        }
    }
}

fn append(store: &Locked, line: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(line).unwrap_or_default();
    store.host().append_line(&store.path(FILE), &text)
}

/// Tells the journal, and whoever asked to be told.
fn publish(store: &Locked, receipt: &Receipt) {
    if !store.host().is_live() {
        return;
    }
    let priority = if receipt.outcome == Outcome::Failed { 4 } else { 6 };
    let text = receipt.line();
    effect::log(&format!(
        "MESSAGE={text}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=releasectl\nAPP_RECEIPT={}\n",
        receipt.receipt
    ));
    if !receipt.is_open() {
        notify::notify(store.host(), receipt);
    }
}

/// The last `count` receipts, in the order in which they were written, and whether there are no more.
///
/// # Errors
/// Where the log cannot be read.
pub fn read_last(store: &Store, count: usize) -> Result<(Vec<Receipt>, bool)> {
    let path = store.path(FILE);
    let read = |most| read_end(&path, most).map_err(Error::disk("read", &path));
    let (bytes, is_whole) = read(TAIL)?;
    let receipts = parse(&bytes, count);
    if receipts.len() == count || is_whole {
        let is_all = is_whole && receipts.len() < count;
        return Ok((receipts, is_all));
    }
    let receipts = parse(&read(u64::MAX)?.0, count);
    let is_all = receipts.len() < count;
    Ok((receipts, is_all))
}

/// The whole lines among the last bytes of a file, and whether that is all of it. One that is not there is empty.
fn read_end(path: &Path, most: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), true)),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if length <= most {
        return Ok((bytes, true));
    }
    let start = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
    Ok((bytes.split_off(start), false))
}

/// The highest number that was used.
pub fn highest(store: &Store) -> Result<u64> {
    Ok(read_last(store, usize::MAX)?.0.iter().map(|receipt| receipt.receipt).max().unwrap_or(0))
}

/// From the end, since nobody asks for all of it. A line that is torn, damaged or of a later format costs only itself.
fn parse(bytes: &[u8], count: usize) -> Vec<Receipt> {
    let (mut receipts, mut closings): (Vec<Receipt>, BTreeMap<u64, Validation>) = Default::default();
    for line in bytes.rsplit(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Line::Activation(receipt)) if receipt.format == FORMAT => {
                let mut receipt = *receipt;
                if let Some(validation) = closings.remove(&receipt.receipt) {
                    receipt.close(validation);
                }
                receipts.push(receipt);
                if receipts.len() == count {
                    break;
                }
            }
            Ok(Line::Validation(validation)) if validation.format == FORMAT => {
                closings.entry(validation.closes).or_insert(*validation);
            }
            _ => {}
        }
    }
    receipts.reverse();
    receipts
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

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
    fn a_line_that_is_torn_damaged_or_of_a_later_format_costs_only_itself() {
        let (_root, store) = store();
        let (one, two) = (receipt(1, "activate", 'a', Outcome::Activated), receipt(2, "restart", 'a', Outcome::Done));
        let three = receipt(9, "activate", 'b', Outcome::Activated);
        let lines = [
            json(&one),
            json(&receipt(3, "activate", 'c', Outcome::Done))[..200].to_owned(),
            json(&closing(1, Outcome::Validated)),
            json(&receipt(4, "activate", 'c', Outcome::Done)).replace("\"receipt\":4", "\"receipt\":\u{1}4"),
            json(&two),
            json(&receipt(5, "activate", 'c', Outcome::Done)).replace("\"format\":1", "\"format\":2"),
            "\u{0}\u{0}\u{0}".to_owned(),
            json(&three),
            json(&closing(9, Outcome::Validated)).replace("\"format\":1", "\"format\":2"),
        ];
        write(&store, &lines);
        let (read, is_all) = read_last(&store, 10).unwrap();
        let outcomes: Vec<_> = read.iter().map(|receipt| (receipt.receipt, receipt.outcome)).collect();
        assert_eq!(outcomes, [(1, Outcome::Validated), (2, Outcome::Done), (9, Outcome::Activated)]);
        assert!(is_all);
    }

    #[test]
    fn fields_and_words_of_the_future_are_read() {
        let (_root, store) = store();
        let line = json(&receipt(1, "teleport", 'a', Outcome::Done)).replace("\"done\"", "\"dreaming\"");
        write(&store, &[line.replacen('{', "{\"later\":[1],", 1)]);
        let (read, _) = read_last(&store, 1).unwrap();
        assert_eq!((read[0].verb.as_str(), read[0].outcome), ("teleport", Outcome::Unknown));
    }

    #[test]
    fn the_end_of_a_long_log_is_the_same_as_the_end_of_all_of_it() {
        let (_root, store) = store();
        let lines: Vec<String> = (1..=2_000).map(|n| json(&receipt(n, "activate", 'a', Outcome::Activated))).collect();
        write(&store, &lines);
        let numbers = |count| -> Vec<u64> {
            let (read, is_all) = read_last(&store, count).unwrap();
            assert_eq!(is_all, read.len() == 2_000 && count > 2_000, "{count}");
            read.iter().map(|receipt| receipt.receipt).collect()
        };
        assert_eq!(numbers(3), [1_998, 1_999, 2_000]);
        assert_eq!(numbers(1_999), (2..=2_000).collect::<Vec<_>>());
        assert_eq!(numbers(9_999), (1..=2_000).collect::<Vec<_>>());
        assert_eq!(highest(&store).unwrap(), 2_000);
    }

    #[test]
    fn a_receipt_is_closed_once_and_by_what_takes_its_place() {
        let (_root, store) = store();
        let locked = store.lock("test").unwrap();
        let end = |n, verb, to: char| {
            let mut draft = Draft::begin(verb, "lock");
            draft.instance = Some(Instance { n, release: id(to) });
            draft.end(&locked, &id(to), Ok(())).unwrap();
        };
        let validate = |to: char| {
            let mut closing = Closing::begin(None);
            closing.look(&locked, &id(to));
            closing.end(&locked, &id(to), Outcome::Validated, None)
        };
        end(1, "activate", 'a');
        // A restart is not what is validated.
        end(2, "restart", 'a');
        assert_eq!(validate('a'), Some(1));
        assert_eq!(validate('a'), None, "it is closed");
        end(3, "activate", 'b');
        end(4, "activate", 'c');
        assert_eq!(validate('b'), None, "another has its place");
        end(5, "return", 'a');
        assert_eq!(validate('c'), Some(4), "what goes back says itself why");
        let read = read_last(&store, 9).unwrap().0;
        let told: Vec<_> = read.iter().map(|receipt| (receipt.outcome, receipt.superseded_by.clone())).collect();
        let validated = (Outcome::Validated, None);
        let superseded = (Outcome::Superseded, Some(id('c')));
        assert_eq!(told, [validated.clone(), (Outcome::Done, None), superseded, validated, (Outcome::Done, None)]);
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
