//! The drain as a pair: who signals it, and who watches for it and is waited for.
//!
//! It is over when the last [`Open`] has been dropped. Nothing is polled for that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// How long, from the signal on, a connection that has nothing in flight is kept for a request that may be on its way.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// What connections are told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
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
    pub(crate) fn open(&self) -> Open {
        Open { _count: Count::new(&self.counts, |counts| &counts.connections), _alive: self.alive.clone() }
    }

    /// Counts a request for as long as what is returned lives.
    pub(crate) fn request(&self) -> Count {
        Count::new(&self.counts, |counts| &counts.requests)
    }

    pub(crate) fn is_retiring(&self) -> bool {
        *self.phase.borrow() != Phase::Serving
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

/// How much is open; the numbers follow from the guards alone.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
}

impl Counts {
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Open {
    _count: Count,
    _alive: mpsc::Sender<()>,
}

/// One of something that is counted.
#[derive(Debug)]
pub(crate) struct Count {
    counts: Arc<Counts>,
    which: fn(&Counts) -> &AtomicU64,
}

impl Count {
    fn new(counts: &Arc<Counts>, which: fn(&Counts) -> &AtomicU64) -> Self {
        which(counts).fetch_add(1, Ordering::Relaxed);
        Self { counts: counts.clone(), which }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        (self.which)(&self.counts).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_drain_is_over_when_the_last_connection_is_dropped() {
        let (mut signal, watch) = channel();
        let (counts, open) = (watch.counts(), watch.open());
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
