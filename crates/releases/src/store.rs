//! The store: `/opt/app`, its releases, its two links, its counter, its log and its lock.

use std::{
    cell::Cell,
    fs, io,
    ops::Deref,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    Error, Manifest, ReleaseId, Result, effect,
    host::Host,
    instance::{self, Instance},
    ledger,
    screen::{printable, say},
    systemd,
    trail::{self, By, Record},
    tree,
};

/// The format of the store. What is added to it leaves the number as it is: readers ignore what they do not know.
const FORMAT: &str = "1";
/// What is kept free for a way back on a full disk: an inode, and some blocks.
const RESERVE: &str = "reserve";
const RESERVED: usize = 64 << 10;
/// Where the store is on a host.
pub const BASE: &str = "/opt/app";
/// Where `cargo ship` unpacks bundles: beside the store, whose file system runs programs.
pub(crate) const SHIPS: &str = "/opt/app-ship";
const LOCK: &str = "lock";
/// Who has something to do where there is no store: one makes it, one looks for what else there is.
const WITHOUT_A_STORE: [&str; 2] = ["install", "uninstall"];
const POLL: Duration = Duration::from_millis(20);

/// The store of one host. Reading needs no lock; what changes it is on [`Locked`].
#[derive(Clone, Debug)]
pub struct Store {
    host: Host,
    lock_wait: Duration,
}

/// A release that is in the store.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its name.
    pub id: ReleaseId,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Where it is.
    pub folder: PathBuf,
}

/// One of the store's two links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// What the host serves.
    Current,
    /// The last release that passed `validate`; until one has, the first that was activated.
    Validated,
}

impl Store {
    /// The store of the host whose files are below `root` (`/` for the running one).
    pub fn open(root: &Path, lock_wait: Duration) -> Self {
        Self { host: Host::new(root), lock_wait }
    }

    /// The host that it is on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where `name` of the store is found.
    pub fn path(&self, name: &str) -> PathBuf {
        self.host.path(BASE).join(name)
    }

    /// Where a release is, or would be.
    pub fn folder(&self, id: &ReleaseId) -> PathBuf {
        self.path("releases").join(id.as_str())
    }

    /// What a link names, if it is there and names a release's folder.
    pub fn named_by(&self, link: Link) -> Option<ReleaseId> {
        let target = fs::read_link(self.path(link.name())).ok()?;
        let id = target.strip_prefix("releases").ok()?.to_str()?.parse().ok()?;
        self.folder(&id).is_dir().then_some(id)
    }

    /// The current release.
    ///
    /// # Errors
    /// [`Error::NothingCurrent`].
    pub fn current(&self) -> Result<ReleaseId> {
        self.named_by(Link::Current).ok_or(Error::NothingCurrent)
    }

    /// A release of the store, complete as far as names, sizes and modes tell.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Damaged`].
    pub fn release(&self, id: &ReleaseId) -> Result<Release> {
        let folder = self.folder(id);
        if !folder.is_dir() {
            return Err(Error::NotInstalled(id.clone()));
        }
        let (manifest, found) = Manifest::read(&folder)?;
        if found != *id {
            return Err(Error::Damaged { path: folder, fault: format!("holds the manifest of release {found}") });
        }
        tree::check_shape(&folder, &manifest)?;
        Ok(Release { id: id.clone(), manifest, folder })
    }

    /// Every sound release of the store, in order of id.
    pub fn releases(&self) -> Vec<Release> {
        let entries = fs::read_dir(self.path("releases")).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut found: Vec<Release> = ids.filter_map(|id| self.release(&id).ok()).collect();
        found.sort_by(|one, other| one.id.cmp(&other.id));
        found
    }

    /// The log of activations and validations, oldest first.
    pub fn records(&self) -> Result<Vec<Record>> {
        trail::read(&self.path("activations.jsonl"))
    }

    /// What was logged after the activation of instance `n`.
    pub fn records_after(&self, n: u64) -> Result<Vec<Record>> {
        trail::read_after(&self.path("activations.jsonl"), n)
    }

