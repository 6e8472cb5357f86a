//! How it grows: with releases, files, receipts, connections, and deployments.

mod connections;
mod deployments;
mod many;

use std::{fs, io, time::Instant};

use releases::ReleaseId;
use serde_json::Value;

use self::many::Many;
use super::{
    Effort,
    chapter::{Chapter, Curve},
    figure::Figure,
    memory,
    stage::{self, Stage, ms, timed},
};
use crate::subject::BUNDLE;

const ABOUT: &str = "On hosts that are all in memory, so that a disk hides nothing, but where it says; both axes are logarithmic. \
    Many releases are one that was installed, each under another label and so another id, with its unit and its lines in the log: \
    whole to the last byte for any verb. But their files are hard links of the same few, so that what reads them has all of it \
    from the page cache. Many receipts are one that was written, with other numbers. Both begin with those of two deployments. \
    Files of a release have 1 KiB. The deployments are real ones. Connections are to a fresh server each time.";
const NOTE: &str = "On a disk nearly all the time of an install is fsync(2), once for each file and each folder. 200 files of 1 KiB on ext4, seen \
    once on a busy disk: 2.5 s one by one, 0.3 to 1.9 s where all were handed to the disk first (sync_file_range(2)), 0.5 s by \
    16 threads, 0.3 s by one syncfs(2), which waits for all that anybody else has written there as well, and says nothing of \
    errors before Linux 5.8. They are synced one by one: that names the file that failed, and a release has few.";
const DOCTOR: &str = "releasectl doctor";
/// What it exits with where the host serves, and something is to look after.
const WARNINGS: i32 = 3;
const RELEASES: usize = 1_000;
const RECEIPTS: usize = 10_000;
const FILES: usize = 10_000;
/// Each waits for the disk, some 10 ms on a busy one.
const FILES_ON_A_DISK: usize = 1_000;
/// How often each point of a curve is measured.
const TIMES: usize = 3;

/// # Panics
/// Where a host does not boot, or a verb fails.
pub(super) fn run(effort: Effort) -> io::Result<Chapter> {
    let stage = Stage::in_memory()?;
    let mut curves = vec![releases(effort, &stage)?, history(effort, &stage)?];
    curves.push(files(effort, stage)?);
    let (connections, lacks) = connections::curves(effort)?;
    curves.extend(connections);
    curves.extend(deployments::curves(effort)?);
    let notes = lacks.into_iter().chain([NOTE.to_owned()]).collect();
    Ok(Chapter { title: "Growth", about: ABOUT.to_owned(), figures: Vec::new(), curves, goals: Vec::new(), notes })
}

fn times(effort: Effort) -> usize {
    TIMES.min(effort.times)
}

/// The line of a verb, one of those in one chart.
fn line(whose: impl Into<String>, values: Vec<f64>) -> Figure {
    Figure::new("", whose, "ms", values)
}

/// What is there to begin with, and then as many as it can be filled up to.
fn counts_from(there: usize, effort: Effort, most: usize) -> impl Iterator<Item = usize> {
    std::iter::once(there).chain(effort.counts(most).filter(move |count| *count > there))
}

fn releases(effort: Effort, stage: &Stage) -> io::Result<Curve> {
    let mut points = Vec::new();
    for count in counts_from(Many::of(stage)?.releases()?, effort, RELEASES) {
        eprintln!("{count} releases");
        Many::of(stage)?.fill_releases(count)?;
        // Beside those, so that it removes none.
        let look = format!("releasectl prune --keep {}", count + 10);
        for (whose, command) in [("status", "releasectl status"), ("doctor", DOCTOR), ("prune", &look)] {
            let values = (0..times(effort)).map(|_| verb(stage, command)).collect();
            points.push((count, line(format!("ours, {whose}"), values)));
        }
        let up = (0..times(effort)).map(|_| verb(stage, "releasectl boot")).collect();
        points.push((count, line("ours, boot beside an instance", up)));
        let down = (0..times(effort)).map(|_| boot(stage)).collect();
        points.push((count, line("ours, boot where none is up", down)));
        points.push((count, line("ours, prune of all but five", vec![verb(stage, "releasectl prune")])));
    }
    Ok(Curve { what: "verbs over releases".to_owned(), over: "releases", points })
}

