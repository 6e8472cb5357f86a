//! What every request gets: an id, log lines that carry it, limits of time and size, a 500 where its handler panics, and a
//! compressed response where its client accepts one.
//!
//! The answers are those of tower-http's layers, to which the tests hold it. Those do their work for each request; most
//! requests panic not, fail not and log nothing, so here it is done when it is needed. What is logged is a response that fails;
//! of a request's begin and end there is no line, also not for those who debug.

use std::{
    convert::Infallible,
    future::{self, Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, VARY},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_body::{Frame, SizeHint};
use http_body_util::Limited;
use tokio::{task::unconstrained, time::sleep};
use tower::{ServiceExt, service_fn};
use tower_http::{
    catch_panic::{DefaultResponseForPanic, ResponseForPanic},
    compression::{
        Compression,
        predicate::{DefaultPredicate, Predicate},
    },
};

use crate::line::{ID, Line, within};

/// The largest body of a request.
pub const LARGEST_BODY: usize = 2 << 20;

/// Answers one, by its handler where it can.
///
/// What goes on while it is waited for stays small, and the handler's part has a box of its own: 2,000 bytes in one are more
/// than glibc keeps at hand (1,032), and it put its heap in order for each request.
pub fn each(limit: Duration, mut request: Request, next: Next) -> impl Future<Output = Response> {
    let (line, began, accepted) = (Line::of(&mut request), Instant::now(), accepted(&request));
    let answered = sized(request).map(|request| Box::pin(next.run(request)));
    async move {
        let (id, mut line) = (line.id(), Some(line));
        let response = match answered {
            Some(answered) => handled(limit, answered, &mut line).await,
            None => (StatusCode::PAYLOAD_TOO_LARGE, "length limit exceeded").into_response(),
        };
        let mut response = match encoded(accepted, response) {
            Encoded::AsItIs(response) => response,
            Encoded::Compressed(response) => response.await,
        };
        if response.status().is_server_error() {
            let status = response.status();
            within(&mut line, || tracing::error!(%status, latency = ?began.elapsed(), "response failed"));
        }
        response.headers_mut().entry(ID).or_insert(id);
        if response.body().is_end_stream() {
            return response;
        }
        response.map(|body| Body::new(Sent { body, line }))
    }
}

/// None where the body is too large. One that says how long it is is no longer than that: hyper sees to it.
fn sized(request: Request) -> Option<Request> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(length) if length > LARGEST_BODY => None,
        None if !request.body().is_end_stream() => {
            Some(request.map(|body| Body::new(Limited::new(body, LARGEST_BODY))))
        }
        _ => Some(request),
    }
}

/// The clock is set where the handler waits.
async fn handled(
    limit: Duration,
    mut answered: Pin<Box<impl Future<Output = Response>>>,
    line: &mut Option<Line>,
) -> Response {
    let mut late = None;
    poll_fn(|context| {
        match within(line, || catch_unwind(AssertUnwindSafe(|| answered.as_mut().poll(context)))) {
            Ok(Poll::Ready(response)) => return Poll::Ready(response),
            Ok(Poll::Pending) => {}
            Err(panic) => return Poll::Ready(within(line, || panicked(panic))),
        }
        // A handler that is never without work uses up the budget of each turn, and the clock would have none left to ring.
        let late = late.get_or_insert_with(|| Box::pin(unconstrained(sleep(limit)))).as_mut().poll(context);
        late.map(|()| StatusCode::GATEWAY_TIMEOUT.into_response())
    })
    .await
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    DefaultResponseForPanic::default().response_for_panic(panic).map(Body::new)
}

/// What the client says of compression.
fn accepted(request: &Request) -> HeaderMap {
    let mut accepted = HeaderMap::new();
    for value in request.headers().get_all(ACCEPT_ENCODING) {
        accepted.append(ACCEPT_ENCODING, value.clone());
    }
    accepted
}

/// A response, and what its client accepts.
enum Encoded {
    AsItIs(Response),
    Compressed(Pin<Box<dyn Future<Output = Response> + Send>>),
}

