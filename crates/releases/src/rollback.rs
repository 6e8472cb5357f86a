//! Rollback: a flip to a release that was good before.

use crate::{
    ReleaseId, Result, Store,
    activate::{check_alive, flip_offline, verified, way_back},
    host::say,
    store::Link,
    switch::switch,
    trail::By,
    validate::{Trial, validate},
};

/// Goes back to `asked`, or to the newest validated release that was activated before the current one; called again,
/// it goes further back. The release is validated at once, so that a boot comes up on it too.
///
/// # Errors
/// [`NothingBefore`](crate::Error::NothingBefore) where there is nothing to go back to,
/// [`Release`](crate::Error::Release) where the release did not become READY: then the current one serves as it did.
pub fn rollback(store: &Store, asked: Option<ReleaseId>, trial: Trial) -> Result<()> {
    if let Some(id) = &asked {
        store.release(id)?;
    }
    let locked = store.lock("rollback")?;
    let target = asked.map_or_else(|| way_back(&locked), Ok)?;
    let release = verified(&locked, &target)?;
    if !store.host().is_live() {
        return flip_offline(&locked, &target, By::Rollback);
    }
    say(&format!("going back to release {target} ({})", release.manifest.label));
    let from = locked.named_by(Link::Current);
    let (instance, units) = switch(&locked, &release, By::Rollback)?;
    check_alive(&locked, &instance, &units, from, By::Activate)?;
    drop(locked);
    validate(store, Some(target), trial)
}
