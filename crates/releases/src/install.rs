//! Install: a bundle becomes a release, complete or not at all.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    Error, ReleaseId, Result, Store, manifest,
    progress::Progress,
    prune,
    screen::say,
    source::Source,
    store::{Link, Locked, Release},
    tree, units,
};

/// Verifies a bundle, an archive or the folder that it was unpacked to, copies it into the store and puts its units in place.
///
/// A release that is installed already is verified and not copied again.
///
/// # Errors
/// [`Error::Manifest`] and [`Error::Damaged`] where the bundle is not sound: then nothing was changed.
pub fn install(store: &Store, bundle: &Path) -> Result<ReleaseId> {
    let mut progress = Progress::begin("install", "verify");
    let source = Source::read(bundle)?;
    check_machine(&source)?;
    source.verify()?;
    units::check_own(&source)?;
    let id = source.id.clone();
    progress.step("lock");
    let locked = store.lock("install")?;
    progress.step("copy");
    // First, for the room.
    prune::sweep(&locked)?;
    locked.keep_reserve()?;
    // From here on, until this deployment is validated or another is, what it needs is not pruned.
    locked.record_installation(&id)?;
    match store.release(&id).and_then(|release| tree::verify(&release.folder, &release.manifest)) {
        Ok(()) => {
            // An install that was killed may have given it its name and not synced that.
            locked.host().sync_folder(&locked.path("releases"))?;
            say(&format!("release {id} ({}) is installed already", source.manifest.label));
        }
        Err(_) => copy(&locked, &source)?,
    }
    progress.step("units");
    // `app.service` runs the tool of `validated`, and the socket may start it before anything was activated.
    if store.named_by(Link::Validated).is_none() {
        locked.point(Link::Validated, &id)?;
    }
    units::prepare(&locked, &Release { folder: store.folder(&id), id: id.clone(), manifest: source.manifest })?;
    progress.end();
    Ok(id)
}

fn check_machine(source: &Source) -> Result<()> {
    let (machine, arch) = (rustix::system::uname().machine().to_string_lossy().into_owned(), &source.manifest.arch);
    if machine == *arch {
        return Ok(());
    }
    let fault = format!("built for {arch}, and this machine is {machine}: make a bundle for it");
    Err(Error::Manifest { path: source.path(manifest::FILE), fault })
}

/// Copies aside, syncs every file and folder, and gives the whole its name by one rename.
fn copy(store: &Locked, source: &Source) -> Result<()> {
    let (host, id) = (store.host(), &source.id);
    let folder = store.folder(id);
    let aside = store.path("releases").join(format!(".{id}.new"));
    let copied = fill(store, source, &aside);
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
    say(&format!("installed release {id} ({})", source.manifest.label));
    Ok(())
}

fn fill(store: &Locked, source: &Source, aside: &Path) -> Result<()> {
    let host = store.host();
    host.make_folder(&store.path("releases"))?;
    host.make_folder_aside(aside)?;
    let mut folders = BTreeSet::from([aside.to_owned()]);
    source.copy_each(|file, from, path| {
        let to = aside.join(&file.path);
        for folder in folders_between(aside, &to) {
            if !folders.contains(&folder) {
                host.make_folder_aside(&folder)?;
                folders.insert(folder);
            }
        }
        host.copy(from, file, path, &to)
    })?;
    host.write_aside(&aside.join(manifest::FILE), source.text())?;
    folders.iter().try_for_each(|folder| host.sync_folder(folder))
}

/// The folders below `top` that lead to `file`, outermost first.
fn folders_between(top: &Path, file: &Path) -> Vec<PathBuf> {
    let inside = file.ancestors().skip(1).take_while(|folder| *folder != top);
    let mut folders: Vec<PathBuf> = inside.map(Path::to_owned).collect();
    folders.reverse();
    folders
}
