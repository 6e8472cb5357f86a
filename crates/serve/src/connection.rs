//! One connection, from its first byte to its end.
//!
//! It is *fresh* until something has arrived, *busy* from the first byte of a request to the end of its response, and
//! *idle* between. What has begun to arrive is answered, whatever is signalled meanwhile.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, extract::MatchedPath, response::IntoResponse};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    drain::{Count, GRACE, Watch},
    exchange::{Asked, Exchange, Message},
    io::{Io, LINGER, Protocol},
    stream::{Peer, Stream},
};

/// How long an idle connection is kept: longer than the 60 s for which balancers keep theirs, so that it is they who close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// The largest head; a request with a larger one is answered 431.
const HEAD_LIMIT: usize = 64 * 1024;
/// How often an HTTP/2 client is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How soon bytes that the reactor has not told of yet are looked for again.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// Serves one connection to its end, or until what is left is cut.
pub(crate) async fn serve(io: Io, peer: Peer, router: Router, watch: Watch) {
    tokio::select! {
        () = converse(io, peer, router, watch.clone()) => {}
        () = watch.cut() => {}
    }
}

async fn converse(mut io: Io, peer: Peer, router: Router, mut watch: Watch) {
    let exchange = io.exchange();
    let sniffed = tokio::select! {
        sniffed = io.sniff(IDLE_TIMEOUT) => sniffed,
        () = fresh_for_too_long(&mut watch, &exchange) => None,
    };
    match sniffed {
        Some(Protocol::Http1) => http1(io, peer, router, watch).await,
        Some(Protocol::Http2) => http2(io, peer, router, watch).await,
        None => drop(tokio::io::AsyncWriteExt::shutdown(&mut io).await),
    }
}

/// A connection that sends nothing through the whole grace has nothing that could be lost.
async fn fresh_for_too_long(watch: &mut Watch, exchange: &Exchange) {
    watch.grace_is_over().await;
    if exchange.has_begun() {
        std::future::pending().await
    }
}

