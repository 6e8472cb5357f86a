//! The log of activations, and the way back that follows from it.

use std::{collections::BTreeSet, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Error, ReleaseId, Result};

/// Why an activation was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A deployment: it goes on from what was current.
    Activate,
    /// A rollback: it goes back along the trail.
    Rollback,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Record {
    /// Written before the symlink is flipped. Whether it was flipped follows from the next record's `from`, or from
    /// `current` for the last one, so that a crash on either side of the flip is told apart.
    Activation {
        /// The instance that was started.
        n: u64,
        /// What was to become current.
        release: ReleaseId,
        /// What was current.
        from: Option<ReleaseId>,
        /// Why.
        by: By,
        /// Seconds since the epoch.
        time: u64,
    },
    /// The release passed `validate`: whatever failed before, it is good now.
    Validation {
        /// Which.
        validated: ReleaseId,
        /// Seconds since the epoch.
        time: u64,
    },
    /// The release did not become ready, or did not hold until it was validated.
    Failure {
        /// Which.
        failed: ReleaseId,
        /// In one line.
        reason: String,
        /// Seconds since the epoch.
        time: u64,
    },
    /// The release was installed, or again where it was already.
    Installation {
        /// Which.
        installed: ReleaseId,
        /// Seconds since the epoch.
        time: u64,
    },
    /// The release is kept until it is unpinned.
    Pin {
        /// Which.
        pinned: ReleaseId,
        /// Seconds since the epoch.
        time: u64,
    },
    /// It is not any more.
    Unpin {
        /// Which.
        unpinned: ReleaseId,
        /// Seconds since the epoch.
        time: u64,
    },
}

/// In seconds.
const AN_HOUR: u64 = 3600;

/// What the log says of a release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// It has passed `validate` at least once.
    pub passed: bool,
    /// Why it failed, where it has not passed since: a bare `rollback` never chooses it, and it is not kept.
    pub bad: Option<String>,
    /// It is kept.
    pub pinned: bool,
}

impl Marks {
    /// Those of `release`.
    pub fn of(release: &ReleaseId, records: &[Record]) -> Self {
        let mut marks = Self::default();
        for record in records {
            match record {
                Record::Validation { validated, .. } if validated == release => {
                    (marks.passed, marks.bad) = (true, None);
                }
                Record::Failure { failed, reason, .. } if failed == release => marks.bad = Some(reason.clone()),
                Record::Pin { pinned, .. } if pinned == release => marks.pinned = true,
                Record::Unpin { unpinned, .. } if unpinned == release => marks.pinned = false,
                _ => {}
            }
        }
        marks
    }

    /// Whether one may go back to it unasked.
    pub fn are_good(&self) -> bool {
        self.passed && self.bad.is_none()
    }
}

impl Record {
    /// When it was written, in seconds since the epoch.
    pub fn time(&self) -> u64 {
        match self {
            Self::Activation { time, .. }
            | Self::Validation { time, .. }
            | Self::Failure { time, .. }
            | Self::Installation { time, .. }
            | Self::Pin { time, .. }
            | Self::Unpin { time, .. } => *time,
        }
    }

    /// The release of a validation.
    pub fn validated(&self) -> Option<&ReleaseId> {
        match self {
            Self::Validation { validated, .. } => Some(validated),
            _ => None,
        }
    }

    /// The release of an installation.
    pub fn installed(&self) -> Option<&ReleaseId> {
        match self {
            Self::Installation { installed, .. } => Some(installed),
            _ => None,
        }
    }

    /// The release of an activation.
    pub fn activated(&self) -> Option<&ReleaseId> {
        match self {
            Self::Activation { release, .. } => Some(release),
            _ => None,
        }
    }
}

/// Reads the log. A line that is torn, damaged or of a later format costs only itself.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = bytes_of(path)?;
    Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// What was logged after the activation of instance `n`, without reading further back.
pub fn read_after(path: &Path, n: u64) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for line in bytes_of(path)?.rsplit(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Record::Activation { n: this, .. }) if this <= n => break,
            Ok(record) => records.push(record),
            Err(_) => {}
        }
    }
    records.reverse();
    Ok(records)
}

/// Of a log that is not there, none.
fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(Error::disk("read", path)),
    }
}

