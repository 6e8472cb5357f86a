//! Validate: the public socket answers with the release, and goes on to, or the one before is brought back.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    Error, ReleaseId, Result, Store,
    activate::{go_back, warn_of_socket, way_back},
    boot,
    closing::Closing,
    instance::Instance,
    probe::{self, Address},
    prober::Prober,
    prune::prune_within,
    receipt::Outcome,
    screen::{printable, say},
    store::{Link, Locked},
    switch,
    systemd::{self, Asked, Units},
    trail::{self, By},
    units,
    verified::Verified,
};

const IN_A_ROW: u32 = 10;
const LOG_LINES: u32 = 8;
const POLL: Duration = Duration::from_millis(20);
/// Between two questions while a release bakes.
const WATCH: Duration = Duration::from_millis(200);

/// What a release has to do to be validated.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// How long it may take to answer ten fresh connections in a row.
    pub within: Duration,
    /// How long it has to go on answering after that, its instance alive.
    pub bake: Duration,
    /// How many validated releases are kept when it has passed; `None` prunes nothing.
    pub keep: Option<usize>,
}

/// A release that has answered, and whose instance was up after that.
struct Held {
    /// How many fresh connections it answered.
    asked: u32,
    /// What is up, known under the lock.
    units: Units,
}

/// Asks until ten fresh connections in a row are answered by the current release, ready, and then for as long as it bakes;
/// then the release is validated.
///
/// Nothing is locked while it asks. Where another release became current meanwhile, this one is left as it is.
///
/// # Errors
/// [`Error::Release`] where it did not answer, or its instance died: then it is marked bad, and the last validated release
/// has been brought back, where it is another one.
pub fn validate(store: &Store, asked: Option<ReleaseId>, trial: Trial) -> Result<()> {
    systemd::require(store.host(), "validate")?;
    if !store.host().is_live() {
        return Err(Error::Offline("validate"));
    }
    let id = asked.map_or_else(|| store.current(), Ok)?;
    store.release(&id)?;
    let known = Units::ask(store.host());
    let address = listens(store);
    try_out(store, &id, trial, address, said(known.and_then(Asked::answer)))
}

/// The same where it is known already where the socket listens, and what is up.
pub(crate) fn try_out(
    store: &Store,
    id: &ReleaseId,
    trial: Trial,
    address: std::result::Result<Address, String>,
    mut known: std::result::Result<Units, String>,
) -> Result<()> {
    let mut closing = Closing::begin(address.as_ref().ok().map(Prober::at));
    closing.look(store, id);
    loop {
        let activated = trail::highest_n(&store.records()?);
        let watched = address
            .as_ref()
            .map_err(String::clone)
            .and_then(|at| watch(store, up(store, &known?, id)?, trial, at, &mut closing));
        closing.progress.step("settle");
        let locked = store.lock("validate")?;
        closing.look(&locked, id);
        let current = locked.current()?;
        if current != *id {
            return superseded(&locked, id, &current, closing);
        }
        // Both at once: whether it is up still, and what is to be put in order if it is.
        let boot = systemd::ask_whether_it_changed(store.host(), systemd::BOOT);
        let held = watched.and_then(|(asked, mut instance)| {
            let units = list(store)?;
            still_up(store, &units, &mut instance)?;
            Ok(Held { asked, units })
        });
        match held {
            Ok(held) => return pass(&locked, id, &held, boot?, trial.keep, closing),
            // It may have been another's fault, which was current for a moment.
            Err(reason) if trail::highest_n(&locked.records()?) != activated => {
                say(&format!("another activation came between ({reason}): asking again"));
                known = list(store);
            }
            Err(reason) => return Err(fail(&locked, id, &reason, closing)),
        }
    }
}

/// What was not answered is a reason why a release does not pass.
fn said<T>(answer: Result<T>) -> std::result::Result<T, String> {
    answer.map_err(|error| error.to_string())
}

fn list(store: &Store) -> std::result::Result<Units, String> {
    said(Units::list(store.host()))
}

pub(crate) fn listens(store: &Store) -> std::result::Result<Address, String> {
    let listen = said(systemd::property(store.host(), systemd::SOCKET, "Listen"))?;
    Address::parse(&listen).ok_or_else(|| format!("{} listens nowhere: {listen:?}", systemd::SOCKET))
}

/// Another release is current: by a newer deployment, or because this one died and a boot went back.
fn superseded(store: &Locked, id: &ReleaseId, current: &ReleaseId, closing: Closing) -> Result<()> {
    let records = store.records()?;
    let reason = trail::failure_since_activation(id, &records);
    closing.end(store, id, if reason.is_some() { Outcome::Failed } else { Outcome::Superseded }, reason);
    let Some(reason) = reason else {
        say(&format!("release {id} is superseded by {current}; it is not validated"));
        return Ok(());
    };
    let log = last_lines(store, id);
    Err(Error::Release(format!(
        "release {id} is not validated: {reason}; its last lines:\n{log}release {current} has taken its place; {}",
        switch::serving(store)
    )))
}

/// Its instance. One that came up since it was last known what is up is looked for once more.
fn up(store: &Store, known: &Units, id: &ReleaseId) -> std::result::Result<Instance, String> {
    if let Some(instance) = known.newest(id) {
        return Ok(instance.clone());
    }
    list(store)?.newest(id).cloned().ok_or_else(|| "no instance of it is up".to_owned())
}

