//! What is deployed to: a host with two releases of the shipped product, its store on a disk of this machine.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use releases::{ReleaseId, bundle::Contents};
use tempfile::{NamedTempFile, TempPath};

use crate::{
    Host,
    subject::{BUNDLE, Subject},
};

/// Where a host's public socket is, in its network.
pub(super) const SOCKET: &str = "127.0.0.1:80";
/// The files of a host are in memory, where fsync(2) costs nothing: of what must outlive a power cut that would be untrue.
const MOUNT: &str = "
    set -e
    mknod /dev/bench-disk b $(cat /sys/class/block/NAME/dev | tr : ' ')
    mkdir -p /mnt /opt/app
    mount /dev/bench-disk /mnt
    mkdir /mnt/app
    cp -a /etc/systemd/system /mnt/units
    mount --bind /mnt/app /opt/app
    mount --bind /mnt/units /etc/systemd/system
";

/// A host with two releases. Dropping it takes everything away.
pub(super) struct Stage {
    pub subject: Subject,
}

impl Stage {
    /// Its store is on a disk.
    ///
    /// # Errors
    /// Where the product does not build, or the disk cannot be made.
    ///
    /// # Panics
    /// Where the host does not boot.
    pub fn on_a_disk() -> io::Result<Self> {
        let contents = contents()?;
        let mut detached = Ok(String::new());
        let device = disk()?;
        let name = device.rsplit('/').next().unwrap_or_default();
        let subject = Subject::boot(&contents, |host| {
            let mounted = host.run(&MOUNT.replace("NAME", name));
            // Its last user is now the host's mount, with which it ends, however this process ends.
            detached = run("losetup", &["--detach", &device]);
            assert!(mounted.code == 0, "{}: {}", host.name(), mounted.output);
        })?;
        detached?;
        Ok(Self { subject })
    }

    /// All of it is in memory: for what waits for no disk.
    ///
    /// # Errors
    /// As [`Self::on_a_disk`].
    ///
    /// # Panics
    /// As [`Self::on_a_disk`].
    pub fn in_memory() -> io::Result<Self> {
        Ok(Self { subject: Subject::boot(&contents()?, |_| {})? })
    }

    pub fn host(&self) -> &Host {
        &self.subject.host
    }

    /// A verb of the unpacked bundle's own tool, with its arguments.
    pub fn verb(&self, verb: &str) {
        self.host().succeed(&format!("{BUNDLE}/bin/releasectl {verb}"));
    }

    /// The release that is current.
    pub fn current(&self) -> ReleaseId {
        self.subject.reported.clone().expect("it was deployed")
    }

    /// Waits until one instance is left.
    pub fn settle(&self) {
        let instances = "systemctl list-units --all --plain --no-legend 'app-*@*'";
        self.host().wait_until("one instance is left", |host| host.run(instances).output.lines().count() == 1);
    }

    /// How long `systemctl start` takes for one more instance of a unit, which is stopped again.
    pub fn start(&self, unit: &str) -> f64 {
        let took = timed(|| drop(self.host().succeed(&format!("systemctl start {unit}"))));
        self.host().succeed(&format!("systemctl stop {unit}"));
        took
    }

    /// The name of an instance of the current release that no activation has: nothing else knows of it.
    pub fn extra(&self, n: usize) -> String {
        format!("app-{}@{}.service", self.current(), 1_000_000 + n)
    }
}

/// The shipped product. Only the ten seconds that a validation watches a release are left out: they are a choice.
pub(super) fn contents() -> io::Result<Contents> {
    let mut contents = Contents::build(crate::workspace()).map_err(io::Error::other)?;
    let validate = "#!/bin/sh\ncd \"${0%/*}/..\" || exit 1\nexec bin/releasectl validate . --bake 0\n";
    contents.put("hooks/validate-service", 0o755, validate.as_bytes());
    Ok(contents)
}

/// The shipped program, to be run on this machine.
pub(super) fn program() -> io::Result<TempPath> {
    let contents = contents()?;
    let mut file = NamedTempFile::new()?;
    file.write_all(contents.get("bin/app").unwrap_or_default())?;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o755))?;
    // No program is started while it is open to be written.
    Ok(file.into_temp_path())
}

/// Milliseconds.
pub(super) fn timed(act: impl FnOnce()) -> f64 {
    let began = Instant::now();
    act();
    ms(began.elapsed())
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The device of ext4 in a file on this machine's disk, which has no name any more.
fn disk() -> io::Result<String> {
    let folder = crate::workspace().join("target/bench");
    fs::create_dir_all(&folder)?;
    let image = NamedTempFile::new_in(folder)?;
    image.as_file().set_len(1 << 30)?;
    let path = image.path().to_string_lossy();
    run("mkfs.ext4", &["-q", &path])?;
    Ok(run("losetup", &["--find", "--show", &path])?.trim().to_owned())
}

fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{program} {}: {said}", arguments.join(" "))))
}
