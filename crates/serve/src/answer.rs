//! A request's way to the router, and its response's way back.

use std::{
    convert::Infallible,
    future::Future,
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
    service::Service,
};

use crate::{
    drain::{Phase, Retiring, Watch},
    exchange::{Exchange, Message},
    io::Io,
    routes::Routes,
    stream::{Peer, Stream},
};

/// Asks the router. Of one connection.
pub(crate) struct Answer(Arc<Connection>);

/// What the requests of a connection share.
struct Connection {
    routes: Routes,
    peer: Peer,
    exchange: Arc<Exchange>,
    stream: Arc<Stream>,
    retiring: Arc<Retiring>,
    watch: Watch,
}

impl Answer {
    pub(crate) fn new(io: &Io, routes: Routes, watch: Watch) -> Self {
        let (exchange, retiring) = (io.exchange(), Arc::new(watch.retiring(io.id())));
        exchange.takes(&routes);
        Self(Arc::new(Connection { routes, peer: io.peer(), exchange, stream: io.stream(), retiring, watch }))
    }
}

impl Service<Request<Incoming>> for Answer {
    type Response = Response<Guarded>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Answering {
        let Connection { routes, peer, exchange, retiring, watch, .. } = &*self.0;
        let asking = Asking {
            version: request.version(),
            connect: request.method() == Method::CONNECT,
            message: if request.version() <= Version::HTTP_11 {
                exchange.begin(request.uri(), request.body().size_hint().exact())
            } else {
                exchange.begin_stream(request.uri())
            },
            connection: self.0.clone(),
        };
        if request.version() < Version::HTTP_11 {
            exchange.stay();
        }
        // Whoever asks whether to send more must not. With a successor, which answers for itself, the host is as ready as ever.
        if request.uri().path() == "/readyz" && watch.stage().phase == Phase::Alone {
            return Answering::Retiring { asking: Some(asking) };
        }
        peer.tell(request.extensions_mut());
        request.extensions_mut().insert(retiring.clone());
        Answering::Asked { response: routes.ask(request.map(Body::new)), asking: Some(asking) }
    }
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
