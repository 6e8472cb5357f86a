//! Which request a line of the log is about.

use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher, Hasher, RandomState},
    mem::swap,
};

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, Method, Uri},
};
use tracing::{Event, Span, Subscriber, span::EnteredSpan};
use tracing_subscriber::layer::{Context, Layer};

/// The header of a request's id, and of its response's.
pub const ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request's log lines carry.
pub struct Line {
    method: Method,
    uri: Uri,
    id: HeaderValue,
}

impl Line {
    /// Of a request, which gets an id where its client has given it none.
    pub fn of(request: &mut Request) -> Self {
        let given = request.headers().get(ID).cloned();
        let id = given.unwrap_or_else(|| {
            let id = new_id();
            request.headers_mut().insert(ID, id.clone());
            id
        });
        Self { method: request.method().clone(), uri: request.uri().clone(), id }
    }

    pub fn id(&self) -> HeaderValue {
        self.id.clone()
    }
}

/// What is logged meanwhile is about that request.
pub fn within<T>(line: &mut Option<Line>, f: impl FnOnce() -> T) -> T {
    CURRENT.with_borrow_mut(|current| swap(current, line));
    let done = f();
    CURRENT.with_borrow_mut(|current| swap(current, line));
    done
}

/// The request that this thread is at. Handlers need it for what they spawn: `.instrument(line::span())`.
pub fn span() -> Span {
    CURRENT.with_borrow(|line| {
        line.as_ref().map_or_else(Span::none, |Line { method, uri, id }| {
            tracing::error_span!("request", %method, path = uri.path(), id = id.to_str().unwrap_or_default())
        })
    })
}

/// Puts the request before what is logged of it. Few requests log anything: a span for each of them took a fourth of all
/// instructions.
pub struct Begin;

/// Ends what [`Begin`] began; whatever writes the log goes between the two.
pub struct End;

impl<S: Subscriber> Layer<S> for Begin {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        ENTERED.set(Some(span().entered()));
    }
}

impl<S: Subscriber> Layer<S> for End {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        drop(ENTERED.take());
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Line>> = const { RefCell::new(None) };
    static ENTERED: Cell<Option<EnteredSpan>> = const { Cell::new(None) };
    /// This thread's random number, and how many ids it has given.
    static IDS: (u64, Cell<u64>) = (RandomState::new().build_hasher().finish(), Cell::new(0));
}

/// No two are the same. Whoever knows one can guess others, so it is no secret.
fn new_id() -> HeaderValue {
    let id = IDS.with(|(thread, given)| {
        given.set(given.get() + 1);
        format!("{thread:016x}-{:x}", given.get())
    });
    HeaderValue::try_from(id).unwrap_or_else(|_| unreachable!("it is of hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, io, sync::Mutex, thread};

    use axum::body::Body;
    use tracing_subscriber::{fmt, layer::SubscriberExt, registry};

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
        static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        struct Log;
        impl io::Write for Log {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                LOG.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let writes = fmt::layer().with_writer(|| Log).with_ansi(false).without_time().with_target(false);
        // For the process: a span is made while an event is on its way, which a thread's own subscriber would not see.
        tracing::subscriber::set_global_default(registry().with(Begin).with(writes).with(End)).unwrap();
        let mut named = request();
        named.headers_mut().insert(ID, HeaderValue::from_static("7"));
        let mut line = Some(Line::of(&mut named));
        within(&mut line, || tracing::info!("first"));
        tracing::info!("second");
        let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = log.lines().map(str::trim).collect();
        assert_eq!(lines, [r#"INFO request{method=GET path="/a" id="7"}: first"#, "INFO second"]);
    }
}
