//! Power cuts: at many moments of deployments and rollbacks the store's disk is copied as it is, at one moment, without what
//! is only in memory. What a host finds when its power comes back is a copy whose journal has been replayed.
//!
//! The disk is ext4 in a file on XFS, which copies a file's extents at once (FICLONE, ioctl_ficlone(2)). All of it is in the
//! memory of the host, and gone with it.

use std::{
    fmt, fs, io,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::Duration,
};

use releases::{ReleaseId, bundle::Contents};

use crate::{
    findings::{Control, Finding},
    subject::{self, Flaw, Subject, whole},
};

/// The disk holds the store and the units: what a deployment writes that must outlive a cut.
const SET_UP: &str = "
    set -e
    [ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
    n=0; while [ $n -lt 16 ]; do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; n=$((n+1)); done
    mkdir -p /cuts/xfs /cuts/disk /cuts/cut /opt/app
    truncate -s 2G /cuts/xfs.img
    mkfs.xfs -q -m reflink=1 /cuts/xfs.img
    mount -o loop /cuts/xfs.img /cuts/xfs
    truncate -s 400M /cuts/xfs/disk.img
    mkfs.ext4 -q /cuts/xfs/disk.img
    mount -o loop /cuts/xfs/disk.img /cuts/disk
    mkdir /cuts/disk/app
    cp -a /etc/systemd/system /cuts/disk/units
    mount --bind /cuts/disk/app /opt/app
    mount --bind /cuts/disk/units /etc/systemd/system
";
const CUT: &str = "cp --reflink=always /cuts/xfs/disk.img /cuts/xfs/cut.img";
const LOOK: &str = "mount -o loop /cuts/xfs/cut.img /cuts/cut";
const LOOKED: &str = "umount /cuts/cut; rm /cuts/xfs/cut.img";

/// What a run leaves out, and must be found out by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    Nothing,
    FolderSyncs,
    FileSyncs,
}

/// How a disk falls short of what it must hold.
#[derive(Debug)]
enum Loss {
    /// What was reported as done is not there, or not what is current.
    Reported(String),
    /// A file is not what its release's manifest says.
    Digest(String),
    /// A release that nothing names is there in part.
    Torn(String),
}

impl LeftOut {
    /// What that costs: the control must show this, and not that anything else is broken.
    fn control(self) -> Option<Control> {
        let fault = match self {
            Self::Nothing => return None,
            Self::FolderSyncs => "a deployment that was reported as done is missing",
            Self::FileSyncs => "the digests differ",
        };
        Some(Control { fault, found: 0 })
    }

    fn is_shown_by(self, loss: &Loss) -> bool {
        matches!((self, loss), (Self::FolderSyncs, Loss::Reported(_)) | (Self::FileSyncs, Loss::Digest(_)))
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Reported(text) | Self::Digest(text) | Self::Torn(text)) = self;
        f.write_str(text)
    }
}

/// What has been reported as done, and what is being tried: on the disk is the one or the other.
#[derive(Clone, Debug, Default)]
struct Progress {
    installed: Option<ReleaseId>,
    /// The last is the one that was reported, but for those of a verb that is under way.
    current: Vec<ReleaseId>,
    validated: Vec<ReleaseId>,
    /// How many of the two were reported.
    reported: (usize, usize),
}

impl Progress {
    fn tries(&mut self, current: &ReleaseId, validated: &ReleaseId) {
        self.current.push(current.clone());
        self.validated.push(validated.clone());
    }

    fn has_done(&mut self) {
        self.reported = (self.current.len(), self.validated.len());
    }
}

/// Whoever has reported goes on when the power has been cut: by chance, a control seldom meets the moment between a report and
/// the next sync of something else.
struct Pause {
    reported: SyncSender<()>,
    is_cut: Receiver<()>,
}

/// Cuts the power so many times, at any moment, and in the two controls until they have failed, after each report.
///
/// # Errors
/// Where the bundle does not build.
///
/// # Panics
/// Where a host does not boot.
pub fn run(cuts: usize) -> io::Result<Vec<Finding>> {
    let contents = subject::contents()?;
    let of = |left_out| campaign(&contents, left_out, cuts);
    Ok(vec![of(LeftOut::Nothing)?, of(LeftOut::FolderSyncs)?, of(LeftOut::FileSyncs)?])
}