    /// Takes the lock, so that one verb at a time changes the host. The kernel gives it back when this process ends.
    ///
    /// # Errors
    /// [`Error::NotRoot`] or [`Error::NoSystemd`] where the host cannot be changed, [`Error::Locked`] after the wait,
    /// [`Error::NothingCurrent`] where there is no store, or no more.
    pub fn lock(&self, verb: &'static str) -> Result<Locked<'_>> {
        systemd::require(&self.host, verb)?;
        self.check_format(verb)?;
        let mut file = self.take(&self.path(LOCK))?;
        // Whoever had it may have been a later tool, and raised the format.
        self.check_format(verb)?;
        self.host.sign_lock(&mut file, &format!("releasectl {verb} (pid {}) {}\n", std::process::id(), now()));
        let locked = Locked { store: self, goes_back: Cell::new(false), _file: file };
        if !WITHOUT_A_STORE.contains(&verb) && locked.holds_nothing()? {
            locked.remove()?;
            return Err(Error::NothingCurrent);
        }
        Ok(locked)
    }

    /// Whoever waited while the product was uninstalled has the lock of a file that is gone: others may hold the next one.
    fn take(&self, path: &Path) -> Result<effect::File> {
        loop {
            self.host.make_folder(&self.path(""))?;
            let mut file = match self.host.open_lock(path) {
                // The folder went again in between.
                Err(_) if is_missing(&self.path("")) => continue,
                opened => opened?,
            };
            self.wait_for(file.inner(), path)?;
            if is_at(file.inner(), path).map_err(Error::disk("look at", path))? {
                return Ok(file);
            }
            say("the store was removed meanwhile, as uninstall does it");
        }
    }

    /// A store that a later releasectl has made its own is not changed by this one. But a host that boots is to serve: what
    /// `boot` needs is the same for ever.
    fn check_format(&self, verb: &str) -> Result<()> {
        if verb == "boot" {
            return Ok(());
        }
        let path = self.path("format");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() != FORMAT => Err(Error::LaterStore { path, format: printable(text.trim()) }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::disk("read", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Whether nothing in the store is a later tool's to tidy up.
    pub(crate) fn is_of_this_format(&self) -> bool {
        self.check_format("prune").is_ok()
    }

    fn wait_for(&self, file: &fs::File, path: &Path) -> Result<()> {
        let since = Instant::now();
        let mut said = false;
        while let Err(error) = file.try_lock() {
            if let fs::TryLockError::Error(error) = error {
                return Err(Error::disk("lock", path)(error));
            }
            let holder = holder(&fs::read_to_string(path).unwrap_or_default(), now());
            if since.elapsed() >= self.lock_wait {
                return Err(Error::Locked { path: path.to_owned(), holder, waited: self.lock_wait.as_secs() });
            }
            if !std::mem::replace(&mut said, true) {
                say(&format!("waiting for {holder}"));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// The store while this process alone may change it.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Store,
    goes_back: Cell<bool>,
    _file: effect::File,
}

impl Deref for Locked<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store
    }
}

impl Locked<'_> {
    /// Points a link at a release of the store.
    pub fn point(&self, link: Link, id: &ReleaseId) -> Result<()> {
        if self.named_by(link).as_ref() == Some(id) {
            // A run that was killed may have flipped it and not synced that.
            return self.host().sync_folder(&self.path(""));
        }
        self.with_reserve(|| self.host().link(&Path::new("releases").join(id.as_str()), &self.path(link.name())))
    }

    /// Keeps room for the way back.
    pub fn keep_reserve(&self) -> Result<()> {
        let path = self.path(RESERVE);
        if path.exists() { Ok(()) } else { self.host().write(&path, &vec![0; RESERVED]) }
    }

    /// From here on this is a way back: a full disk must not stop it.
    pub fn goes_back(&self) {
        self.goes_back.set(true);
    }

    /// On a way back, does it again where the disk is full, with the room that was kept for that.
    fn with_reserve(&self, act: impl Fn() -> Result<()>) -> Result<()> {
        let path = self.path(RESERVE);
        match act() {
            Err(error) if self.goes_back.get() && error.is_of_a_full_disk() && path.exists() => {
                say(&format!("{error}: using what was kept free for that"));
                self.host().remove(&path)?;
                act()
            }
            other => other,
        }
    }

    /// A name for a new instance: its number is on the disk before it is used, so it is never used again.
    pub fn new_instance(&self, release: &ReleaseId) -> Result<Instance> {
        let path = self.path("counter");
        let counted = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        // A lost counter must not count again from 1: the logs, and what instances have left, know what was used.
        let last = match counted {
            Some(counted) => counted.max(trail::highest_n(&self.records()?)),
            None => [trail::highest_n(&self.records()?), ledger::highest(self)?, instance::highest_n(self.host())]
                .into_iter()
                .fold(0, u64::max),
        };
        let n = last + 1;
        // Of one length, so that a full disk keeps no instance from being started.
        let text = format!("{n:020}\n");
        self.host().write(&path, text.as_bytes()).or_else(|_| self.host().overwrite(&path, text.as_bytes()))?;
        Ok(Instance { n, release: release.clone() })
    }

    /// Logs that `current` is about to become the instance's release.
    pub fn record_activation(&self, instance: &Instance, by: By) -> Result<()> {
        let from = self.named_by(Link::Current);
        let record = Record::Activation { n: instance.n, release: instance.release.clone(), from, by, time: now() };
        match self.with_reserve(|| self.record(&record)) {
            Err(error) if self.goes_back.get() => {
                say(&format!("not in the log: {error}"));
                Ok(())
            }
            recorded => recorded,
        }
    }

    /// Logs that a release passed `validate`.
    pub fn record_validation(&self, id: &ReleaseId) -> Result<()> {
        self.with_reserve(|| self.record(&Record::Validation { validated: id.clone(), time: now() }))
    }

    /// Logs that a release failed. That a disk is too full to say so must not keep the host from going back.
    pub fn record_failure(&self, id: &ReleaseId, reason: &str) {
        let reason = printable(reason.lines().next().unwrap_or_default());
        if let Err(error) = self.record(&Record::Failure { failed: id.clone(), reason, time: now() }) {
            say(&format!("release {id} is not marked bad: {error}"));
        }
    }

    /// Logs that a release is being deployed.
    pub fn record_installation(&self, id: &ReleaseId) -> Result<()> {
        self.record(&Record::Installation { installed: id.clone(), time: now() })
    }

    /// Logs that a release is to be kept, or need not be any more.
    pub fn record_pin(&self, id: &ReleaseId, is_pinned: bool) -> Result<()> {
        let (id, time) = (id.clone(), now());
        self.record(&if is_pinned { Record::Pin { pinned: id, time } } else { Record::Unpin { unpinned: id, time } })
    }

    /// Whether its lock is all that there is: then whoever took it has made it.
    fn holds_nothing(&self) -> Result<bool> {
        let base = self.path("");
        let entries = fs::read_dir(&base).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        Ok(entries.map_err(Error::disk("list", &base))?.iter().all(|entry| entry.file_name() == LOCK))
    }

    /// Removes what is left of the store, the lock last: until then nobody else changes the host.
    pub fn remove(self) -> Result<()> {
        let (host, base) = (self.host(), self.path(""));
        for entry in fs::read_dir(&base).map_err(Error::disk("list", &base))? {
            let path = entry.map_err(Error::disk("list", &base))?.path();
            if !path.ends_with(LOCK) {
                host.remove_tree(&path)?;
            }
        }
        host.remove(&self.path(LOCK))?;
        host.remove_if_empty(&base)
    }

    fn record(&self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record).unwrap_or_default();
        self.host().append_line(&self.path("activations.jsonl"), &line)
    }
}

/// Whether an open file is the one that has this name.
fn is_at(file: &fs::File, path: &Path) -> io::Result<bool> {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        there => Ok(identity(there?) == identity(file.metadata()?)),
    }
}

fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Who holds the lock and since when, of what it wrote there: its name, and seconds since the epoch.
fn holder(text: &str, now: u64) -> String {
    let text = printable(text.trim());
    match text.rsplit_once(' ').map(|(who, since)| (who, since.parse::<u64>())) {
        Some((who, Ok(since))) => format!("{who}, which has it since {} s", now.saturating_sub(since)),
        _ => text,
    }
}

impl Link {
    /// Its name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Validated => "validated",
        }
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    now_precisely() as u64
}

/// The same, to the millisecond.
pub(crate) fn now_precisely() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_millis() as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many descriptors of this process are of a file.
    fn opened(path: &Path) -> usize {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
        descriptors.filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == path)).count()
    }

    #[test]
    fn whoever_waited_while_the_lock_was_removed_takes_the_one_that_is_there() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), Duration::from_secs(60));
        let path = store.path(LOCK);
        fs::create_dir_all(store.path("releases")).unwrap();
        let old = fs::File::create(&path).unwrap();
        old.lock().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| is_at(store.lock("prune").unwrap()._file.inner(), &path).unwrap());
            while opened(&path) < 2 {
                thread::yield_now();
            }
            fs::remove_file(&path).unwrap();
            drop(old);
            assert!(waiter.join().unwrap(), "it has the lock of a file that is gone");
        });
    }
}
