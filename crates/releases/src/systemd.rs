//! What is asked of systemd, through its own programs.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    Error, ReleaseId, Result,
    effect::Started,
    host::{self, Host},
    instance::Instance,
    screen::{cut_bytes, printable},
};

/// The socket that all instances accept from.
pub const SOCKET: &str = "app.socket";
/// The unit that runs `releasectl boot`, at boot and on traffic that finds nobody.
pub const BOOT: &str = "app.service";

/// Of a log line, so many bytes: some of them, and what else a failing hook has to say, fit into what CodeDeploy's console
/// shows of it.
const LINE: usize = 150;

/// What `systemctl show` says of an instance.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// `active`, `activating`, `deactivating`, `failed`, `inactive`.
    pub active: String,
    /// How it ended: `success`, `exit-code`, `timeout`, `watchdog`, `oom-kill`, …
    pub result: String,
    /// Exit status or signal number of its main process.
    pub status: String,
}

impl Shown {
    /// Whether the instance accepts or may soon.
    pub fn is_up(&self) -> bool {
        matches!(self.active.as_str(), "active" | "activating" | "reloading")
    }

    /// How it ended, for people.
    pub fn ended(&self) -> String {
        format!("its instance ended: systemd says {}, exit status {}", self.result, self.status)
    }
}

/// Fails unless systemd runs this host (sd_booted(3)) and the caller is root.
///
/// # Errors
/// [`Error::NotRoot`], [`Error::NoSystemd`].
pub fn require(host: &Host, verb: &'static str) -> Result<()> {
    if !host.is_live() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot(verb));
    }
    require_running()
}

/// Fails unless systemd runs this host (sd_booted(3)).
///
/// # Errors
/// [`Error::NoSystemd`].
pub fn require_running() -> Result<()> {
    if PathBuf::from("/run/systemd/system").is_dir() { Ok(()) } else { Err(Error::NoSystemd) }
}

/// Begins to start an instance. The returned process ends when the instance is READY or has failed.
pub fn start(host: &Host, instance: &Instance) -> Result<Started> {
    host.start("systemctl", &["start", &instance.unit()])
}

/// Tells instances to retire, and does not wait until they have.
pub fn retire<'a>(host: &Host, instances: impl IntoIterator<Item = &'a Instance>) -> Result<()> {
    let units: Vec<String> = instances.into_iter().map(Instance::unit).collect();
    if units.is_empty() {
        return Ok(());
    }
    let arguments = ["stop", "--no-block"].into_iter().chain(units.iter().map(String::as_str));
    host.run("systemctl", &arguments.collect::<Vec<_>>()).map(drop)
}

/// Ends a unit and waits for it.
pub fn stop(host: &Host, unit: &str) -> Result<()> {
    host.run("systemctl", &["stop", unit]).map(drop)
}

/// The same, where systemd may never have heard of it.
pub fn stop_if_known(host: &Host, unit: &str) -> Result<()> {
    ignore_unknown(stop(host, unit))
}

/// Ends an instance at once, whatever it has open.
pub fn kill(host: &Host, instance: &Instance) -> Result<()> {
    host.run("systemctl", &["kill", "--signal=KILL", &instance.unit()]).map(drop)
}

/// Starts the socket, or any other unit that is not an instance.
pub fn start_unit(host: &Host, unit: &str) -> Result<()> {
    host.run("systemctl", &["start", unit]).map(drop)
}

/// Forgets that a unit failed, so that the host reads `running` again.
pub fn reset_failed(host: &Host, unit: &str) -> Result<()> {
    // A unit that systemd has already forgotten has no failure either.
    ignore_unknown(host.run("systemctl", &["reset-failed", unit]).map(drop))
}

fn ignore_unknown(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::Command { output, .. }) if output.contains("not loaded") => Ok(()),
        other => other,
    }
}

/// Reads the unit files again, if systemd knows an older version of this one.
pub fn reload_if_needed(host: &Host, unit: &str) -> Result<()> {
    if ask_whether_it_changed(host, unit)?.answer()? { reload(host) } else { Ok(()) }
}

/// Begins to ask whether systemd knows an older version of a unit.
pub fn ask_whether_it_changed(host: &Host, unit: &str) -> Result<Asked<bool>> {
    Asked::begin(host, &["show", "-p", "NeedDaemonReload", "--value", unit], |answer| answer.trim() == "yes")
}

/// Reads all unit files again.
pub fn reload(host: &Host) -> Result<()> {
    host.run("systemctl", &["daemon-reload"]).map(drop)
}

/// No boot starts these units any more.
pub fn disable(host: &Host, units: &[&str]) -> Result<()> {
    host.run("systemctl", &[&["disable", "--quiet"], units].concat()).map(drop)
}

/// Makes units start at boot; works on the files of another host too.
pub fn enable(host: &Host, units: &[&str]) -> Result<()> {
    let root = format!("--root={}", host.root().display());
    let mut arguments = vec!["enable", "--quiet"];
    if !host.is_live() {
        arguments.push(&root);
    }
    arguments.extend(units);
    host.run("systemctl", &arguments).map(drop)
}

/// What systemd knows of the service at one moment. Each time it is asked costs a process, and its start is what a busy
/// host feels of a deployment: so what one answer tells is not asked again.
#[derive(Debug, Default)]
pub struct Units {
    /// In order of `n`, each with its state as in [`Shown::active`]; unit names that are not ours are left out.
    pub instances: Vec<(Instance, String)>,
    /// Whether `app.service` has failed.
    pub boot_failed: bool,
    /// What the socket is: `active` while clients can connect.
    pub socket: String,
}