fn campaign(contents: &Contents, left_out: LeftOut, cuts: usize) -> io::Result<Finding> {
    let subject = Subject::boot(contents, |host| drop(host.succeed(SET_UP)))?;
    // A host that comes back: it gets what the disk had, and boots.
    let mut other = Subject::boot(contents, |_| {})?;
    let (name, leave_out) = match left_out {
        LeftOut::Nothing => ("the power is cut", ""),
        LeftOut::FolderSyncs => ("the power is cut, no folder was synced", "sync folder"),
        LeftOut::FileSyncs => ("the power is cut, no file was synced", "sync"),
    };
    let mut finding = Finding { name: name.to_owned(), control: left_out.control(), ..Finding::default() };
    if !leave_out.is_empty() {
        let line = |verb: &str| format!("{verb} leave-out {leave_out}");
        subject.request(&["install", "activate", "validate", "rollback"].map(line).join("\n"));
    }
    let first = subject.reported.clone().into_iter().collect::<Vec<_>>();
    let progress =
        Mutex::new(Progress { reported: (1, 1), current: first.clone(), validated: first, ..Default::default() });
    let is_over = AtomicBool::new(false);
    let host = &subject.host;
    let (reported, reports) = mpsc::sync_channel(0);
    let (cut, is_cut) = mpsc::sync_channel(0);
    let pause = finding.control.is_some().then_some(Pause { reported, is_cut });
    thread::scope(|scope| {
        let pauses = pause.is_some();
        let (progress, is_over) = (&progress, &is_over);
        let working = scope.spawn(|| work(&subject, progress, is_over, pause));
        while finding.tried < cuts {
            if !pauses {
                thread::sleep(Duration::from_millis(fastrand::u64(0..60)));
            } else if reports.recv().is_err() {
                break;
            }
            let before = progress.lock().expect("no panic").clone();
            host.succeed(CUT);
            let after = progress.lock().expect("no panic").clone();
            // Without a control nobody waits for it.
            let _ = cut.send(());
            finding.tried += 1;
            host.succeed(LOOK);
            let disk = host.path("/cuts/cut");
            let losses = check(&disk.join("app"), &before, &after);
            let at = |fault: String| format!("cut {}: {fault}", finding.tried);
            match &mut finding.control {
                // What else is lost without the syncs is no news.
                Some(control) => control.found += losses.iter().filter(|loss| left_out.is_shown_by(loss)).count(),
                None if losses.is_empty() => finding.broken.extend(comes_back(&mut other, &disk).into_iter().map(at)),
                None => finding.broken.extend(losses.iter().map(Loss::to_string).map(at)),
            }
            host.succeed(LOOKED);
            let is_shown = finding.control.as_ref().is_some_and(|control| control.found > 0);
            if is_shown || !finding.broken.is_empty() || working.is_finished() {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        drop((reports, cut));
        match working.join().expect("no panic") {
            Ok(deployments) => finding.name.push_str(&format!(", in {deployments} deployments and rollbacks")),
            Err(error) => finding.broken.push(error),
        }
    });
    finding.reached = finding.tried;
    Ok(finding)
}

/// Deploys and goes back until told to stop, and tells how far it is.
fn work(
    subject: &Subject,
    progress: &Mutex<Progress>,
    is_over: &AtomicBool,
    pause: Option<Pause>,
) -> Result<usize, String> {
    let lock = || progress.lock().expect("no panic");
    let has_done = || {
        lock().has_done();
        if let Some(Pause { reported, is_cut }) = &pause {
            // Both fail where no more is cut.
            let _ = reported.send(());
            let _ = is_cut.recv();
        }
    };
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        count += 1;
        let last = lock().validated.last().cloned().ok_or("nothing is validated")?;
        if count % 3 == 0 {
            let listed = lock().validated.iter().rev().find(|id| **id != last).cloned().ok_or("no way back")?;
            lock().tries(&listed, &listed);
            let ran = subject.host.run(&format!("releasectl rollback {listed}"));
            if ran.code != 0 {
                return Err(format!("rollback failed: {}", ran.output));
            }
            has_done();
            continue;
        }
        let id = subject.next_revision();
        subject.hook("after-install")?;
        lock().installed = Some(id.clone());
        lock().tries(&id, &last);
        subject.hook("application-start")?;
        has_done();
        lock().tries(&id, &id);
        subject.hook("validate-service")?;
        has_done();
    }
    Ok(count)
}

/// What does not hold on the disk of releases.md, or of what was reported before the cut.
fn check(base: &Path, before: &Progress, after: &Progress) -> Vec<Loss> {
    let mut losses = Vec::new();
    for (link, may, from) in
        [("current", &after.current, before.reported.0), ("validated", &after.validated, before.reported.1)]
    {
        let named = fs::read_link(base.join(link)).map_err(|error| Flaw::IsMissing(error.to_string()));
        let id = named.and_then(|target| whole(&base.join(&target)).map(|()| target));
        match id {
            Err(Flaw::IsMissing(text)) => losses.push(Loss::Reported(format!("{link}: {text}"))),
            Err(Flaw::Differs(text)) => losses.push(Loss::Digest(format!("{link}: {text}"))),
            Ok(target) => {
                // What was reported last, or what has been tried since.
                let may = &may[from.saturating_sub(1)..];
                if !may.iter().any(|id| target.ends_with(id.as_str())) {
                    let fault = format!("{link} is {}, and was reported as {:?}", target.display(), may.first());
                    losses.push(Loss::Reported(fault));
                }
            }
        }
    }
    for entry in fs::read_dir(base.join("releases")).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().parse::<ReleaseId>().is_ok() {
            losses.extend(whole(&entry.path()).err().map(|flaw| match flaw {
                Flaw::IsMissing(text) => Loss::Torn(format!("R2: {text}")),
                Flaw::Differs(text) => Loss::Digest(format!("R2: {text}")),
            }));
        }
    }
    let installed = before.installed.as_ref().filter(|_| before.installed == after.installed);
    if let Some(id) = installed.filter(|id| !base.join("releases").join(id.as_str()).is_dir()) {
        losses.push(Loss::Reported(format!("release {id} was reported as installed and is not there")));
    }
    losses
}

/// Boots a host on what the disk had, and deploys to it.
fn comes_back(other: &mut Subject, disk: &Path) -> Vec<String> {
    for (from, to) in [("app", "/opt/app"), ("units", "/etc/systemd/system")] {
        let to = other.host.path(to);
        // Both are this machine's paths of the two hosts.
        let copied = std::process::Command::new("sh")
            .args(["-c", "find \"$2\" -mindepth 1 -delete && cp -a \"$1/.\" \"$2/\"", "sh"])
            .args([disk.join(from), to])
            .output();
        match copied {
            Ok(output) if output.status.success() => {}
            Ok(output) => return vec![String::from_utf8_lossy(&output.stderr).into_owned()],
            Err(error) => return vec![error.to_string()],
        }
    }
    other.host.crash();
    other.reported = None;
    other.host.run("curl -s --max-time 20 localhost/livez");
    let mut broken = other.check();
    broken.extend(other.check_converged());
    broken.extend(other.deploy().err());
    broken.extend(other.check_converged());
    broken
}