/// Compressed, where that is accepted and worth it.
fn encoded(accepted: HeaderMap, mut response: Response) -> Encoded {
    let headers = response.headers();
    let is_as_it_is = headers.contains_key(CONTENT_ENCODING) || headers.contains_key(CONTENT_RANGE);
    let is_worth_it = !is_as_it_is && DefaultPredicate::new().should_compress(&response);
    let names = |list: &HeaderValue, name| String::from_utf8_lossy(list.as_bytes()).to_ascii_lowercase().contains(name);
    // A weight of 0 can rule everything out, and make it a 406 (RFC 9110, 12.5.3).
    if accepted.values().any(|encoding| is_worth_it || names(encoding, "q=0")) {
        return Encoded::Compressed(Box::pin(compressed(accepted, response)));
    }
    // Whoever keeps it for others must not give it to those who would have had it compressed (RFC 9110, 12.5.5).
    if is_worth_it && !headers.get_all(VARY).iter().any(|vary| names(vary, "accept-encoding")) {
        response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
    }
    Encoded::AsItIs(response)
}

async fn compressed(accepted: HeaderMap, response: Response) -> Response {
    let mut request = Request::new(Body::empty());
    *request.headers_mut() = accepted;
    let mut response = Some(response);
    let given = service_fn(|_| future::ready(Ok::<_, Infallible>(response.take().unwrap_or_default())));
    let Ok(response) = Compression::new(given).oneshot(request).await;
    response.map(Body::new)
}

/// A body on its way. Of one that has a length nobody knows whether it is all there, or comes from somebody who may break off.
struct Sent {
    body: Body,
    line: Option<Line>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    /// What breaks after the head has been sent is told, too.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, line } = &mut *self;
        within(line, || {
            let frame = ready!(Pin::new(body).poll_frame(context));
            if let Some(Err(error)) = &frame {
                tracing::error!(%error, "response failed");
            }
            Poll::Ready(frame)
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use axum::{
        Router,
        body::to_bytes,
        http::{header::CONTENT_TYPE, request::Builder},
        middleware::from_fn,
        routing::{get, post},
    };
    use futures_util::stream;
    use tower::ServiceBuilder;
    use tower_http::{
        ServiceBuilderExt, catch_panic::CatchPanicLayer, compression::CompressionLayer, limit::RequestBodyLimitLayer,
        request_id::MakeRequestUuid, timeout::TimeoutLayer, trace::TraceLayer,
    };
    use tracing::Instrument;

    use super::*;
    use crate::line::tests::logged;

    const LIMIT: Duration = Duration::from_secs(1);

    fn handlers() -> Router {
        let long = "long ".repeat(100);
        let chunks = || Body::from_stream(stream::iter([Ok::<_, Infallible>(Bytes::from("chunk ".repeat(50)))]));
        let upload = async |body: Body| match to_bytes(body, usize::MAX).await {
            Ok(bytes) => Ok(bytes.len().to_string()),
            Err(error) => Err((StatusCode::BAD_REQUEST, error.to_string())),
        };
        Router::new()
            .route("/short", get("short"))
            .route("/long", get(long.clone()))
            .route("/image", get(([(CONTENT_TYPE, "image/png")], long.clone())))
            .route("/encoded", get(([(CONTENT_ENCODING, "br")], long.clone())))
            .route("/varies", get(([(VARY, "Origin, Accept-Encoding")], long.clone())))
            .route("/named", get(([("x-request-id", "its own")], long)))
            .route("/chunks", get(async move || chunks()))
            .route("/fails", get(StatusCode::BAD_GATEWAY))
            .route("/panics", get(async || -> &str { panic!("as it is to") }))
            .route("/late", get(async || sleep(2 * LIMIT).await))
            .route("/upload", post(upload))
    }

    fn ours() -> Router {
        handlers().layer(from_fn(|request, next| each(LIMIT, request, next)))
    }

    fn theirs() -> Router {
        let layers = ServiceBuilder::new()
            .set_x_request_id(MakeRequestUuid)
            .layer(TraceLayer::new_for_http())
            .propagate_x_request_id()
            .layer(CompressionLayer::new())
            .layer(CatchPanicLayer::new())
            .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, LIMIT))
            .layer(RequestBodyLimitLayer::new(LARGEST_BODY));
        handlers().layer(layers)
    }

    /// Status, headers and body, and whether there is an id that the client did not give.
    async fn answer(router: Router, request: Request) -> (StatusCode, Vec<(String, HeaderValue)>, Bytes, bool) {
        let given = request.headers().contains_key(ID);
        let (mut head, body) = router.oneshot(request).await.unwrap().into_parts();
        let is_new = !given && head.headers.get(ID).is_some_and(|id| id != "its own");
        if is_new {
            head.headers.remove(ID);
        }
        let mut headers: Vec<_> = head.headers.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        headers.sort_by(|a, b| a.0.cmp(&b.0));
        (head.status, headers, to_bytes(body, usize::MAX).await.unwrap(), is_new)
    }