/// How long a verb takes that does what it should; one that fails would be a fast one.
fn verb(stage: &Stage, command: &str) -> f64 {
    let began = Instant::now();
    let ran = stage.host().run(command);
    let took = ms(began.elapsed());
    let is_well = ran.code == 0 || command == DOCTOR && ran.code == WARNINGS;
    assert!(is_well, "{}: `{command}` exited with {}: {}", stage.host().name(), ran.code, ran.output);
    took
}

/// Where nobody serves, as after a reboot: no start was before it, which it would keep its pace after.
fn boot(stage: &Stage) -> f64 {
    let host = stage.host();
    host.succeed("systemctl kill --signal=KILL 'app-*@*'");
    host.wait_until("no instance is left", |host| memory::count(host, "app") == 0);
    host.succeed("systemctl reset-failed 'app-*@*'; rm -f /run/releasectl.json");
    verb(stage, "releasectl boot")
}

fn history(effort: Effort, stage: &Stage) -> io::Result<Curve> {
    const VERBS: [(&str, &str); 3] = [
        ("history", "releasectl history"),
        ("history of all", "releasectl history --last 1000000"),
        ("status", "releasectl status"),
    ];
    let mut points = Vec::new();
    for count in counts_from(Many::of(stage)?.receipts()?, effort, RECEIPTS) {
        eprintln!("{count} receipts");
        Many::of(stage)?.fill_receipts(count)?;
        for (whose, command) in VERBS {
            let values = (0..times(effort)).map(|_| verb(stage, command)).collect();
            points.push((count, line(format!("ours, {whose}"), values)));
        }
    }
    Ok(Curve { what: "verbs over receipts".to_owned(), over: "receipts", points })
}

/// Once with the store in memory, and once on a disk, which each file waits for.
fn files(effort: Effort, memory: Stage) -> io::Result<Curve> {
    let mut points = Vec::new();
    let disk = Stage::on_a_disk()?;
    for (whose, stage, most) in [("in memory", memory, FILES), ("on a disk", disk, FILES_ON_A_DISK)] {
        for count in effort.counts(most) {
            eprintln!("{count} files, {whose}");
            unpack(&stage, count)?;
            let mut values = Vec::new();
            for n in 0..times(effort) {
                relabel(&stage, &format!("{count} files, {n}"))?;
                values.push(timed(|| stage.verb(&format!("install {BUNDLE}"))));
            }
            points.push((count, line(format!("ours, install, {whose}"), values)));
        }
    }
    Ok(Curve { what: "install over files beside the product's own".to_owned(), over: "files", points })
}

/// A bundle with so many files more than it has.
fn unpack(stage: &Stage, count: usize) -> io::Result<()> {
    let mut contents = stage::contents()?;
    for n in 0..count {
        let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 10).collect();
        contents.put(&format!("files/{}/{n}", n % 100), 0o644, &bytes);
    }
    let archive = contents.pack("many files").map_err(io::Error::other)?.archive;
    fs::write(stage.host().path("/root/bundle.tgz"), archive)?;
    stage.host().succeed(&format!("rm -rf {BUNDLE}; mkdir {BUNDLE}; tar -xzf /root/bundle.tgz -C {BUNDLE}"));
    Ok(())
}

/// Makes the unpacked bundle another release of the same files.
fn relabel(stage: &Stage, label: &str) -> io::Result<ReleaseId> {
    let path = stage.host().path(&format!("{BUNDLE}/manifest.json"));
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path)?)?;
    manifest["label"] = label.into();
    let bytes = serde_json::to_vec_pretty(&manifest)?;
    fs::write(path, &bytes)?;
    Ok(ReleaseId::of_manifest(&bytes))
}
