//! Which request a line of the log is about.

use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher, RandomState},
    mem::swap,
    thread,
};

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, Method},
};
use tracing::{Event, Span, Subscriber, span::EnteredSpan};
use tracing_subscriber::layer::{Context, Layer};

/// The header of a request's id, and of its response's.
pub const ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request's log lines carry.
pub struct Line {
    method: Method,
    path: Box<str>,
    id: HeaderValue,
}

impl Line {
    /// Of a request, which gets an id where its client has given it none.
    pub fn of(request: &mut Request) -> Self {
        // A copy: what hyper has of it keeps the buffer that its head was read into, for as long as a response goes on.
        let given = request.headers().get(ID).and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok());
        let id = given.unwrap_or_else(|| {
            let id = new_id();
            request.headers_mut().insert(ID, id.clone());
            id
        });
        Self { method: request.method().clone(), path: request.uri().path().into(), id }
    }

    pub fn id(&self) -> HeaderValue {
        self.id.clone()
    }
}

/// What is logged meanwhile is about that request.
pub fn within<T>(line: &mut Option<Line>, f: impl FnOnce() -> T) -> T {
    exchange(line);
    let _after = After(line);
    f()
}

fn exchange(line: &mut Option<Line>) {
    // A thread that ends has none any more, and may log.
    let _ = CURRENT.try_with(|current| swap(&mut *current.borrow_mut(), line));
}

/// Puts back what was there before, after a panic too.
struct After<'a>(&'a mut Option<Line>);

impl Drop for After<'_> {
    fn drop(&mut self) {
        exchange(self.0);
        if thread::panicking() {
            // It may have come from what was being logged.
            leave();
        }
    }
}

/// The request that this thread is at. Handlers need it for what they spawn: `.instrument(line::span())`.
pub fn span() -> Span {
    let span = CURRENT.try_with(|line| {
        line.borrow().as_ref().map_or_else(Span::none, |Line { method, path, id }| {
            tracing::error_span!("request", %method, path = &**path, id = id.to_str().unwrap_or_default())
        })
    });
    span.unwrap_or_else(|_| Span::none())
}

/// Puts the request before what is logged of it. Few requests log anything: a span for each of them took a fourth of all
/// instructions.
pub struct Begin;

/// Ends what [`Begin`] began; whatever writes the log goes between the two.
pub struct End;

impl<S: Subscriber> Layer<S> for Begin {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        let entered = span().entered();
        let _ = ENTERED.try_with(|last| last.set(Some(entered)));
    }
}

impl<S: Subscriber> Layer<S> for End {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        leave();
    }
}

fn leave() {
    let _ = ENTERED.try_with(|last| drop(last.take()));
}

thread_local! {
    static CURRENT: RefCell<Option<Line>> = const { RefCell::new(None) };
    static ENTERED: Cell<Option<EnteredSpan>> = const { Cell::new(None) };
    /// This thread's random key, and how many ids it has given.
    static IDS: (RandomState, Cell<u64>) = (RandomState::new(), Cell::new(0));
}

/// As good as random, without a system call: `SipHash`, with a random key, of a count.
fn new_id() -> HeaderValue {
    let halves = IDS.with(|(key, given)| {
        let count = given.replace(given.get() + 1);
        [key.hash_one((count, 0)), key.hash_one((count, 1))]
    });
    HeaderValue::from_bytes(&hexadecimal(halves)).unwrap_or_else(|_| unreachable!("it is of hexadecimal digits"))
}

/// Digit by digit: to format them took a twentieth of all instructions.
fn hexadecimal(halves: [u64; 2]) -> [u8; 32] {
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(halves.into_iter().flat_map(u64::to_be_bytes)) {
        pair.copy_from_slice(&[byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    digits
}

#[cfg(test)]
pub mod tests {
    use std::{
        collections::HashSet,
        fmt, io,
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{Mutex, Once},
    };

    use axum::body::Body;
    use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, registry};

    use super::*;

    fn request() -> Request {
        Request::get("/a?b").body(Body::empty()).unwrap()
    }

    #[test]
    fn no_two_ids_are_the_same_on_any_threads() {
        let ids = || (0..100).map(|_| Line::of(&mut request()).id()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(ids)).collect();
        let ids: HashSet<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ids.len(), 400);
    }

    #[test]
    fn what_is_logged_within_a_request_names_it_and_what_comes_after_does_not() {
        let mut named = request();
        named.headers_mut().insert(ID, HeaderValue::from_static("7"));
        let mut line = Some(Line::of(&mut named));
        let log = logged(|| {
            within(&mut line, || tracing::info!("first"));
            tracing::info!("second");
            let _ = catch_unwind(AssertUnwindSafe(|| within(&mut line, || panic!("as it is to"))));
            tracing::info!("third");
            let _ = catch_unwind(AssertUnwindSafe(|| within(&mut line, || tracing::info!(?Panics))));
            let next = tracing::info_span!("next");
            next.in_scope(|| tracing::info!("fourth"));
        });
        for text in [r#"INFO request{method=GET path="/a" id="7"}: first"#, "INFO second", "INFO third"] {
            assert!(log.lines().any(|line| line.trim() == text), "{text}: {log}");
        }
        // Behind what was written of the one before.
        assert!(log.contains(" INFO next: fourth"), "{log}");
    }

    /// It cannot be logged.
    struct Panics;

    impl fmt::Debug for Panics {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("as it is to")
        }
    }

    /// What the whole process has logged when `f` has ended.
    pub fn logged(f: impl FnOnce()) -> String {
        static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        static BEGUN: Once = Once::new();
        struct Log;
        impl io::Write for Log {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                LOG.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        // For the process: a span is made while an event is on its way, which a thread's own subscriber would not see.
        BEGUN.call_once(|| {
            let writes =
                tracing_subscriber::fmt::layer().with_writer(|| Log).with_ansi(false).without_time().with_target(false);
            tracing::subscriber::set_global_default(
                registry().with(LevelFilter::INFO).with(Begin).with(writes).with(End),
            )
            .unwrap();
        });
        f();
        String::from_utf8(LOG.lock().unwrap().clone()).unwrap()
    }
}
