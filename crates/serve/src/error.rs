//! Why a server did not come up.

use std::io;

/// Each is one line that says what was tried and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable of the environment has a value that it cannot have.
    #[error("{variable}={value:?}: {expected}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What it is set to.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
    /// Sockets were passed, and none of them can be used.
    #[error("{0}")]
    Socket(String),
    /// The address could not be listened on.
    #[error("cannot listen on {address}: {source}; set APP_LISTEN to another address")]
    Listen {
        /// The address.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The router could not be made.
    #[error("cannot start: {0}")]
    Router(String),
    /// The router did not say that it is ready.
    #[error("not ready within {seconds} s (APP_READY_SECONDS): /readyz answered {answer}")]
    NotReady {
        /// How long it was asked.
        seconds: u64,
        /// Its last answer.
        answer: String,
    },
    /// The runtime or its signal handlers could not be set up.
    #[error("cannot {operation}: {source}")]
    Runtime {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
