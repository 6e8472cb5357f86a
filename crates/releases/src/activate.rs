//! Activate: a fresh instance of a release takes over.

use std::path::Path;

use crate::{
    Error, ReleaseId, Result, Store,
    draft::Draft,
    instance::Instance,
    screen::say,
    source::Source,
    store::{Link, Locked, Release},
    switch::{self, switch},
    systemd::Units,
    trail::{self, By, Marks},
    units,
    verified::Verified,
};

/// Makes a release current: its instance is READY before the one before is told to retire.
///
/// Returns when the instance before has stopped accepting; it does not wait for what that still drains.
///
/// # Errors
/// [`Error::Release`] where the release did not become READY, or died as soon as it was: what is serving then is what
/// served before, and the error says so.
pub fn activate(store: &Store, id: &ReleaseId) -> Result<()> {
    store.release(id)?;
    let draft = Draft::begin("activate", "lock");
    take_over(&store.lock("activate")?, id, draft)
}

/// Puts a fresh instance of the current release in the place of the one that serves.
///
/// # Errors
/// As [`activate`], and [`Error::NothingCurrent`].
pub fn restart(store: &Store) -> Result<()> {
    let draft = Draft::begin("restart", "lock");
    let locked = store.lock("restart")?;
    // Under the lock: a deployment that was under way must not be undone.
    take_over(&locked, &locked.current()?, draft)
}

fn take_over(store: &Locked, id: &ReleaseId, mut draft: Draft) -> Result<()> {
    draft.locked(store);
    if !store.host().is_live() {
        return flip_offline(store, &Verified::of(store, id)?, By::Activate, draft);
    }
    draft.step("verify");
    let switched = Verified::of(store, id).and_then(|release| {
        let units = switch_to(store, &release, By::Activate, By::Rollback, &mut draft)?;
        Ok((release, units))
    });
    let (release, units) = draft.end(store, id, switched)?;
    warn_of_socket(store, &release);
    say(&switch::serving_of(store, &units));
    say(&verdict(store, id));
    Ok(())
}

/// Makes a release current that stays up; `back` tells the log on which way the one before stands, if that has to return.
pub(crate) fn switch_to(store: &Locked, release: &Verified, by: By, back: By, draft: &mut Draft) -> Result<Units> {
    let (instance, units) = switch(store, release, by, draft)?;
    check_alive(store, &instance, &units, draft.from.clone(), back)?;
    Ok(units)
}

/// Makes a release current again, if it is whole, because another did not hold, for the reason that is told.
pub(crate) fn go_back(store: &Locked, id: &ReleaseId, to: Result<Verified>, by: By, reason: String) -> Result<()> {
    let mut draft = Draft::begin("return", "verify");
    draft.locked(store);
    store.goes_back();
    draft.reason = Some(reason);
    let switched = to.and_then(|to| switch(store, &to, by, &mut draft).map(drop));
    draft.end(store, id, switched)
}

/// The release that a person or a hook means: an id, or a bundle, as an archive or unpacked.
///
/// # Errors
/// [`Error::NotARelease`] where it is neither.
pub fn resolve(text: &str) -> Result<ReleaseId> {
    let path = Path::new(text);
    match text.parse() {
        Err(_) if path.is_file() || path.join(crate::manifest::FILE).exists() => Ok(Source::read(path)?.id),
        parsed => parsed,
    }
}

/// The newest release before the current one that has passed `validate` and is whole.
pub(crate) fn way_back<'a>(store: &'a Locked) -> Result<Verified<'a>> {
    way_back_from(store, &store.current()?)
}

/// The same before a release that may not be current.
pub(crate) fn way_back_from<'a>(store: &'a Locked, id: &ReleaseId) -> Result<Verified<'a>> {
    let records = store.records()?;
    let mut ways = trail::ways_back(id, &records);
    ways.find_map(|id| Verified::of(store, &id).ok()).ok_or(Error::NothingBefore(id.clone()))
}

/// A release that was READY and died at once must not stay: the one before takes over again. `by` tells the log on which
/// way that one stands: still before it, or after it.
fn check_alive(store: &Locked, instance: &Instance, units: &Units, from: Option<ReleaseId>, by: By) -> Result<()> {
    if units.up().any(|up| up == instance) {
        return Ok(());
    }
    store.record_failure(&instance.release, "was ready and died at once");
    let back = from.filter(|from| *from != instance.release).map(|from| {
        let reason = format!("release {} was ready and died", instance.release);
        say(&format!("{reason}: going back to {from}"));
        go_back(store, &from, Verified::of(store, &from), by, reason)
    });
    let error = switch::reject(store, instance, "was ready and died at once");
    match back {
        Some(Err(error_back)) => Err(Error::Release(format!("{error}\ngoing back failed too: {error_back}"))),
        _ => Err(error),
    }
}

/// The files of another host: nothing runs there, and what is current is what its next boot starts.
pub(crate) fn flip_offline(store: &Locked, release: &Verified, by: By, mut draft: Draft) -> Result<()> {
    let id = &release.id;
    draft.step("flip");
    let instance = store.new_instance(id)?;
    draft.instance = Some(instance.clone());
    let flipped = switch::adopt(store, &instance, by);
    draft.end(store, id, flipped)?;
    say(&format!("release {id} is current below {}; its next boot starts it", store.host().root().display()));
    Ok(())
}

/// The host's socket is never touched by a deployment: replacing it is an outage, so a person decides.
pub(crate) fn warn_of_socket(store: &Store, release: &Release) {
    if units::socket_differs(store, release) {
        say(
            "this release brings another app.socket; the host's stays. Once it is validated, `releasectl socket apply` \
             replaces it, at an outage",
        );
    }
}

fn verdict(store: &Store, id: &ReleaseId) -> String {
    match store.named_by(Link::Validated) {
        Some(validated) if validated != *id => format!("release {id} is provisional until `releasectl validate`"),
        _ if has_passed(store, id) => format!("release {id} is current and validated"),
        _ => format!("release {id} is the first; it has yet to pass `releasectl validate`"),
    }
}

fn has_passed(store: &Store, id: &ReleaseId) -> bool {
    store.records().is_ok_and(|records| Marks::of(id, &records).passed)
}
