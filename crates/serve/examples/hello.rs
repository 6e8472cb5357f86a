//! What the tests ask, as a real process with sockets and signals. `plain.rs` is the example to follow.

use std::{env, net::SocketAddr, process::ExitCode, thread, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Path, Request},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use futures_util::stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn main() -> ExitCode {
    if env::var_os("HELLO_LOG").is_some() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    }
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
        .route("/instance", get(|| async { env::var("APP_INSTANCE").unwrap_or_default() }))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/slow/{ms}", get(slow))
        .route("/block/{ms}", get(block))
        .route("/upload", post(|body: String| async move { body.len().to_string() }))
        .route("/early", post(|| async { "early" }))
        .route("/big", get(|| async { vec![b'x'; 2 << 20] }))
        .route("/chunks/{ms}", get(chunks))
        .route("/forever", get(forever))
        .route("/echo", get(echo))
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

/// Two chunks, and time between them.
async fn chunks(Path(ms): Path<u64>) -> Body {
    Body::from_stream(stream::unfold(0, move |n| async move {
        tokio::time::sleep(Duration::from_millis(ms * n)).await;
        (n < 2).then(|| (Ok::<_, std::io::Error>(Bytes::from("chunk")), n + 1))
    }))
}

async fn forever(mut retiring: serve::Retiring) -> &'static str {
    retiring.begun().await;
    "come back"
}

/// Speaks a protocol of its own after a 101: every byte comes back, until the instance retires, or for ever with `?deaf`.
async fn echo(mut retiring: serve::Retiring, mut request: Request) -> impl IntoResponse {
    if request.uri().query() == Some("deaf") {
        retiring = serve::Retiring::default();
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await.unwrap());
        let mut byte = [0];
        loop {
            tokio::select! {
                read = io.read_exact(&mut byte) => match read {
                    Ok(_) => io.write_all(&byte).await.unwrap(),
                    Err(_) => return,
                },
                () = retiring.begun() => return io.write_all(b"!").await.unwrap(),
            }
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")])
}

/// What a handler must not do: it holds a worker of the runtime.
async fn block(Path(ms): Path<u64>) -> &'static str {
    thread::sleep(Duration::from_millis(ms));
    "blocked"
}
