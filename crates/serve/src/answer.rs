//! A request's way to the router, and its response's way back.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::Future,
    mem::take,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{body::Body, response::IntoResponse, routing::future::RouteFuture};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    http::Extensions,
    service::Service,
};

use crate::{
    drain::{Phase, Watch},
    exchange::{Exchange, Message},
    io::Io,
    routes::{Asks, Routes},
    stream::Stream,
};

/// Asks the router. Of one connection.
pub(crate) struct Answer {
    /// hyper lends it for each request, and is called by one task.
    asks: RefCell<Asks>,
    /// What each request is told: who asks, and whether its instance retires.
    told: Extensions,
    connection: Arc<Connection>,
}

/// What the requests of a connection share.
struct Connection {
    exchange: Arc<Exchange>,
    stream: Arc<Stream>,
    watch: Watch,
}

impl Answer {
    pub(crate) fn new(io: &Io, routes: Routes, watch: Watch) -> Self {
        let (exchange, stream, mut told) = (io.exchange(), io.stream(), with_room());
        exchange.takes(&routes);
        io.peer().tell(&mut told);
        told.insert(Arc::new(watch.retiring(io.id())));
        Self { asks: RefCell::new(routes.asks()), told, connection: Arc::new(Connection { exchange, stream, watch }) }
    }
}

/// Room for two more, of the router's: its copies need not grow, which took a twentieth of a small request's instructions.
fn with_room() -> Extensions {
    #[derive(Clone)]
    struct One<const N: usize>;

    let mut extensions = Extensions::new();
    extensions.insert(One::<1>);
    extensions.insert(One::<2>);
    extensions.insert(One::<3>);
    extensions.insert(One::<4>);
    extensions.clear();
    extensions
}

impl Service<Request<Incoming>> for Answer {
    type Response = Response<Guarded>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Answering {
        let Connection { exchange, watch, .. } = &*self.connection;
        let asking = Asking {
            version: request.version(),
            connect: request.method() == Method::CONNECT,
            message: if request.version() <= Version::HTTP_11 {
                exchange.begin(request.uri(), request.body().size_hint().exact())
            } else {
                exchange.begin_stream(request.uri())
            },
            connection: self.connection.clone(),
        };
        if request.version() < Version::HTTP_11 {
            exchange.stay();
        }
        // Whoever asks whether to send more must not. With a successor, which answers for itself, the host is as ready as ever.
        if request.uri().path() == "/readyz" && watch.stage().phase == Phase::Alone {
            return Answering::Retiring { asking: Some(asking) };
        }
        let by_hyper = take(request.extensions_mut());
        *request.extensions_mut() = self.told.clone();
        request.extensions_mut().extend(by_hyper);
        let response = self.asks.borrow_mut().ask(request.map(whole));
        Answering::Asked { response, asking: Some(asking) }
    }
}

/// Most requests have no body, and one that is empty needs no memory.
fn whole(body: Incoming) -> Body {
    if body.is_end_stream() { Body::empty() } else { Body::new(body) }
}

pin_project_lite::pin_project! {
    /// A response that is on its way from the router.
    #[project = Projection]
    pub(crate) enum Answering {
        Asked { #[pin] response: RouteFuture<Infallible>, asking: Option<Asking> },
        Retiring { asking: Option<Asking> },
    }
}

impl Future for Answering {
    type Output = Result<Response<Guarded>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (response, asking) = match self.project() {
            Projection::Asked { response, asking } => (ready!(response.poll(context))?, asking),
            Projection::Retiring { asking } => {
                ((StatusCode::SERVICE_UNAVAILABLE, "retiring\n").into_response(), asking)
            }
        };
        let asking = asking.take().unwrap_or_else(|| unreachable!("it is polled to its end once"));
        Poll::Ready(Ok(asking.answer(response)))
    }
}

/// A request that the router has not answered yet.
pub(crate) struct Asking {
    version: Version,
    connect: bool,
    message: Message,
    connection: Arc<Connection>,
}

impl Asking {
    fn answer(self, mut response: Response<Body>) -> Response<Guarded> {
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS || (self.connect && status.is_success()) {
            self.connection.exchange.upgrade(&self.message);
        } else if self.ends_here() && !self.next_has_arrived() {
            say_close(&mut response, self.version);
        }
        self.message.answered();
        response.map(|body| Guarded { body, _message: self.message })
    }

    /// Whether the connection goes nowhere else from here.
    fn ends_here(&self) -> bool {
        let Connection { exchange, watch, .. } = &*self.connection;
        watch.is_last(exchange.stays())
    }

    /// Whether the client has sent its next request without waiting (RFC 9112, 9.3.2): a response that says close would
    /// throw it away.
    fn next_has_arrived(&self) -> bool {
        let Connection { exchange, stream, .. } = &*self.connection;
        exchange.has_read_on() || (exchange.is_read() && stream.unread() > 0)
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

pin_project_lite::pin_project! {
    /// A response's body, which tells when hyper has it to its end.
    pub(crate) struct Guarded {
        #[pin]
        body: Body,
        _message: Message,
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
