//! Connections that rest: one task waits for all of them, and each is no more than its socket.
//!
//! One that has been idle for a moment is left here. What its client does next, or the end of its time, gives it a task of its
//! own again. A successor gets it from here: none of ten thousand has to be woken for that.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    io,
    iter::{from_fn, once},
    mem::MaybeUninit,
    sync::Arc,
    time::Duration,
};

use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, EventData, EventFlags},
};
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    clock::IDLE_TIMEOUT,
    connection,
    counts::Open,
    drain::{Phase, Stage, Watch},
    exchange::Exchange,
    offer::Turn,
    parked::{Parked, set_nonblocking},
    routes::Routes,
};

/// Of those that are ready, so many are told of at once.
const EVENTS: usize = 64;
/// What wakes one: something to read, its end, or an error.
const WAKING: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);
/// After an error that may last.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Where connections are left to rest. No drain waits for it, but for those that rest there.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    epoll: Arc<UnixStream>,
    left: mpsc::UnboundedSender<Resting>,
}

/// A connection that is waited for. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Resting {
    /// Until it rises.
    parked: Option<Parked>,
    rest: Rest,
}

/// From now on the connections of what is returned may rest. Where there is no descriptor to wait at, none does, and each
/// keeps its memory.
pub(crate) fn begin(routes: &Routes, watch: Watch) -> Watch {
    let (left, arrivals) = mpsc::unbounded_channel();
    match waiting() {
        Ok(epoll) => {
            let watch = watch.resting(Rest { epoll: epoll.clone(), left });
            tokio::spawn(Crowd::new(routes.clone(), watch.clone()).wait(epoll, arrivals));
            watch
        }
        Err(error) => {
            tracing::warn!(%error, "idle connections cannot rest");
            watch
        }
    }
}

/// The runtime has no type of its own for it; of this one nothing but the readiness is used.
fn waiting() -> io::Result<Arc<UnixStream>> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    set_nonblocking(&epoll)?;
    UnixStream::from_std(epoll.into()).map(Arc::new)
}

impl Rest {
    /// Begins to wait for a connection of which nothing has been read; it comes back where that cannot be.
    pub(crate) fn begin(&self, parked: Parked) -> Result<Resting, Box<Parked>> {
        parked.open.exchange().forget_last();
        match epoll::add(&*self.epoll, &parked.socket, EventData::new_u64(parked.open.id()), WAKING) {
            Ok(()) => Ok(Resting { parked: Some(parked), rest: self.clone() }),
            Err(_) => Err(Box::new(parked)),
        }
    }
}

impl Resting {
    /// Leaves it to who waits for all that rest.
    pub(crate) fn leave(self) {
        let left = self.rest.left.clone();
        // There is nobody once the server has ended; the connection ends with it.
        let _ = left.send(self);
    }

    fn open(&self) -> Option<&Open> {
        self.parked.as_ref().map(|parked| &parked.open)
    }

    fn rise(mut self) -> Parked {
        self.forget();
        self.parked.take().unwrap_or_else(|| unreachable!("it rises once"))
    }

