//! Boot: somebody serves what is current. The only restarter of instances there is.

use std::thread;

use crate::{
    Error, ReleaseId, Result, Store, activate,
    host::say,
    pace, prune,
    store::{Link, Locked, Release},
    switch,
    systemd::{self, Units},
    trail::{By, Record},
    tree, units,
};

/// Starts an instance of the current release where none is up. `app.service` runs it at boot, and whenever a client
/// comes and nobody accepts.
///
/// A release that keeps dying is started at a pace: 1, 2, 4 … 30 s apart. Where `current` has not been validated, `validated`
/// takes its place; where it is lost or not whole, that or the newest sound release.
///
/// # Errors
/// [`Error::Release`] where the instance did not become READY, [`Error::NothingCurrent`] where there is no release.
pub fn boot(store: &Store) -> Result<()> {
    systemd::require(store.host(), "boot")?;
    if !store.host().is_live() {
        return Err(Error::Offline("boot"));
    }
    let units = Units::list(store.host())?;
    let is_up = |id: &ReleaseId| units.newest(id).is_some();
    let last = pace::last(store.host());
    if !store.named_by(Link::Current).as_ref().is_some_and(is_up) {
        // Without the lock: a deployment that heals this host must not wait for the pace of what is broken.
        let wanted = wanted(store, &units)?;
        let turn = pace::turn(store.host(), wanted.as_ref());
        if !turn.delay.is_zero() {
            say(&format!("the last start was less than 10 s ago: waiting {} s", turn.delay.as_secs()));
            thread::sleep(turn.delay);
        }
        pace::note_turn(store.host(), wanted.as_ref(), &turn);
    }
    let locked = store.lock("boot")?;
    let units = Units::list(store.host())?;
    let has_died = last.is_some() && last == store.named_by(Link::Current);
    let release = choose(&locked, &units, has_died)?;
    let served = match units.newest(&release.id) {
        Some(instance) => {
            // One that a killed verb has left starting is not READY yet.
            if systemd::show(store.host(), instance)?.active != "active" {
                switch::start(&locked, instance)?;
            }
            switch::retire_others(&locked, instance).map(drop)
        }
        None => start(&locked, &release, &units),
    };
    // Last: nobody waits for it, and a disk that refuses is no reason not to serve.
    served.and_then(|()| prune::sweep(&locked))
}

fn start(store: &Locked, release: &Release, units: &Units) -> Result<()> {
    units::put_own(store, release)?;
    for instance in units.failed() {
        say(&format!("{}: {}", instance.unit(), systemd::show(store.host(), instance)?.ended()));
    }
    let instance = store.new_instance(&release.id)?;
    switch::start(store, &instance)?;
    switch::retire_others(store, &instance).map(drop)
}

/// What is to serve where nobody does: `current`; while that is provisional, `validated`.
pub(crate) fn wanted(store: &Store, units: &Units) -> Result<Option<ReleaseId>> {
    let (current, validated) = (store.named_by(Link::Current), validated(store)?);
    let stays = current.as_ref().is_some_and(|current| validated.is_none() || units.newest(current).is_some());
    Ok(if stays { current } else { validated.or(current) })
}

/// The release that `validated` names, if it was ever READY: the first one is validated from its install on.
fn validated(store: &Store) -> Result<Option<ReleaseId>> {
    let records = store.records()?;
    let was_activated = |id: &ReleaseId| records.iter().any(|record| record.activated() == Some(id));
    Ok(store.named_by(Link::Validated).filter(was_activated))
}

/// Makes current what is to serve: as [`wanted`], or, where that is lost or not whole, the newest that was ever activated
/// and is. `has_died` tells an instance of `current` that ended from a host that was restarted.
pub(crate) fn choose(store: &Locked, units: &Units, has_died: bool) -> Result<Release> {
    let current = store.named_by(Link::Current);
    let activated: Vec<ReleaseId> = store.records()?.iter().rev().filter_map(Record::activated).cloned().collect();
    let likely = [wanted(store, units)?, current.clone(), validated(store)?];
    let mut candidates = likely.into_iter().flatten().chain(activated);
    let is_whole = |release: &Release| tree::verify(&release.folder, &release.manifest).is_ok();
    let found = candidates.find_map(|id| store.release(&id).ok().filter(is_whole)).ok_or(Error::NothingCurrent)?;
    if current.as_ref() != Some(&found.id) {
        replace(store, current.as_ref(), &found.id, units, has_died)?;
    }
    Ok(found)
}

/// Makes another release than `current` the current one. If that was provisional and has died, it is bad.
fn replace(store: &Locked, current: Option<&ReleaseId>, by: &ReleaseId, units: &Units, has_died: bool) -> Result<()> {
    let is_whole = current.is_some_and(|id| activate::verified(store, id).is_ok());
    match current {
        Some(provisional) if is_whole => {
            say(&format!("release {provisional} was not validated yet: going back to {by}"));
            let failed = units.failed().filter(|instance| instance.release == *provisional).max_by_key(|one| one.n);
            if let Some(instance) = failed {
                store.record_failure(provisional, &systemd::show(store.host(), instance)?.ended());
            } else if has_died {
                store.record_failure(provisional, "its instance ended before it was validated");
            }
        }
        _ => say(&format!("current is lost or damaged: release {by} takes its place")),
    }
    let instance = store.new_instance(by)?;
    store.record_activation(&instance, if is_whole { By::Rollback } else { By::Activate })?;
    store.point(Link::Current, by)
}
