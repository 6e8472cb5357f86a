//! Everything that may happen to a host, in one table.

use std::{
    env, io,
    process::{Command, Stdio},
};

use clap::ValueEnum;

use crate::{
    crowd,
    findings::{self, Finding},
    powercut,
    steps::{self, Verb},
};

const CUTS: usize = 200;
const ROUNDS: usize = 10;

/// The tests of what has no steps to count: a name for each group, where its tests are, and what their names contain. Each
/// counts what its own clients lost.
const TESTS: [(&str, [&str; 4], &[&str]); 4] = [
    (
        "bad bundles (tests)",
        ["--package", "releases", "--test", "store"],
        &["_is_refused_and_nothing_changes", "a_bit_that_is_flipped", "are_refused_and_nothing_changes"],
    ),
    ("bad candidates (tests)", ["--package", "rig", "--test", "hosts"], &["candidates::"]),
    ("releases that turn bad (tests)", ["--package", "rig", "--test", "hosts"], &["bake::"]),
    ("two at once (tests)", ["--package", "rig", "--test", "hosts"], &["together::"]),
];

/// All of it, of each kind of step every `every`th; returns whether nothing was broken and no request lost.
///
/// # Errors
/// Where a bundle or a test does not build.
///
/// # Panics
/// Where a host does not boot.
pub fn run(every: usize) -> io::Result<bool> {
    let mut found = steps::run(Verb::value_variants(), every)?;
    found.extend(powercut::run(CUTS)?);
    for (name, place, filters) in TESTS {
        found.push(tests(name, &place, filters)?);
    }
    found.push(crowd::run(ROUNDS)?);
    Ok(findings::print(&found))
}

fn tests(name: &str, place: &[&str], filters: &[&str]) -> io::Result<Finding> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::workspace()).arg("test").args(place).arg("--").args(filters);
    let output = command.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let ended = |how: &str| {
        let name = |line: &str| line.strip_prefix("test ")?.strip_suffix(how).map(str::to_owned);
        text.lines().filter_map(name).collect::<Vec<_>>()
    };
    let (passed, mut broken) = (ended(" ... ok").len(), ended(" ... FAILED"));
    let tried = passed + broken.len();
    if !output.status.success() {
        eprintln!("{text}");
    }
    if tried == 0 {
        return Err(io::Error::other(format!("{name}: no test ran; cargo said {}", output.status)));
    }
    // Tests that were aborted say nothing of themselves.
    if !output.status.success() && broken.is_empty() {
        broken.push(format!("no test failed, and cargo said {}", output.status));
    }
    Ok(Finding { name: name.to_owned(), points: Some(tried), tried, reached: tried, broken, ..Finding::default() })
}
