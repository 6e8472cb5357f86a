//! Serves an [`axum::Router`] so that its next release can take over without a client noticing.
//!
//! Guaranteed:
//!
//! - The listening socket is systemd's and never closes: what waits in its queue is accepted by whichever instance is up.
//! - READY=1 is said, and the first connection accepted, only after the router itself has answered `/readyz` with 200.
//! - From SIGTERM on nothing is accepted, and every request that has begun to arrive is answered, until the deadline.
//!   A connection that has sent nothing yet, or is idle, is waited for 5 s: a request may be on its way. Its last response
//!   says `Connection: close` (RFC 9112, 9.6); over HTTP/2 GOAWAY does (RFC 9113, 6.8).
//! - No connection is closed with a response that its client has not read, or a request that has arrived.
//! - A handler that would go on for ever hears of it ([`Retiring`]). `/readyz` is answered with 503.
//! - The process exits with 0 when its last connection has ended; at the deadline, or at a second SIGTERM, what is left is
//!   cut, and logged one by one with its kind, route and age.
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
//! | `APP_CONNECTIONS` | 16384 | the most connections that are open at once; beyond, clients wait in the socket's queue |
//! | `APP_RELEASE`, `APP_INSTANCE` | `dev`, 0 | what the instance's file in `RUNTIME_DIRECTORY` says of itself |
//!
//! # Limits
//!
//! For a server that anybody can reach. They are fixed; the size of a body is the router's to limit.
//!
//! | limit | value | beyond it |
//! | --- | --- | --- |
//! | a head, from its first byte on | 15 s | the connection is closed |
//! | a head's size | 64 KiB, 100 headers | 431 |
//! | an idle connection | 75 s | closed; longer than balancers keep theirs (60 s), so that it is they who close |
//! | an HTTP/2 client that is gone | asked every 30 s, 20 s to answer | closed |
//! | streams of an HTTP/2 connection | 200 | the client waits (RFC 9113, 5.1.2) |

mod accept;
mod answer;
mod chunks;
mod config;
mod connection;
mod drain;
mod error;
mod exchange;
mod frames;
mod head;
mod io;
mod listener;
mod message;
mod notify;
mod packet;
mod parked;
mod place;
mod predecessor;
mod report;
mod retire;
mod server;
mod stream;
mod successor;

pub use drain::Retiring;
pub use error::Error;
pub use server::Server;
pub use stream::UnixPeer;