    async fn same(request: impl Fn() -> Request) {
        assert_eq!(answer(ours(), request()).await, answer(theirs(), request()).await, "{:?}", request());
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_those_of_tower_http() {
        let paths =
            ["short", "long", "image", "encoded", "varies", "named", "chunks", "fails", "panics", "late", "nowhere"];
        let accepted = [None, Some("gzip"), Some("br, gzip;q=0.5"), Some("identity;q=0"), Some("br"), Some("*")];
        for path in paths {
            for accepted in accepted {
                for id in [None, Some("given")] {
                    let header = |request: Builder, name: &str, value: Option<&str>| match value {
                        Some(value) => request.header(name, value),
                        None => request,
                    };
                    same(|| {
                        let request = header(Request::get(format!("/{path}")), "accept-encoding", accepted);
                        header(request, "x-request-id", id).body(Body::empty()).unwrap()
                    })
                    .await;
                }
            }
        }
    }

    #[tokio::test]
    async fn what_goes_on_for_a_request_is_small_enough_to_be_kept_at_hand() {
        let small = |request, next| {
            let answered = each(LIMIT, request, next);
            // Beside it, the middleware's box has the request and the way to its handler.
            assert!(size_of_val(&answered) <= 700, "{} bytes", size_of_val(&answered));
            answered
        };
        let router = handlers().layer(from_fn(small));
        let response = router.oneshot(Request::get("/short").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_refused_by_its_length_and_where_that_is_not_said_when_it_gets_too_long() {
        let chunked = |length| Body::from_stream(stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'x'; length]))]));
        for length in [0, 1, LARGEST_BODY, LARGEST_BODY + 1] {
            same(|| Request::post("/upload").body(chunked(length)).unwrap()).await;
            same(|| Request::post("/upload").header(CONTENT_LENGTH, length).body(chunked(length)).unwrap()).await;
        }
        let (status, ..) = answer(ours(), Request::post("/upload").body(chunked(LARGEST_BODY + 1)).unwrap()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "the handler is told");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_is_never_without_work_is_late_too() {
        let busy = async || -> &str {
            let began = tokio::time::Instant::now();
            loop {
                tokio::task::coop::consume_budget().await;
                if !tokio::task::coop::has_budget_remaining() {
                    tokio::time::advance(LIMIT / 4).await;
                }
                assert!(began.elapsed() < 100 * LIMIT, "nobody ended it");
            }
        };
        let router = Router::new().route("/", get(busy)).layer(from_fn(|request, next| each(LIMIT, request, next)));
        let response = router.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    }

    #[tokio::test]
    async fn what_a_handler_and_its_body_log_names_the_request_and_so_does_a_body_that_breaks() {
        logged(|| {});
        let broken = || {
            tracing::info!("sending");
            Poll::Ready(Some(Err::<Bytes, _>(io::Error::other("as it is to"))))
        };
        let handler = async move || {
            tokio::task::yield_now().await;
            tracing::info!("handling");
            let spawned = async { tracing::info!("spawned") }.instrument(crate::line::span());
            tokio::spawn(spawned).await.unwrap();
            Body::from_stream(stream::poll_fn(move |_| broken()))
        };
        // One that has a length may break off as well: a proxy's.
        let proxied = async || Response::new(Body::new(Limited::new(Body::from("too long"), 3)));
        let router = Router::new().route("/", get(handler)).route("/proxied", get(proxied));
        let router = router.layer(from_fn(|request, next| each(LIMIT, request, next)));
        let request = Request::get("/proxied").header(ID, "9").body(Body::empty()).unwrap();
        to_bytes(router.clone().oneshot(request).await.unwrap().into_body(), usize::MAX).await.unwrap_err();
        let request = Request::get("/").header(ID, "8").body(Body::empty()).unwrap();
        to_bytes(router.oneshot(request).await.unwrap().into_body(), usize::MAX).await.unwrap_err();
        let log = logged(|| {});
        for (level, path, id, what) in [
            ("INFO", "/", 8, "handling"),
            ("INFO", "/", 8, "spawned"),
            ("INFO", "/", 8, "sending"),
            ("ERROR", "/", 8, "response failed error=as it is to"),
            ("ERROR", "/proxied", 9, "response failed error=length limit exceeded"),
        ] {
            let line = format!(r#"{level} request{{method=GET path="{path}" id="{id}"}}: {what}"#);
            assert!(log.lines().any(|logged| logged.trim() == line), "{line}: {log}");
        }
    }
}
