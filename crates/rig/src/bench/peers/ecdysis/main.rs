//! ecdysis as a peer: the app's own samples, reloaded as ecdysis's example is (examples/tokio_echo.rs, 60 s for what is left)
//! and shut down as hyper-util's documentation of `GracefulShutdown` advises.

#[path = "../../../../../app/src/samples.rs"]
mod samples;

use std::{fs, io, process, time::Duration};

use axum::{Router, body::Body, http::Request, routing::get};
use ecdysis::tokio_ecdysis::{SignalKind, StopOnShutdown, TokioEcdysisBuilder};
use futures_util::StreamExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};

/// Of the example.
const EXIT_AFTER: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut builder = TokioEcdysisBuilder::new(SignalKind::hangup())?;
    builder.set_pid_file("/mnt/pid");
    let address = "127.0.0.1:80".parse().expect("an address");
    let mut streams = builder.build_listen_tcp(StopOnShutdown::Yes, address, |socket, address| {
        socket.set_reuse_address(true)?;
        // What is accepted inherits it; the others set it, too.
        socket.set_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        Ok(socket.into())
    })?;
    let router = router(fs::read_to_string("/mnt/release")?);
    let serving = tokio::spawn(async move {
        let connections = GracefulShutdown::new();
        // None is the end of accepting.
        while let Some(stream) = streams.next().await {
            let Ok(stream) = stream else { continue };
            let service = TowerToHyperService::new(router.clone());
            let server = Builder::new(TokioExecutor::new());
            let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
            tokio::spawn(connections.watch(connection));
        }
        connections.shutdown().await;
    });
    let (_ecdysis, ended) = builder.ready()?;
    let _ = ended.await;
    tokio::spawn(async {
        tokio::time::sleep(EXIT_AFTER).await;
        process::exit(1)
    });
    serving.await.map_err(io::Error::other)
}

fn router(release: String) -> Router<()> {
    let version = format!("{{\"release\":\"{}\"}}", release.trim());
    Router::new()
        .merge(samples::routes())
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/version", get(|_: Request<Body>| async move { version }))
}
