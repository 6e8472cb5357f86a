//! Serves an [`axum::Router`] so that its next release can take over without a client noticing.
//!
//! Guaranteed:
//!
//! - The listening socket is systemd's and never closes: what waits in its queue is accepted by whichever instance is up.
//! - READY=1 is said, and the first connection accepted, only after the router itself has answered `/readyz` with 200.
//! - From SIGTERM on nothing is accepted, and every request that has begun to arrive is answered, until the deadline.
//!   A connection that has sent nothing yet is waited for.
//! - The process exits with 0 when its last connection has ended, or at the deadline, with what was cut counted.
//!
//! Three lines of a `main` (the socket is taken before any thread exists):
//!
//! ```no_run
//! use axum::{Router, routing::get};
//!
//! fn main() -> Result<(), serve::Error> {
//!     let router = Router::new().route("/readyz", get(|| async { "ok" }));
//!     serve::Server::from_env()?.run(async { Ok::<_, serve::Error>(router) })
//! }
//! ```
//!
//! # Configuration
//!
//! | variable | default | |
//! | --- | --- | --- |
//! | `LISTEN_FDS`, `LISTEN_FDNAMES` | | the sockets that systemd passes; the one named `http` is taken |
//! | `APP_LISTEN` | `127.0.0.1:8080` | where to listen without systemd: an address, or `unix:/path` |
//! | `APP_READY_SECONDS` | 20 | how long `/readyz` may take to answer 200 |
//! | `APP_DRAIN_SECONDS` | 30 | the deadline, counted from SIGTERM |
//! | `APP_RELEASE`, `APP_INSTANCE` | `dev`, 0 | what the instance's file in `RUNTIME_DIRECTORY` says of itself |

mod config;
mod connection;
mod drain;
mod error;
mod exchange;
mod frames;
mod head;
mod io;
mod listener;
mod notify;
mod report;
mod server;
mod stream;

pub use drain::Retiring;
pub use error::Error;
pub use server::Server;
pub use stream::UnixPeer;
