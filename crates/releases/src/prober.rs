//! A light client that asks through the public socket while a verb works, and so tells what others feel of it.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    host::Host,
    probe::{self, Address},
    systemd,
};

/// Between the beginnings of two questions.
const PACE: Duration = Duration::from_millis(100);
/// For a question that is under way: a deployment waits for it, so not for long.
const PATIENCE: Duration = Duration::from_millis(20);
/// Between two looks at whether a question has ended, or may begin.
const TICK: Duration = Duration::from_millis(1);

/// Asks `/livez` ten times a second, each time on a fresh connection, until it is dropped.
#[derive(Debug, Default)]
pub struct Prober {
    shared: Arc<Shared>,
}

/// What it saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// Questions that ended.
    pub asked: u64,
    /// Those without an answer, or with one of 500 and above.
    pub failed: u64,
    /// The longest time that somebody who asks again and again was without an answer, in milliseconds.
    pub gap_ms: u64,
    /// What was wrong the first time.
    pub reason: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    is_over: AtomicBool,
    is_held: AtomicBool,
    address: OnceLock<Address>,
}

/// While this lives, and for no longer than the pace, no question is begun.
#[derive(Debug)]
pub struct Hold(Arc<Shared>);

#[derive(Debug, Default)]
struct Seen {
    probe: Probe,
    /// When the question began that has not ended.
    asking_since: Option<Instant>,
    /// When the first one began that failed, since one was answered.
    failing_since: Option<Instant>,
}

impl Prober {
    /// Asks where systemd listens, which is asked for meanwhile: nobody waits for either.
    pub fn find(host: &Host) -> Option<Self> {
        let asked = systemd::ask_where_it_listens(host).ok()?;
        let this = Self::default();
        let shared = this.shared.clone();
        spawn(move || {
            let listens = asked.wait_aside().ok()?;
            let address = Address::parse(String::from_utf8_lossy(&listens.stdout).trim())?;
            shared.ask_until_it_is_over(shared.address.get_or_init(|| address));
            Some(())
        });
        Some(this)
    }

    /// Asks there.
    pub fn at(address: &Address) -> Self {
        let this = Self::default();
        let (shared, address) = (this.shared.clone(), address.clone());
        spawn(move || {
            shared.ask_until_it_is_over(shared.address.get_or_init(|| address));
            Some(())
        });
        this
    }

    /// Where it asks, once it is known.
    pub fn address(&self) -> Option<Address> {
        self.shared.address.get().cloned()
    }

    /// Begins no question meanwhile, and waits for the one that is under way: the connections of an instance that retires are
    /// to be its clients', and are counted. Where it takes longer than 20 ms, or what it is held for takes longer than the time
    /// between two questions, that goes on.
    pub fn hold(&self) -> Hold {
        self.shared.is_held.store(true, Ordering::Relaxed);
        let began = Instant::now();
        while self.shared.seen().asking_since.is_some() && began.elapsed() < PATIENCE {
            thread::sleep(TICK);
        }
        Hold(self.shared.clone())
    }

    /// Asks no more. A question that has not ended counts as time without an answer, and is not waited for. `None` where
    /// nobody could be asked.
    pub fn end(self) -> Option<Probe> {
        self.shared.seen().end(Instant::now())
    }
}

/// A host without room for a thread is not to be hurt by who watches it.
fn spawn(job: impl FnOnce() -> Option<()> + Send + 'static) {
    let _ = thread::Builder::new().spawn(job);
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.is_held.store(false, Ordering::Relaxed);
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_until_it_is_over(&self, address: &Address) {
        while !self.is_over.load(Ordering::Relaxed) {
            let due = Instant::now();
            while self.is_held.load(Ordering::Relaxed) && due.elapsed() < PACE {
                thread::sleep(TICK);
            }
            let began = Instant::now();
            self.seen().asking_since = Some(began);
            let answer = probe::is_alive(address);
            self.seen().add(began, Instant::now(), answer);
            thread::sleep(PACE.saturating_sub(began.elapsed()));
        }
    }
}

impl Seen {
    fn add(&mut self, began: Instant, ended: Instant, answer: Result<(), String>) {
        self.asking_since = None;
        self.probe.asked += 1;
        match answer {
            Ok(()) => {
                let since = self.failing_since.take().unwrap_or(began);
                self.add_gap(since, ended);
            }
            Err(reason) => {
                self.probe.failed += 1;
                self.failing_since.get_or_insert(began);
                self.probe.reason.get_or_insert(reason);
            }
        }
    }

    fn add_gap(&mut self, since: Instant, until: Instant) {
        self.probe.gap_ms = self.probe.gap_ms.max((until - since).as_millis() as u64);
    }

    fn end(&mut self, now: Instant) -> Option<Probe> {
        if let Some(since) = self.failing_since.or(self.asking_since) {
            self.add_gap(since, now);
        }
        (self.probe.asked > 0 || self.asking_since.is_some()).then(|| self.probe.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lasts_from_the_first_failure_to_the_next_answer() {
        let (mut seen, began) = (Seen::default(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        seen.add(at(0), at(7), Ok(()));
        seen.add(at(100), at(101), Err("refused".to_owned()));
        seen.add(at(200), at(201), Err("closed".to_owned()));
        seen.add(at(300), at(302), Ok(()));
        seen.add(at(400), at(403), Ok(()));
        let probe = seen.end(at(500)).unwrap();
        let wanted = Probe { asked: 5, failed: 2, gap_ms: 202, reason: Some("refused".to_owned()) };
        assert_eq!(probe, wanted);
    }

    #[test]
    fn a_question_without_an_end_is_time_without_an_answer() {
        let (mut seen, began) = (Seen::default(), Instant::now());
        seen.asking_since = Some(began);
        let probe = seen.end(began + Duration::from_millis(900)).unwrap();
        assert_eq!((probe.asked, probe.failed, probe.gap_ms), (0, 0, 900));
    }

    #[test]
    fn who_asked_nobody_has_seen_nothing() {
        assert_eq!(Seen::default().end(Instant::now()), None);
    }
}
