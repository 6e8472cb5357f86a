//! When an HTTP/1.1 connection's time is up.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

use crate::{drain::Stage, exchange::Exchange, stream::Stream};

/// How long an idle connection is kept: longer than the 60 s for which balancers keep theirs, so that it is they who close.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long an idle connection keeps its buffers: to make them anew takes a few microseconds, and most clients that ask often
/// ask again within that.
pub(crate) const RESTS_AFTER: Duration = Duration::from_millis(250);
/// How long a request's head may take from its first byte on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How soon bytes that the reactor has not told of yet are looked for again.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// Tells when a connection's time is up, of one stage.
pub(crate) struct Clock {
    stage: Stage,
    keeps: Keeps,
    /// It may ring early: to set it at each request would cost more.
    sleep: Option<Pin<Box<Sleep>>>,
    /// When to look again, where something had begun or was there when it rang.
    next_look: Option<Instant>,
    /// Who is woken when it rings.
    waker: Option<Waker>,
}

/// What a clock is for.
#[derive(Clone, Copy)]
pub(crate) enum Keeps {
    /// An idle connection, for as long as one is kept.
    Connection,
    /// What hyper has of one, until it rests.
    Buffers,
}

impl Keeps {
    /// When to look again where something has begun, or is there.
    fn look_again(self) -> Duration {
        match self {
            Self::Connection => LAST_LOOK,
            Self::Buffers => RESTS_AFTER,
        }
    }
}

/// Whose time is up.
pub(crate) enum Rung {
    /// Nothing of a request has arrived for as long as what the clock keeps is kept.
    Idle,
    /// A head has begun and does not end.
    Late,
}

impl Clock {
    pub(crate) fn new(stage: Stage, keeps: Keeps) -> Self {
        Self { stage, keeps, sleep: None, next_look: None, waker: None }
    }

    pub(crate) fn set(&mut self, stage: Stage) {
        if self.stage != stage {
            *self = Self::new(stage, self.keeps);
        }
    }

    /// To be polled by the task that reads and writes: what it does is looked at after each of its turns. Cancel safe.
    pub(crate) async fn rings(&mut self, stream: &Stream, exchange: &Exchange) -> Rung {
        poll_fn(|context| self.poll(context, stream, exchange)).await
    }

    fn poll(&mut self, context: &mut Context<'_>, stream: &Stream, exchange: &Exchange) -> Poll<Rung> {
        if exchange.in_flight() {
            exchange.takes_time();
            return Poll::Pending;
        }
        // The end of a connection has limits of its own.
        if exchange.is_closing() {
            return Poll::Pending;
        }
        let head_since = exchange.head_since();
        let due = head_since.map_or_else(|| self.idle_until(exchange), |since| since + HEAD_TIMEOUT);
        let will_ring = self.will_ring(context, due);
        if head_since.is_none() {
            if will_ring {
                return Poll::Pending;
            }
            if let Some(sleep) = self.sleep.as_mut().filter(|sleep| sleep.deadline() <= due) {
                ready!(rings(sleep, context));
            }
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(rings(sleep, context));
            if head_since.is_some() {
                return Poll::Ready(Rung::Late);
            }
            // What a connection brings with it from another process may be there, and not be known to this one's reactor yet.
            if exchange.is_at_boundary() && !exchange.has_begun() && stream.unread() == 0 {
                return Poll::Ready(Rung::Idle);
            }
            let next_look = Instant::now() + self.keeps.look_again();
            self.next_look = Some(next_look);
            sleep.as_mut().reset(next_look);
        }
    }

    /// Whether it has been set, to no later than when it is due, and whoever asks is known. Nobody need look at it before it
    /// rings, and that is at each turn.
    fn will_ring(&mut self, context: &Context<'_>, due: Instant) -> bool {
        let is_known = self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if !is_known {
            self.waker = Some(context.waker().clone());
        }
        // After a head that took its time it is set to when that would have been too late.
        let is_early = |sleep: &Pin<Box<Sleep>>| !sleep.is_elapsed() && sleep.deadline() <= due;
        is_known && self.sleep.as_ref().is_some_and(is_early)
    }

    /// The time counts from the end of the last response, and no grace is over before that has passed since it began.
    ///
    /// Not before the next look: a timer that is set to a moment that has passed wakes its task at once, and one that is put
    /// off again at each turn would do so for ever.
    fn idle_until(&self, exchange: &Exchange) -> Instant {
        let idle_since = exchange.idle_since();
        let until = match self.keeps {
            Keeps::Buffers => idle_since + RESTS_AFTER,
            Keeps::Connection => {
                self.stage.grace().map_or(idle_since + IDLE_TIMEOUT, |(since, grace)| idle_since.max(since) + grace)
            }
        };
        self.next_look.map_or(until, |next_look| until.max(next_look))
    }
}

/// Out of its budget, a turn would return without having noted who is to be woken.
fn rings(sleep: &mut Pin<Box<Sleep>>, context: &mut Context<'_>) -> Poll<()> {
    pin!(unconstrained(sleep.as_mut())).poll(context)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        task::Wake,
    };

    use hyper::Uri;
    use tokio::time::advance;

    use super::*;
    use crate::{drain, served::pair};

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_while_a_body_still_comes_after_its_response_wakes_nobody() {
        let ((_client, stream, _), (_signal, watch)) = (pair().await, drain::channel());
        let exchange = Arc::new(Exchange::new(Instant::now()));
        drop(exchange.begin(&Uri::from_static("/"), Some(5)));
        exchange.flushed();
        let mut clock = Clock::new(watch.stage(), Keeps::Buffers);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut turn = || clock.poll(&mut Context::from_waker(&waker), &stream, &exchange);
        advance(RESTS_AFTER).await;
        for _ in 0..3 {
            assert!(turn().is_pending());
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        exchange.took(5);
        exchange.set_caught_up();
        advance(RESTS_AFTER).await;
        assert!(matches!(turn(), Poll::Ready(Rung::Idle)));
    }
}
