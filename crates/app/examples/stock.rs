//! The same router behind `axum::serve` and its graceful shutdown: what the product is measured against.

#[path = "../src/config.rs"]
#[allow(dead_code)]
mod config;
#[path = "../src/line.rs"]
#[allow(dead_code)]
mod line;
#[path = "../src/requests.rs"]
#[allow(dead_code)]
mod requests;
#[path = "../src/router.rs"]
mod router;
#[path = "../src/samples.rs"]
mod samples;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let router = router::router(config::Config::from_env()?);
    let socket = ListenFd::from_env().take_tcp_listener(0)?;
    let address = std::env::var("APP_LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let socket = socket.map_or_else(|| std::net::TcpListener::bind(address), Ok)?;
    socket.set_nonblocking(true)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = tokio::net::TcpListener::from_std(socket)?;
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await?;
    Ok(())
}
