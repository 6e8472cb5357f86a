//! What the machine that the hosts boot on must have.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock},
};

/// A file that a package brings, and the package.
const NEEDED: [(&str, &str); 17] = [
    ("/usr/bin/systemd-nspawn", "systemd-container"),
    ("/sbin/init", "systemd-sysv"),
    ("/usr/bin/dbus-daemon", "dbus"),
    ("/usr/bin/ab", "apache2-utils"),
    ("/usr/bin/wrk", "wrk"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/sbin/sysctl", "procps"),
    ("/usr/bin/python3", "python3-minimal"),
    ("/usr/bin/strace", "strace"),
    ("/usr/bin/ssh", "openssh-client"),
    ("/usr/bin/zip", "zip"),
    ("/usr/bin/unzip", "unzip"),
    ("/usr/sbin/mkfs.xfs", "xfsprogs"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
    ("/usr/sbin/debootstrap", "debootstrap"),
];
/// Two test processes at once must not both run apt-get.
const LOCK: &str = "/run/lock/rig-packages";

/// Sees that hosts can be booted here, and installs what is missing; once per process.
///
/// # Errors
/// One line: that root is needed, or which packages are.
pub fn prepare() -> Result<(), String> {
    static PREPARED: OnceLock<Result<(), String>> = OnceLock::new();
    PREPARED.get_or_init(prepare_now).clone()
}

fn prepare_now() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("the rig boots real systemd hosts and needs root: run it as root or with sudo".to_owned());
    }
    need(&NEEDED)
}

/// Sees that files are there, and installs the packages that bring them where they are not.
///
/// # Errors
/// One line, with the packages that apt-get did not install.
pub(crate) fn need(needed: &[(&str, &'static str)]) -> Result<(), String> {
    let _held = lock(LOCK)?;
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)?;
    match self::missing(needed) {
        still if still.is_empty() => Ok(()),
        still => Err(not_installed(&still)),
    }
}

/// Installs packages.
///
/// # Errors
/// One line, where apt-get does not.
pub(crate) fn install(packages: &[&str]) -> Result<(), String> {
    eprintln!("installing {}", packages.join(" "));
    let installed =
        apt(&["update", "-q"]) && apt(&[&["install", "-q", "-y", "--no-install-recommends"], packages].concat());
    if installed { Ok(()) } else { Err(not_installed(packages)) }
}

fn not_installed(packages: &[&str]) -> String {
    format!("the rig needs these packages, and apt-get did not install them: {}", packages.join(" "))
}

/// The packages' archives, downloaded and not installed: what is unpacked in a host changes nothing here. Once per checkout.
///
/// # Errors
/// One line, where apt-get does not bring one of them.
pub fn downloaded(packages: &[&str]) -> Result<Vec<PathBuf>, String> {
    static LOCK: Mutex<()> = Mutex::new(());
    let _held = LOCK.lock();
    let folder = crate::workspace().join("target/packages");
    fs::create_dir_all(&folder).expect("the target folder is ours");
    let archive = |package: &&str| {
        archive_of(package, &folder).or_else(|| {
            let _ = download(package, &folder) || apt(&["update", "-q"]) && download(package, &folder);
            archive_of(package, &folder)
        })
    };
    let brought = |package| archive(package).ok_or_else(|| format!("apt-get brings no {package}"));
    packages.iter().map(brought).collect()
}

fn archive_of(package: &str, folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?.flatten();
    let start = format!("{package}_");
    entries.find(|entry| entry.file_name().to_string_lossy().starts_with(&start)).map(|entry| entry.path())
}

fn download(package: &str, folder: &Path) -> bool {
    let mut command = Command::new("apt-get");
    // Its own user cannot write here, and it says so each time.
    command
        .args(["-o", "APT::Sandbox::User=root", "download", "-q", package])
        .current_dir(folder)
        .stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Held until it is dropped, or the process ends.
pub(crate) fn lock(path: &str) -> Result<File, String> {
    let lock = File::create(path).and_then(|lock| lock.lock().map(|()| lock));
    lock.map_err(|error| format!("cannot lock {path}: {error}"))
}

fn missing(needed: &[(&str, &'static str)]) -> Vec<&'static str> {
    needed.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package).collect()
}

fn apt(arguments: &[&str]) -> bool {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
