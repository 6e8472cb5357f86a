//! The drain as a pair: who signals it, and who watches for it and is waited for.
//!
//! It is over when the last [`Open`] has been dropped. Nothing is polled for that.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use axum::extract::FromRequestParts;
use hyper::http::request::Parts;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    task::unconstrained,
    time::{Instant, sleep_until},
};

use crate::{
    counts::{Alive, Counts, Open},
    offer::{Offer, Offers, Turn, Turns},
    parked::Parked,
    resting::{Rest, Resting},
    routes::Routes,
};

/// What connections are told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    Serving,
    /// Whoever may take over is being asked. Nothing new is begun meanwhile.
    Seeking,
    /// A successor serves, and connections go to it.
    HandingOver,
    /// A successor serves, and takes no connections.
    Succeeded,
    /// Nobody serves after this instance, as far as it can know.
    Alone,
    Cut,
}

/// For people.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Serving => "serving",
            Phase::Seeking => "looking for a successor",
            Phase::HandingOver => "handing over",
            Phase::Succeeded => "beside a successor that takes no connections",
            Phase::Alone => "alone",
            Phase::Cut => "cut",
        })
    }
}

/// A phase, and since when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stage {
    pub phase: Phase,
    /// When this phase began.
    pub since: Instant,
    /// When the instance was told to retire.
    signal: Instant,
    /// Over how long handlers are told that the instance retires.
    spread: Duration,
}

impl Stage {
    fn new(phase: Phase) -> Self {
        let now = Instant::now();
        Self { phase, since: now, signal: now, spread: Duration::ZERO }
    }

    pub(crate) fn is_retiring(self) -> bool {
        self.phase != Phase::Serving
    }

    /// Whether a connection that may leave goes to the successor.
    pub(crate) fn hands_over(self) -> bool {
        matches!(self.phase, Phase::Seeking | Phase::HandingOver)
    }

    /// How long a connection that has nothing in flight, and stays, is kept for a request that may be on its way, and from
    /// when on; `None` where it is simply kept.
    ///
    /// Beside a successor it can take as long as a balancer keeps idle connections (60 s): its client then closes first.
    pub(crate) fn grace(self) -> Option<(Instant, Duration)> {
        match self.phase {
            Phase::Serving | Phase::Cut => None,
            Phase::Seeking | Phase::HandingOver | Phase::Succeeded => Some((self.signal, GRACE_BESIDE)),
            Phase::Alone => Some((self.since, GRACE_ALONE)),
        }
    }

    /// When what is left is cut. `beside` counts from the signal while a successor serves, `alone` from the moment on at
    /// which none does; neither ever outlasts both.
    pub(crate) fn deadline(self, alone: Duration, beside: Duration) -> Instant {
        match self.phase {
            Phase::Alone => (self.since + alone).min(self.signal + alone.max(beside)),
            _ => self.signal + alone.max(beside),
        }
    }
}

/// How long, alone, an instance waits for requests that may be on their way, and accepts what waits in the queue.
pub(crate) const GRACE_ALONE: Duration = Duration::from_secs(5);
/// The same while a successor serves that takes no connections.
const GRACE_BESIDE: Duration = Duration::from_secs(75);
/// Handlers that would go on for ever are told of the signal one by one, so that their clients do not all return in the
/// same millisecond: this far apart,
const APART: Duration = Duration::from_micros(500);
/// and over this long at most.
const SPREAD: Duration = Duration::from_secs(10);

/// A new drain, which nobody has signalled.
pub(crate) fn channel() -> (Signal, Watch) {
    let stage = Stage::new(Phase::Serving);
    let (told, watched) = watch::channel(stage);
    let phases = Phases { stage: watch::Sender::new(stage), told, counts: Arc::default() };
    let (alive, ended) = mpsc::channel(1);
    let (offer, offers) = mpsc::unbounded_channel();
    let counts = phases.counts.clone();
    let watch = Watch { stage: watched, counts, offer, turns: Turns::new(), rest: None, alive: alive.downgrade() };
    (Signal { phases, offers: Some(offers), alive: Some(alive), ended }, watch)
}

/// Held by the server.
#[derive(Debug)]
pub(crate) struct Signal {
    phases: Phases,
    offers: Option<Offers>,
    /// Until the end is waited for, more may come.
    alive: Option<mpsc::Sender<Infallible>>,
    ended: mpsc::Receiver<Infallible>,
}

