//! Prune: what the store need not keep any more, with its units and runtime files.

use std::{collections::BTreeSet, fs};

use crate::{
    ReleaseId, Result, Store, activate,
    screen::say,
    store::{self, Link, Locked},
    switch,
    systemd::Units,
    trail::{self, Marks},
    units,
};

/// How many validated releases are kept where nobody says otherwise.
pub const KEEP: usize = 5;

/// Removes releases but the `keep` that were validated last, and whatever killed verbs have left.
///
/// Kept in any case: `current`, `validated`, the one that a bare rollback would choose, what is pinned, what has an
/// instance, and what was installed since the last validation, or within an hour by a deployment that may be under way.
///
/// # Errors
/// [`Error::Disk`](crate::Error::Disk) where something cannot be removed; the next time goes on from there.
pub fn prune(store: &Store, keep: usize) -> Result<()> {
    let locked = store.lock("prune")?;
    let mut units = Units::default();
    if store.host().is_live() {
        units = Units::list(store.host())?;
        switch::tidy(&locked, &units)?;
    }
    let removed = prune_within(&locked, &units, keep)?;
    say(&format!("{removed} releases removed, {} kept", ids(store).len()));
    Ok(())
}

/// The same for a verb that holds the lock, and has asked systemd what runs.
pub(crate) fn prune_within(store: &Locked, units: &Units, keep: usize) -> Result<usize> {
    let kept = kept(store, units, keep)?;
    sweep(store)?;
    let superfluous: Vec<ReleaseId> = ids(store).into_iter().filter(|id| !kept.contains(id)).collect();
    for id in &superfluous {
        remove_release(store, id)?;
    }
    units::remove_strays(store, &ids(store))?;
    Ok(superfluous.len())
}

/// By one rename, so that it is never there in part (R2).
pub(crate) fn remove_release(store: &Locked, id: &ReleaseId) -> Result<()> {
    say(&format!("removing release {id}"));
    let aside = store.path("releases").join(format!(".{id}.old"));
    store.host().rename(&store.folder(id), &aside)?;
    store.host().remove_tree(&aside)
}

/// Removes what killed verbs have left: whoever was making it is gone, since the lock is ours.
pub(crate) fn sweep(store: &Locked) -> Result<()> {
    // R3: nothing that begins with a dot is a release.
    for entry in fs::read_dir(store.path("releases")).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            store.host().remove_tree(&entry.path())?;
        }
    }
    store.host().remove_unfinished(&store.path(""))?;
    units::remove_strays(store, &ids(store))
}

fn kept(store: &Locked, units: &Units, keep: usize) -> Result<BTreeSet<ReleaseId>> {
    let records = store.records()?;
    let mut kept = trail::to_keep(keep, &records, store::now());
    // Mostly both name one: its way back, a whole release, is read once.
    let ends: BTreeSet<_> =
        [Link::Current, Link::Validated].into_iter().filter_map(|link| store.named_by(link)).collect();
    for end in ends {
        kept.extend(activate::way_back_from(store, &end).map(|way| way.id.clone()));
        kept.insert(end);
    }
    kept.extend(units.instances.iter().map(|(instance, _)| instance.release.clone()));
    kept.extend(ids(store).into_iter().filter(|id| Marks::of(id, &records).pinned));
    Ok(kept)
}

/// Everything in the store that has a release's name, whole or not.
pub(crate) fn ids(store: &Store) -> BTreeSet<ReleaseId> {
    let entries = fs::read_dir(store.path("releases")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Keeps a release until it is unpinned, or no longer.
///
/// # Errors
/// [`Error::NotInstalled`](crate::Error::NotInstalled).
pub fn pin(store: &Store, id: &ReleaseId, is_pinned: bool) -> Result<()> {
    let locked = store.lock(if is_pinned { "pin" } else { "unpin" })?;
    locked.release(id)?;
    if Marks::of(id, &locked.records()?).pinned != is_pinned {
        locked.record_pin(id, is_pinned)?;
    }
    say(&format!("release {id} is {}", if is_pinned { "pinned: it is never pruned" } else { "not pinned" }));
    Ok(())
}
