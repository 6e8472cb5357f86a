//! Unpacking a bundle in the deployment's folder.

use std::{fs, io, process::Command};

use super::record::{ARCHIVE, Place};
use crate::Host;

const PLAIN_UNZIP: &str = include_str!("plain_unzip.py");
/// What unzip(1) exits with where the disk is full.
const DISK_FULL: i32 = 50;

/// What CodeDeploy calls `bundleType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tar archive,
    Tar,
    /// and one that gzip has packed.
    Tgz,
    /// A zip archive.
    Zip,
}

impl Kind {
    /// What a bundle is, by its first bytes.
    pub fn of(bundle: &[u8]) -> Self {
        match bundle {
            [0x1f, 0x8b, ..] => Self::Tgz,
            [b'P', b'K', ..] => Self::Zip,
            _ => Self::Tar,
        }
    }
}

/// Unpacks the bundle of a deployment, and takes a sole folder with an appspec in it for the bundle itself.
pub(super) fn unpack(host: &Host, kind: Kind, place: &Place) -> Result<(), String> {
    let (bundle, archive) = (place.bundle(), place.archive());
    host.run(&format!("rm -rf {archive}"));
    match kind {
        Kind::Tar => untar(host, "-xpsf", &bundle, &archive),
        Kind::Tgz => untar(host, "-zxpsf", &bundle, &archive),
        Kind::Zip => unzip(host, &bundle, &archive),
    }?;
    strip(host, place).map_err(|error| format!("{archive}: {error}"))
}

/// The files of another deployment, as they are.
pub(super) fn copy(host: &Host, folder: &str, archive: &str) -> Result<(), String> {
    let ran = host.run(&format!("cp -a {folder}/{ARCHIVE} {archive}"));
    if ran.code == 0 { Ok(()) } else { Err(ran.output) }
}

/// Modes, the setuid bit and owners are the archive's.
fn untar(host: &Host, options: &str, bundle: &str, archive: &str) -> Result<(), String> {
    let ran = host.run(&format!("mkdir -p {archive} && cd {archive} && /bin/tar {options} {bundle}"));
    if ran.code == 0 { Ok(()) } else { Err(format!("Error extracting tar archive: {}: {}", ran.code, ran.output)) }
}

fn unzip(host: &Host, bundle: &str, archive: &str) -> Result<(), String> {
    match host.run(&format!("mkdir -p {archive}; unzip -qo {bundle} -d {archive}")).code {
        0 => Ok(()),
        DISK_FULL => {
            host.run(&format!("rm -rf {archive}"));
            Err("The disk is (or was) full during extraction.".to_owned())
        }
        _ => {
            let ran = host.command("python3").args(["-c", PLAIN_UNZIP, bundle, archive]).output();
            let ran = ran.map_err(|error| format!("python3: {error}"))?;
            if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).into_owned()) }
        }
    }
}

fn strip(host: &Host, place: &Place) -> io::Result<()> {
    let archive = host.path(&place.archive());
    let entries: Vec<_> = fs::read_dir(&archive)?.collect::<io::Result<_>>()?;
    let [sole] = entries.as_slice() else { return Ok(()) };
    if !sole.file_type()?.is_dir() {
        return Ok(());
    }
    let names = fs::read_dir(sole.path())?.map(|entry| entry.map(|entry| entry.file_name()));
    let names: Vec<_> = names.collect::<io::Result<_>>()?;
    if !names.iter().any(|name| name.to_string_lossy().to_lowercase().contains("appspec")) {
        return Ok(());
    }
    let aside = host.path(&format!("{}/deployment-archive-temp", place.folder));
    fs::rename(&archive, &aside)?;
    fs::rename(aside.join(sole.file_name()), &archive)?;
    fs::remove_dir(&aside)
}

/// The same bundle as a zip archive, its modes and links kept.
///
/// # Errors
/// Where tar(1) or zip(1) fails.
pub fn as_zip(tgz: &[u8]) -> io::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (from, to) = (folder.path().join("bundle.tgz"), folder.path().join("bundle.zip"));
    fs::write(&from, tgz)?;
    let shell = "mkdir files && cd files && tar -xzpf ../bundle.tgz && zip -qry ../bundle.zip .";
    let status = Command::new("sh").args(["-c", shell]).current_dir(folder.path()).status()?;
    if status.success() { fs::read(to) } else { Err(io::Error::other(format!("tar or zip ended with {status}"))) }
}
