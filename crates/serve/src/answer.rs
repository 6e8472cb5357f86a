//! A request's way to the router, and its response's way back.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Body, extract::MatchedPath, response::IntoResponse};
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
    exchange::{Asked, Exchange, Message},
    io::Io,
    stream::{Peer, Stream},
};

/// Asks the router. Of one connection.
pub(crate) struct Answer {
    router: Router,
    peer: Peer,
    exchange: Arc<Exchange>,
    stream: Arc<Stream>,
    retiring: Retiring,
    watch: Watch,
}

impl Answer {
    pub(crate) fn new(io: &Io, router: Router, watch: Watch) -> Self {
        let retiring = watch.retiring(io.id());
        Self { router, peer: io.peer(), exchange: io.exchange(), stream: io.stream(), retiring, watch }
    }
}

impl Service<Request<Incoming>> for Answer {
    type Response = Response<Guarded>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let asking = Asking {
            version: request.version(),
            connect: request.method() == Method::CONNECT,
            message: if request.version() <= Version::HTTP_11 {
                self.exchange.begin(request.body().size_hint().exact(), self.watch.request())
            } else {
                self.exchange.begin_stream(self.watch.request())
            },
            exchange: self.exchange.clone(),
            stream: self.stream.clone(),
            watch: self.watch.clone(),
        };
        if request.version() < Version::HTTP_11 {
            self.exchange.stay();
        }
        // Whoever asks whether to send more must not. With a successor, which answers for itself, the host is as ready as ever.
        if request.uri().path() == "/readyz" && self.watch.stage().phase == Phase::Alone {
            let retiring = (StatusCode::SERVICE_UNAVAILABLE, "retiring\n").into_response();
            return Box::pin(ready(Ok(asking.answer(retiring))));
        }
        self.peer.tell(request.extensions_mut());
        request.extensions_mut().insert(self.retiring.clone());
        request.extensions_mut().insert(asking.message.asked());
        let asked = tower_service::Service::call(&mut self.router.clone(), request.map(Body::new));
        Box::pin(async move { Ok(asking.answer(asked.await?)) })
    }
}

/// A request that the router has not answered yet.
struct Asking {
    version: Version,
    connect: bool,
    message: Message,
    exchange: Arc<Exchange>,
    stream: Arc<Stream>,
    watch: Watch,
}

impl Asking {
    fn answer(self, mut response: Response<Body>) -> Response<Guarded> {
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS || (self.connect && status.is_success()) {
            self.exchange.upgrade(&self.message);
        } else if self.ends_here() && !self.next_has_arrived() {
            say_close(&mut response, self.version);
        }
        self.message.answered();
        response.map(|body| Guarded { body, _message: self.message })
    }

    /// Whether the connection goes nowhere else from here.
    fn ends_here(&self) -> bool {
        let stage = self.watch.stage();
        stage.is_retiring() && (self.exchange.stays() || !stage.hands_over())
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
