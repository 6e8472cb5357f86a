//! ^C, or a SIGTERM, by which CI ends a job: it ends what this program waits for and not the program, which has to say what goes
//! on without it.
#![expect(clippy::disallowed_methods, reason = "it runs where bundles are made, and ends this program's own children")]

use std::{
    io,
    process::Child,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};

use crate::{Error, Result};

/// Whether one came, and who is to be ended when one does. Without [`Self::heed`], none ever comes.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    came: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<Pid>>>,
    wakes: Arc<Condvar>,
}

impl Interrupt {
    /// From here on such a signal does not end this process.
    ///
    /// # Errors
    /// Where the kernel does not take the handler.
    pub fn heed() -> Result<Self> {
        Self::heed_now().map_err(|error| Error::Release(format!("cannot heed ^C: {error}")))
    }

    fn heed_now() -> io::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // By the handler itself: a child, which hears a terminal's ^C too, may be gone before a thread is told.
            flag::register(signal, interrupt.came.clone())?;
        }
        let (heeded, mut signals) = (interrupt.clone(), Signals::new([SIGINT, SIGTERM])?);
        thread::spawn(move || signals.forever().for_each(|_| heeded.end_all()));
        Ok(interrupt)
    }

    /// Whether one came.
    pub(crate) fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }

    /// Waits so long for one, and returns whether it has come, then or before.
    pub(crate) fn comes_within(&self, time: Duration) -> bool {
        let waits = self.wakes.wait_timeout_while(self.connections(), time, |_| !self.came());
        drop(waits.unwrap_or_else(PoisonError::into_inner));
        self.came()
    }

    /// It ends this connection, also where it has come already.
    pub(crate) fn ends(&self, connection: &Child) {
        self.connections().extend(Pid::from_raw(connection.id() as i32));
        if self.came() {
            self.end_all();
        }
    }

    /// The connection is about to be waited for: from then on its number may be another process's.
    pub(crate) fn spares(&self, connection: &Child) {
        let pid = Pid::from_raw(connection.id() as i32);
        self.connections().retain(|other| Some(*other) != pid);
    }

    /// Whoever waits holds the same lock until it sleeps, so that none is missed.
    fn end_all(&self) {
        for connection in self.connections().iter() {
            let _ = kill_process(*connection, Signal::TERM);
        }
        self.wakes.notify_all();
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
