//! What it costs, beside its peers: every figure several times, in turn with theirs, as medians with the least and the most.
//!
//! Nothing here passes or fails but that it runs. Machines are noisy: what is measured in turn can be compared, and its ratio
//! is what to read.

mod chapter;
mod dependencies;
mod deploying;
mod effort;
mod figure;
mod growth;
mod handing_over;
mod hardening;
mod headline;
mod idle;
mod losing;
mod machine;
mod memory;
mod old_way;
mod page;
mod peers;
mod plot;
mod processor;
mod served;
mod serving;
mod small;
mod stage;
mod steps;
mod syncs;
mod turns;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::json;

pub use self::effort::Effort;
use self::{chapter::Chapter, machine::Machine};
use crate::{demo::write, readme};

/// A chapter of the report: what measures it.
type Measure = fn(Effort) -> io::Result<Chapter>;

const CHAPTERS: [(&str, Measure); 7] = [
    ("losing", losing::run),
    ("serving", serving::run),
    ("deploying", deploying::run),
    ("hardening", hardening::run),
    ("handing-over", handing_over::run),
    ("small", small::run),
    ("growth", growth::run),
];

/// What a run is published as: its files, beside the README's text.
const FILES: [&str; 3] = ["report.json", "report.html", "lost.svg"];
/// What goes into the README.
const TEXT: &str = "readme.md";

/// Measures all chapters, or those that are named, and writes `report.json`, `report.html` and `lost.svg`: after each chapter
/// to `target/bench/part/`, and a whole run at its end to `target/bench/`.
///
/// # Errors
/// Where a server of ours does not build or start.
///
/// # Panics
/// Where a host does not boot, or a deployment fails.
pub fn run(effort: Effort, names: &[String]) -> io::Result<()> {
    if let Some(name) = names.iter().find(|name| CHAPTERS.iter().all(|(known, _)| known != name)) {
        let known: Vec<&str> = CHAPTERS.iter().map(|(known, _)| *known).collect();
        return Err(io::Error::other(format!("{name} is no chapter: {}", known.join(", "))));
    }
    idle::allow_many()?;
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let (mut chapters, mut told) = (Vec::new(), folder().join("part"));
    for (name, measure) in CHAPTERS.into_iter().filter(|(name, _)| is_wanted(name)) {
        eprintln!("== {name}");
        let chapter = measure(effort)?;
        println!("{chapter}\n");
        chapters.push(chapter);
        // What took hours is not lost with what comes after it.
        tell(&told, &chapters);
    }
    if effort.is_whole() && names.is_empty() {
        told = folder();
        // The last to be there: what is published is of one run.
        let _ = fs::remove_file(told.join(TEXT));
        let machine = tell(&told, &chapters);
        write(&told, TEXT, &headline::markdown(&machine, &chapters));
    }
    println!("{}", told.join("report.html").display());
    Ok(())
}

/// Writes what has been measured. Some of what has versions is made on the way.
fn tell(folder: &Path, chapters: &[Chapter]) -> Machine {
    let machine = Machine::of_today();
    let report = json!({ "format": 1, "machine": machine, "chapters": chapters });
    write(folder, "report.json", &format!("{report:#}\n"));
    write(folder, "report.html", &page::page(&machine, chapters));
    if let Some(svg) = headline::svg(chapters) {
        write(folder, "lost.svg", &svg);
    }
    machine
}

/// Makes, installs and builds what is measured: nothing need share the machine with a compiler then.
///
/// # Errors
/// Where what is ours does not build, or a load generator cannot be had.
pub fn prepare() -> io::Result<()> {
    peers::prepare()?;
    serving::prepare()
}

/// Puts the last run into the tree, and its headline into the README, to be committed.
///
/// # Errors
/// Where no whole run has been made, or the README cannot be written.
///
/// # Panics
/// Where a file cannot be written.
pub fn publish() -> io::Result<()> {
    let (folder, to) = (folder(), crate::workspace().join("crates/rig/bench"));
    let read = |name: &str| {
        let none = |error| format!("{}: {error}; `just bench` makes a whole run", folder.join(name).display());
        fs::read_to_string(folder.join(name)).map_err(|error| io::Error::other(none(error)))
    };
    // All of it is read before any of it is written.
    let (text, files) = (read(TEXT)?, FILES.map(|name| read(name).map(|text| (name, text))));
    let files = files.into_iter().collect::<io::Result<Vec<_>>>()?;
    files.iter().for_each(|(name, text)| write(&to, name, text));
    readme::put("bench", &text)
}

fn folder() -> PathBuf {
    crate::workspace().join("target/bench")
}
