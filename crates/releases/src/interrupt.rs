//! ^C, or a SIGTERM, by which CI ends a job: it ends what this program waits for and not the program, which has to say what goes
//! on without it.
#![expect(clippy::disallowed_methods, reason = "it runs where bundles are made, and ends this program's own children")]

use std::{
    io::{self, Read},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use rustix::{
    io::retry_on_intr,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid},
};
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
    /// The time is over, which ends the same without anybody's wish.
    is_late: Arc<AtomicBool>,
    children: Arc<Mutex<Vec<Pid>>>,
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

    /// What it would end ends after so long as well.
    pub(crate) fn ends_after(&self, time: Duration) {
        let late = self.clone();
        thread::spawn(move || {
            thread::sleep(time);
            late.is_late.store(true, Ordering::SeqCst);
            late.end_all();
        });
    }

    /// What a program prints, and how it ends; if it is ended, whatever it began itself is not waited for.
    pub(crate) fn output(&self, mut command: Command) -> io::Result<Output> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        self.ends(&child);
        let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
        let pid = Pid::from_child(&child);
        // It keeps its number until it is waited for, below.
        retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT))?;
        self.spares(&child);
        let status = child.wait()?;
        let read =
            |bytes: Receiver<Vec<u8>>| if self.ends_now() { Vec::new() } else { bytes.recv().unwrap_or_default() };
        Ok(Output { status, stdout: read(stdout), stderr: read(stderr) })
    }

    /// Whether one came.
    pub(crate) fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }

    /// Waits so long for one, and returns whether it has come, then or before.
    pub(crate) fn comes_within(&self, time: Duration) -> bool {
        let waits = self.wakes.wait_timeout_while(self.children(), time, |_| !self.came());
        drop(waits.unwrap_or_else(PoisonError::into_inner));
        self.came()
    }

    /// It ends this child, also where it has come already.
    pub(crate) fn ends(&self, child: &Child) {
        self.children().extend(Pid::from_raw(child.id() as i32));
        if self.ends_now() {
            self.end_all();
        }
    }

    /// The child is about to be waited for: from then on its number may be another process's.
    pub(crate) fn spares(&self, child: &Child) {
        let pid = Pid::from_raw(child.id() as i32);
        self.children().retain(|other| Some(*other) != pid);
    }

    fn ends_now(&self) -> bool {
        self.came() || self.is_late.load(Ordering::SeqCst)
    }

    /// Whoever waits holds the same lock until it sleeps, so that none is missed.
    fn end_all(&self) {
        for child in self.children().iter() {
            let _ = kill_process(*child, Signal::TERM);
        }
        self.wakes.notify_all();
    }

    fn children(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// To the end, on a thread of its own: who writes there may go on after the program that was begun.
fn read(from: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, bytes) = mpsc::channel();
    thread::spawn(move || {
        let mut read = Vec::new();
        let _ = from.map(|mut from| from.read_to_end(&mut read));
        // Nobody may be waiting for it any more.
        let _ = sender.send(read);
    });
    bytes
}
