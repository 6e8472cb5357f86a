//! Where a connection is in its exchange of messages.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use axum::extract::MatchedPath;
use tokio::{sync::Notify, time::Instant};

/// The length of a body that comes in chunks.
const CHUNKED: u64 = u64::MAX;

/// What may be read from a connection now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wants {
    /// The head of the next request.
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// A body in chunks, to its end.
    Chunks,
    /// Nothing: a request has been read to its end, and its response has not ended; or the connection leaves.
    Nothing,
    /// Whatever comes: it is HTTP no more.
    Raw,
}

/// What is under way on a connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// A part of a head has arrived.
    partial: AtomicBool,
    /// A whole head has been read that no handler has been given yet.
    head: AtomicBool,
    /// Bytes of the next message have been read.
    ahead: AtomicBool,
    /// The request that it was upgraded by.
    upgraded: OnceLock<Arc<Asked>>,
    /// Of the body that is being read.
    left: AtomicU64,
    /// A request has been given to the router.
    asked: AtomicBool,
    /// Requests whose responses have not ended.
    requests: AtomicU64,
    in_flight: Mutex<InFlight>,
    /// A response has ended.
    ended: Notify,
    /// Something has been written that has not been flushed.
    writing: AtomicBool,
    /// The connection is being closed.
    closing: AtomicBool,
    /// No next head is to be read: the connection leaves this process at its next boundary.
    held: AtomicBool,
    /// The connection ends in this process.
    stays: AtomicBool,
}

#[derive(Debug)]
struct InFlight {
    requests: Vec<Arc<Asked>>,
    /// When the last one ended, or the connection was accepted.
    idle_since: Instant,
    /// Who has been told to read nothing until then.
    reader: Option<Waker>,
}

/// A request that was given to the router.
#[derive(Debug)]
pub(crate) struct Asked {
    began: Instant,
    route: OnceLock<MatchedPath>,
    answered: AtomicBool,
}

impl Exchange {
    /// Nothing has happened on the connection, or nothing since then.
    pub(crate) fn new(idle_since: Instant) -> Self {
        Self {
            partial: AtomicBool::default(),
            head: AtomicBool::default(),
            ahead: AtomicBool::default(),
            upgraded: OnceLock::new(),
            left: AtomicU64::default(),
            asked: AtomicBool::default(),
            requests: AtomicU64::default(),
            in_flight: Mutex::new(InFlight { requests: Vec::new(), idle_since, reader: None }),
            ended: Notify::new(),
            writing: AtomicBool::default(),
            closing: AtomicBool::default(),
            held: AtomicBool::default(),
            stays: AtomicBool::default(),
        }
    }

    pub(crate) fn wants(&self) -> Wants {
        let left = self.left.load(Ordering::Acquire);
        if self.upgraded.get().is_some() {
            Wants::Raw
        } else if left == CHUNKED {
            Wants::Chunks
        } else if left > 0 {
            Wants::Body(left)
        } else if self.in_flight() || self.held.load(Ordering::Acquire) {
            Wants::Nothing
        } else {
            Wants::Head
        }
    }

    pub(crate) fn set_partial(&self, partial: bool) {
        self.partial.store(partial, Ordering::Release);
    }

    /// A head has been read to its end.
    pub(crate) fn head_ended(&self) {
        self.partial.store(false, Ordering::Release);
        self.head.store(true, Ordering::Release);
    }

    pub(crate) fn set_ahead(&self, ahead: bool) {
        self.ahead.store(ahead, Ordering::Release);
    }

    /// From now on the bytes belong to whom the connection is upgraded for.
    pub(crate) fn upgrade(&self, by: &Message) {
        // A connection is upgraded once.
        let _ = self.upgraded.set(by.asked());
    }

    /// Counts what was read of a body that says how long it is.
    pub(crate) fn took(&self, bytes: usize) {
        let left = self.left.load(Ordering::Acquire);
        self.left.store(left.saturating_sub(bytes as u64), Ordering::Release);
    }

