//! What closes a receipt: a validation that is under way, or what takes its place before.

use std::time::{Duration, Instant};

use crate::{
    ReleaseId, Store,
    draft::{RECENT, first_line},
    history, ledger,
    prober::Prober,
    progress::Progress,
    receipt::{FORMAT, Outcome, Receipt, Validation},
    screen::say,
    store::{self, Link, Locked},
};

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
        let written = if is_missing { ledger::append(store, &receipt) } else { Ok(()) };
        match written.and_then(|()| ledger::append(store, &closing)) {
            Ok(()) => {
                receipt.close(closing);
                ledger::publish(store, &receipt);
                Some(number)
            }
            Err(error) => {
                say(&format!("no receipt: {error}"));
                None
            }
        }
    }

    pub(crate) fn close(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        draft::Draft,
        instance::Instance,
        ledger::read_last,
        receipt::tests::{id, store},
    };

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
}
