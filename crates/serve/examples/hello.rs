//! A plain axum router, served so that its next release can take over. The tests run it with sockets and signals.

use std::{env, net::SocketAddr, process::ExitCode, thread, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, Path},
    http::StatusCode,
    routing::{get, post},
};

fn main() -> ExitCode {
    match serve::Server::from_env().and_then(|server| server.run(async { Ok::<_, serve::Error>(router()) })) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/readyz", get(readyz))
        .route("/slow/{ms}", get(slow))
        .route("/block/{ms}", get(block))
        .route("/upload", post(|body: String| async move { body.len().to_string() }))
        .route("/peer", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
        .route("/unix", get(|ConnectInfo(peer): ConnectInfo<serve::UnixPeer>| async move { format!("{:?}", peer.pid) }))
}

async fn readyz() -> (StatusCode, &'static str) {
    match env::var_os("HELLO_NOT_READY") {
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer"),
        None => (StatusCode::OK, "ok"),
    }
}

async fn slow(Path(ms): Path<u64>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    "slow"
}

/// What a handler must not do: it holds a worker of the runtime.
async fn block(Path(ms): Path<u64>) -> &'static str {
    thread::sleep(Duration::from_millis(ms));
    "blocked"
}
