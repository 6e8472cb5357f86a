//! Install: a bundle becomes a release, complete or not at all.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Error, Manifest, ReleaseId, Result, Store,
    host::say,
    manifest, prune,
    store::{Link, Locked, Release},
    tree, units,
};

/// Verifies the unpacked bundle in `bundle`, copies it into the store and puts its units in place.
///
/// A release that is installed already is verified and not copied again.
///
/// # Errors
/// [`Error::Manifest`] and [`Error::Damaged`] where the bundle is not sound: then nothing was changed.
pub fn install(store: &Store, bundle: &Path) -> Result<ReleaseId> {
    let (manifest, id) = Manifest::read(bundle)?;
    check_machine(bundle, &manifest)?;
    tree::verify(bundle, &manifest)?;
    units::check_own(bundle)?;
    let locked = store.lock("install")?;
    // First: until this deployment is validated or another is, what it needs is not pruned.
    locked.record_installation(&id)?;
    prune::sweep(&locked)?;
    match store.release(&id).and_then(|release| tree::verify(&release.folder, &release.manifest)) {
        Ok(()) => say(&format!("release {id} ({}) is installed already", manifest.label)),
        Err(_) => copy(&locked, bundle, &manifest, &id)?,
    }
    // `app.service` runs the tool of `validated`, and the socket may start it before anything was activated.
    if store.named_by(Link::Validated).is_none() {
        locked.point(Link::Validated, &id)?;
    }
    units::prepare(&locked, &Release { folder: store.folder(&id), id: id.clone(), manifest })?;
    Ok(id)
}

fn check_machine(bundle: &Path, manifest: &Manifest) -> Result<()> {
    let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
    if machine == manifest.arch {
        return Ok(());
    }
    let fault = format!("built for {}, and this machine is {machine}: make a bundle for it", manifest.arch);
    Err(Error::Manifest { path: bundle.join(manifest::FILE), fault })
}

/// Copies aside, syncs every file and folder, and gives the whole its name by one rename.
fn copy(store: &Locked, bundle: &Path, manifest: &Manifest, id: &ReleaseId) -> Result<()> {
    let (host, folder) = (store.host(), store.folder(id));
    let aside = store.path("releases").join(format!(".{id}.new"));
    let copied = fill(store, bundle, manifest, id, &aside);
    if copied.is_err() {
        // What cannot be removed now is removed by the next install, or boot.
        let _ = host.remove_tree(&aside);
    }
    copied?;
    if folder.exists() {
        // It differs from its manifest. `current` may point to it, so it is never absent, not for a moment.
        host.exchange(&aside, &folder)?;
        host.remove_tree(&aside)?;
        say(&format!("release {id} was damaged in the store and has been repaired"));
    } else {
        host.rename(&aside, &folder)?;
    }
    say(&format!("installed release {id} ({})", manifest.label));
    Ok(())
}

fn fill(store: &Locked, bundle: &Path, manifest: &Manifest, id: &ReleaseId, aside: &Path) -> Result<()> {
    let host = store.host();
    host.make_folder(aside)?;
    let mut folders = BTreeSet::from([aside.to_owned()]);
    for file in &manifest.files {
        let to = aside.join(&file.path);
        for folder in folders_between(aside, &to) {
            host.make_folder(&folder)?;
            folders.insert(folder);
        }
        host.copy(&bundle.join(&file.path), file, &to)?;
    }
    let from = bundle.join(manifest::FILE);
    let bytes = fs::read(&from).map_err(Error::disk("read", &from))?;
    if ReleaseId::of_manifest(&bytes) != *id {
        return Err(Error::Damaged { path: from, fault: "changed while it was installed".to_owned() });
    }
    host.write(&aside.join(manifest::FILE), &bytes)?;
    folders.iter().try_for_each(|folder| host.sync_folder(folder))
}

/// The folders below `top` that lead to `file`, outermost first.
fn folders_between(top: &Path, file: &Path) -> Vec<PathBuf> {
    let inside = file.ancestors().skip(1).take_while(|folder| *folder != top);
    let mut folders: Vec<PathBuf> = inside.map(Path::to_owned).collect();
    folders.reverse();
    folders
}