/// Ten fresh connections in a row, and then one after the other while it bakes. Returns how many, and the instance that is to
/// be up still.
fn watch(
    store: &Store,
    mut instance: Instance,
    trial: Trial,
    address: &Address,
    closing: &mut Closing,
) -> std::result::Result<(u32, Instance), String> {
    let id = &instance.release.clone();
    let ask = || ask(store, id, address);
    let is_current = || store.named_by(Link::Current).as_ref() == Some(id);
    let (began, mut in_a_row) = (Instant::now(), 0);
    while in_a_row < IN_A_ROW {
        let Err(wrong) = ask() else {
            in_a_row += 1;
            continue;
        };
        in_a_row = 0;
        if !is_current() || began.elapsed() > trial.within {
            return Err(wrong);
        }
        still_up(store, &list(store)?, &mut instance).map_err(|ended| format!("{ended} ({wrong})"))?;
        thread::sleep(POLL);
    }
    if !trial.bake.is_zero() {
        closing.progress.step("bake");
        say(&format!("release {id} answers; it bakes for {} s", trial.bake.as_secs()));
    }
    let (until, mut asked) = (Instant::now() + trial.bake, in_a_row);
    while Instant::now() < until && is_current() {
        thread::sleep(WATCH.min(until.saturating_duration_since(Instant::now())));
        closing.hear(store);
        let answered = ask();
        // A death is the better reason: whoever answers by then is another.
        still_up(store, &list(store)?, &mut instance)?;
        answered?;
        asked += 1;
    }
    Ok((asked, instance))
}

/// A fresh connection: it is answered by that release, ready. An instance that was told to retire and answers all the same is
/// none of its faults, and is ended: until then no release would pass.
fn ask(store: &Store, id: &ReleaseId, address: &Address) -> std::result::Result<(), String> {
    loop {
        match probe::ask(address)? {
            release if release == id.as_str() => return Ok(()),
            other if !switch::end_who_goes_on(store, &other) => {
                return Err(format!("release {} answers", printable(&other)));
            }
            _ => {}
        }
    }
}

/// Fails where the instance has ended; one that was told to, for a fresh one of the same release, is replaced by that.
fn still_up(store: &Store, units: &Units, instance: &mut Instance) -> std::result::Result<(), String> {
    if units.up().any(|up| up == instance) {
        return Ok(());
    }
    let records = store.records().unwrap_or_default();
    match units.newest(&instance.release) {
        Some(next) if trail::is_activation(next.n, &records) => *instance = next.clone(),
        // One that a boot started instead is of no account.
        _ => return Err(said(systemd::show(store.host(), instance))?.ended()),
    }
    Ok(())
}

fn pass(
    store: &Locked,
    id: &ReleaseId,
    held: &Held,
    boot: Asked<bool>,
    keep: Option<usize>,
    closing: Closing,
) -> Result<()> {
    let release = store.release(id)?;
    // Whichever way it was: what is good is a way back from now on.
    store.goes_back();
    units::put_boot(store, &release, boot)?;
    store.record_validation(id)?;
    store.point(Link::Validated, id)?;
    closing.end(store, id, Outcome::Validated, None);
    // The release is good; what could not be tidied up is no reason to say otherwise.
    if let Err(error) = tidy_up(store, &held.units, keep) {
        say(&format!("not tidied up: {error}"));
    }
    warn_of_socket(store, &release);
    say(&format!(
        "release {id} ({}) is current and validated: {asked} of {asked} fresh connections",
        release.manifest.label,
        asked = held.asked,
    ));
    Ok(())
}

fn tidy_up(store: &Locked, units: &Units, keep: Option<usize>) -> Result<()> {
    switch::tidy(store, units)?;
    store.keep_reserve()?;
    keep.map_or(Ok(()), |keep| prune_within(store, units, keep).map(drop))
}

fn fail(store: &Locked, id: &ReleaseId, reason: &str, closing: Closing) -> Error {
    store.record_failure(id, reason);
    let validated = boot::validated(store).ok().flatten().filter(|validated| validated != id);
    let to = validated.and_then(|validated| Verified::of(store, &validated).ok()).or_else(|| way_back(store).ok());
    let back: Option<Result<()>> = to.map(|to| {
        let (to_id, reason) = (to.id.clone(), format!("release {id} fails: {reason}"));
        say(&format!("{reason}; going back to {to_id}"));
        go_back(store, &to_id, Ok(to), By::Rollback, reason)?;
        if store.named_by(Link::Validated).as_ref() != Some(&to_id) {
            // The one that failed had been validated before, or was the first.
            store.point(Link::Validated, &to_id)?;
            units::put_boot(
                store,
                &store.release(&to_id)?,
                systemd::ask_whether_it_changed(store.host(), systemd::BOOT)?,
            )?;
        }
        Ok(())
    });
    // After that: whoever floods the journal holds up who reads it.
    let log = last_lines(store, id);
    let receipt = closing.end(store, id, Outcome::Failed, Some(reason));
    let back = match back {
        Some(Ok(())) => "the last validated release was brought back; ".to_owned(),
        Some(Err(error)) => format!("going back failed too: {error}; "),
        None => "there is no validated release to go back to; ".to_owned(),
    };
    let error = Error::Release(format!(
        "release {id} is not validated: {reason}; its last lines:\n{log}{back}{}",
        switch::serving(store)
    ));
    receipt.into_iter().fold(error, Error::with_receipt)
}

/// The last lines of a release, whichever instance of it they are from.
fn last_lines(store: &Store, id: &ReleaseId) -> String {
    systemd::last_lines(store.host(), &Instance::all_of(id), LOG_LINES)
}
