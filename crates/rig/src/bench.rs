//! What it costs, beside its peers: every figure several times, in turn with theirs, as medians with the least and the most.
//!
//! Nothing here passes or fails but that it runs. Machines are noisy: what is measured in turn can be compared, and its ratio
//! is what to read.

mod chapter;
mod deploying;
mod effort;
mod figure;
mod machine;
mod page;
mod plot;

use std::io;

use serde_json::json;

pub use self::effort::Effort;
use self::{chapter::Chapter, machine::Machine};
use crate::demo::write;

/// A chapter of the report: what measures it.
type Measure = fn(Effort) -> io::Result<Chapter>;

const CHAPTERS: [(&str, Measure); 1] = [("deploying", deploying::run)];

/// Measures all chapters, or those that are named, and writes `report.json` and `report.html` to `target/bench/`.
///
/// # Errors
/// Where a server does not build or start, or a name is no chapter's.
///
/// # Panics
/// Where a host does not boot, or a deployment fails.
pub fn run(effort: Effort, names: &[String]) -> io::Result<()> {
    if let Some(name) = names.iter().find(|name| CHAPTERS.iter().all(|(known, _)| known != name)) {
        let known: Vec<&str> = CHAPTERS.iter().map(|(known, _)| *known).collect();
        return Err(io::Error::other(format!("{name} is no chapter: {}", known.join(", "))));
    }
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let machine = Machine::of_today();
    let mut chapters = Vec::new();
    for (name, measure) in CHAPTERS.into_iter().filter(|(name, _)| is_wanted(name)) {
        eprintln!("== {name}");
        let chapter = measure(effort)?;
        println!("{chapter}\n");
        chapters.push(chapter);
    }
    let folder = crate::workspace().join("target/bench");
    let report = json!({ "format": 1, "machine": machine, "chapters": chapters });
    write(&folder, "report.json", &format!("{report:#}\n"));
    write(&folder, "report.html", &page::page(&machine, &chapters));
    println!("{}", folder.join("report.html").display());
    Ok(())
}
