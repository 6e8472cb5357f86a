//! The way that needs nothing: copy, flip the link, restart.

use std::{fs, io, time::Instant};

use super::{machine::version, stage::ms};
use crate::{Host, subject::BUNDLE};

const SCRIPT: &str = include_str!("peers/rsync.sh");
const UNIT: &str = include_str!("peers/rsync.service");
/// rsync, and what it needs beyond a minimal system.
const PACKAGES: [&str; 3] = ["rsync", "libpopt0", "libxxhash0"];
pub(super) const NAME: &str = "rsync, ln -sfn, restart of a plain unit";

/// A script and a unit on a host; which port it serves on is no other's.
pub(super) struct OldWay {
    version: String,
}

impl OldWay {
    /// Puts them there, and rsync.
    ///
    /// # Errors
    /// Where rsync cannot be had, or it does not deploy.
    pub fn set_up(host: &Host) -> io::Result<Self> {
        // Into the host: the machine keeps what it has.
        host.unpack(&PACKAGES).map_err(io::Error::other)?;
        fs::write(host.path("/root/rsync.sh"), SCRIPT)?;
        fs::write(host.path("/etc/systemd/system/old-way.service"), UNIT)?;
        run(host, "ldconfig; chmod +x /root/rsync.sh; systemctl daemon-reload")?;
        let this = Self { version: version(&host.succeed("rsync --version")).to_owned() };
        // The first has nothing to stop.
        this.deploy(host, 0)?;
        Ok(this)
    }

    /// Which rsync it is.
    pub fn tell(&self) -> String {
        format!("The script's rsync is {}.", self.version)
    }

    /// Deploys the unpacked bundle; the service is up again when it returns. In milliseconds.
    ///
    /// # Errors
    /// Where it does not.
    pub fn deploy(&self, host: &Host, n: usize) -> io::Result<f64> {
        let began = Instant::now();
        run(host, &format!("/root/rsync.sh {BUNDLE} {n}"))?;
        Ok(ms(began.elapsed()))
    }
}

fn run(host: &Host, command: &str) -> io::Result<()> {
    let ran = host.run(command);
    let failed = || io::Error::other(format!("`{command}` exited with {}: {}", ran.code, ran.output.trim()));
    if ran.code == 0 { Ok(()) } else { Err(failed()) }
}
