//! What the service answers.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{Json, Router, extract::Path, http::StatusCode, middleware::from_fn, routing::get};
use serde::Serialize;

use crate::{config::Config, requests, samples};

/// Your routes go here. `/readyz` says whether this instance can serve: until it answers 200, a new release takes nothing
/// over. `/version` says which release answers: `releasectl validate` asks for it.
pub fn router(config: Config) -> Router {
    let (version, limit, ready) = (Version::new(&config), config.request_limit, config.clone());
    Router::new()
        .route("/", get(|| async { greeting("world") }))
        .route("/{name}", get(|Path(name): Path<String>| async move { greeting(&name) }))
        .merge(samples::routes())
        .layer(from_fn(move |request, next| requests::each(limit, request, next)))
        // Asked all the time, so not logged.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || readyz(ready.clone())))
        .route("/version", get(move || async move { Json(version) }))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{
        body::Body,
        http::{Request, Response},
    };
    use tower::ServiceExt;

    use super::*;

    fn config() -> Config {
        Config {
            release: ("0123456789abcdef".to_owned(), "7".to_owned()),
            label: Some("one".to_owned()),
            ..Config::for_tests()
        }
    }

    async fn get(config: Config, path: &str) -> Response<Body> {
        router(config).oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn text(response: Response<Body>) -> String {
        String::from_utf8(axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn it_greets() {
        assert_eq!(text(get(config(), "/").await).await, "Hello, world!\n");
        let response = get(config(), "/lambros").await;
        assert!(response.headers().contains_key("x-request-id"));
        assert_eq!(text(response).await, "Hello, lambros!\n");
    }

    #[tokio::test]
    async fn version_names_release_label_and_instance() {
        let version: serde_json::Value = serde_json::from_str(&text(get(config(), "/version").await).await).unwrap();
        assert_eq!((&version["release"], &version["label"]), (&"0123456789abcdef".into(), &"one".into()));
        assert_eq!((&version["instance"], &version["version"]), (&"7".into(), &env!("CARGO_PKG_VERSION").into()));
        assert!(version["started"].as_u64().unwrap() > 0);
    }

    #[tokio::test]
    async fn without_its_state_it_is_alive_and_not_ready() {
        let without = || Config { state: Some("/nowhere".into()), ..config() };
        assert_eq!(get(without(), "/livez").await.status(), StatusCode::OK);
        assert_eq!(get(without(), "/readyz").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(config(), "/readyz").await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_handler_that_takes_too_long_is_a_504_and_a_body_that_is_too_large_a_413() {
        let hasty = Config { request_limit: Duration::from_millis(1), ..config() };
        assert_eq!(get(hasty, "/slow?ms=10000").await.status(), StatusCode::GATEWAY_TIMEOUT);
        let large = Request::get("/").header("content-length", requests::LARGEST_BODY + 1).body(Body::empty()).unwrap();
        assert_eq!(router(config()).oneshot(large).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
