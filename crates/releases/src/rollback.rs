//! Rollback: a flip to a release that was good before.

use std::time::Duration;

use crate::{
    Error, ReleaseId, Result, Store,
    activate::{flip_offline, verified},
    host::say,
    store::Locked,
    switch::{self, switch},
    systemd, trail,
    trail::By,
    validate,
};

/// Goes back to `asked`, or to the newest validated release that was activated before the current one; called again,
/// it goes further back. The release is validated at once, so that a boot comes up on it too.
///
/// # Errors
/// [`Error::NothingBefore`] where there is nothing to go back to, [`Error::Release`] where the release did not become
/// READY: then the current one serves as it did.
pub fn rollback(store: &Store, asked: Option<ReleaseId>, within: Duration) -> Result<()> {
    if let Some(id) = &asked {
        store.release(id)?;
    }
    let locked = store.lock("rollback")?;
    let target = asked.map_or_else(|| target(&locked), Ok)?;
    let release = verified(&locked, &target)?;
    if !store.host().is_live() {
        return flip_offline(&locked, &target);
    }
    say(&format!("going back to release {target} ({})", release.manifest.label));
    let instance = switch(&locked, &release, By::Rollback)?;
    if !systemd::show(store.host(), &instance)?.is_up() {
        return Err(switch::reject(&locked, &instance, "was ready and died at once"));
    }
    drop(locked);
    validate::validate(store, Some(target), within)
}

fn target(store: &Locked) -> Result<ReleaseId> {
    let (current, records) = (store.current()?, store.records()?);
    let before = trail::before(&current, &records);
    let is_good = |id: &&ReleaseId| **id != current && trail::has_passed(id, &records) && store.release(id).is_ok();
    before.iter().rev().find(is_good).cloned().ok_or(Error::NothingBefore(current))
}
