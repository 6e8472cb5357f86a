//! Boot: somebody serves what is current. The only restarter of instances there is.

use std::thread;

use crate::{
    Error, ReleaseId, Result, Store,
    host::say,
    pace,
    store::{Link, Locked, Release},
    switch,
    systemd::{self, Units},
    trail::{By, Record},
    tree, units,
};

/// Starts an instance of the current release where none is up. `app.service` runs it at boot, and whenever a client
/// comes and nobody accepts.
///
/// A release that keeps dying is started at a pace: 1, 2, 4 … 30 s apart. Where `current` is lost or not whole, the
/// newest sound release takes its place, `validated` first.
///
/// # Errors
/// [`Error::Release`] where the instance did not become READY, [`Error::NothingCurrent`] where there is no release.
pub fn boot(store: &Store) -> Result<()> {
    systemd::require(store.host(), "boot")?;
    if !store.host().is_live() {
        return Err(Error::Offline("boot"));
    }
    if nobody_serves(store)? {
        // Without the lock: a deployment that heals this host must not wait for the pace of what is broken.
        let turn = pace::turn(store.host(), store.named_by(Link::Current).as_ref());
        if !turn.delay.is_zero() {
            say(&format!("the last start was less than 10 s ago: waiting {} s", turn.delay.as_secs()));
            thread::sleep(turn.delay);
        }
        pace::note_turn(store.host(), store.named_by(Link::Current).as_ref(), &turn);
    }
    let locked = store.lock("boot")?;
    let release = choose(&locked)?;
    match Units::list(store.host())?.newest(&release.id) {
        Some(instance) => {
            // One that a killed verb has left starting is not READY yet.
            if systemd::show(store.host(), instance)?.active != "active" {
                switch::start(&locked, instance)?;
            }
            switch::retire_others(&locked, instance).map(drop)
        }
        None => start(&locked, &release),
    }
}

fn nobody_serves(store: &Store) -> Result<bool> {
    Ok(match store.named_by(Link::Current) {
        Some(current) => Units::list(store.host())?.newest(&current).is_none(),
        None => true,
    })
}

fn start(store: &Locked, release: &Release) -> Result<()> {
    units::put_own(store, release)?;
    for instance in Units::list(store.host())?.failed() {
        let shown = systemd::show(store.host(), instance)?;
        say(&format!("{} had failed: {}, status {}", instance.unit(), shown.result, shown.status));
    }
    let instance = store.new_instance(&release.id)?;
    switch::start(store, &instance)?;
    switch::retire_others(store, &instance).map(drop)
}

/// What to serve: `current`, or, where it is lost or not whole, `validated`, or the newest that was ever activated.
fn choose(store: &Locked) -> Result<Release> {
    let current = store.named_by(Link::Current);
    let records = store.records()?;
    let activated: Vec<ReleaseId> = records.iter().rev().filter_map(Record::activated).cloned().collect();
    // The first release is `validated` from its install on; it must have been READY once.
    let validated = store.named_by(Link::Validated).filter(|id| activated.contains(id));
    let wanted = current.iter().cloned().chain(validated).chain(activated).collect::<Vec<_>>();
    let is_whole = |release: &Release| tree::verify(&release.folder, &release.manifest).is_ok();
    let found = wanted.iter().find_map(|id| store.release(id).ok().filter(is_whole)).ok_or(Error::NothingCurrent)?;
    if current.as_ref() != Some(&found.id) {
        say(&format!("current is lost or damaged: release {} takes its place", found.id));
        let instance = store.new_instance(&found.id)?;
        store.record_activation(&instance, By::Activate)?;
        store.point(Link::Current, &found.id)?;
    }
    Ok(found)
}
