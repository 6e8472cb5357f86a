//! What happened: the receipts, for people as a table and one by one, for programs as JSON.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::{
    Error, Result, Store, ledger,
    progress::Step,
    receipt::{Outcome, Receipt, Retired},
    screen::{self, cut, printable},
    store::Link,
    trail::{self, By, Record},
};

/// How wide the bars of a timeline may be.
const BAR: u64 = 40;

/// The last `count` receipts, oldest first. What became current and has left none is among them; what nobody has closed, and
/// is current no more, has failed or was superseded.
///
/// # Errors
/// Where the logs cannot be read.
pub fn history(store: &Store, count: usize) -> Result<Vec<Receipt>> {
    let (mut receipts, records) = gather(store, count)?;
    conclude(&mut receipts, &records);
    Ok(receipts)
}

/// The same as they were written, and what the log of activations says since the oldest of them.
pub(crate) fn gather(store: &Store, count: usize) -> Result<(Vec<Receipt>, Vec<Record>)> {
    // One that went back by itself stands before the one that made it: of two lines, the higher number is known to be there.
    let (mut receipts, is_all) = ledger::read_last(store, count.saturating_add(2))?;
    let first_lines = receipts.iter().take(2).map(|receipt| receipt.receipt);
    let oldest = if is_all { 0 } else { first_lines.max().unwrap_or(0) };
    let known: BTreeSet<u64> = receipts.iter().map(|receipt| receipt.receipt).collect();
    let records = store.records_after(oldest)?;
    let current = store.named_by(Link::Current);
    for record in trail::flips(current.as_ref(), &records) {
        if let Record::Activation { n, release, from, by, time } = record
            && !known.contains(n)
        {
            let verb = if *by == By::Rollback { "rollback" } else { "activate" };
            let mut missing = Receipt::missing(*n, verb, from.clone(), release.clone(), *time);
            missing.label = store.release(release).map(|release| release.manifest.label).unwrap_or_default();
            receipts.push(missing);
        }
    }
    receipts.sort_by_key(|receipt| receipt.receipt);
    let first = receipts.len().saturating_sub(count);
    Ok((receipts.split_off(first), records))
}

fn conclude(receipts: &mut [Receipt], records: &[Record]) {
    for at in 0..receipts.len() {
        let (before, after) = receipts.split_at_mut(at + 1);
        let receipt = &mut before[at];
        let takes_its_place =
            |later: &&Receipt| later.has_flipped() && (later.to != receipt.to || later.is_of_a_deployment());
        if !receipt.is_open() || !receipt.is_of_a_deployment() {
            continue;
        }
        let Some(later) = after.iter().find(takes_its_place) else { continue };
        (receipt.outcome, receipt.superseded_by) = (Outcome::Superseded, Some(later.to.clone()));
        if let Some(reason) = trail::failure_after(receipt.receipt, records) {
            (receipt.outcome, receipt.reason) = (Outcome::Failed, Some(reason.to_owned()));
        }
    }
}

/// One receipt.
///
/// # Errors
/// [`Error::NoReceipt`].
pub fn find(store: &Store, number: u64) -> Result<Receipt> {
    // Mostly a late one is asked for.
    for count in [100, usize::MAX] {
        if let Some(receipt) = history(store, count)?.into_iter().find(|receipt| receipt.receipt == number) {
            return Ok(receipt);
        }
    }
    Err(Error::NoReceipt(number))
}

/// The receipts for a person, on a screen of so many columns.
pub fn render_history(receipts: &[Receipt], columns: usize) -> String {
    if receipts.is_empty() {
        return "nothing has been activated since receipts are kept".to_owned();
    }
    let is_wide = columns >= 150;
    let mut header = vec!["#", "WHEN (UTC)", "WHAT", "TO", "OUTCOME", "LABEL"];
    if is_wide {
        header.extend(["FROM", "READY MS", "HANDED OVER", "DRAINED", "CUT", "PROBES FAILED", "GAP MS"]);
    }
    let rows = receipts.iter().map(|receipt| row(receipt, is_wide)).collect();
    screen::fitted(&header, rows, LABEL, columns)
}

/// The column that may be cut.
const LABEL: usize = 5;

fn row(receipt: &Receipt, is_wide: bool) -> Vec<String> {
    let when = when(receipt.time);
    // The year is left out where there is no room.
    let when = if is_wide { when } else { when.get(5..).unwrap_or_default().to_owned() };
    let (number, outcome) = (receipt.receipt.to_string(), receipt.outcome.to_string());
    let mut row = vec![number, when, cut(&receipt.verb, 10), receipt.to.to_string(), outcome, receipt.label.clone()];
    if is_wide {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let Retired { handed_over, drained, cut, .. } = receipt.connections();
        row.push(or_none(receipt.from.as_ref().map(ToString::to_string)));
        row.push(or_none(receipt.ready_ms.map(|ms| ms.to_string())));
        row.extend([handed_over, drained, cut].map(|count| count.to_string()));
        let probe = receipt.probed();
        row.push(or_none(probe.as_ref().map(|probe| format!("{} of {}", probe.failed, probe.asked))));
        row.push(or_none(probe.map(|probe| probe.gap_ms.to_string())));
    }
    row
}

