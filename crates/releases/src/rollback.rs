//! Rollback: a flip to a release that was good before.

use crate::{
    Error, ReleaseId, Result, Store,
    activate::{flip_offline, switch_to, way_back, way_back_from},
    draft::Draft,
    screen::say,
    switch,
    trail::By,
    validate::{Trial, listens, try_out},
    verified::Verified,
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
    let mut draft = Draft::begin("rollback", "lock");
    let locked = store.lock("rollback")?;
    draft.locked(&locked);
    locked.goes_back();
    draft.step("verify");
    let target = match &asked {
        None => way_back(&locked)?,
        Some(id) => match Verified::of(&locked, id) {
            // The history tells of it: somebody meant to go back.
            Err(error @ Error::Damaged { .. }) if store.host().is_live() => return draft.end(&locked, id, Err(error)),
            target => target?,
        },
    };
    if !store.host().is_live() {
        return flip_offline(&locked, &target, By::Rollback, draft);
    }
    let id = target.id.clone();
    say(&format!("going back to release {id} ({})", target.manifest.label));
    let switched = switch_to(&locked, &target, By::Rollback, By::Activate, &mut draft);
    let address = draft.probed_at();
    let ended = draft.end(&locked, &id, switched);
    if ended.is_err()
        && asked.is_none()
        && let Ok(further) = way_back_from(&locked, &id)
    {
        say(&format!("further back: releasectl rollback {}", further.id));
    }
    let units = ended?;
    drop(locked);
    try_out(store, &id, trial, address.map_or_else(|| listens(store), Ok), Ok(units)).map_err(|error| {
        match error.exit_code() {
            // The host is another than before, whatever was wrong with what validate was given.
            2 => Error::Release(format!("{error}\n{}", switch::serving(store))),
            _ => error,
        }
    })
}
