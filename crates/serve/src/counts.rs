//! What is open, and what has become of what was.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

use crate::exchange::{Cut, Exchange};

/// What is open. The numbers follow from the guards alone.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    opened: AtomicU64,
    /// On connections that have gone.
    asked: AtomicU64,
    late_bytes: AtomicU64,
    /// From an instance that retired.
    taken: AtomicU64,
    accepted: AtomicU64,
    handed_over: AtomicU64,
    /// Ended by themselves, after the signal.
    drained: AtomicU64,
    cut: AtomicU64,
    retiring: AtomicBool,
    open: Mutex<BTreeMap<u64, Arc<Exchange>>>,
}

impl Counts {
    /// Before anybody hears of it.
    pub(crate) fn set_retiring(&self) {
        self.retiring.store(true, Ordering::Release);
    }

    pub(crate) fn is_retiring(&self) -> bool {
        self.retiring.load(Ordering::Acquire)
    }

    /// Whatever is open is cut.
    pub(crate) fn set_cut(&self) {
        self.cut.store(self.connections(), Ordering::Relaxed);
    }

    pub(crate) fn add_late_bytes(&self, bytes: u64) {
        self.late_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connections(&self) -> u64 {
        self.open().len() as u64
    }

    /// Whose responses have not ended. Each connection counts its own, or all would write to one place at each request.
    pub(crate) fn requests(&self) -> u64 {
        self.open().values().map(|exchange| exchange.requests()).sum()
    }

    pub(crate) fn late_bytes(&self) -> u64 {
        self.late_bytes.load(Ordering::Relaxed)
    }

    /// Requests that were begun.
    pub(crate) fn asked(&self) -> u64 {
        let open = self.open();
        self.asked.load(Ordering::Relaxed) + open.values().map(|exchange| exchange.asked()).sum::<u64>()
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn handed_over(&self) -> u64 {
        self.handed_over.load(Ordering::Relaxed)
    }

    pub(crate) fn drained(&self) -> u64 {
        self.drained.load(Ordering::Relaxed)
    }

    pub(crate) fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// Whose responses have not ended, and what is open where anything is under way. That is a look at each connection, of which
    /// thousands may be idle: nothing is made of those.
    pub(crate) fn under_way(&self) -> (u64, Vec<Cut>) {
        let (mut requests, mut under_way) = (0, Vec::new());
        let open = self.open();
        for exchange in open.values().filter(|exchange| exchange.has_begun() || exchange.is_upgraded()) {
            requests += exchange.requests();
            under_way.extend(exchange.describe().into_iter().filter(|open| open.kind != "idle"));
        }
        (requests, under_way)
    }

    /// Everything that is open, the oldest first.
    pub(crate) fn describe(&self) -> Vec<Cut> {
        self.open().values().flat_map(|exchange| exchange.describe()).collect()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Exchange>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Open {
    id: u64,
    counts: Arc<Counts>,
    exchange: Arc<Exchange>,
    handed_over: AtomicBool,
    _permit: OwnedSemaphorePermit,
    alive: Alive,
}

/// The drain is not over as long as this lives.
#[derive(Clone, Debug)]
pub(crate) struct Alive(#[expect(dead_code, reason = "it is there to be dropped")] pub mpsc::Sender<Infallible>);

impl Open {
    /// One more is open, idle since then.
    pub(crate) fn new(counts: Arc<Counts>, permit: OwnedSemaphorePermit, idle_since: Instant, alive: Alive) -> Self {
        let (id, exchange) = (counts.opened.fetch_add(1, Ordering::Relaxed), Arc::new(Exchange::new(idle_since)));
        counts.open().insert(id, exchange.clone());
        Self { id, counts, exchange, handed_over: AtomicBool::new(false), _permit: permit, alive }
    }

    /// For what outlives the connection's place among those that are open.
    pub(crate) fn alive(&self) -> Alive {
        self.alive.clone()
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn exchange(&self) -> Arc<Exchange> {
        self.exchange.clone()
    }

    /// The successor has it.
    pub(crate) fn handed_over(&self) {
        self.handed_over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let (counts, mut open) = (&self.counts, self.counts.open());
        open.remove(&self.id);
        counts.asked.fetch_add(self.exchange.asked(), Ordering::Relaxed);
        drop(open);
        if self.handed_over.load(Ordering::Relaxed) {
            counts.handed_over.fetch_add(1, Ordering::Relaxed);
        } else if counts.retiring.load(Ordering::Relaxed) && counts.cut() == 0 {
            counts.drained.fetch_add(1, Ordering::Relaxed);
        }
    }
}
