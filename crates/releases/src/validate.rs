//! Validate: the public socket answers with the release, or the one before is brought back.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    Error, ReleaseId, Result, Store,
    activate::{verified, warn_of_socket, way_back},
    host::say,
    probe::{self, Address},
    store::{Link, Locked},
    switch::{self, switch},
    systemd::{self, Units},
    trail::By,
    units,
};

const IN_A_ROW: u32 = 10;
const POLL: Duration = Duration::from_millis(20);

/// Asks until ten fresh connections in a row are answered by the current release, ready; then the release is validated.
///
/// Nothing is locked while it asks. Where another release became current meanwhile, this one is left as it is.
///
/// # Errors
/// [`Error::Release`] where that did not happen `within` the time, or the instance died: then the last validated
/// release has been brought back, where it is another one.
pub fn validate(store: &Store, asked: Option<ReleaseId>, within: Duration) -> Result<()> {
    systemd::require(store.host(), "validate")?;
    if !store.host().is_live() {
        return Err(Error::Offline("validate"));
    }
    let id = asked.map_or_else(|| store.current(), Ok)?;
    store.release(&id)?;
    let answered = watch(store, &id, within);
    let locked = store.lock("validate")?;
    let current = locked.current()?;
    if current != id {
        say(&format!("release {id} is superseded by {current}; it is not validated"));
        return Ok(());
    }
    match answered {
        Ok(()) => pass(&locked, &id),
        Err(reason) => Err(fail(&locked, &id, &reason)),
    }
}

/// Ten fresh connections in a row, while one and the same instance lives.
fn watch(store: &Store, id: &ReleaseId, within: Duration) -> std::result::Result<(), String> {
    let text = |error: Error| error.to_string();
    let listen = systemd::property(store.host(), systemd::SOCKET, "Listen").map_err(text)?;
    let address = Address::parse(&listen).ok_or_else(|| format!("{} listens nowhere: {listen:?}", systemd::SOCKET))?;
    let units = Units::list(store.host()).map_err(text)?;
    let instance = units.newest(id).ok_or("no instance of it is up")?;
    let is_up = || systemd::show(store.host(), instance).is_ok_and(|shown| shown.is_up());
    let (began, mut in_a_row) = (Instant::now(), 0);
    while in_a_row < IN_A_ROW {
        let wrong = match probe::ask(&address) {
            Ok(release) if release == id.as_str() => {
                in_a_row += 1;
                continue;
            }
            Ok(other) => format!("release {} answers", systemd::printable(&other)),
            Err(error) => error,
        };
        in_a_row = 0;
        if store.named_by(Link::Current).as_ref() != Some(id) || !is_up() || began.elapsed() > within {
            return Err(wrong);
        }
        thread::sleep(POLL);
    }
    if is_up() { Ok(()) } else { Err("its instance died".to_owned()) }
}

fn pass(store: &Locked, id: &ReleaseId) -> Result<()> {
    let release = store.release(id)?;
    store.record_validation(id)?;
    store.point(Link::Validated, id)?;
    units::put_boot(store, &release)?;
    switch::tidy(store)?;
    warn_of_socket(store, &release);
    say(&format!(
        "release {id} ({}) is current and validated: {IN_A_ROW} of {IN_A_ROW} fresh connections",
        release.manifest.label
    ));
    Ok(())
}

fn fail(store: &Locked, id: &ReleaseId, reason: &str) -> Error {
    let units = Units::list(store.host()).unwrap_or_default();
    let log = match units.instances.iter().rfind(|(instance, _)| instance.release == *id) {
        Some((instance, _)) => systemd::last_lines(store.host(), instance, 8),
        None => Vec::new(),
    };
    let log: String = log.iter().map(|line| format!("  | {line}\n")).collect();
    let is_good = |validated: &ReleaseId| validated != id && verified(store, validated).is_ok();
    let to = store.named_by(Link::Validated).filter(is_good).or_else(|| way_back(store).ok());
    let back = to.map(|validated| {
        say(&format!("release {id} fails: {reason}; going back to {validated}"));
        verified(store, &validated).and_then(|release| switch(store, &release, By::Rollback))
    });
    let back = match back {
        Some(Ok(_)) => "the last validated release was brought back; ".to_owned(),
        Some(Err(error)) => format!("going back failed too: {error}; "),
        None => "there is no validated release to go back to; ".to_owned(),
    };
    Error::Release(format!(
        "release {id} is not validated: {reason}; its last lines:\n{log}{back}{}",
        switch::serving(store)
    ))
}
