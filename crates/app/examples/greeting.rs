//! One greeting and 64 KiB, by servers that do less and less: what the product and its layers are measured against.
//!
//! `greeting layers|serve|axum|hyper`: `axum::serve` under the usual layers of tower-http, the bare `serve` crate,
//! `axum::serve`, hyper without a router. Each takes the socket that it is passed, and ends at SIGTERM.

use std::{convert::Infallible, env, error::Error, io, net::TcpListener, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, Response, StatusCode},
    routing::get,
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use listenfd::ListenFd;
use tokio::signal::unix::{SignalKind, signal};
use tower::ServiceBuilder;
use tower_http::{
    ServiceBuilderExt, catch_panic::CatchPanicLayer, compression::CompressionLayer, limit::RequestBodyLimitLayer,
    request_id::MakeRequestUuid, timeout::TimeoutLayer, trace::TraceLayer,
};
use tracing_subscriber::EnvFilter;

const GREETING: &str = "Hello, world!\n";
const LARGE: Bytes = Bytes::from_static(&[b'x'; 64 << 10]);
const LARGEST_BODY: usize = 2 << 20;
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1).as_deref() {
        Some("layers") => served_by_axum(layered(router())),
        Some("serve") => Ok(serve::Server::from_env()?.run(async { Ok::<_, serve::Error>(router()) })?),
        Some("axum") => served_by_axum(router()),
        Some("hyper") => served_by_hyper(),
        _ => Err("greeting layers|serve|axum|hyper".into()),
    }
}

fn router() -> Router {
    let greeting = Router::new().route("/", get(|| async { GREETING })).route("/large", get(|| async { LARGE }));
    // Asked by `serve` before it accepts anything.
    greeting.route("/readyz", get(|| async { "ok" }))
}

fn layered(router: Router) -> Router {
    // As in the app, events are for a subscriber that wants to know.
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new("info")).with_writer(io::stderr).init();
    let layers = ServiceBuilder::new()
        .set_x_request_id(MakeRequestUuid)
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .propagate_x_request_id()
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_LIMIT))
        .layer(RequestBodyLimitLayer::new(LARGEST_BODY));
    router.layer(layers)
}

fn span<B>(request: &Request<B>) -> tracing::Span {
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
    tracing::info_span!("request", method = %request.method(), path = request.uri().path(), id)
}

fn socket() -> Result<TcpListener, Box<dyn Error>> {
    let socket = ListenFd::from_env().take_tcp_listener(0)?.ok_or("no socket was passed")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[tokio::main]
async fn served_by_axum(router: Router) -> Result<(), Box<dyn Error>> {
    let listener = tokio::net::TcpListener::from_std(socket()?)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let told = async move { terminate.recv().await.unwrap_or_default() };
    Ok(axum::serve(listener, router).with_graceful_shutdown(told).await?)
}

#[tokio::main]
async fn served_by_hyper() -> Result<(), Box<dyn Error>> {
    let listener = tokio::net::TcpListener::from_std(socket()?)?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => return Ok(()),
        };
        tokio::spawn(async move {
            let server = Builder::new(TokioExecutor::new());
            // A client that goes away in the middle of something is its own affair.
            let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        "/" => Response::new(Body::from(GREETING)),
        "/large" => Response::new(Body::from(LARGE)),
        _ => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}