    /// The body has been read to its end.
    pub(crate) fn body_ended(&self) {
        self.left.store(0, Ordering::Release);
    }

    pub(crate) fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(crate) fn in_flight(&self) -> bool {
        self.requests.load(Ordering::Acquire) > 0
    }

    /// Whether something of a message has arrived that has not been answered to its end.
    pub(crate) fn has_begun(&self) -> bool {
        let flag = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        flag(&self.partial)
            || flag(&self.head)
            || flag(&self.ahead)
            || self.left.load(Ordering::Acquire) > 0
            || self.in_flight()
    }

    /// Whether the request has been read to its end, and bytes that follow it too.
    pub(crate) fn has_read_on(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0 && self.ahead.load(Ordering::Acquire)
    }

    /// Whether the request has been read to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    pub(crate) fn idle_since(&self) -> Instant {
        self.requests().idle_since
    }

    /// Returns after the end of a response; at once where one has ended since the last call.
    pub(crate) async fn response_ended(&self) {
        self.ended.notified().await;
    }

    pub(crate) fn set_writing(&self, writing: bool) {
        self.writing.store(writing, Ordering::Release);
    }

    pub(crate) fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether to read on at the next boundary.
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }

    /// The connection is never handed over from now on.
    pub(crate) fn stay(&self) {
        self.stays.store(true, Ordering::Release);
    }

    pub(crate) fn stays(&self) -> bool {
        self.stays.load(Ordering::Acquire)
    }

    /// Whether the connection is at a clean boundary of messages, and could leave: the request has been read to its end,
    /// its response is with the kernel to the last byte, and of the next one at most a part of the head has been read.
    pub(crate) fn is_at_boundary(&self) -> bool {
        let flag = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        let busy = flag(&self.head) || flag(&self.writing) || flag(&self.closing) || self.in_flight();
        !busy && self.is_read() && self.upgraded.get().is_none()
    }

    /// Wakes a reader at the end of the next response. hyper itself does not come back for what it was kept from reading.
    pub(crate) fn wake_reader(&self, context: &Context<'_>) {
        self.requests().reader = Some(context.waker().clone());
    }

    /// Gives a request to the router. `length` is its body's, unless it comes in chunks.
    pub(crate) fn begin(self: &Arc<Self>, length: Option<u64>) -> Message {
        let asked = Arc::new(Asked { began: Instant::now(), route: OnceLock::new(), answered: AtomicBool::default() });
        self.left.store(length.unwrap_or(CHUNKED), Ordering::Release);
        self.requests().requests.push(asked.clone());
        self.requests.fetch_add(1, Ordering::AcqRel);
        self.partial.store(false, Ordering::Release);
        self.head.store(false, Ordering::Release);
        self.writing.store(true, Ordering::Release);
        self.asked.store(true, Ordering::Release);
        Message { exchange: self.clone(), asked }
    }

    /// What is open here, one entry for each request, or one for the connection.
    pub(crate) fn describe(&self) -> Vec<Cut> {
        let in_flight = self.requests();
        if let Some(asked) = self.upgraded.get() {
            return vec![asked.cut("upgraded")];
        }
        if in_flight.requests.is_empty() {
            let head = self.partial.load(Ordering::Acquire) || self.head.load(Ordering::Acquire);
            let kind = if head { "head" } else { "idle" };
            return vec![Cut { kind, route: String::new(), age: in_flight.idle_since.elapsed() }];
        }
        let kind = |asked: &Asked| if asked.answered.load(Ordering::Acquire) { "response" } else { "request" };
        in_flight.requests.iter().map(|asked| asked.cut(kind(asked))).collect()
    }

    fn requests(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is open when the rest is cut.
#[derive(Debug)]
pub(crate) struct Cut {
    /// `request`: no response yet; `response`: it is being sent; `upgraded`; `head`: a part of one; `idle`: none of these.
    pub kind: &'static str,
    /// As the router has it; empty where no route matched.
    pub route: String,
    pub age: Duration,
}

impl Asked {
    /// Notes which route it took.
    pub(crate) fn took(&self, route: &MatchedPath) {
        // The first is the outermost, and whole.
        let _ = self.route.set(route.clone());
    }

    fn cut(&self, kind: &'static str) -> Cut {
        let route = self.route.get().map_or_else(String::new, |route| route.as_str().to_owned());
        Cut { kind, route, age: self.began.elapsed() }
    }
}

/// A request whose response has not ended.
#[derive(Debug)]
pub(crate) struct Message {
    exchange: Arc<Exchange>,
    asked: Arc<Asked>,
}

impl Message {
    pub(crate) fn asked(&self) -> Arc<Asked> {
        self.asked.clone()
    }

    /// The response's head is on its way.
    pub(crate) fn answered(&self) {
        self.asked.answered.store(true, Ordering::Release);
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        let mut in_flight = self.exchange.requests();
        in_flight.requests.retain(|asked| !Arc::ptr_eq(asked, &self.asked));
        in_flight.idle_since = Instant::now();
        let reader = in_flight.reader.take();
        drop(in_flight);
        self.exchange.requests.fetch_sub(1, Ordering::AcqRel);
        if let Some(reader) = reader {
            reader.wake();
        }
        self.exchange.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_head_and_a_response_that_has_not_ended_are_under_way() {
        let exchange = Arc::new(Exchange::new(Instant::now()));
        assert!(!exchange.has_begun() && exchange.wants() == Wants::Head, "fresh");
        exchange.set_partial(true);
        assert!(exchange.has_begun() && exchange.wants() == Wants::Head, "half a head");
        let message = exchange.begin(Some(5));
        exchange.took(3);
        assert_eq!(exchange.wants(), Wants::Body(2));
        exchange.took(2);
        assert!(exchange.has_begun() && exchange.wants() == Wants::Nothing, "busy");
        drop(message);
        assert!(!exchange.has_begun() && exchange.wants() == Wants::Head, "idle");
    }

    #[test]
    fn a_body_in_chunks_is_read_until_it_says_that_it_has_ended() {
        let exchange = Arc::new(Exchange::new(Instant::now()));
        let _message = exchange.begin(None);
        assert_eq!(exchange.wants(), Wants::Chunks);
        exchange.body_ended();
        assert_eq!(exchange.wants(), Wants::Nothing);
    }

    #[test]
    fn a_connection_leaves_at_a_boundary_and_nowhere_else() {
        let exchange = Arc::new(Exchange::new(Instant::now()));
        exchange.hold(true);
        assert!(exchange.is_at_boundary() && exchange.wants() == Wants::Nothing, "fresh");
        exchange.set_partial(true);
        assert!(exchange.is_at_boundary(), "half a head goes with it");
        exchange.head_ended();
        assert!(!exchange.is_at_boundary(), "a whole head is to be answered");
        let message = exchange.begin(Some(1));
        drop(message);
        exchange.set_writing(false);
        assert!(!exchange.is_at_boundary(), "the body has not been read");
        exchange.took(1);
        exchange.set_writing(true);
        assert!(!exchange.is_at_boundary(), "the response has not been flushed");
        exchange.set_writing(false);
        assert!(exchange.is_at_boundary(), "idle");
        exchange.set_closing();
        assert!(!exchange.is_at_boundary(), "it is being closed");
    }

    #[test]
    fn what_is_cut_is_told_by_kind() {
        let exchange = Arc::new(Exchange::new(Instant::now()));
        let kinds = || exchange.describe().iter().map(|cut| cut.kind).collect::<Vec<_>>();
        assert_eq!(kinds(), ["idle"]);
        exchange.set_partial(true);
        assert_eq!(kinds(), ["head"]);
        let (first, _second) = (exchange.begin(Some(0)), exchange.begin(Some(0)));
        first.answered();
        assert_eq!(kinds(), ["response", "request"]);
        drop(first);
        assert_eq!(kinds(), ["request"]);
    }
}
