//! Where a connection is in its exchange of messages.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use hyper::Uri;
use tokio::time::Instant;

use crate::routes::Routes;

/// The length of a body that comes in chunks.
const CHUNKED: u64 = u64::MAX;
/// How much of its longest path a connection keeps for the next one.
const PATH: usize = 256;

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
    /// hyper has asked for more than the messages that it was given: it has taken them to their ends.
    caught_up: AtomicBool,
    /// The request that it was upgraded by: a stream's, or the one of HTTP/1.
    upgraded: OnceLock<Option<Arc<Asked>>>,
    /// What its requests take.
    routes: OnceLock<Routes>,
    /// Of the body that is being read.
    left: AtomicU64,
    /// Requests that were given to the router.
    asked: AtomicU64,
    /// Those whose responses have not ended.
    requests: AtomicU64,
    /// The last request of HTTP/1, which has one at a time: it takes the place of the one before, and no memory.
    one: Asked,
    /// When the last response ended, in nanoseconds since this one was made.
    idle_since: AtomicU64,
    /// What that counts from: when the connection was accepted, or last idle in another process.
    idle_first: Instant,
    in_flight: Mutex<InFlight>,
    /// Of HTTP/1: something has been written, or is to be, that the kernel does not have.
    writing: AtomicBool,
    /// The connection is being closed.
    closing: AtomicBool,
    /// No next head is to be read: the connection leaves this process at its next boundary.
    held: AtomicBool,
    /// The connection ends in this process.
    stays: AtomicBool,
    /// Somebody has been told to read nothing until a response ends.
    has_reader: AtomicBool,
}

/// What a request seldom needs.
#[derive(Debug, Default)]
struct InFlight {
    /// Of HTTP/2, those whose responses have not ended.
    streams: Vec<Arc<Asked>>,
    /// When the first byte of a head arrived that is not whole.
    head_since: Option<Instant>,
    /// Who has been told to read nothing.
    reader: Option<Waker>,
}

/// A request that was given to the router.
#[derive(Debug, Default)]
struct Asked {
    told: Mutex<Told>,
    answered: AtomicBool,
    /// Its response's body is with hyper to the end.
    given: AtomicBool,
}

/// What is told of a request that holds a retirement up.
#[derive(Debug, Default)]
struct Told {
    /// Noted by whoever first sees that it takes its time: most do not, and have none.
    began: Option<Instant>,
    /// A copy: what hyper has of it keeps the buffer that its head was read into, for as long as a response goes on.
    path: String,
}

impl Asked {
    /// Begins, in the place of one that has ended.
    fn begin(&self, uri: &Uri) {
        self.answered.store(false, Ordering::Release);
        self.given.store(false, Ordering::Release);
        let mut told = lock(&self.told);
        told.began = None;
        told.path.clear();
        told.path.shrink_to(PATH);
        told.path.push_str(uri.path());
    }

    fn began(&self) -> Instant {
        *lock(&self.told).began.get_or_insert_with(Instant::now)
    }
}

impl Exchange {
    /// Nothing has happened on the connection, or nothing since then.
    pub(crate) fn new(idle_since: Instant) -> Self {
        Self {
            partial: AtomicBool::default(),
            head: AtomicBool::default(),
            ahead: AtomicBool::default(),
            caught_up: AtomicBool::new(true),
            upgraded: OnceLock::new(),
            routes: OnceLock::new(),
            left: AtomicU64::default(),
            asked: AtomicU64::default(),
            requests: AtomicU64::default(),
            one: Asked::default(),
            idle_since: AtomicU64::default(),
            idle_first: idle_since,
            in_flight: Mutex::default(),
            writing: AtomicBool::default(),
            closing: AtomicBool::default(),
            held: AtomicBool::default(),
            stays: AtomicBool::default(),
            has_reader: AtomicBool::default(),
        }
    }

    /// Which routes there are to tell of.
    pub(crate) fn takes(&self, routes: &Routes) {
        // They stay the same for who comes back.
        let _ = self.routes.set(routes.clone());
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

    /// Whether a part of a head has arrived.
    pub(crate) fn set_partial(&self, partial: bool) {
        if self.partial.load(Ordering::Acquire) != partial {
            self.set_head_since(partial.then(Instant::now));
        }
    }

    pub(crate) fn set_head_since(&self, since: Option<Instant>) {
        self.lock().head_since = since;
        self.partial.store(since.is_some(), Ordering::Release);
    }

    /// When the first byte of a head arrived that is not whole.
    pub(crate) fn head_since(&self) -> Option<Instant> {
        self.partial.load(Ordering::Acquire).then(|| self.lock().head_since).flatten()
    }

    /// A head has been read to its end.
    pub(crate) fn head_ended(&self) {
        self.set_partial(false);
        self.head.store(true, Ordering::Release);
        self.caught_up.store(false, Ordering::Release);
    }

    /// hyper asks for more. What it was given of a body may wait there for a handler that does not take it; while it does,
    /// hyper asks for nothing.
    pub(crate) fn set_caught_up(&self) {
        self.caught_up.store(true, Ordering::Release);
    }

    pub(crate) fn set_ahead(&self, ahead: bool) {
        self.ahead.store(ahead, Ordering::Release);
    }

    /// From now on the bytes belong to whom the connection is upgraded for.
    pub(crate) fn upgrade(&self, by: &Message) {
        // A connection is upgraded once.
        let _ = self.upgraded.set(by.stream.clone());
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
        self.asked() > 0
    }

    /// How many requests were given to the router.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// How many responses have not ended.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    pub(crate) fn in_flight(&self) -> bool {
        self.requests() > 0
    }

