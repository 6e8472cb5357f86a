//! The log of receipts: lines that are only ever added, and read from the end.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result, Store, effect, notify,
    receipt::{FORMAT, Outcome, Receipt, Validation},
    store::Locked,
};

pub(crate) const FILE: &str = "receipts.jsonl";
/// As much of the end of the log is read first; it mostly has what is asked for.
const TAIL: u64 = 256 << 10;

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Activation(Box<Receipt>),
    Validation(Box<Validation>),
}

/// Adds a line. It is not synced: no deployment waits for what only people read, and what a power cut takes is told as missing.
pub fn append(store: &Locked, line: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(line).unwrap_or_default();
    store.host().add_line(&store.path(FILE), &text).map(drop)
}

/// Tells the journal, and whoever asked to be told.
pub fn publish(store: &Locked, receipt: &Receipt) {
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
mod tests {
    use super::*;
    use crate::receipt::tests::{closing, json, receipt, store, write};

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
}
