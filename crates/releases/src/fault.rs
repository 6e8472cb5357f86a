//! Faults on request, for the rig alone: no host's `releasectl` is built with it.
//!
//! `/run/releasectl.fault` holds a line for each verb that is to be watched: `VERB HOW [STEP] [MORE]`. Every effect of such a
//! verb is a line of `/run/releasectl.steps`, `VERB PID STEP OPERATION PATH`, written before it happens. HOW is
//!
//! - `count`: that is all;
//! - `kill STEP`, `kill-group STEP`: before that step, this process or its whole group is killed;
//! - `error STEP ERRNO`: that step fails so;
//! - `errors STEP ERRNO FOLDER`: from that step on, every effect on a path below that folder fails so;
//! - `run STEP COMMAND`: before that step, a shell runs this, and the line `VERB PID STEP exited CODE` tells how it ended;
//! - `leave-out OPERATION`: every effect of that name is left out, and said to have happened.
#![expect(clippy::disallowed_methods, reason = "what it writes is for the rig")]

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::{Signal, getpgrp, getpid, kill_process, kill_process_group};

use crate::effect::Outcome;

const REQUEST: &str = "/run/releasectl.fault";
const STEPS: &str = "/run/releasectl.steps";

/// What is asked for the verb that this process runs.
static FAULT: LazyLock<Option<Fault>> = LazyLock::new(|| {
    let verb = std::env::args().nth(1)?;
    let text = fs::read_to_string(REQUEST).ok()?;
    let how = text.lines().find_map(|line| line.strip_prefix(&verb)?.strip_prefix(' '))?;
    Some(Fault { how: How::parse(how).unwrap_or_else(|| panic!("{REQUEST}: {how:?}")), verb })
});
static COUNT: AtomicU32 = AtomicU32::new(0);
/// Open before anything happens: a process that may open no more files is to fail where it opens its own.
static LINES: LazyLock<io::Result<fs::File>> =
    LazyLock::new(|| fs::OpenOptions::new().append(true).create(true).open(STEPS));

#[derive(Debug)]
struct Fault {
    verb: String,
    how: How,
}

#[derive(Debug)]
enum How {
    Count,
    Kill(u32),
    KillGroup(u32),
    Error(u32, i32),
    Errors(u32, i32, PathBuf),
    Run(u32, String),
    LeaveOut(String),
}

impl How {
    fn parse(text: &str) -> Option<Self> {
        let (how, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (step, more) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(match how {
            "count" => Self::Count,
            "kill" => Self::Kill(step.parse().ok()?),
            "kill-group" => Self::KillGroup(step.parse().ok()?),
            "error" => Self::Error(step.parse().ok()?, more.parse().ok()?),
            "errors" => {
                let (errno, folder) = more.split_once(' ')?;
                Self::Errors(step.parse().ok()?, errno.parse().ok()?, folder.into())
            }
            "run" => Self::Run(step.parse().ok()?, more.to_owned()),
            "leave-out" => Self::LeaveOut(rest.to_owned()),
            _ => return None,
        })
    }

    /// The step that it waits for.
    fn step(&self) -> Option<u32> {
        match self {
            Self::Kill(at) | Self::KillGroup(at) | Self::Error(at, _) | Self::Errors(at, ..) | Self::Run(at, _) => {
                Some(*at)
            }
            Self::Count | Self::LeaveOut(_) => None,
        }
    }
}

/// Counts the effect that is about to happen, and does what was asked for it.
pub fn reach(operation: &str, path: &Path) -> io::Result<Outcome> {
    let Some(Fault { verb, how }) = &*FAULT else { return Ok(Outcome::Happens) };
    let step = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    note(verb, step, &format!("{operation} {}", path.display()))?;
    if how.step() == Some(step) {
        // Once: whoever runs the verb next, a boot that systemd starts again for one, is to heal.
        fs::remove_file(REQUEST)?;
    }
    match how {
        How::Kill(at) if *at == step => drop(kill_process(getpid(), Signal::KILL)),
        How::KillGroup(at) if *at == step => drop(kill_process_group(getpgrp(), Signal::KILL)),
        How::Error(at, errno) if *at == step => return Err(io::Error::from_raw_os_error(*errno)),
        How::Errors(at, errno, folder) if *at <= step && path.starts_with(folder) => {
            return Err(io::Error::from_raw_os_error(*errno));
        }
        How::Run(at, command) if *at == step => {
            let status = Command::new("sh").args(["-c", command]).status()?;
            note(verb, step, &format!("exited {}", status.code().unwrap_or(-1)))?;
        }
        How::LeaveOut(name) if name == operation => return Ok(Outcome::IsLeftOut),
        _ => {}
    }
    Ok(Outcome::Happens)
}

/// Adds a line to the steps.
fn note(verb: &str, step: u32, what: &str) -> io::Result<()> {
    let mut lines = LINES.as_ref().map_err(|error| io::Error::new(error.kind(), format!("{STEPS}: {error}")))?;
    lines.write_all(format!("{verb} {} {step} {what}\n", std::process::id()).as_bytes())
}