    /// Whether something of a message has arrived that has not been answered to its end.
    pub(crate) fn has_begun(&self) -> bool {
        let flag = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        flag(&self.partial)
            || flag(&self.head)
            || flag(&self.ahead)
            || !flag(&self.caught_up)
            || self.left.load(Ordering::Acquire) > 0
            || self.in_flight()
    }

    /// Whether nothing is to be read until a response has ended, and nothing has been: whoever asked may go meanwhile.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.in_flight() && self.wants() == Wants::Nothing && !self.ahead.load(Ordering::Acquire)
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
        self.idle_first + Duration::from_nanos(self.idle_since.load(Ordering::Acquire))
    }

    /// Something is written.
    pub(crate) fn set_writing(&self) {
        self.writing.store(true, Ordering::Release);
    }

    /// The kernel has what was written: a response that hyper was given to its end has ended.
    pub(crate) fn flushed(&self) {
        // HTTP/1 is written by one task: to exchange the flag would be for nobody.
        if self.writing.load(Ordering::Acquire) {
            self.writing.store(false, Ordering::Release);
            if self.in_flight() && self.one.given.load(Ordering::Acquire) {
                self.leave_in_flight(0);
                self.wake_reader();
            }
        }
    }

    fn end_stream(&self, stream: &Arc<Asked>) {
        let streams = &mut self.lock().streams;
        streams.retain(|asked| !Arc::ptr_eq(asked, stream));
        self.leave_in_flight(streams.len());
    }

    /// A response has ended, and so many have not.
    fn leave_in_flight(&self, requests: usize) {
        self.idle_since.store(self.idle_first.elapsed().as_nanos() as u64, Ordering::Release);
        self.requests.store(requests as u64, Ordering::Release);
    }

    fn wake_reader(&self) {
        if self.has_reader.load(Ordering::Acquire) {
            self.has_reader.store(false, Ordering::Release);
            let reader = self.lock().reader.take();
            reader.iter().for_each(Waker::wake_by_ref);
        }
    }

    pub(crate) fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn is_upgraded(&self) -> bool {
        self.upgraded.get().is_some()
    }

    /// Whether whatever arrives next is none of what has begun.
    pub(crate) fn is_between_messages(&self) -> bool {
        let flag = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        self.is_read() && !flag(&self.partial) && !flag(&self.head) && !self.is_upgraded()
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

    /// Whether the connection is at a clean boundary of messages, and could leave: the request has been read to its end, and
    /// hyper holds nothing of it; its response is with the kernel to the last byte; and of the next one at most a part of the
    /// head has been read.
    pub(crate) fn is_at_boundary(&self) -> bool {
        let flag = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        let busy = flag(&self.head) || flag(&self.writing) || flag(&self.closing) || self.in_flight();
        !busy && flag(&self.caught_up) && self.is_read() && self.upgraded.get().is_none()
    }

    /// Notes who reads on at the end of the response. hyper itself does not come back for what it was kept from reading.
    pub(crate) fn reads_later(&self, context: &Context<'_>) {
        self.lock().reader = Some(context.waker().clone());
        self.has_reader.store(true, Ordering::Release);
    }

    /// Gives a request to the router. `length` is its body's, unless it comes in chunks.
    pub(crate) fn begin(self: &Arc<Self>, uri: &Uri, length: Option<u64>) -> Message {
        self.left.store(length.unwrap_or(CHUNKED), Ordering::Release);
        self.head.store(false, Ordering::Release);
        self.one.begin(uri);
        self.ask(1, None)
    }

    /// The same of HTTP/2, whose frames are none of the connection's business.
    pub(crate) fn begin_stream(self: &Arc<Self>, uri: &Uri) -> Message {
        let stream = Arc::new(Asked::default());
        stream.begin(uri);
        stream.began();
        let streams = &mut self.lock().streams;
        streams.push(stream.clone());
        self.ask(streams.len(), Some(stream))
    }

    fn ask(self: &Arc<Self>, requests: usize, stream: Option<Arc<Asked>>) -> Message {
        self.requests.store(requests as u64, Ordering::Release);
        // It is hyper's task alone that asks.
        self.asked.store(self.asked() + 1, Ordering::Release);
        Message { exchange: self.clone(), stream }
    }

    /// The connection rests: its last request, which nobody asks for any more, takes no memory.
    pub(crate) fn forget_last(&self) {
        lock(&self.one.told).path = String::new();
    }

    /// A turn of the connection is over, and the response to its request is not.
    pub(crate) fn takes_time(&self) {
        self.one.began();
    }

    /// What is open here, one entry for each request, or one for the connection.
    pub(crate) fn describe(self: &Arc<Self>) -> Vec<Cut> {
        let in_flight = self.lock();
        if let Some(stream) = self.upgraded.get() {
            return vec![self.cut("upgraded", stream.as_deref().unwrap_or(&self.one))];
        }
        if !self.in_flight() {
            let head = self.partial.load(Ordering::Acquire) || self.head.load(Ordering::Acquire);
            let kind = if head { "head" } else { "idle" };
            let since = in_flight.head_since.filter(|_| head).unwrap_or_else(|| self.idle_since());
            return vec![Cut { kind, age: since.elapsed(), request: None }];
        }
        let kind = |asked: &Asked| if asked.answered.load(Ordering::Acquire) { "response" } else { "request" };
        let cut = |asked: &Asked| self.cut(kind(asked), asked);
        match in_flight.streams.as_slice() {
            [] => vec![cut(&self.one)],
            streams => streams.iter().map(|stream| cut(stream)).collect(),
        }
    }

    fn cut(self: &Arc<Self>, kind: &'static str, asked: &Asked) -> Cut {
        Cut { kind, age: asked.began().elapsed(), request: Some((self.clone(), lock(&asked.told).path.clone())) }
    }

    fn lock(&self) -> MutexGuard<'_, InFlight> {
        lock(&self.in_flight)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is open when the rest is cut.
#[derive(Debug)]
pub(crate) struct Cut {
    /// `request`: no response yet; `response`: it is being sent; `upgraded`; `head`: a part of one; `idle`: none of these.
    pub kind: &'static str,
    pub age: Duration,
    /// Whose routes there are, and its path.
    request: Option<(Arc<Exchange>, String)>,
}

impl Cut {
    /// As the router has it; empty where no route matched. The router is asked, which takes a microsecond or two: only of those
    /// that are told, and under no lock.
    pub(crate) fn route(&self) -> String {
        let routes = self.request.as_ref().and_then(|(exchange, path)| Some((exchange.routes.get()?, path)));
        routes.map_or_else(String::new, |(routes, path)| routes.of(path))
    }
}

/// A request whose response hyper has not been given to its end.
#[derive(Debug)]
pub(crate) struct Message {
    exchange: Arc<Exchange>,
    /// Of HTTP/2. In HTTP/1 the end of a response is with hyper first, and then, soon or much later, with the kernel.
    stream: Option<Arc<Asked>>,
}

impl Message {
    /// The response's head is on its way.
    pub(crate) fn answered(&self) {
        self.asked().answered.store(true, Ordering::Release);
    }

    fn asked(&self) -> &Asked {
        self.stream.as_deref().unwrap_or(&self.exchange.one)
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        match &self.stream {
            Some(stream) => self.exchange.end_stream(stream),
            None => {
                self.exchange.one.given.store(true, Ordering::Release);
                self.exchange.set_writing();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri() -> Uri {
        Uri::from_static("/")
    }

    #[test]
    fn half_a_head_and_a_response_that_has_not_ended_are_under_way() {
        let exchange = Arc::new(Exchange::new(Instant::now()));
        assert!(!exchange.has_begun() && exchange.wants() == Wants::Head, "fresh");
        exchange.set_partial(true);
        assert!(exchange.has_begun() && exchange.wants() == Wants::Head, "half a head");
        let message = exchange.begin(&uri(), Some(5));
        exchange.set_partial(false);
        exchange.took(3);
        assert_eq!(exchange.wants(), Wants::Body(2));
        exchange.took(2);
        assert!(exchange.has_begun() && exchange.wants() == Wants::Nothing, "busy");
        drop(message);
        assert!(exchange.has_begun() && exchange.wants() == Wants::Nothing, "the client does not have it yet");
        exchange.flushed();
        assert!(!exchange.has_begun() && exchange.wants() == Wants::Head, "idle");
    }

    #[test]
    fn a_body_in_chunks_is_read_until_it_says_that_it_has_ended() {
        let exchange = Arc::new(Exchange::new(Instant::now()));
        let _message = exchange.begin(&uri(), None);
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
        drop(exchange.begin(&uri(), Some(1)));
        exchange.flushed();
        assert!(!exchange.is_at_boundary(), "the body has not been read");
        exchange.took(1);
        assert!(!exchange.is_at_boundary(), "hyper has the body, and may have given it to nobody");
        exchange.set_caught_up();
        assert!(exchange.is_at_boundary(), "idle");
        exchange.set_writing();
        assert!(!exchange.is_at_boundary(), "something has not been flushed");
        exchange.flushed();
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
        exchange.set_partial(false);
        let (first, _second) = (exchange.begin_stream(&uri()), exchange.begin_stream(&uri()));
        first.answered();
        assert_eq!(kinds(), ["response", "request"]);
        drop(first);
        assert_eq!(kinds(), ["request"]);
    }
}
