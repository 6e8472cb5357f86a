//! Uninstall: the product leaves the host, and what is the operator's stays.

use std::{
    fmt,
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
};

use crate::{
    Error, Result, Store,
    instance::RUNTIME,
    pace,
    progress::Progress,
    prune,
    screen::say,
    store::{BASE, Link, Locked, SHIPS},
    switch,
    systemd::{self, Units},
    units,
};

/// Configuration and state, which belong to no release.
const OPERATORS: [&str; 2] = ["/etc/app", "/var/lib/app"];

/// How much goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What deployments have brought.
    Product,
    /// That, its configuration, its state and its user.
    Everything,
}

/// Whether a person has agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// By the command line.
    Given,
    /// Is asked for, in a terminal.
    Asked,
}

/// Takes the product off this host: the instances retire, then units, links and the store are removed.
///
/// What is in flight is answered. The tool goes last, so that whoever was killed here can call it again.
///
/// # Errors
/// [`Error::Unasked`] where nobody can be asked and [`Error::Declined`] where the answer is no: then nothing was changed.
pub fn uninstall(store: &Store, extent: Extent, consent: Consent) -> Result<()> {
    if !store.host().is_live() {
        return Err(Error::Offline("uninstall"));
    }
    systemd::require(store.host(), "uninstall")?;
    agree(&Plan::of(store, extent), consent)?;
    let mut progress = Progress::begin("uninstall", "lock");
    let locked = store.lock("uninstall")?;
    progress.step("retire");
    retire(&locked)?;
    progress.step("units");
    units::remove_all(&locked)?;
    if extent == Extent::Everything {
        progress.step("purge");
        purge(&locked)?;
    }
    progress.step("store");
    remove_runtime(&locked)?;
    remove_releases(&locked)?;
    locked.remove()?;
    progress.end();
    say("the product is off this host; the next bundle prepares it anew");
    Ok(())
}

/// What goes and what stays, for the one who is asked.
struct Plan {
    extent: Extent,
    releases: usize,
    operators: Vec<PathBuf>,
}

impl Plan {
    fn of(store: &Store, extent: Extent) -> Self {
        Self { extent, releases: prune::ids(store).len(), operators: units::operators(store) }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operators = format!("{} and the user app", OPERATORS.join(", "));
        writeln!(f, "ends the service: what is in flight is answered, then connections are refused")?;
        writeln!(f, "removes {BASE} ({} releases and their history), their units, and releasectl", self.releases)?;
        match self.extent {
            Extent::Everything => writeln!(f, "removes {operators}")?,
            Extent::Product => writeln!(f, "leaves {operators}; --purge removes them")?,
        }
        for path in &self.operators {
            writeln!(f, "leaves {}, which no release brought", path.display())?;
        }
        f.write_str("interrupted, it is run again; where releasectl is gone, by a bundle's: bin/releasectl uninstall")
    }
}

fn agree(plan: &Plan, consent: Consent) -> Result<()> {
    if consent == Consent::Asked && !io::stdin().is_terminal() {
        return Err(Error::Unasked);
    }
    say(&plan.to_string());
    if consent == Consent::Given {
        return Ok(());
    }
    let mut answer = String::new();
    let _ = write!(io::stdout(), "Go on? [y/N] ").and_then(|()| io::stdout().flush());
    // An end of the input is no yes.
    let _ = io::stdin().lock().read_line(&mut answer);
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) { Ok(()) } else { Err(Error::Declined) }
}

/// Nobody is accepted any more, and nobody starts an instance; returns when the last has ended.
fn retire(store: &Locked) -> Result<()> {
    units::close(store)?;
    let (units, _) = switch::retire(store, &Units::list(store.host())?, None)?;
    for (instance, _) in units.instances.iter().filter(|(_, active)| !matches!(active.as_str(), "inactive" | "failed"))
    {
        say(&format!("waiting for what {} drains", instance.unit()));
        systemd::stop_if_known(store.host(), &instance.unit())?;
    }
    switch::forget_failed(store, &Units::list(store.host())?)
}

/// What instances, the pace of `boot` and ships have left.
fn remove_runtime(store: &Locked) -> Result<()> {
    let host = store.host();
    host.remove(&host.path(pace::FILE))?;
    [RUNTIME, SHIPS].into_iter().try_for_each(|path| host.remove_tree(&host.path(path)))
}

/// Whole or not at all, each of them (R2). The one whose tool this is goes last, with the link that people call it by.
fn remove_releases(store: &Locked) -> Result<()> {
    let (host, tool) = (store.host(), store.named_by(Link::Validated));
    host.remove(&store.path(Link::Current.name()))?;
    let others = prune::ids(store).into_iter().filter(|id| Some(id) != tool.as_ref());
    others.into_iter().try_for_each(|id| prune::remove_release(store, &id))?;
    units::unlink_tool(store)?;
    host.remove(&store.path(Link::Validated.name()))?;
    tool.map_or(Ok(()), |id| prune::remove_release(store, &id))
}

/// The user last: until then the files have an owner who has a name.
fn purge(store: &Locked) -> Result<()> {
    let host = store.host();
    OPERATORS.iter().try_for_each(|path| host.remove_tree(&host.path(path)))?;
    units::remove_user(store)
}