    /// What is registered is the open file, not the descriptor (epoll(7)): wherever that goes, it would be told of here.
    fn forget(&self) {
        let forgotten = self.parked.as_ref().map(|parked| epoll::delete(&*self.rest.epoll, &parked.socket));
        if let Some(Err(error)) = forgotten {
            tracing::warn!(%error, "a connection that rests no more is still waited for");
        }
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The numbers of some that are ready. Cancel safe: they are ready until they are woken.
async fn ready(epoll: &UnixStream) -> Vec<u64> {
    let wait = || {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let (ready, _) = epoll::wait(epoll, &mut events, Some(&NOW))?;
        match ready {
            [] => Err(io::ErrorKind::WouldBlock.into()),
            ready => Ok(ready.iter().map(|event| event.data.u64()).collect()),
        }
    };
    match epoll.async_io(Interest::READABLE, wait).await {
        Ok(ready) => ready,
        Err(error) => {
            tracing::warn!(%error, "cannot wait for connections that rest");
            sleep(LOOK_AGAIN).await;
            Vec::new()
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Those that rest, by their numbers.
struct Crowd {
    stage: Stage,
    resting: BTreeMap<u64, Resting>,
    /// When the time of each is up.
    due: BTreeSet<(Instant, u64)>,
    routes: Routes,
    watch: Watch,
}

impl Crowd {
    fn new(routes: Routes, watch: Watch) -> Self {
        Self { stage: watch.stage(), resting: BTreeMap::new(), due: BTreeSet::new(), routes, watch }
    }

    /// Runs until the runtime ends. Dropped, it closes those that rest.
    async fn wait(mut self, epoll: Arc<UnixStream>, mut arrivals: mpsc::UnboundedReceiver<Resting>) {
        let (turns, mut changes) = (self.watch.turns(), self.watch.clone());
        loop {
            let (stage, due) = (self.stage, self.first_due());
            let leaves = stage.hands_over() && !self.resting.is_empty();
            tokio::select! {
                biased;
                // However many speak or arrive, whoever is to leave does.
                () = changes.leaves(stage) => self.turn_to(changes.stage()),
                // Those that arrive before those that are ready: they may be the same.
                Some(resting) = arrivals.recv() => self.add(resting),
                ready = ready(&epoll) => self.wake_all(ready),
                turn = turns.next(), if leaves => self.hand_over(once(turn).chain(from_fn(|| turns.try_next()))),
                () = at(due) => self.wake_due(),
            }
        }
    }

    fn first_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    fn add(&mut self, resting: Resting) {
        let Some(open) = resting.open() else { return };
        if may_rest(self.stage, &open.exchange()) {
            self.due.insert(due(open));
            self.resting.insert(open.id(), resting);
        } else {
            self.wake(resting.rise());
        }
    }

    fn remove(&mut self, id: u64) -> Option<Parked> {
        let parked = self.resting.remove(&id)?.rise();
        self.due.remove(&due(&parked.open));
        Some(parked)
    }

    /// Gives it a task of its own.
    fn wake(&self, parked: Parked) {
        connection::resume(parked, self.routes.clone(), self.watch.clone());
    }

    fn wake_all(&mut self, ids: Vec<u64>) {
        for id in ids {
            // One that is ready and has not arrived is told of again.
            if let Some(parked) = self.remove(id) {
                self.wake(parked);
            }
        }
    }

    fn wake_due(&mut self) {
        let now = Instant::now();
        let due = self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id).collect();
        self.wake_all(due);
    }

    fn turn_to(&mut self, stage: Stage) {
        self.stage = stage;
        if stage.phase == Phase::Cut {
            (self.resting, self.due) = Default::default();
        }
        let is_up = |resting: &Resting| resting.open().is_some_and(|open| !may_rest(stage, &open.exchange()));
        let up = self.resting.iter().filter(|(_, resting)| is_up(resting)).map(|(id, _)| *id).collect();
        self.wake_all(up);
    }

    /// As many as have a turn, the oldest first.
    fn hand_over(&mut self, turns: impl Iterator<Item = Turn>) {
        for turn in turns {
            let first = self.resting.first_key_value().map(|(id, _)| *id);
            let Some(parked) = first.and_then(|id| self.remove(id)) else { return };
            self.watch.hand_over(parked, turn, self.routes.clone());
        }
    }
}

/// Whether one may go on to rest. Where an instance retires and nobody takes over, its own task says how long it is kept.
fn may_rest(stage: Stage, exchange: &Exchange) -> bool {
    stage.phase == Phase::Serving || stage.hands_over() && !exchange.stays()
}

/// When its time is up. As long as it rests, that stays.
fn due(open: &Open) -> (Instant, u64) {
    (open.exchange().idle_since() + IDLE_TIMEOUT, open.id())
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::post};
    use tokio::{io::AsyncWriteExt, time::timeout};

    use super::*;
    use crate::{
        clock::RESTS_AFTER,
        served::{GET, SECOND, Served, hello},
    };

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stays_idle_has_no_task_and_serves_on() {
        let mut served = Served::accepted(hello()).await;
        for _ in 0..3 {
            for _ in 0..3 {
                assert!(served.ask(GET).await.ends_with("hello"));
                sleep(RESTS_AFTER / 2).await;
                assert!(!served.rests());
            }
            sleep(2 * RESTS_AFTER).await;
            assert!(served.rests());
        }
        let mut offers = served.hands_over();
        assert!(timeout(SECOND, offers.recv()).await.unwrap().unwrap().parked.ahead.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rests_is_offered_and_goes_on_where_nobody_takes_it() {
        let mut served = Served::resting(GET).await;
        let mut offers = served.hands_over();
        let offer = timeout(SECOND, offers.recv()).await.unwrap().unwrap();
        served.signal.phases().to(Phase::Alone);
        offer.give_back();
        assert!(served.ask(GET).await.ends_with("hello"));
        assert_eq!((served.counts.handed_over(), served.counts.drained()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rests_is_answered_within_the_grace_where_nobody_comes_after_it() {
        for asks in [true, false] {
            let mut served = Served::resting(GET).await;
            let _offers = served.signal.retire(SECOND);
            served.signal.phases().to(Phase::Alone);
            sleep(SECOND).await;
            if asks {
                assert!(served.ask(GET).await.contains("connection: close"));
            } else {
                let took = served.ends_after().await.as_secs_f64();
                assert!((took - 4.0).abs() < 0.1, "{took} s");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rests_and_cannot_leave_is_not_offered() {
        let mut served = Served::resting(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let mut offers = served.hands_over();
        assert!(timeout(10 * SECOND, offers.recv()).await.is_err());
        assert!(served.ask(GET).await.contains("connection: close"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rests_is_cut_with_the_others() {
        let mut served = Served::resting(GET).await;
        let _offers = served.signal.retire(SECOND);
        served.signal.cut();
        assert_eq!(served.ends_after().await, Duration::ZERO);
        assert_eq!((served.counts.cut(), served.counts.connections()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_before_a_head_and_is_none_keeps_no_connection_from_resting() {
        let mut served = Served::accepted(hello()).await;
        assert!(served.ask(GET).await.ends_with("hello"));
        // An empty line, in two halves.
        for part in [b"\r", b"\n"] {
            served.client.write_all(part).await.unwrap();
            sleep(2 * RESTS_AFTER).await;
            assert!(served.rests());
        }
        assert!(served.ask(GET).await.ends_with("hello"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_head_came_in_two_parts_rests_as_soon() {
        let mut served = Served::accepted(hello()).await;
        for _ in 0..2 {
            served.client.write_all(&GET[..20]).await.unwrap();
            sleep(RESTS_AFTER).await;
            assert!(served.ask(&GET[20..]).await.ends_with("hello"));
            sleep(2 * RESTS_AFTER).await;
            assert!(served.rests());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_does_not_rest() {
        let router = Router::new().route("/", post(async |body: String| body));
        let mut served = Served::accepted(router).await;
        let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n";
        for part in [&head[..20], &head[20..], b"hel"] {
            served.client.write_all(part).await.unwrap();
            sleep(4 * RESTS_AFTER).await;
            assert!(!served.rests());
        }
        assert!(served.ask(b"lo").await.ends_with("hello"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_while_it_rests_is_let_go() {
        let mut served = Served::accepted(hello()).await;
        assert!(served.ask(GET).await.ends_with("hello"));
        sleep(2 * RESTS_AFTER).await;
        drop(served.client);
        sleep(SECOND).await;
        assert_eq!(served.counts.connections(), 0);
    }
}
