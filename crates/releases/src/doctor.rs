//! Doctor: what is wrong with this host, and what to do about it.

mod machine;
mod store;
mod units;

use std::{fmt, process::ExitCode};

use serde::Serialize;

use crate::{
    Result, Store,
    screen::{columns, printable, wrap},
    systemd,
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Sound,
    /// The service serves; something will go wrong one day, or has been left undone.
    Warning,
    /// The service, the next deployment or the way back does not work.
    Broken,
}

/// What was looked at, and found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it; empty where it is sound.
    pub advice: String,
}

impl Finding {
    fn sound(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, level: Level::Sound, text: text.into(), advice: String::new() }
    }

    fn warning(check: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, text: text.into(), advice: advice.into() }
    }

    fn broken(check: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Broken, text: text.into(), advice: advice.into() }
    }
}

/// Looks at everything, and changes nothing.
///
/// # Errors
/// [`NotRoot`](crate::Error::NotRoot), [`NoSystemd`](crate::Error::NoSystemd), [`Offline`](crate::Error::Offline): half a
/// look would be no answer.
pub fn doctor(store: &Store) -> Result<Vec<Finding>> {
    if !store.host().is_live() {
        return Err(crate::Error::Offline("doctor"));
    }
    systemd::require(store.host(), "doctor")?;
    Ok([units::look(store)?, store::look(store)?, machine::look(store)?].concat())
}

/// For a person; the last line is the verdict.
pub fn render(findings: &[Finding]) -> String {
    let columns = columns();
    let lines = findings.iter().map(|finding| {
        let Finding { check, level, text, advice } = finding;
        let advice = if advice.is_empty() { String::new() } else { format!(": {advice}") };
        wrap(&format!("{:<9}{check:<13}{}{advice}", level.to_string(), printable(text)), columns, 22)
    });
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let verdict = match worst(findings) {
        Level::Sound => "this host is sound".to_owned(),
        Level::Warning => format!("this host serves: {} to look after", count(Level::Warning)),
        Level::Broken => {
            format!("this host is broken: {} to mend, {} to look after", count(Level::Broken), count(Level::Warning))
        }
    };
    format!("{}\n\n{verdict}", lines.collect::<Vec<_>>().join("\n"))
}

/// The exit code: 0 sound, 3 warnings, 4 broken.
pub fn exit_code(findings: &[Finding]) -> ExitCode {
    ExitCode::from(match worst(findings) {
        Level::Sound => 0,
        Level::Warning => 3,
        Level::Broken => 4,
    })
}

fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Sound)
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sound => "sound",
            Self::Warning => "warning",
            Self::Broken => "broken",
        })
    }
}