impl Signal {
    /// Tells every connection that the instance retires, and returns what they offer to the successor. `deadline` is how
    /// long the handlers may take that go on for ever.
    ///
    /// Only the first call does anything.
    pub(crate) fn retire(&mut self, deadline: Duration) -> Option<Offers> {
        let spread = (APART * self.phases.counts.connections() as u32).min(SPREAD).min(deadline / 4);
        self.phases.counts.set_retiring();
        self.phases.turn(|stage| {
            *stage = Stage { spread, ..Stage::new(Phase::Seeking) };
            true
        });
        self.offers.take()
    }

    /// Tells every connection to end where it is.
    pub(crate) fn cut(&self) {
        self.phases.counts.set_cut();
        self.phases.to(Phase::Cut);
    }

    pub(crate) fn phases(&self) -> Phases {
        self.phases.clone()
    }

    /// Returns when every [`Open`] is gone, and no other can come. Cancel safe.
    pub(crate) async fn ended(&mut self) {
        self.alive = None;
        // Nobody sends: the end of the channel is the end of its last holder.
        while self.ended.recv().await.is_some() {}
    }
}

/// Turns a retirement from one phase to another, as successors come and go.
#[derive(Clone, Debug)]
pub(crate) struct Phases {
    stage: watch::Sender<Stage>,
    /// The same, as connections are told.
    told: watch::Sender<Stage>,
    counts: Arc<Counts>,
}

impl Phases {
    pub(crate) fn to(&self, phase: Phase) {
        self.turn(|stage| {
            let turns = stage.phase != phase && stage.phase != Phase::Cut;
            if turns {
                (stage.phase, stage.since) = (phase, Instant::now());
            }
            turns
        });
    }

    fn turn(&self, turns: impl FnOnce(&mut Stage) -> bool) {
        self.stage.send_if_modified(|stage| {
            let has_turned = turns(stage);
            if has_turned {
                self.tell(*stage);
            }
            has_turned
        });
    }

    /// That a successor has been found changes nothing for who is about to leave, and is there to be seen: ten thousand that
    /// are woken to hear of it stand before each request that arrives then.
    fn tell(&self, stage: Stage) {
        self.told.send_if_modified(|told| {
            let left_before = std::mem::replace(told, stage).hands_over();
            !(left_before && stage.hands_over())
        });
    }

    /// Returns when it is known whether somebody serves beside this instance. Cancel safe.
    pub(crate) async fn known(&self) -> Stage {
        let mut stages = self.subscribe();
        let known = stages.wait_for(|stage| !matches!(stage.phase, Phase::Serving | Phase::Seeking)).await;
        known.map_or_else(|_| unreachable!("its sender is here"), |stage| *stage)
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }
}

/// Held by the accept loop, and cloned into each connection. It keeps nothing alive.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    stage: watch::Receiver<Stage>,
    counts: Arc<Counts>,
    offer: mpsc::UnboundedSender<Offer>,
    turns: Turns,
    rest: Option<Rest>,
    alive: mpsc::WeakSender<Infallible>,
}

impl Watch {
    /// From now on connections rest there.
    pub(crate) fn resting(self, rest: Rest) -> Self {
        Self { rest: Some(rest), ..self }
    }

