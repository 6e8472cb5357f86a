//! The host's units, as releases bring them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Error, ReleaseId, Result,
    source::Source,
    store::{Locked, Release, Store},
    systemd::{self, Asked},
};

/// Where units that are not a package's live (systemd.unit(5)).
const UNITS: &str = "/etc/systemd/system";
/// Whose the service's processes are (units/app.sysusers).
const USER: &str = "app";
/// The release's own, in a bundle.
pub(crate) const OWN: &str = "units/app@.service";
const METRICS: &str = "app-metrics.socket";
/// Those that all releases share. The sockets first: one that listens starts `app.service`.
const SHARED: [&str; 3] = [systemd::SOCKET, METRICS, systemd::BOOT];
/// Links below `/usr/local` to the same paths of the validated release.
const TOOL: [&str; 5] = [
    "bin/releasectl",
    "share/man/man8/releasectl.8",
    "share/bash-completion/completions/releasectl",
    "share/zsh/site-functions/_releasectl",
    "share/fish/vendor_completions.d/releasectl.fish",
];

/// The user, the release's own unit, and whatever of the shared units the host lacks. What is there already and differs
/// is left: `app.service` changes when a release is validated, `app.socket` only by `releasectl socket apply`.
pub fn prepare(store: &Locked, release: &Release) -> Result<()> {
    let host = store.host();
    host.make_folder(&host.path(UNITS))?;
    make_user(store, release)?;
    put_own(store, release)?;
    for unit in [systemd::BOOT, systemd::SOCKET] {
        if !path(store, unit).exists() {
            put(store, release, unit, unit)?;
        }
    }
    // Not enabled: who wants it says so.
    if release.folder.join("units").join(METRICS).exists() && !path(store, METRICS).exists() {
        put(store, release, METRICS, METRICS)?;
    }
    // An install that was killed may have put them and not enabled them. A unit that an operator masked stays as it is.
    let is_missing = |unit: &&str| !path(store, &wanted(unit)).is_symlink() && !path(store, unit).is_symlink();
    let new: Vec<&str> = [systemd::BOOT, systemd::SOCKET].into_iter().filter(|unit| is_missing(unit)).collect();
    if !new.is_empty() {
        systemd::enable(host, &new)?;
    }
    link_tool(store, release)
}

/// The link by which `systemctl enable` makes a unit of ours start at boot.
fn wanted(unit: &str) -> String {
    let target = if unit == systemd::SOCKET { "sockets.target" } else { "multi-user.target" };
    format!("{target}.wants/{unit}")
}

/// What a release's own unit must say, or the host is not safe with it: READY comes from the release itself, and
/// O_NONBLOCK, which belongs to the socket, is as in every other service on it (systemd.service(5)).
pub fn check_own(source: &Source) -> Result<()> {
    let text = source.unit()?;
    let needed = ["Type=notify", "NonBlocking=yes", "Restart=no", "StartLimitIntervalSec=0"];
    match needed.into_iter().find(|line| !text.lines().any(|there| there.trim() == *line)) {
        Some(line) => Err(Error::Unit { path: source.path(OWN), line: line.to_owned() }),
        None => Ok(()),
    }
}

/// Puts the release's own unit in place as `app-<id>@.service`, as when it was first installed. systemd reads it when a
/// new instance is started, without being told.
pub fn put_own(store: &Locked, release: &Release) -> Result<()> {
    put(store, release, "app@.service", &own(&release.id))
}

/// Makes `app.service` the one of a release that has just been validated. `asked` is whether it had changed before: a run that
/// was killed may have put it, and not had it read.
pub fn put_boot(store: &Locked, release: &Release, asked: Asked<bool>) -> Result<()> {
    let is_there = is_host_unit_of(store, systemd::BOOT, release);
    put(store, release, systemd::BOOT, systemd::BOOT)?;
    if !is_there || asked.answer()? { systemd::reload(store.host()) } else { Ok(()) }
}

/// Whether the host's socket is not the one that the release brings.
pub fn socket_differs(store: &Store, release: &Release) -> bool {
    !is_host_unit_of(store, systemd::SOCKET, release)
}

/// Whether a unit of the host is the one that the release brings.
pub fn is_host_unit_of(store: &Store, unit: &str, release: &Release) -> bool {
    let read = |path: PathBuf| fs::read(path).unwrap_or_default();
    read(path(store, unit)) == read(release.folder.join("units").join(unit))
}

/// Whether a release's own unit is in place, as it brings it.
pub fn has_own(store: &Store, release: &Release) -> bool {
    let read = |path: PathBuf| fs::read(path).unwrap_or_default();
    read(path(store, &own(&release.id))) == read(release.folder.join(OWN))
}

/// Writes the release's socket over the host's, and returns what was there.
pub fn put_socket(store: &Locked, release: &Release) -> Result<Vec<u8>> {
    let path = path(store, systemd::SOCKET);
    let old = fs::read(&path).map_err(Error::disk("read", &path))?;
    put(store, release, systemd::SOCKET, systemd::SOCKET)?;
    systemd::reload_if_needed(store.host(), systemd::SOCKET)?;
    Ok(old)
}