async fn http1(io: Io, peer: Peer, router: Router, mut watch: Watch) {
    let (stream, exchange) = (io.stream(), io.exchange());
    let answer = Answer { router, peer, exchange: exchange.clone(), stream: stream.clone(), watch: watch.clone() };
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(HEAD_LIMIT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), answer).with_upgrades());
    let ended = tokio::select! {
        result = connection.as_mut() => result,
        () = quiet(&mut watch, &stream, &exchange) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// Returns once the instance retires and nothing of a request has arrived through a whole grace, not even in the socket's
/// receive queue. The grace counts from the signal; from the end of a response whose head was out before it.
async fn quiet(watch: &mut Watch, stream: &Stream, exchange: &Exchange) {
    let signal = watch.retired().await;
    loop {
        let over = exchange.idle_since().max(signal) + GRACE;
        if exchange.in_flight() {
            exchange.response_ended().await;
        } else if Instant::now() < over {
            sleep_until(over).await;
        } else if exchange.has_begun() || stream.unread() > 0 {
            // Half a head has its own time limit.
            sleep(LAST_LOOK).await;
        } else {
            return;
        }
    }
}

async fn http2(io: Io, peer: Peer, router: Router, mut watch: Watch) {
    let (stream, exchange) = (io.stream(), io.exchange());
    let answer = Answer { router, peer, exchange: exchange.clone(), stream: stream.clone(), watch: watch.clone() };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).max_header_list_size(HEAD_LIMIT as u32);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), answer));
    let ended = tokio::select! {
        result = connection.as_mut() => result,
        () = retired_or_idle(&mut watch, &exchange) => {
            // GOAWAY (RFC 9113, 6.8): streams that have begun run to their end.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                () = silent(&mut watch, &exchange) => {
                    let _ = stream.half_close();
                    timeout(LINGER, connection).await.unwrap_or(Ok(()))
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// Returns once the instance retires and the grace is over on a connection that has asked for nothing: its client has not
/// finished its greeting, and may never. Where something was asked, hyper alone knows when the last of it has been sent, and
/// the deadline is for those who do not answer.
async fn silent(watch: &mut Watch, exchange: &Exchange) {
    watch.grace_is_over().await;
    if exchange.has_asked() {
        std::future::pending().await
    }
}

async fn retired_or_idle(watch: &mut Watch, exchange: &Exchange) {
    tokio::select! {
        _ = watch.retired() => {}
        () = idle(exchange) => {}
    }
}

/// Returns once nothing has been asked for as long as a connection may be idle.
async fn idle(exchange: &Exchange) {
    loop {
        let until = exchange.idle_since() + IDLE_TIMEOUT;
        if exchange.in_flight() {
            exchange.response_ended().await;
        } else if Instant::now() < until {
            sleep_until(until).await;
        } else {
            return;
        }
    }
}

/// Asks the router.
struct Answer {
    router: Router,
    peer: Peer,
    exchange: Arc<Exchange>,
    stream: Arc<Stream>,
    watch: Watch,
}

impl Service<Request<Incoming>> for Answer {
    type Response = Response<Guarded>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let http1 = request.version() <= Version::HTTP_11;
        let asking = Asking {
            version: request.version(),
            connect: request.method() == Method::CONNECT,
            // A body of HTTP/2 comes in frames, which are none of the connection's business.
            message: self.exchange.begin(if http1 { request.body().size_hint().exact() } else { Some(0) }),
            count: self.watch.request(),
            exchange: self.exchange.clone(),
            stream: self.stream.clone(),
            watch: self.watch.clone(),
        };
        // Whoever asks whether to send more must not: the next release answers for itself.
        if request.uri().path() == "/readyz" && self.watch.is_retiring() {
            let retiring = (StatusCode::SERVICE_UNAVAILABLE, "retiring\n").into_response();
            return Box::pin(ready(Ok(asking.answer(retiring))));
        }
        self.peer.tell(request.extensions_mut());
        request.extensions_mut().insert(self.watch.retiring());
        request.extensions_mut().insert(asking.message.asked());
        let exchange = http1.then(|| self.exchange.clone());
        let request = request.map(|body| Body::new(Arriving { body, exchange }));
        let asked = tower_service::Service::call(&mut self.router.clone(), request);
        Box::pin(async move { Ok(asking.answer(asked.await?)) })
    }
}

/// A request that the router has not answered yet.
struct Asking {
    version: Version,
    connect: bool,
    message: Message,
    count: Count,
    exchange: Arc<Exchange>,
    stream: Arc<Stream>,
    watch: Watch,
}

impl Asking {
    fn answer(self, mut response: Response<Body>) -> Response<Guarded> {
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS || (self.connect && status.is_success()) {
            self.exchange.upgrade(&self.message);
        } else if self.watch.is_retiring() && !self.next_has_arrived() {
            say_close(&mut response, self.version);
        }
        self.message.answered();
        response.map(|body| Guarded { body, _guard: (self.message, self.count) })
    }

    /// Whether the client has sent its next request without waiting (RFC 9112, 9.3.2): a response that says close would
    /// throw it away.
    fn next_has_arrived(&self) -> bool {
        self.exchange.has_read_on() || (self.exchange.is_read() && self.stream.unread() > 0)
    }
}

/// The connection ends with this response (RFC 9112, 9.6), so that the client sends its next request elsewhere.
fn say_close(response: &mut Response<Body>, version: Version) {
    // HTTP/2 has no such header.
    if version > Version::HTTP_11 {
        return;
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if version == Version::HTTP_10 {
        // Else hyper adds `keep-alive` beside it.
        *response.version_mut() = Version::HTTP_10;
    }
}

/// Puts down which route a request takes. A layer of the router's, for a request does not know its route before.
#[derive(Clone, Debug)]
pub(crate) struct Routed<S>(pub S);

impl<S: tower_service::Service<Request<Body>>> tower_service::Service<Request<Body>> for Routed<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let extensions = request.extensions();
        if let (Some(asked), Some(route)) = (extensions.get::<Arc<Asked>>(), extensions.get::<MatchedPath>()) {
            asked.took(route);
        }
        self.0.call(request)
    }
}

pin_project_lite::pin_project! {
    /// A request's body, which tells when it has ended.
    struct Arriving {
        #[pin]
        body: Incoming,
        exchange: Option<Arc<Exchange>>,
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.project();
        let polled = this.body.poll_frame(context);
        if let (Poll::Ready(None), Some(exchange)) = (&polled, this.exchange) {
            exchange.body_ended();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project_lite::pin_project! {
    /// A response's body, which counts as in flight until it has been sent or dropped.
    pub(crate) struct Guarded {
        #[pin]
        body: Body,
        _guard: (Message, Count),
    }
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.project().body.poll_frame(context)
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
    use super::*;

    #[test]
    fn a_response_says_close_but_not_in_http_2() {
        let says = |version| {
            let mut response = Response::new(Body::empty());
            say_close(&mut response, version);
            response.headers().contains_key(CONNECTION)
        };
        assert!(says(Version::HTTP_11) && says(Version::HTTP_10) && !says(Version::HTTP_2));
    }
}
