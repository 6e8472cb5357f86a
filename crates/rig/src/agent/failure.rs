//! Why an event failed, as the agent reports it.

use std::fmt;

/// The agent's error codes, by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The appspec names a script that is not there.
    ScriptMissing = 1,
    /// The script cannot be made executable.
    ScriptNotExecutable = 2,
    /// It ran beyond its timeout.
    ScriptTimedOut = 3,
    /// It exited with another code than 0, or by a signal.
    ScriptFailed = 4,
    /// Anything else: the bundle cannot be unpacked, the appspec cannot be read.
    UnknownError = 5,
    /// It exited, and something that it started still holds its standard output or error.
    OutputsLeftOpen = 6,
    /// The agent was restarted while the event was under way.
    FailedAfterRestart = 7,
}

/// What a failed event is reported with.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The kind.
    pub code: Code,
    /// The script's place in the bundle; empty where it was none.
    pub script: String,
    /// In the agent's words, or nearly.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}): {}", self.code, self.code as u8, self.message)
    }
}

/// What is no script's fault.
pub(super) fn unknown(message: impl fmt::Display) -> Failure {
    Failure { code: Code::UnknownError, script: String::new(), message: message.to_string() }
}
