//! Where the peers that Debian has come from: a system of their own, so that nothing is installed on this machine.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::locked;
use crate::system::{CACHE, debootstrap, kept};

/// Where the newest ones are; nginx has `keepalive_min_timeout` since 1.27.4.
const SUITE: &str = "testing";
const NAME: &str = "peers";
const PACKAGES: [&str; 3] = ["caddy", "haproxy", "nginx"];

/// The system that has them, made once.
///
/// # Errors
/// One line that says why it cannot be had.
pub(in crate::bench) fn root() -> io::Result<PathBuf> {
    let make = |folder: &Path| {
        debootstrap(SUITE, "", folder)?;
        // No service is started: in a root without an init nothing starts one.
        let mut command = Command::new("chroot");
        command.arg(folder).args(["apt-get", "install", "-q", "-y", "--no-install-recommends"]).args(PACKAGES);
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(format!("apt-get did not install {} in {}", PACKAGES.join(" "), folder.display())),
        }
    };
    kept(NAME, make).map_err(|error| io::Error::other(format!("its system cannot be had: {error}")))
}

/// Of a program of that system, or of a crate as it is locked.
pub(in crate::bench) fn version(name: &str) -> String {
    let found = match name {
        "ecdysis" => locked(&crate::workspace().join("crates/rig/src/bench/peers/ecdysis/Cargo.lock"), name),
        _ if PACKAGES.contains(&name) => packaged(name),
        _ => locked(&crate::workspace().join("Cargo.lock"), name),
    };
    found.unwrap_or_else(|| "of an unknown version".to_owned())
}

/// Upstream's part of it.
fn packaged(name: &str) -> Option<String> {
    let mut command = Command::new("chroot");
    // Whoever does not measure them does not make them.
    let output = command.arg(Path::new(CACHE).join(NAME)).args(["dpkg-query", "-W", "-f", "${Version}", name]).output();
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    Some(text.split_once('-')?.0.to_owned())
}

/// Of all that take part.
pub(in crate::bench) fn versions() -> BTreeMap<String, String> {
    let crates = ["axum", "ecdysis", "hyper", "tokio", "tower-http"];
    crates.into_iter().chain(PACKAGES).map(|name| (name.to_owned(), version(name))).collect()
}