/// One receipt for a person: what was done when, and what came of it.
pub fn render_receipt(receipt: &Receipt, columns: usize) -> String {
    let mut lines = vec![format!("receipt {}: {}, {} UTC", receipt.receipt, receipt.verb, when(receipt.time))];
    if let Some(deployment) = &receipt.deployment {
        let group =
            receipt.group.as_deref().map(|group| format!(" of group {}", cut(group, columns.saturating_sub(40))));
        let group = group.unwrap_or_default();
        lines.push(field("deployment", &format!("{deployment}{group}")));
    }
    lines.push(field("from", &receipt.from.as_ref().map_or("nothing".to_owned(), ToString::to_string)));
    lines.push(field("to", &format!("{} ({})", receipt.to, cut(&receipt.label, columns.saturating_sub(35)))));
    let by = receipt.superseded_by.as_ref().map(|id| match receipt.outcome {
        Outcome::Superseded => format!(" by {id}"),
        _ => format!("; {id} has its place"),
    });
    let by = by.unwrap_or_default();
    lines.push(field("outcome", &format!("{}{by}", receipt.outcome)));
    lines.extend(receipt.reason.as_ref().map(|reason| field("reason", &printable(reason))));
    let Retired { handed_over, drained, cut, open, in_flight, .. } = receipt.connections();
    if !receipt.retired.is_empty() {
        lines.push(field("connections", &format!("{handed_over} handed over, {drained} drained, {cut} cut")));
        let at = if receipt.validation.is_some() { "validate" } else { &receipt.verb };
        let open = format!("{open} open, {in_flight} requests in flight, when {at} returned");
        lines.push(field("still", &open));
    }
    if let Some(probe) = receipt.probed() {
        let first = probe.reason.as_ref().map(|reason| format!("; the first: {reason}")).unwrap_or_default();
        let seen = format!("{} of {} failed{first}; longest gap {} ms", probe.failed, probe.asked, probe.gap_ms);
        lines.push(field("probes", &seen));
    }
    lines.extend(timeline(receipt));
    lines.iter().map(|line| screen::wrap(line, columns, 13)).collect::<Vec<_>>().join("\n")
}

/// Each step with a bar that says when it was, one scale a verb.
fn timeline(receipt: &Receipt) -> Vec<String> {
    let mut lines = verb(&receipt.verb, receipt.took_ms, &receipt.steps);
    if let Some(validation) = receipt.validation.as_ref().filter(|validation| !validation.steps.is_empty()) {
        lines.push(format!("\n{} ms, nobody probed", validation.uncovered_ms));
        lines.extend(verb("validate", validation.took_ms, &validation.steps));
    }
    lines
}

fn verb(name: &str, took_ms: u64, steps: &[Step]) -> Vec<String> {
    if steps.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!("\n{name}, {took_ms} ms")];
    let (total, mut since) = (took_ms.max(1), 0);
    for step in steps {
        let (from, to) = ((since * BAR / total).min(BAR - 1), ((since + step.ms) * BAR / total).min(BAR));
        let bar = format!("{}{}", " ".repeat(from as usize), "#".repeat(to.saturating_sub(from).max(1) as usize));
        lines.push(format!("  {:<12}{:>8} ms  {bar}", step.name, step.ms));
        since += step.ms;
    }
    lines
}

fn field(name: &str, value: &str) -> String {
    format!("{name:<13}{value}")
}

