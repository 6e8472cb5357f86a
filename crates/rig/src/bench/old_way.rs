//! The way that needs nothing: copy, flip the link, restart.

use std::{fs, io};

use super::stage::timed;
use crate::{Host, subject::BUNDLE};

const SCRIPT: &str = include_str!("peers/rsync.sh");
const UNIT: &str = include_str!("peers/rsync.service");
/// rsync, and what it needs beyond a minimal system.
const PACKAGES: [&str; 3] = ["rsync", "libpopt0", "libxxhash0"];

/// A script and a unit on a host; which port it serves on is no other's.
pub(super) struct OldWay;

impl OldWay {
    /// Puts them there, and rsync.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn set_up(host: &Host) -> io::Result<Self> {
        // Into the host: the machine keeps what it has.
        host.unpack(&PACKAGES).map_err(io::Error::other)?;
        fs::write(host.path("/root/rsync.sh"), SCRIPT)?;
        fs::write(host.path("/etc/systemd/system/old-way.service"), UNIT)?;
        host.succeed("ldconfig; chmod +x /root/rsync.sh; systemctl daemon-reload");
        let this = Self;
        // The first has nothing to stop.
        this.deploy(host, 0);
        Ok(this)
    }

    /// Deploys the unpacked bundle; the service is up again when it returns. In milliseconds.
    pub fn deploy(&self, host: &Host, n: usize) -> f64 {
        timed(|| drop(host.succeed(&format!("/root/rsync.sh {BUNDLE} {n}"))))
    }
}
