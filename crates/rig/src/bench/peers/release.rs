//! What differs between one release of a peer and the next: what it says at /version.

use std::{fs, io};

use super::{Cell, Kind};

/// As a release's of ours looks.
pub(super) fn id(n: u64) -> String {
    format!("{n:016x}")
}

/// Puts it where the peer reads it when it is started or reloaded.
pub(super) fn write(kind: Kind, cell: &Cell, n: u64) -> io::Result<()> {
    let id = id(n);
    let (name, text) = match kind {
        Kind::Haproxy => ("version.json", format!("{{\"release\":\"{id}\"}}")),
        Kind::Caddy => ("release.caddy", format!("respond /version `{{\"release\":\"{id}\"}}`\n")),
        Kind::Nginx | Kind::PatientNginx => ("release.conf", format!("map $host $release {{ default \"{id}\"; }}\n")),
        _ => ("release", id),
    };
    // Never half of it.
    let new = cell.path("release.new");
    fs::write(&new, text)?;
    fs::rename(new, cell.path(name))
}