/// A moment, to the second.
fn when(time: f64) -> String {
    let moment = Timestamp::from_second(time as i64).unwrap_or(Timestamp::UNIX_EPOCH).to_string();
    moment.replace('T', " ").trim_end_matches('Z').to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::receipt::tests::{closing, id, json, receipt, store, write};
    use crate::screen::tests::{odd, screens};

    /// `n from by to` in each line, oldest first.
    fn log(store: &Store, activations: &[(u64, char, By, char)]) {
        let record = |(n, from, by, to): &(u64, char, By, char)| Record::Activation {
            n: *n,
            release: id(*to),
            from: (*from != '.').then(|| id(*from)),
            by: *by,
            time: 1_790_000_000 + n,
        };
        let lines: String = activations.iter().map(|line| json(&record(line)) + "\n").collect();
        fs::write(store.path("activations.jsonl"), lines).unwrap();
    }

    fn make_current(store: &Store, letter: char) {
        fs::create_dir_all(store.folder(&id(letter))).unwrap();
        std::os::unix::fs::symlink(format!("releases/{}", id(letter)), store.path("current")).unwrap();
    }

    fn outcomes(receipts: &[Receipt]) -> Vec<(u64, Outcome)> {
        receipts.iter().map(|receipt| (receipt.receipt, receipt.outcome)).collect()
    }

    #[test]
    fn what_became_current_without_a_receipt_is_told_and_what_did_not_is_not() {
        let (_root, store) = store();
        make_current(&store, 'c');
        // 2 was logged and never flipped; 3 was killed before it could say more.
        log(&store, &[(1, '.', By::Activate, 'a'), (2, 'a', By::Activate, 'b'), (3, 'a', By::Activate, 'c')]);
        write(&store, &[json(&receipt(1, "activate", 'a', Outcome::Activated)), json(&closing(1, Outcome::Validated))]);
        let told = history(&store, 20).unwrap();
        assert_eq!(outcomes(&told), [(1, Outcome::Validated), (3, Outcome::Missing)]);
        assert_eq!((&told[1].from, &told[1].to), (&Some(id('a')), &id('c')));
    }

    #[test]
    fn what_went_back_stands_before_what_made_it_and_neither_is_missing_at_the_edge() {
        let (_root, store) = store();
        make_current(&store, 'a');
        let activations = [
            (1, '.', By::Activate, 'a'),
            (2, 'a', By::Activate, 'b'),
            (3, 'b', By::Rollback, 'a'),
            (4, 'a', By::Activate, 'a'),
            (5, 'a', By::Activate, 'a'),
        ];
        log(&store, &activations);
        let lines = [
            receipt(1, "activate", 'a', Outcome::Done),
            receipt(3, "return", 'a', Outcome::Done),
            receipt(2, "activate", 'b', Outcome::Failed),
            receipt(4, "restart", 'a', Outcome::Done),
            receipt(5, "restart", 'a', Outcome::Done),
        ];
        write(&store, &lines.map(|line| json(&line)));
        for count in 1..=6_u64 {
            let told = history(&store, count as usize).unwrap();
            let numbers: Vec<u64> = told.iter().map(|receipt| receipt.receipt).collect();
            let first = 6_u64.saturating_sub(count.min(5));
            assert_eq!(numbers, (first..=5).collect::<Vec<u64>>());
            assert!(told.iter().all(|receipt| receipt.outcome != Outcome::Missing), "{count}: {told:?}");
        }
    }

    #[test]
    fn what_nobody_closed_has_failed_as_the_log_says_or_was_superseded() {
        let (_root, store) = store();
        make_current(&store, 'a');
        log(&store, &[(1, '.', By::Activate, 'a'), (2, 'a', By::Activate, 'b'), (3, 'b', By::Activate, 'c')]);
        let log = store.path("activations.jsonl");
        let died = Record::Failure { failed: id('c'), reason: "its instance ended".to_owned(), time: 9 };
        let back = Record::Activation { n: 4, release: id('a'), from: Some(id('c')), by: By::Rollback, time: 9 };
        fs::write(&log, format!("{}{}\n{}\n", fs::read_to_string(&log).unwrap(), json(&died), json(&back))).unwrap();
        let activated = |n, to| json(&receipt(n, "activate", to, Outcome::Activated));
        let boot = json(&receipt(4, "boot", 'a', Outcome::Done));
        write(&store, &[activated(1, 'a'), activated(2, 'b'), activated(3, 'c'), boot]);
        let told = history(&store, 20).unwrap();
        let wanted = [(1, Outcome::Superseded), (2, Outcome::Superseded), (3, Outcome::Failed), (4, Outcome::Done)];
        assert_eq!(outcomes(&told), wanted);
        assert_eq!(told[1].superseded_by, Some(id('c')));
        assert_eq!(told[2].reason.as_deref(), Some("its instance ended"));
        assert_eq!(find(&store, 3).unwrap(), told[2]);
        assert!(matches!(find(&store, 7), Err(Error::NoReceipt(7))));
    }

    fn some() -> Vec<Receipt> {
        let mut failed = receipt(8, "activate", 'b', Outcome::Activated);
        (failed.label, failed.deployment) = (odd(300), Some("d-ABCDEFGHI".to_owned()));
        failed.group = Some(odd(100));
        failed.validation = Some(closing(8, Outcome::Failed));
        failed.superseded_by = Some(id('a'));
        (failed.outcome, failed.reason) = (Outcome::Failed, Some(odd(300)));
        let mut first = Receipt::missing(1, "activate", None, id('a'), 1_790_000_000);
        first.label = "the first".to_owned();
        vec![first, receipt(7, "rollback", 'a', Outcome::Superseded), failed, receipt(9, "return", 'a', Outcome::Done)]
    }

    #[test]
    fn the_history_stays_readable() {
        insta::assert_snapshot!(screens(|columns| render_history(&some(), columns)));
    }

    #[test]
    fn a_receipt_stays_readable() {
        insta::assert_snapshot!(screens(|columns| render_receipt(&some()[2], columns)));
    }
}
