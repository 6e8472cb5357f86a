//! What is deployed to: a host with two releases of the shipped product, its store on a disk of this machine.

use std::{
    fs, io,
    ops::Deref,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use releases::{ReleaseId, bundle::Contents};

use crate::{
    Host,
    scratch::Scratch,
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
    mkdir /mnt/app /mnt/srv
    cp -a /etc/systemd/system /mnt/units
    mount --bind /mnt/app /opt/app
    mount --bind /mnt/srv /srv
    mount --bind /mnt/units /etc/systemd/system
";

/// A host with two releases. Dropping it takes everything away.
pub(super) struct Stage {
    pub subject: Subject,
}

/// A program that goes when it is dropped.
pub(super) struct Program {
    path: PathBuf,
    _folder: Scratch,
}

impl Deref for Program {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Stage {
    /// Its store is on a disk, and so is /srv.
    ///
    /// # Errors
    /// Where the product does not build, or the disk cannot be made.
    ///
    /// # Panics
    /// Where the host does not boot, or does not mount it.
    pub fn on_a_disk() -> io::Result<Self> {
        let (contents, folder) = (contents()?, Scratch::on_disk()?);
        let image = image(&folder)?;
        let mount = |host: &Host| mount(host, &image).unwrap_or_else(|error| panic!("{}: {error}", host.name()));
        Ok(Self { subject: Subject::boot(&contents, mount)? })
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

    /// A hook of the unpacked bundle, as an agent runs it.
    pub fn hook(&self, name: &str) {
        self.subject.hook(name).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The release that is current.
    pub fn current(&self) -> ReleaseId {
        self.subject.reported.clone().expect("it was deployed")
    }

    /// Waits until one instance is left.
    pub fn settle(&self) {
        self.host().settle();
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
pub(super) fn program() -> io::Result<Program> {
    let folder = Scratch::on_disk()?;
    let path = folder.path().join("app");
    fs::write(&path, binary(&contents()?, "app")?)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(Program { path, _folder: folder })
}

/// A program of the shipped product.
///
/// # Errors
/// Where there is none of that name.
pub(super) fn binary<'a>(contents: &'a Contents, name: &str) -> io::Result<&'a [u8]> {
    let path = format!("bin/{name}");
    contents.get(&path).ok_or_else(|| io::Error::other(format!("the bundle has no {path}")))
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

/// ext4 in a file on this machine's disk; once it is mounted, it needs no name any more.
fn image(folder: &Scratch) -> io::Result<PathBuf> {
    let image = folder.path().join("image");
    fs::File::create_new(&image)?.set_len(1 << 30)?;
    run("mkfs.ext4", &["-q", &image.to_string_lossy()])?;
    Ok(image)
}

/// A loop device goes with its last user. That is the host's mount, which goes with the host, however this process ends: it
/// is attached by hand for no longer than the mount takes.
fn mount(host: &Host, image: &Path) -> io::Result<()> {
    let device = run("losetup", &["--find", "--show", &image.to_string_lossy()])?;
    let device = device.trim();
    let mounted = host.run(&MOUNT.replace("NAME", device.trim_start_matches("/dev/")));
    run("losetup", &["--detach", device])?;
    if mounted.code == 0 { Ok(()) } else { Err(io::Error::other(mounted.output)) }
}

fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{program} {}: {said}", arguments.join(" "))))
}