/// The releases that lead to `current`, oldest first, without `current` itself, no two neighbours the same.
///
/// A deployment adds what it replaced. A rollback goes back to where its release last stood, so that the next one goes
/// further back and not forward again.
pub fn before(current: &ReleaseId, records: &[Record]) -> Vec<ReleaseId> {
    let mut trail: Vec<ReleaseId> = Vec::new();
    for record in flips(Some(current), records) {
        let Record::Activation { release, by, .. } = record else { continue };
        let stands = trail.iter().rposition(|earlier| earlier == release);
        match (by, stands) {
            (By::Rollback, Some(at)) => trail.truncate(at + 1),
            _ if trail.last() == Some(release) => {}
            _ => trail.push(release.clone()),
        }
    }
    trail.pop_if(|last| last == current);
    trail
}

/// Where one may go back to from `current`, the nearest first.
pub fn ways_back(current: &ReleaseId, records: &[Record]) -> impl Iterator<Item = ReleaseId> {
    let before = before(current, records).into_iter().rev();
    before.filter(move |id| id != current && Marks::of(id, records).are_good())
}

/// Why a release has failed since it was last activated, if it has.
pub fn failure_since_activation<'a>(release: &ReleaseId, records: &'a [Record]) -> Option<&'a str> {
    let since = records.iter().rposition(|record| record.activated() == Some(release)).unwrap_or(0);
    records[since..].iter().find_map(|record| match record {
        Record::Failure { failed, reason, .. } if failed == release => Some(reason.as_str()),
        _ => None,
    })
}

/// The good releases that were validated last, `count` at most, and those whose deployment may be under way: installed since
/// the last validation, or within the hour that an agent gives a deployment, and neither validated nor failed since then.
pub fn to_keep(count: usize, records: &[Record], now: u64) -> BTreeSet<ReleaseId> {
    let (mut newest, mut ended, mut kept) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut is_since_the_last = true;
    for record in records.iter().rev() {
        match record {
            Record::Validation { validated, .. } => {
                if newest.len() < count && !newest.contains(validated) && Marks::of(validated, records).are_good() {
                    newest.push(validated.clone());
                }
                ended.insert(validated);
                is_since_the_last = false;
            }
            Record::Failure { failed, .. } => drop(ended.insert(failed)),
            Record::Installation { installed, time } => {
                let is_recent = now.saturating_sub(*time) < AN_HOUR && !ended.contains(installed);
                if is_since_the_last || is_recent {
                    kept.insert(installed.clone());
                }
            }
            _ => {}
        }
    }
    kept.extend(newest);
    kept
}

/// Whether an activation asked for this instance; a boot's are not logged, unless it chooses another release.
pub fn is_activation(n: u64, records: &[Record]) -> bool {
    records.iter().any(|record| matches!(record, Record::Activation { n: asked, .. } if *asked == n))
}

/// The highest instance number that the log knows.
pub fn highest_n(records: &[Record]) -> u64 {
    let n = |record: &Record| if let Record::Activation { n, .. } = record { Some(*n) } else { None };
    records.iter().filter_map(n).max().unwrap_or(0)
}

/// The activations that did flip `current`, which is this now.
pub fn flips<'a>(current: Option<&'a ReleaseId>, records: &'a [Record]) -> Vec<&'a Record> {
    let mut current = current;
    let mut flips = Vec::new();
    for record in records.iter().rev() {
        if let Record::Activation { release, from, .. } = record {
            if current == Some(release) {
                flips.push(record);
            }
            current = from.as_ref();
        }
    }
    flips.reverse();
    flips
}

