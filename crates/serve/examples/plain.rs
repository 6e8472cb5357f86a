//! A plain axum router, whose next release takes over without a client noticing.
//!
//! On a host, with a `.socket` unit and NonBlocking=yes; started by hand, it serves on 127.0.0.1:8080.

use axum::{Router, routing::get};

fn main() -> Result<(), serve::Error> {
    let router = Router::new().route("/", get(|| async { "hello\n" })).route("/readyz", get(|| async { "ok\n" }));
    serve::Server::from_env()?.run(async { Ok::<_, serve::Error>(router) })
}
