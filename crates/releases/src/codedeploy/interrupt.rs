//! Ctrl-C, and SIGTERM, by which CI ends a job: they end the watching, and what is left to say is said.

use std::{
    cell::Cell,
    io::{ErrorKind, Read},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level::pipe,
};

use crate::{Error, Result};

/// Has a byte for each signal that came.
#[derive(Debug)]
pub struct Interrupt {
    signals: UnixStream,
    came: Cell<bool>,
}

impl Interrupt {
    /// From here on they end nothing by themselves.
    pub fn catch() -> Result<Self> {
        let caught = || {
            let (signals, writer) = UnixStream::pair()?;
            pipe::register(SIGINT, writer.try_clone()?)?;
            pipe::register(SIGTERM, writer)?;
            Ok(Self { signals, came: Cell::new(false) })
        };
        caught().map_err(|error: std::io::Error| Error::Release(format!("cannot watch for Ctrl-C: {error}")))
    }

    /// Waits so long for one, and returns whether it has come, then or before.
    pub fn comes_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while !self.came.get() {
            // At least something: to wait for no time means for ever.
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let read = self.signals.set_read_timeout(Some(left)).and_then(|()| (&self.signals).read(&mut [0; 16]));
            self.came.set(read.is_ok());
            // A signal ends the call that waits for it, before its byte is there.
            let is_cut_short = read.is_err_and(|error| error.kind() == ErrorKind::Interrupted);
            if !is_cut_short && Instant::now() >= until {
                break;
            }
        }
        self.came.get()
    }

    /// Whether one has come.
    pub fn came(&self) -> bool {
        self.comes_within(Duration::ZERO)
    }
}
