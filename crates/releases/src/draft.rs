//! A receipt of an activation that is under way.

use std::{env, time::Instant};

use crate::{
    ReleaseId, Result,
    closing::Closing,
    instance::Instance,
    ledger,
    probe::Address,
    prober::{Hold, Prober},
    progress::Progress,
    receipt::{FORMAT, Outcome, Receipt, Retired},
    screen::{printable, say},
    store::{self, Link, Locked},
    trail,
};

/// How far back a receipt may be that is still to be closed.
pub(crate) const RECENT: usize = 32;

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

    /// Where the prober asks.
    pub fn probed_at(&self) -> Option<Address> {
        self.prober.as_ref()?.address()
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
    ledger::append(store, receipt)?;
    ledger::publish(store, receipt);
    if receipt.has_flipped() && receipt.is_of_a_deployment() {
        supersede(store, receipt)?;
    }
    Ok(())
}

/// Closes what this deployment has taken the place of, before it was validated. What a boot or a way back has replaced is left
/// to the `validate` that may be watching it.
fn supersede(store: &Locked, by: &Receipt) -> Result<()> {
    let (receipts, _) = ledger::read_last(store, RECENT)?;
    let records = store.records_after(receipts.first().map_or(0, |receipt| receipt.receipt.saturating_sub(1)))?;
    for mut receipt in receipts {
        if receipt.is_open() && receipt.is_of_a_deployment() && receipt.receipt < by.receipt {
            // One that has died before that failed.
            let died = trail::failure_after(receipt.receipt, &records).map(str::to_owned);
            let outcome = if died.is_some() { Outcome::Failed } else { Outcome::Superseded };
            let place = Some(by.to.clone());
            let mut closing = Closing::begin(None).close(store, &receipt, outcome, died.as_deref(), place);
            closing.steps.clear();
            ledger::append(store, &closing)?;
            receipt.close(closing);
            ledger::publish(store, &receipt);
        }
    }
    Ok(())
}

/// The first line of an error, for people.
pub fn first_line(text: &str) -> String {
    printable(text.lines().next().unwrap_or_default())
}