/// Why the release that an activation made current has failed before it was activated again, if it has.
pub fn failure_after(n: u64, records: &[Record]) -> Option<&str> {
    let is_it = |record: &Record| matches!(record, Record::Activation { n: this, .. } if *this == n);
    let at = records.iter().position(is_it)?;
    let release = records[at].activated()?;
    let again = records[at + 1..].iter().position(|record| record.activated() == Some(release));
    let until = again.map_or(records.len(), |again| at + 1 + again);
    failure_since_activation(release, &records[at..until])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: char) -> ReleaseId {
        letter.to_string().repeat(16).parse().unwrap()
    }

    /// Each word is `from`, `+` for a deployment or `-` for a rollback, and the release.
    fn log(words: &str) -> Vec<Record> {
        let record = |word: &str| {
            let letters: Vec<char> = word.chars().collect();
            let from = (letters[0] != '.').then(|| id(letters[0]));
            let by = if letters[1] == '+' { By::Activate } else { By::Rollback };
            Record::Activation { n: 1, release: id(letters[2]), from, by, time: 0 }
        };
        words.split_whitespace().map(record).collect()
    }

    fn before_is(current: char, words: &str) -> String {
        before(&id(current), &log(words)).iter().map(|release| &release.as_str()[..1]).collect()
    }

    #[test]
    fn each_deployment_adds_what_it_replaced() {
        assert_eq!(before_is('c', ".+a a+b b+c"), "ab");
    }

    #[test]
    fn a_rollback_goes_back_and_the_next_one_further() {
        assert_eq!(before_is('b', ".+a a+b b+c c-b"), "a");
        assert_eq!(before_is('a', ".+a a+b b+c c-b b-a"), "");
    }

    #[test]
    fn an_older_revision_that_is_deployed_again_leads_back_to_what_it_replaced() {
        assert_eq!(before_is('a', ".+a a+b b+c c+a"), "abc");
    }

    #[test]
    fn the_same_release_again_adds_nothing() {
        assert_eq!(before_is('b', ".+a a+b b+b b+b"), "a");
    }

    #[test]
    fn an_activation_that_never_flipped_leaves_no_trace() {
        assert_eq!(before_is('b', ".+a a+b b+c"), "a", "the last one failed");
        assert_eq!(before_is('d', ".+a a+b b+c b+d"), "ab", "one in the middle failed");
    }

    fn validated(letter: char) -> Record {
        Record::Validation { validated: id(letter), time: 0 }
    }

    fn failed(letter: char) -> Record {
        Record::Failure { failed: id(letter), reason: "died".to_owned(), time: 0 }
    }

    fn installed(letter: char, time: u64) -> Record {
        Record::Installation { installed: id(letter), time }
    }

    fn kept(count: usize, records: &[Record]) -> String {
        to_keep(count, records, 10_000).iter().map(|release| &release.as_str()[..1]).collect()
    }

    #[test]
    fn the_newest_good_ones_are_kept_and_what_was_installed_since() {
        let installed = |letter| installed(letter, 0);
        let mut records = vec![installed('a'), validated('a'), installed('b'), failed('b'), installed('c')];
        records.extend([validated('c'), validated('a'), validated('d')]);
        assert_eq!(kept(2, &records), "ad", "a was validated again after c");
        assert_eq!(kept(9, &records), "acd", "b has never passed");
        records.push(failed('d'));
        assert_eq!(kept(2, &records), "ac");
        records.push(installed('b'));
        assert_eq!(kept(1, &records), "ab", "a deployment of b may be under way");
        assert_eq!(kept(0, &records), "b");
        assert_eq!(kept(1, &[]), "");
    }

    #[test]
    fn a_deployment_that_is_overtaken_is_kept_for_an_hour_or_until_it_has_failed() {
        let mut records = vec![installed('a', 9_000), installed('b', 9_000), installed('c', 6_000), validated('d')];
        assert_eq!(kept(1, &records), "abd");
        records.extend([failed('b'), validated('d')]);
        assert_eq!(kept(1, &records), "ad");
    }

    #[test]
    fn a_failure_is_forgiven_by_a_validation_and_told_by_its_activation() {
        let marks = |records: &[Record]| Marks::of(&id('b'), records);
        let mut records = log(".+a a+b");
        records.extend([validated('b'), failed('b')]);
        assert_eq!((marks(&records).passed, marks(&records).are_good()), (true, false));
        assert_eq!(failure_since_activation(&id('b'), &records), Some("died"));
        records.extend(log("a+b"));
        assert_eq!(failure_since_activation(&id('b'), &records), None);
        assert!(!marks(&records).are_good());
        records.push(validated('b'));
        assert!(marks(&records).are_good());
    }

    #[test]
    fn a_pin_holds_until_it_is_taken_back() {
        let pin = Record::Pin { pinned: id('a'), time: 0 };
        let unpin = Record::Unpin { unpinned: id('a'), time: 0 };
        assert!(Marks::of(&id('a'), &[unpin.clone(), pin.clone()]).pinned);
        assert!(!Marks::of(&id('a'), &[pin, unpin]).pinned);
    }

    #[test]
    fn a_torn_line_and_a_line_of_the_future_cost_only_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let good = serde_json::to_string(&log(".+a")[0]).unwrap();
        fs::write(&path, format!("{good}\n{{\"n\":2,\"rel\n{{\"format\":9,\"new\":1}}\n\u{0}\u{0}\n{good}\n")).unwrap();
        assert_eq!(read(&path).unwrap().len(), 2);
    }
}
