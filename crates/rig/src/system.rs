//! The systems that a host can be of, besides the machine's own: made once by debootstrap, and kept.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Host, machine};

/// Beside what the machine's own packages keep: a checkout comes and goes.
pub(crate) const CACHE: &str = "/var/cache/rig";
const LOCK: &str = "/run/lock/rig-systems";
/// What a server has at least, and curl for whoever looks.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,curl,ca-certificates";

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// systemd 247, the oldest that is served
    Debian11,
    /// systemd 252, as Amazon Linux 2023 has it
    Debian12,
    /// systemd 257
    Debian13,
}

impl System {
    /// All of them, the oldest first.
    pub const ALL: [Self; 3] = [Self::Debian11, Self::Debian12, Self::Debian13];

    /// Boots a host of it, and makes the system first where this machine has not got it yet.
    ///
    /// # Errors
    /// One line that says why it could not be made.
    ///
    /// # Panics
    /// Where the host does not come up.
    pub fn boot(self) -> Result<Host, String> {
        machine::prepare()?;
        Ok(Host::boot_of(&kept(self.suite(), |folder| debootstrap(self.suite(), PACKAGES, folder))?))
    }

    fn suite(self) -> &'static str {
        match self {
            Self::Debian11 => "bullseye",
            Self::Debian12 => "bookworm",
            Self::Debian13 => "trixie",
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Debian11 => "Debian 11",
            Self::Debian12 => "Debian 12",
            Self::Debian13 => "Debian 13",
        })
    }
}

/// The system of that name, made by `make` where this machine has not got it yet. Complete or absent: it gets its name last.
pub(crate) fn kept(name: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let folder = Path::new(CACHE).join(name);
    let _held = machine::lock(LOCK)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    eprintln!("making the system {name}, once");
    let made = folder.with_extension("new");
    let failed = |error: std::io::Error| format!("cannot make {}: {error}", made.display());
    if made.exists() {
        fs::remove_dir_all(&made).map_err(failed)?;
    }
    fs::create_dir_all(&made).map_err(failed)?;
    make(&made)?;
    fs::rename(&made, &folder).map_err(failed)?;
    Ok(folder)
}

/// A suite of Debian, and these packages with what they need.
pub(crate) fn debootstrap(suite: &str, packages: &str, folder: &Path) -> Result<(), String> {
    let mut command = Command::new("debootstrap");
    command.arg("--variant=minbase");
    if !packages.is_empty() {
        command.arg(format!("--include={packages}"));
    }
    command.arg(suite).arg(folder);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run debootstrap: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    Err(format!("debootstrap of {suite} into {} failed: {last}", folder.display()))
}
