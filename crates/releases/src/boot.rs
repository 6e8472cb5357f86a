//! Boot: somebody serves what is current. The only restarter of instances there is.

use std::thread;

use crate::{
    Error, ReleaseId, Result, Store,
    draft::Draft,
    instance::Instance,
    pace, prune,
    screen::say,
    store::{Link, Locked},
    switch,
    systemd::{self, Units},
    trail::{By, Marks, Record},
    units,
    verified::Verified,
};

/// Starts an instance of the current release where none is up. `app.service` runs it at boot, and whenever a client
/// comes and nobody accepts.
///
/// A release that keeps dying is started at a pace: 1, 2, 4 … 30 s apart. Where `current` has not been validated, `validated`
/// takes its place; where it is lost or not whole, that or the newest sound release. Here the flip comes before READY:
/// nobody serves, so there is nothing to lose, and whatever is killed on the way goes on with the same release.
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
    let mut draft = Draft::begin("boot", "lock");
    let locked = store.lock("boot")?;
    draft.locked(&locked);
    locked.goes_back();
    let units = Units::list(store.host())?;
    let has_died = last.is_some() && last == store.named_by(Link::Current);
    let choice = choose(&locked, &units, has_died)?;
    let (release, is_another) = (&choice.release, choice.is_another());
    let served = match units.newest(&release.id) {
        Some(instance) => {
            // One that a killed verb has left starting is not READY yet.
            let started = if units.is_active(instance) { Ok(()) } else { switch::start(&locked, instance).map(drop) };
            if is_another {
                choice.instance(&locked, &mut draft)?;
            }
            let retired = started.and_then(|()| switch::retire(&locked, &units, Some(instance)));
            retired.map(|(_, retired)| draft.retired = retired)
        }
        None => start(&locked, &choice, &units, &mut draft),
    };
    // Of what it serves anyway there is nothing to tell.
    let served = if is_another { draft.end(&locked, &release.id, served) } else { served };
    // Last: nobody waits for it, and a disk that refuses is no reason not to serve. What is left of a store that a later
    // tool made is not for this one to say.
    served.and_then(|()| if store.is_of_this_format() { prune::sweep(&locked) } else { Ok(()) })
}

fn start(store: &Locked, choice: &Choice, units: &Units, draft: &mut Draft) -> Result<()> {
    draft.step("prepare");
    units::put_own(store, &choice.release)?;
    for instance in units.failed() {
        say(&format!("{}: {}", instance.unit(), systemd::show(store.host(), instance)?.ended()));
    }
    let instance = choice.instance(store, draft)?;
    draft.step("start");
    draft.ready_ms = Some(switch::start(store, &instance)?);
    draft.step("retire");
    draft.retired = switch::retire(store, units, Some(&instance))?.1;
    Ok(())
}

/// What is to serve where nobody does: `current`; while that is provisional, `validated`.
pub(crate) fn wanted(store: &Store, units: &Units) -> Result<Option<ReleaseId>> {
    let (current, validated) = (store.named_by(Link::Current), validated(store)?);
    let stays = current.as_ref().is_some_and(|current| validated.is_none() || units.newest(current).is_some());
    Ok(if stays { current } else { validated.or(current) })
}

/// The release that `validated` names, if it was ever READY: the first one is validated from its install on. One that has
/// failed since is no way back.
pub(crate) fn validated(store: &Store) -> Result<Option<ReleaseId>> {
    let records = store.records()?;
    let was_activated = |id: &ReleaseId| records.iter().any(|record| record.activated() == Some(id));
    let is_bad = |id: &ReleaseId| Marks::of(id, &records).bad.is_some();
    Ok(store.named_by(Link::Validated).filter(|id| was_activated(id) && !is_bad(id)))
}

/// What a boot serves.
pub(crate) struct Choice<'a> {
    pub release: Verified<'a>,
    /// What was current before.
    pub from: Option<ReleaseId>,
    /// The instance that the log has, where another release became current, and why it did.
    replaced: Option<(Instance, String)>,
}

impl Choice<'_> {
    /// Whether it is another release than the one that was current.
    pub fn is_another(&self) -> bool {
        self.replaced.is_some()
    }

    /// The instance to start; the draft learns of it, and why.
    pub fn instance(&self, store: &Locked, draft: &mut Draft) -> Result<Instance> {
        let instance = match &self.replaced {
            Some((instance, reason)) => {
                draft.reason = Some(reason.clone());
                instance.clone()
            }
            None => store.new_instance(&self.release.id)?,
        };
        draft.instance = Some(instance.clone());
        Ok(instance)
    }
}

/// Makes current what is to serve: as [`wanted`], or, where that is lost or not whole, the newest that was ever activated
/// and is. `has_died` tells an instance of `current` that ended from a host that was restarted.
pub(crate) fn choose<'a>(store: &'a Locked, units: &Units, has_died: bool) -> Result<Choice<'a>> {
    let current = store.named_by(Link::Current);
    let activated: Vec<ReleaseId> = store.records()?.iter().rev().filter_map(Record::activated).cloned().collect();
    let likely = [wanted(store, units)?, current.clone(), validated(store)?];
    let mut candidates = likely.into_iter().flatten().chain(activated);
    let found = candidates.find_map(|id| Verified::of(store, &id).ok()).ok_or(Error::NothingCurrent)?;
    let is_another = current.as_ref() != Some(&found.id);
    let replaced = is_another.then(|| replace(store, current.as_ref(), &found.id, units, has_died)).transpose()?;
    Ok(Choice { release: found, from: current, replaced })
}

/// Makes another release than `current` the current one, and says why. If that was provisional and has died, it is bad.
fn replace(
    store: &Locked,
    current: Option<&ReleaseId>,
    by: &ReleaseId,
    units: &Units,
    has_died: bool,
) -> Result<(Instance, String)> {
    let provisional = current.filter(|id| Verified::of(store, id).is_ok());
    let reason = match provisional {
        Some(provisional) => {
            let failed = units.failed().filter(|instance| instance.release == *provisional).max_by_key(|one| one.n);
            let ended = match failed {
                Some(instance) => Some(systemd::show(store.host(), instance)?.ended()),
                None => has_died.then(|| "its instance ended before it was validated".to_owned()),
            };
            if let Some(ended) = &ended {
                store.record_failure(provisional, ended);
            }
            let why = ended.unwrap_or_else(|| "the host was restarted before it was validated".to_owned());
            say(&format!("release {provisional} was not validated yet: going back to {by}"));
            format!("release {provisional}: {why}")
        }
        None => {
            say(&format!("current is lost or damaged: release {by} takes its place"));
            "current was lost or damaged".to_owned()
        }
    };
    let instance = store.new_instance(by)?;
    let way = if provisional.is_some() { By::Rollback } else { By::Activate };
    store.record_activation(&instance, way)?;
    store.point(Link::Current, by)?;
    Ok((instance, reason))
}
