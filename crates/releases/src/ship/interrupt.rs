//! ^C, or a SIGTERM: it ends the connections and not this program, which has to say what goes on without them.

use std::{
    io,
    process::Child,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};

/// Whether one came, and who is to be ended when one does. Without [`Self::heed`], none ever comes.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    came: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<Pid>>>,
}

impl Interrupt {
    /// From here on such a signal does not end this process.
    ///
    /// # Errors
    /// Where the kernel does not take the handler.
    pub fn heed() -> io::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // By the handler itself: ssh, which hears a terminal's ^C too, may be gone before a thread is told.
            flag::register(signal, interrupt.came.clone())?;
        }
        let (heeded, mut signals) = (interrupt.clone(), Signals::new([SIGINT, SIGTERM])?);
        thread::spawn(move || signals.forever().for_each(|_| heeded.end_all()));
        Ok(interrupt)
    }

    /// Whether one came.
    pub(super) fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }

    /// It ends this connection, also where it has come already.
    pub(super) fn ends(&self, connection: &Child) {
        self.connections().extend(Pid::from_raw(connection.id() as i32));
        if self.came() {
            self.end_all();
        }
    }

    /// The connection is about to be waited for: from then on its number may be another process's.
    pub(super) fn spares(&self, connection: &Child) {
        let pid = Pid::from_raw(connection.id() as i32);
        self.connections().retain(|other| Some(*other) != pid);
    }

    fn end_all(&self) {
        for connection in self.connections().iter() {
            let _ = kill_process(*connection, Signal::TERM);
        }
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
