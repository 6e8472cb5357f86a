//! The log of activations, and the way back that follows from it.

use std::{fs, path::Path};

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
    /// The release passed `validate`.
    Validation {
        /// Which.
        validated: ReleaseId,
        /// Seconds since the epoch.
        time: u64,
    },
}

impl Record {
    /// The release of an activation.
    pub fn activated(&self) -> Option<&ReleaseId> {
        match self {
            Self::Activation { release, .. } => Some(release),
            Self::Validation { .. } => None,
        }
    }
}

/// Reads the log. A line that is torn, damaged or of a later format costs only itself.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    match fs::read(path) {
        Ok(bytes) => {
            Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::disk("read", path)(error)),
    }
}

/// The releases that lead to `current`, oldest first, without `current` itself, no two neighbours the same.
///
/// A deployment adds what it replaced. A rollback goes back to where its release last stood, so that the next one goes
/// further back and not forward again.
pub fn before(current: &ReleaseId, records: &[Record]) -> Vec<ReleaseId> {
    let mut trail: Vec<ReleaseId> = Vec::new();
    for (release, by) in flipped(current, records) {
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

/// The releases that have passed `validate` at least once.
pub fn has_passed(release: &ReleaseId, records: &[Record]) -> bool {
    records.iter().any(|record| matches!(record, Record::Validation { validated, .. } if validated == release))
}

/// The highest instance number that the log knows.
pub fn highest_n(records: &[Record]) -> u64 {
    let n = |record: &Record| if let Record::Activation { n, .. } = record { Some(*n) } else { None };
    records.iter().filter_map(n).max().unwrap_or(0)
}

/// The activations that did flip `current`.
fn flipped<'a>(current: &'a ReleaseId, records: &'a [Record]) -> Vec<(&'a ReleaseId, By)> {
    let activations = records.iter().filter_map(|record| match record {
        Record::Activation { release, from, by, .. } => Some((release, from.as_ref(), *by)),
        Record::Validation { .. } => None,
    });
    let activations: Vec<_> = activations.collect();
    let current_after = |at: usize| activations.get(at + 1).map_or(Some(current), |(_, from, _)| *from);
    let flipped = activations.iter().enumerate().filter(|(at, (release, _, _))| current_after(*at) == Some(*release));
    flipped.map(|(_, (release, _, by))| (*release, *by)).collect()
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

    #[test]
    fn a_torn_line_and_a_line_of_the_future_cost_only_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let good = serde_json::to_string(&log(".+a")[0]).unwrap();
        fs::write(&path, format!("{good}\n{{\"n\":2,\"rel\n{{\"format\":9,\"new\":1}}\n\u{0}\u{0}\n{good}\n")).unwrap();
        assert_eq!(read(&path).unwrap().len(), 2);
    }
}