/// Writes back what [`put_socket`] replaced.
pub fn restore_socket(store: &Locked, old: &[u8]) -> Result<()> {
    store.host().write(&path(store, systemd::SOCKET), old)?;
    systemd::reload_if_needed(store.host(), systemd::SOCKET)
}

/// Removes the units of releases that are gone, and what killed runs have left aside. The folder is everybody's, so nothing
/// but files that have a name of ours.
pub fn remove_strays(store: &Locked, releases: &BTreeSet<ReleaseId>) -> Result<()> {
    for entry in fs::read_dir(store.host().path(UNITS)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let (name, is_aside) = name.strip_suffix(".new").map_or((name, false), |name| (name, true));
        let id = name.strip_prefix("app-").and_then(|name| name.strip_suffix("@.service")?.parse().ok());
        let is_stray = match id {
            Some(id) => is_aside || !releases.contains(&id),
            None => is_aside && SHARED.contains(&name),
        };
        if is_stray && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            store.host().remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Closes the service's sockets for good: no boot opens them, and no client starts an instance. Returns when they are closed.
pub fn close(store: &Locked) -> Result<()> {
    let ours: Vec<&str> = SHARED.into_iter().filter(|unit| is_ours(store, unit)).collect();
    if !ours.is_empty() {
        systemd::disable(store.host(), &ours)?;
    }
    SHARED.into_iter().try_for_each(|unit| systemd::stop_if_known(store.host(), unit))
}

/// Removes every unit that releases have brought. What an operator has put beside them, a mask say, stays.
pub fn remove_all(store: &Locked) -> Result<()> {
    let host = store.host();
    for unit in SHARED.into_iter().filter(|unit| is_ours(store, unit)) {
        host.remove(&path(store, unit))?;
    }
    remove_strays(store, &BTreeSet::new())?;
    host.sync_folder(&host.path(UNITS))?;
    systemd::reload(host)
}

/// The folders of drop-ins for units of ours, and the masks of them: an operator's.
pub fn operators(store: &Store) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.host().path(UNITS)).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let unit = name.strip_suffix(".d");
        let is_drop_in = unit.is_some_and(|unit| unit.starts_with("app-") || SHARED.contains(&unit));
        is_drop_in || SHARED.contains(&name) && !is_ours(store, name)
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_one).collect();
    paths.sort();
    paths
}

/// A plain file: what an operator masks is a link.
fn is_ours(store: &Store, unit: &str) -> bool {
    fs::symlink_metadata(path(store, unit)).is_ok_and(|metadata| metadata.is_file())
}

fn own(id: &ReleaseId) -> String {
    format!("app-{id}@.service")
}

fn path(store: &Store, unit: &str) -> PathBuf {
    store.host().path(UNITS).join(unit)
}

/// Copies a unit of the release, word for word, where it is not there already.
fn put(store: &Locked, release: &Release, from: &str, to: &str) -> Result<()> {
    let source = release.folder.join("units").join(from);
    let text = fs::read(&source).map_err(Error::disk("read", &source))?;
    let target = path(store, to);
    if fs::read(&target).is_ok_and(|there| there == text) { Ok(()) } else { store.host().write(&target, &text) }
}

fn make_user(store: &Locked, release: &Release) -> Result<()> {
    let definition = release.folder.join("units/app.sysusers");
    let root = format!("--root={}", store.host().root().display());
    // With --root= the path is taken below it, so the text goes in by the command line (sysusers.d(5), --inline).
    let text = fs::read_to_string(&definition).map_err(Error::disk("read", &definition))?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut arguments = vec![root.as_str(), "--inline"];
    arguments.extend(lines);
    store.host().run("systemd-sysusers", &arguments).map(drop)
}

/// Removes the user, and the group of its name, where that is not gone with it (login.defs(5), USERGROUPS_ENAB).
pub fn remove_user(store: &Locked) -> Result<()> {
    for (database, program) in [("passwd", "userdel"), ("group", "groupdel")] {
        if store.host().run("getent", &[database, USER]).is_ok() {
            store.host().run(program, &[USER])?;
        }
    }
    Ok(())
}

/// Removes the links to what people call, `releasectl` itself last.
pub fn unlink_tool(store: &Locked) -> Result<()> {
    let host = store.host();
    for path in TOOL.into_iter().rev() {
        let link = host.path("/usr/local").join(path);
        if fs::read_link(&link).is_ok_and(|there| there == target(path)) {
            host.remove(&link)?;
        }
    }
    Ok(())
}

fn target(path: &str) -> PathBuf {
    Path::new("/opt/app/validated").join(path)
}

/// What people call, and where they look it up: those of the validated release, since `current` may be lost or bad.
fn link_tool(store: &Locked, release: &Release) -> Result<()> {
    let host = store.host();
    for path in TOOL.into_iter().filter(|path| release.folder.join(path).exists()) {
        let (link, target) = (host.path("/usr/local").join(path), target(path));
        if fs::read_link(&link).is_ok_and(|there| there == target) {
            continue;
        }
        if let Some(folder) = link.parent() {
            host.make_folder(folder)?;
        }
        host.link(&target, &link)?;
    }
    Ok(())
}
