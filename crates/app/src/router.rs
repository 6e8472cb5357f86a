//! What the service answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    Json, Router,
    extract::{Path, Query},
    http::{Request, StatusCode},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tower::ServiceBuilder;
use tower_http::{
    ServiceBuilderExt, catch_panic::CatchPanicLayer, compression::CompressionLayer, request_id::MakeRequestUuid,
    timeout::TimeoutLayer, trace::TraceLayer,
};

use crate::config::Config;

const LARGEST_BODY: usize = 2 << 20;

/// Your routes go here. `/readyz` says whether this instance can serve: until it answers 200, a new release takes nothing
/// over. `/version` says which release answers: `releasectl validate` asks for it.
pub fn router(config: Config) -> Router {
    let version = Version::new(&config);
    let layers = ServiceBuilder::new()
        .set_x_request_id(MakeRequestUuid)
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .propagate_x_request_id()
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, config.request_limit))
        .layer(tower_http::limit::RequestBodyLimitLayer::new(LARGEST_BODY));
    let ready = config.clone();
    Router::new()
        .route("/", get(|| async { greeting("world") }))
        .route("/{name}", get(|Path(name): Path<String>| async move { greeting(&name) }))
        .route("/slow", get(slow))
        .layer(layers)
        // Asked all the time, so not logged.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || readyz(ready.clone())))
        .route("/version", get(move || async move { Json(version) }))
}

/// What each log line of a request carries.
fn span<B>(request: &Request<B>) -> tracing::Span {
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
    tracing::info_span!("request", method = %request.method(), path = request.uri().path(), id)
}

fn greeting(name: &str) -> String {
    format!("Hello, {name}!\n")
}

/// A service with a database asks it here.
async fn readyz(config: Config) -> Result<&'static str, (StatusCode, String)> {
    match config.state {
        Some(state) if !state.is_dir() => {
            Err((StatusCode::SERVICE_UNAVAILABLE, format!("no state folder at {}\n", state.display())))
        }
        _ => Ok("ok\n"),
    }
}

#[derive(Deserialize)]
struct Slow {
    ms: u64,
}

/// A response that a deployment finds in flight.
async fn slow(Query(Slow { ms }): Query<Slow>) -> String {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("after {ms} ms\n")
}

#[derive(Clone, Serialize)]
struct Version {
    release: String,
    label: Option<String>,
    /// The package's.
    version: &'static str,
    /// Seconds since 1970.
    started: u64,
    instance: String,
}

impl Version {
    fn new(config: &Config) -> Self {
        let (release, instance) = config.release.clone();
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { release, label: config.label.clone(), version: env!("CARGO_PKG_VERSION"), started, instance }
    }
}