    /// Begins to wait for a connection that has nothing under way; it comes back where it cannot rest.
    pub(crate) fn begin_rest(&self, parked: Parked) -> Result<Resting, Box<Parked>> {
        match &self.rest {
            Some(rest) => rest.begin(parked),
            None => Err(Box::new(parked)),
        }
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Counts a connection, idle since then, for as long as what is returned lives; `None` once the drain is over.
    pub(crate) fn open(&self, permit: OwnedSemaphorePermit, idle_since: Instant) -> Option<Open> {
        let alive = Alive(self.alive.upgrade()?);
        Some(Open::new(self.counts.clone(), permit, idle_since, alive))
    }

    /// What has arrived on a connection after its end, and got no answer.
    pub(crate) fn count_late_bytes(&self, bytes: u64) {
        self.counts.add_late_bytes(bytes);
    }

    /// A client came.
    pub(crate) fn count_accepted(&self) {
        self.counts.add_accepted();
    }

    /// A connection came from an instance that retires.
    pub(crate) fn count_taken(&self) {
        self.counts.add_taken();
    }

    /// What counts now.
    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Whether nobody else will have a connection, if it stays or may go. Each response asks, so a flag comes before the stage,
    /// which has a lock. It is set a moment before the stage, and only that says whether there is somebody else.
    pub(crate) fn is_last(&self, stays: bool) -> bool {
        self.counts.is_retiring() && {
            let stage = self.stage();
            stage.is_retiring() && (stays || !stage.hands_over())
        }
    }

    /// Returns when the stage is another than that. Cancel safe.
    pub(crate) async fn leaves(&mut self, stage: Stage) {
        let seen = self.stage.clone();
        if seldom(seen, self.stage.wait_for(|now| *now != stage)).await.is_err() {
            // The end of the server is a cut. Whoever were told of a stage here would look for it, and again, and for ever.
            pending().await
        }
    }

    /// For handlers. They are told evenly over the spread: the golden ratio puts each new one into the largest gap.
    pub(crate) fn retiring(&self, open: u64) -> Retiring {
        let share = (open as f64 * 0.618_033_988_749_895).fract();
        Retiring(Some((self.stage.clone(), share)))
    }

    /// Returns when the instance retires. Cancel safe.
    pub(crate) async fn retired(&mut self) -> Instant {
        let (seen, retires) = (self.stage.clone(), self.stage.wait_for(|stage| stage.is_retiring()));
        seldom(seen, retires).await.map_or_else(|_| Instant::now(), |stage| stage.signal)
    }

    /// Returns when what is left is cut.
    pub(crate) async fn cut(mut self) {
        // Without a signal there is nobody left to drain for.
        let _ = seldom(self.stage.clone(), self.stage.wait_for(|stage| stage.phase == Phase::Cut)).await;
    }

    /// Where connections wait for their turn to leave.
    pub(crate) fn turns(&self) -> Turns {
        self.turns.clone()
    }

    /// Offers a connection to the successor. It goes on here, by these routes, if there is none, or if it is refused.
    pub(crate) fn hand_over(&self, parked: Parked, turn: Turn, routes: Routes) {
        let offer = Offer::new(parked, routes, self.clone(), turn);
        // There is nobody to offer it to once the server has ended; the connection ends with it.
        let _ = self.offer.send(offer);
    }
}

/// Asks what waits for a stage only where there is another one, or where somebody else is to be woken: a connection asks at
/// each of its turns, and all of them would meet at one lock. From the first change on it asks each time: there is a new stage
/// before those are woken who wait for it, and whoever were asked in between would not be asked again.
async fn seldom<T>(seen: watch::Receiver<Stage>, waits: impl Future<Output = T>) -> T {
    // Where a turn has used up its budget, tokio would return without having noted who is to be woken.
    let (mut waits, mut known) = (pin!(unconstrained(waits)), None::<Waker>);
    poll_fn(|context| {
        let is_known = known.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if is_known && matches!(seen.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        known = Some(context.waker().clone());
        waits.as_mut().poll(context)
    })
    .await
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
pub struct Retiring(Option<(watch::Receiver<Stage>, f64)>);

impl Retiring {
    /// Returns when the instance has been told to retire; at once if that was long ago. Connections are told one after the
    /// other, over 0.5 ms for each that is open, 10 s and a quarter of the deadline at most: what would return together
    /// comes spread. Cancel safe.
    pub async fn begun(&mut self) {
        let Some((stage, share)) = &mut self.0 else { return pending().await };
        // An error is the end of the server.
        let Ok(Stage { signal, spread, .. }) = stage.wait_for(|stage| stage.is_retiring()).await.map(|stage| *stage)
        else {
            return;
        };
        tokio::select! {
            () = sleep_until(signal + spread.mul_f64(*share)) => {}
            _ = stage.wait_for(|stage| stage.phase == Phase::Cut) => {}
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Retiring {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Arc<Self>>().map(|retiring| Self::clone(retiring)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::task::coop::{consume_budget, has_budget_remaining};

    use super::*;

    const BOTH: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

    fn open(watch: &Watch) -> Open {
        let permit = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        watch.open(permit, Instant::now()).unwrap()
    }

    #[tokio::test]
    async fn the_drain_is_over_when_the_last_connection_is_dropped() {
        let (mut signal, watch) = channel();
        let (counts, open) = (watch.counts(), open(&watch));
        assert_eq!(counts.connections(), 1);
        signal.retire(BOTH.0);
        tokio::select! {
            biased;
            () = signal.ended() => panic!("a connection is open"),
            () = tokio::task::yield_now() => {}
        }
        drop(open);
        signal.ended().await;
        assert_eq!((counts.connections(), counts.drained()), (0, 1));
        let permit = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        assert!(watch.open(permit, Instant::now()).is_none(), "nothing comes after the end");
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_shrinks_when_the_successor_goes_and_grows_when_one_comes() {
        let (mut signal, watch) = channel();
        let (began, phases) = (Instant::now(), signal.phases());
        signal.retire(BOTH.0);
        let deadline = |stage: Stage| stage.deadline(BOTH.0, BOTH.1) - began;
        phases.to(Phase::HandingOver);
        assert_eq!(deadline(watch.stage()), BOTH.1);
        tokio::time::sleep(Duration::from_secs(100)).await;
        phases.to(Phase::Alone);
        assert_eq!(deadline(watch.stage()), Duration::from_secs(130));
        assert_eq!(watch.stage().grace(), Some((Instant::now(), GRACE_ALONE)));
        phases.to(Phase::Succeeded);
        assert_eq!(deadline(watch.stage()), BOTH.1);
        tokio::time::sleep(Duration::from_secs(490)).await;
        phases.to(Phase::Alone);
        assert_eq!(deadline(watch.stage()), BOTH.1, "never later than the longest");
    }

    #[tokio::test]
    async fn who_is_about_to_leave_is_not_woken_to_hear_that_a_successor_was_found() {
        let (mut signal, mut watch) = channel();
        signal.retire(BOTH.0);
        watch.stage.borrow_and_update();
        signal.phases().to(Phase::HandingOver);
        assert_eq!(watch.stage().phase, Phase::HandingOver, "whoever looks sees it");
        assert!(!watch.stage.has_changed().unwrap());
        assert_eq!(signal.phases().known().await.phase, Phase::HandingOver);
        signal.phases().to(Phase::Alone);
        assert!(watch.stage.has_changed().unwrap(), "it is left again");
    }

    #[test]
    fn of_what_is_open_that_is_told_which_is_under_way() {
        let (_signal, watch) = channel();
        let (_idle, busy, speaks) = (open(&watch), open(&watch), open(&watch));
        let _asked = busy.exchange().begin_stream(&hyper::Uri::from_static("/"));
        speaks.exchange().set_partial(true);
        let (requests, under_way) = watch.counts().under_way();
        let kinds: Vec<_> = under_way.iter().map(|open| open.kind).collect();
        assert_eq!((requests, kinds), (1, vec!["request", "head"]));
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_handlers_are_told_evenly_over_five_seconds() {
        let (mut signal, watch) = channel();
        let told: Vec<_> = (0..10_000).map(|_| open(&watch)).collect();
        let began = Instant::now();
        signal.retire(BOTH.1);
        let mut when = Vec::new();
        for open in &told {
            let mut retiring = watch.retiring(open.id());
            when.push(tokio::spawn(async move {
                retiring.begun().await;
                began.elapsed().as_millis() / 100
            }));
        }
        let mut tenths = BTreeMap::<u128, u32>::new();
        for told in when {
            *tenths.entry(told.await.unwrap()).or_default() += 1;
        }
        assert!(tenths.len() >= 50 && tenths.values().all(|told| *told <= 210), "{tenths:?}");
    }

    #[test]
    fn until_the_stage_says_so_no_connection_is_taken_for_one_that_nobody_else_will_have() {
        let (mut signal, watch) = channel();
        let is_last = || [true, false].map(|stays| watch.is_last(stays));
        assert_eq!(is_last(), [false, false]);
        watch.counts.set_retiring();
        assert_eq!(is_last(), [false, false], "the flag alone");
        signal.retire(BOTH.0);
        assert_eq!(is_last(), [true, false], "a successor is sought");
        signal.cut();
        assert_eq!(is_last(), [true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_also_where_its_turn_had_no_budget_left() {
        let (mut signal, mut watch) = channel();
        let waits = tokio::spawn(async move {
            poll_fn(|context| {
                while has_budget_remaining() {
                    let _ = pin!(consume_budget()).poll(context);
                }
                Poll::Ready(())
            })
            .await;
            watch.leaves(watch.stage()).await;
        });
        // It is polled until it does not want to be any more.
        tokio::time::sleep(Duration::from_secs(1)).await;
        signal.retire(BOTH.0);
        tokio::time::timeout(Duration::from_secs(1), waits).await.expect("it is woken").unwrap();
    }

    #[tokio::test]
    async fn a_cut_reaches_who_was_told_to_retire_and_nothing_comes_after_it() {
        let (mut signal, watch) = channel();
        signal.retire(BOTH.0);
        let cut = tokio::spawn(watch.clone().cut());
        signal.cut();
        cut.await.unwrap();
        signal.phases().to(Phase::Alone);
        assert_eq!(watch.stage().phase, Phase::Cut);
    }
}
