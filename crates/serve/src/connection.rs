//! One connection, from its first byte to its end.
//!
//! It is *fresh* until something has arrived, *busy* from the first byte of a request to the end of its response, and
//! *idle* between. What has begun to arrive is answered, whatever is signalled meanwhile.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use hyper::{
    Request, Response, StatusCode, Version,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{sleep, timeout};

use crate::{
    drain::{Count, Watch},
    exchange::{Exchange, Message},
    io::{Io, Peer, Stream},
};

/// How long a request's head may take, and so how long an idle connection is kept: longer than the 60 s for which
/// balancers keep theirs, so that it is they who close.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How soon bytes that the reactor has not told of yet are looked for again.
const LAST_LOOK: Duration = Duration::from_millis(1);
/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
        sniffed = timeout(HEAD_TIMEOUT, sniff(&mut io)) => sniffed.ok().flatten(),
        () = fresh_for_too_long(&mut watch, &exchange) => None,
    };
    match sniffed {
        Some(Protocol::Http1) => http1(io, peer, router, watch).await,
        Some(Protocol::Http2) => http2(io, peer, router, watch).await,
        None => drop(tokio::io::AsyncWriteExt::shutdown(&mut io).await),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Protocol {
    Http1,
    Http2,
}

/// Tells the protocol by the first bytes, and gives them back; `None` if the client ends first.
async fn sniff(io: &mut Io) -> Option<Protocol> {
    let mut bytes = BytesMut::new();
    loop {
        if io.read_some(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(protocol) = protocol_of(&bytes) {
            io.unread(bytes);
            return Some(protocol);
        }
    }
}

fn protocol_of(bytes: &[u8]) -> Option<Protocol> {
    let compared = bytes.len().min(PREFACE.len());
    if bytes[..compared] != PREFACE[..compared] {
        return Some(Protocol::Http1);
    }
    (compared == PREFACE.len()).then_some(Protocol::Http2)
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
    let service = Answer { router, peer, exchange: exchange.clone(), watch: watch.clone() };
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    let ended = tokio::select! {
        result = connection.as_mut() => result,
        () = quiet_after_the_grace(&mut watch, &stream, &exchange) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// Returns once the grace is over and nothing of a request has arrived, not even in the socket's receive queue.
///
/// A client that goes on sending keeps its connection until its next response, which says `Connection: close`.
async fn quiet_after_the_grace(watch: &mut Watch, stream: &Stream, exchange: &Exchange) {
    watch.grace_is_over().await;
    while exchange.has_begun() || stream.unread() > 0 {
        sleep(LAST_LOOK).await;
    }
}

async fn http2(io: Io, peer: Peer, router: Router, mut watch: Watch) {
    let service = Answer { router, peer, exchange: io.exchange(), watch: watch.clone() };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        result = connection.as_mut() => result,
        _ = watch.retired() => {
            // GOAWAY (RFC 9113, 6.8): streams that have begun run to their end.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// Asks the router.
struct Answer {
    router: Router,
    peer: Peer,
    exchange: Arc<Exchange>,
    watch: Watch,
}

impl Service<Request<Incoming>> for Answer {
    type Response = Response<Guarded>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let guard = (self.exchange.begin(), self.watch.request());
        let (version, watch) = (request.version(), self.watch.clone());
        self.peer.tell(request.extensions_mut());
        let mut router = self.router.clone();
        let asked = tower_service::Service::call(&mut router, request.map(Body::new));
        Box::pin(async move {
            let mut response = asked.await?;
            if watch.is_retiring() {
                say_close(&mut response, version);
            }
            Ok(response.map(|body| Guarded { body, _guard: guard }))
        })
    }
}

/// The connection ends with this response (RFC 9112, 9.6), so that the client sends its next request elsewhere.
fn say_close(response: &mut Response<Body>, version: Version) {
    // A 101's header is the protocol's that it switches to; HTTP/2 has no such header.
    if version > Version::HTTP_11 || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if version == Version::HTTP_10 {
        // Else hyper adds `keep-alive` beside it.
        *response.version_mut() = Version::HTTP_10;
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
    fn the_protocol_is_told_as_soon_as_it_can_be() {
        assert_eq!(protocol_of(b"G"), Some(Protocol::Http1));
        assert_eq!(protocol_of(b"P"), None, "POST or the preface");
        assert_eq!(protocol_of(b"PO"), Some(Protocol::Http1));
        assert_eq!(protocol_of(PREFACE), Some(Protocol::Http2));
        assert_eq!(protocol_of(&PREFACE[..23]), None);
    }

    #[test]
    fn a_response_says_close_but_not_a_switch_of_protocols_nor_http_2() {
        let says = |status: u16, version| {
            let mut response = Response::builder().status(status).body(Body::empty()).unwrap();
            say_close(&mut response, version);
            response.headers().contains_key(CONNECTION)
        };
        assert!(says(200, Version::HTTP_11) && says(200, Version::HTTP_10));
        assert!(!says(101, Version::HTTP_11) && !says(200, Version::HTTP_2));
    }
}
