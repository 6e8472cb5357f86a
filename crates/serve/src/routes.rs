//! A router, and which route a request takes through it.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum::{
    Router,
    body::Body,
    extract::MatchedPath,
    routing::{Route, future::RouteFuture},
};
use hyper::{Request, Response, Uri};
use tower_layer::layer_fn;
use tower_service::Service;

/// A router, to ask for responses and for routes.
///
/// A request knows its route where the router gives it to a handler. A layer there would cost each request four
/// allocations, and the route is told of those few alone that hold a retirement up: so it is looked for when it is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    router: Router,
    /// It has the same routes, and each answers which it is.
    telling: Router,
}

impl Routes {
    pub(crate) fn new(router: Router) -> Self {
        let telling = router.clone().layer(layer_fn(|_: Route| Tell)).with_state(());
        // With its state, or axum would make each endpoint anew for each request.
        Self { router: router.with_state(()), telling }
    }

    /// For one connection. All of them meet at the router's reference count, and each request would have to.
    pub(crate) fn asks(&self) -> Asks {
        Asks(self.router.clone())
    }

    /// The route of a request with this path, as the router has it; empty where none matches.
    pub(crate) fn of(&self, path: &str) -> String {
        let Ok(uri) = Uri::try_from(path) else { return String::new() };
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = uri;
        let told = pin!(self.telling.clone().call(request));
        let Poll::Ready(Ok(told)) = told.poll(&mut Context::from_waker(Waker::noop())) else { return String::new() };
        told.extensions().get::<MatchedPath>().map_or_else(String::new, |route| route.as_str().to_owned())
    }
}

/// Asks for the responses of one connection.
#[derive(Debug)]
pub(crate) struct Asks(Router);

impl Asks {
    /// Gives a request to its handler.
    pub(crate) fn ask(&mut self, request: Request<Body>) -> RouteFuture<Infallible> {
        self.0.call(request)
    }
}

/// Answers at once which route was taken.
#[derive(Clone, Copy, Debug)]
struct Tell;

impl Service<Request<Body>> for Tell {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut told = Response::new(Body::empty());
        if let Some(route) = request.extensions_mut().remove::<MatchedPath>() {
            told.extensions_mut().insert(route);
        }
        ready(Ok(told))
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};

    use super::*;

    #[test]
    fn a_route_is_told_as_the_router_has_it_and_no_handler_is_asked() {
        let never = async || -> &str { unreachable!("it is a handler") };
        let nested = Router::new().route("/{b}", post(never));
        let router = Router::new().route("/a/{a}", get(never)).nest("/n", nested).fallback(never);
        let routes = Routes::new(router.layer(layer_fn(|route: Route| route)));
        for (path, route) in [("/a/1", "/a/{a}"), ("/n/2", "/n/{b}"), ("/c", ""), ("*", ""), ("", "")] {
            assert_eq!(routes.of(path), route, "{path}");
        }
    }
}