/// A question that is answered while the verb does something else: most of what it costs is the start of a process.
#[derive(Debug)]
pub struct Asked<T> {
    started: Started,
    parse: fn(&str) -> T,
}

impl<T> Asked<T> {
    fn begin(host: &Host, arguments: &[&str], parse: fn(&str) -> T) -> Result<Self> {
        Ok(Self { started: host.start("systemctl", arguments)?, parse })
    }

    /// Waits for the answer.
    pub fn answer(self) -> Result<T> {
        Ok((self.parse)(&host::printed(self.started)?))
    }
}

impl Units {
    /// Asks systemd.
    pub fn list(host: &Host) -> Result<Self> {
        Self::ask(host)?.answer()
    }

    /// Begins to ask systemd.
    pub fn ask(host: &Host) -> Result<Asked<Self>> {
        let arguments = ["list-units", "--all", "--full", "--plain", "--no-legend", "app-*@*.service", BOOT, SOCKET];
        Asked::begin(host, &arguments, Self::parse)
    }

    /// UNIT LOAD ACTIVE SUB DESCRIPTION
    fn parse(listed: &str) -> Self {
        // What is not there is not listed.
        let mut units = Self { socket: "inactive".to_owned(), ..Self::default() };
        for line in listed.lines() {
            let mut words = line.split_whitespace();
            let (Some(unit), Some(active)) = (words.next(), words.nth(1)) else { continue };
            if unit == BOOT {
                units.boot_failed = active == "failed";
            } else if unit == SOCKET {
                active.clone_into(&mut units.socket);
            } else if let Ok(instance) = unit.parse() {
                units.instances.push((instance, active.to_owned()));
            }
        }
        units.instances.sort();
        units
    }

    /// The instances that accept, or soon will, in order of `n`.
    pub fn up(&self) -> impl DoubleEndedIterator<Item = &Instance> {
        let is_up = |active: &str| Shown { active: active.to_owned(), ..Shown::default() }.is_up();
        self.instances.iter().filter(move |(_, active)| is_up(active)).map(|(instance, _)| instance)
    }

    /// The newest instance of a release that is up.
    pub fn newest(&self, release: &ReleaseId) -> Option<&Instance> {
        self.up().rfind(|instance| instance.release == *release)
    }

    /// Whether an instance is READY.
    pub fn is_active(&self, instance: &Instance) -> bool {
        self.instances.iter().any(|(other, active)| other == instance && active == "active")
    }

    /// The instances that were told to end and have not.
    pub fn retiring(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|(_, active)| active == "deactivating").map(|(instance, _)| instance)
    }

    /// The instances that have failed.
    pub fn failed(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|(_, active)| active == "failed").map(|(instance, _)| instance)
    }
}

/// What systemd says of one instance now.
pub fn show(host: &Host, instance: &Instance) -> Result<Shown> {
    let shown = properties(host, &instance.unit(), "ActiveState,Result,ExecMainStatus")?;
    let value = |name: &str| shown.get(name).cloned().unwrap_or_default();
    Ok(Shown { active: value("ActiveState"), result: value("Result"), status: value("ExecMainStatus") })
}

/// Begins to ask where the socket listens.
pub fn ask_where_it_listens(host: &Host) -> Result<Started> {
    host.start("systemctl", &["show", "-p", "Listen", "--value", SOCKET])
}

/// Properties of a unit, by name; `names` are parted by commas.
pub fn properties(host: &Host, unit: &str, names: &str) -> Result<BTreeMap<String, String>> {
    let text = host.run("systemctl", &["show", "-p", names, unit])?;
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut properties = BTreeMap::new();
    for (name, value) in text.lines().filter_map(pair) {
        // One that stands in several lines (Listen) is meant by its first.
        properties.entry(name).or_insert(value);
    }
    Ok(properties)
}

/// One property of a unit.
pub fn property(host: &Host, unit: &str, name: &str) -> Result<String> {
    Ok(host.run("systemctl", &["show", "-p", name, "--value", unit])?.trim().to_owned())
}

/// The last lines that a unit, or all that a pattern matches, logged: oldest first, harmless to print, each marked.
pub fn last_lines(host: &Host, unit: &str, count: u32) -> String {
    // A process that has just died may have lines under way; without the sync they come too late to be read. Where somebody
    // floods the journal, the sync has no end of its own.
    let _ = host.run("timeout", &["2", "journalctl", "--sync"]);
    let arguments = ["5", "journalctl", "-o", "cat", "--no-pager", "-q", "-n", &count.to_string(), "-u", unit];
    let text = host.run("timeout", &arguments).unwrap_or_default();
    // An entry may have many lines.
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count as usize)..]
        .iter()
        .map(|line| format!("  | {}\n", cut_bytes(&printable(line), LINE)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_units_that_are_instances_are_listed() {
        let units = Units::parse(
            "app-0123456789abcdef@12.service loaded active running app 0123456789abcdef, instance 12\n\
             app-0123456789abcdef@9.service loaded failed failed app 0123456789abcdef, instance 9\n\
             app-other@1.service loaded active running x\n\
             app.service loaded failed failed starts the current release\n\
             app.socket loaded active running public\n",
        );
        assert_eq!(units.up().map(|instance| instance.n).collect::<Vec<_>>(), [12]);
        assert_eq!(units.failed().map(|instance| instance.n).collect::<Vec<_>>(), [9]);
        assert!(units.boot_failed && units.is_active(&units.instances[1].0));
        assert_eq!((units.socket.as_str(), Units::parse("").socket.as_str()), ("active", "inactive"));
    }

    #[test]
    fn a_log_line_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{7}"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
