//! The drain as a pair: who signals it, and who watches for it and is waited for.
//!
//! It is over when the last [`Open`] has been dropped. Nothing is polled for that.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::extract::FromRequestParts;
use hyper::http::request::Parts;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::exchange::{Cut, Exchange};

/// How long, from the signal on, a connection that has nothing in flight is kept for a request that may be on its way.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// What connections are told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    Serving,
    Retiring(Instant),
    Cut,
}

/// A new drain, which nobody has signalled.
pub(crate) fn channel() -> (Signal, Watch) {
    let (phase, watched) = watch::channel(Phase::Serving);
    let (alive, ended) = mpsc::channel(1);
    let counts = Arc::new(Counts::default());
    (Signal { phase, ended }, Watch { phase: watched, counts, alive })
}

/// Held by the server.
#[derive(Debug)]
pub(crate) struct Signal {
    phase: watch::Sender<Phase>,
    ended: mpsc::Receiver<()>,
}

impl Signal {
    /// Tells every connection that the instance retires.
    pub(crate) fn retire(&self) {
        self.phase.send_replace(Phase::Retiring(Instant::now()));
    }

    /// Tells every connection to end where it is.
    pub(crate) fn cut(&self) {
        self.phase.send_replace(Phase::Cut);
    }

    /// Returns when every [`Watch`] and every [`Open`] is gone. Cancel safe.
    pub(crate) async fn ended(&mut self) {
        // Nobody sends: the end of the channel is the end of its last holder.
        while self.ended.recv().await.is_some() {}
    }
}

/// Held by the accept loop, and cloned into each connection.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    phase: watch::Receiver<Phase>,
    counts: Arc<Counts>,
    alive: mpsc::Sender<()>,
}

impl Watch {
    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Counts a connection for as long as what is returned lives.
    pub(crate) fn open(&self, permit: OwnedSemaphorePermit) -> Open {
        let (counts, exchange) = (self.counts.clone(), Arc::new(Exchange::default()));
        let id = counts.accepted.fetch_add(1, Ordering::Relaxed);
        counts.open().insert(id, exchange.clone());
        Open { id, counts, exchange, _permit: permit, _alive: self.alive.clone() }
    }

    /// Counts a request for as long as what is returned lives.
    pub(crate) fn request(&self) -> Count {
        Count::new(&self.counts)
    }

    /// What has arrived on a connection after its end, and got no answer.
    pub(crate) fn count_late_bytes(&self, bytes: u64) {
        self.counts.late_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn is_retiring(&self) -> bool {
        *self.phase.borrow() != Phase::Serving
    }

    /// For handlers.
    pub(crate) fn retiring(&self) -> Retiring {
        Retiring(Some(self.phase.clone()))
    }

    /// Returns when the instance retires.
    pub(crate) async fn retired(&mut self) -> Instant {
        let phase = self.phase.wait_for(|phase| *phase != Phase::Serving).await.map(|phase| *phase);
        if let Ok(Phase::Retiring(since)) = phase { since } else { Instant::now() }
    }

    /// Returns when the instance retires and the grace is over.
    pub(crate) async fn grace_is_over(&mut self) {
        let since = self.retired().await;
        sleep_until(since + GRACE).await;
    }

    /// Returns when what is left is cut.
    pub(crate) async fn cut(mut self) {
        // Without a signal there is nobody left to drain for.
        let _ = self.phase.wait_for(|phase| *phase == Phase::Cut).await;
    }
}

/// Tells a handler that its instance retires, so that what would go on for ever can end politely: its client comes back,
/// and finds the next release.
///
/// An extractor. Where nobody serves the router (a test), it never tells.
///
/// ```
/// # use std::time::Duration;
/// async fn work(mut retiring: serve::Retiring) -> &'static str {
///     tokio::select! {
///         () = retiring.begun() => "come back",
///         () = tokio::time::sleep(Duration::from_secs(600)) => "done",
///     }
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Retiring(Option<watch::Receiver<Phase>>);

impl Retiring {
    /// Returns when the instance has been told to retire; at once if it has been. Cancel safe.
    pub async fn begun(&mut self) {
        match &mut self.0 {
            // An error is the end of the server.
            Some(phase) => drop(phase.wait_for(|phase| *phase != Phase::Serving).await),
            None => std::future::pending().await,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Retiring {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// What is open. The numbers follow from the guards alone.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    accepted: AtomicU64,
    requests: AtomicU64,
    late_bytes: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Exchange>>>,
}

impl Counts {
    pub(crate) fn connections(&self) -> u64 {
        self.open().len() as u64
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn late_bytes(&self) -> u64 {
        self.late_bytes.load(Ordering::Relaxed)
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
    _permit: OwnedSemaphorePermit,
    _alive: mpsc::Sender<()>,
}

impl Open {
    pub(crate) fn exchange(&self) -> Arc<Exchange> {
        self.exchange.clone()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counts.open().remove(&self.id);
    }
}

/// A request that is counted.
#[derive(Debug)]
pub(crate) struct Count(Arc<Counts>);

impl Count {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.requests.fetch_add(1, Ordering::Relaxed);
        Self(counts.clone())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_drain_is_over_when_the_last_connection_is_dropped() {
        let (mut signal, watch) = channel();
        let permit = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        let (counts, open) = (watch.counts(), watch.open(permit));
        assert_eq!(counts.connections(), 1);
        drop(watch);
        signal.retire();
        tokio::select! {
            biased;
            () = signal.ended() => panic!("a connection is open"),
            () = tokio::task::yield_now() => {}
        }
        drop(open);
        signal.ended().await;
        assert_eq!(counts.connections(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_counts_from_the_signal() {
        let (signal, mut watch) = channel();
        let began = Instant::now();
        signal.retire();
        tokio::time::sleep(GRACE / 2).await;
        watch.grace_is_over().await;
        assert_eq!(began.elapsed().as_secs(), GRACE.as_secs());
    }

    #[tokio::test]
    async fn a_cut_reaches_who_was_told_to_retire() {
        let (signal, watch) = channel();
        signal.retire();
        let cut = tokio::spawn(watch.cut());
        signal.cut();
        cut.await.unwrap();
    }
}
