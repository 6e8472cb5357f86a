//! Serves an [`axum::Router`] so that its next release can take over without a client noticing.
//!
//! Guaranteed, where the next instance is up before this one is told to stop:
//!
//! - No HTTP/1.1 connection is closed. One that is idle, or has sent nothing yet, goes to the next instance at once, alive, with
//!   the bytes that have arrived (unix(7), SCM_RIGHTS); a busy one as soon as its response has been sent. Its peer, its time
//!   limits and the most connections hold there as they did here.
//! - No request is lost that ends before the deadline, and none is answered twice.
//! - An instance that dies costs the requests that had reached it; one that retires, hangs or refuses costs none.
//!
//! Always:
//!
//! - The listening socket is systemd's and never closes: what waits in its queue is accepted by whichever instance is up.
//! - READY=1 is said, and the first connection accepted, only after the router itself has answered `/readyz` with 200.
//! - Every request that has begun to arrive at SIGTERM is answered, until the deadline. No connection is closed with a
//!   response that its client has not read.
//! - The process exits with 0 when its last connection has ended; at the deadline, or at a second SIGTERM, what is left is
//!   cut, and logged one by one with its kind, route and age.
//!
//! # Alone
//!
//! Without a next instance (a host shuts down) it goes on accepting for 5 s, for what waits in the queue would be reset, and
//! waits as long for a request on a connection that is idle. Each last response says `Connection: close` (RFC 9112, 9.6), and
//! `/readyz` is answered with 503. With one, `/livez` and `/readyz` stay as they are: the host is as ready as ever. Which of the
//! two it is can change while an instance retires, and the deadline with it.
//!
//! # What it leaves open
//!
//! - **HTTP/2**: a connection is closed by GOAWAY (RFC 9113, 6.8), its streams run to their end, and the client connects again.
//! - **WebSocket, server-sent events** and whatever else goes on for ever: the handler is told ([`Retiring`]) and ends, its
//!   client returns to the next instance. A message that crosses a WebSocket's close is the client's to repeat.
//! - **HTTP/1.0**, and a response that says close: they end as they always did.
//! - **A client that half-closes** its connection before it has its response is taken for one that has gone: TCP tells no
//!   difference, and what was begun for it is dropped, as hyper does. So nobody waits for the dead, and a stream that has
//!   nothing to say still hears that its client has left.
//! - **TLS** ends in front. A session's keys live in the process that made them, so it cannot be handed over.
//! - **The deadline** cuts what is longer: 10 min with a next instance, 30 s without.
//! - An idle connection, alone, is closed after the grace; a request that its client sends at that very moment is lost (RFC
//!   9112, 9.3.1), and counted (`late_bytes`).
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
//! It needs no systemd: a parent that passes its listening socket as descriptor 3 (sd_listen_fds(3)) does as well. Instances
//! find each other in the directory that `RUNTIME_DIRECTORY` names, which they share and nobody else may enter (0700); without
//! one, one line of the log says that nothing is handed over, and an instance retires as if alone.
//!
//! # Metrics
//!
//! Where a socket named `metrics` is passed, `GET /metrics` on it, and nowhere else, has the numbers below in Prometheus' text
//! format, labelled with `release` and `instance`, and whatever handlers record with the crate `metrics` 0.24 beside them. While
//! an instance retires it no longer answers there.
//!
//! | metric | |
//! | --- | --- |
//! | `serve_connections` | open connections |
//! | `serve_requests_in_flight` | requests whose responses have not ended |
//! | `serve_requests_total` | requests that were given to the router |
//! | `serve_connections_accepted_total` | connections from the socket's queue |
//! | `serve_connections_taken_total` | connections from instances that retired |
//! | `serve_late_bytes_total` | bytes that came on HTTP/1.1 connections after they had been closed |
//!
//! # Configuration
//!
//! | variable | default | |
//! | --- | --- | --- |
//! | `LISTEN_FDS`, `LISTEN_FDNAMES` | | the sockets that systemd passes; the one named `http` serves, and one named `metrics` tells Prometheus |
//! | `APP_LISTEN` | `127.0.0.1:8080` | where to listen without systemd: an address, or `unix:/path` |
//! | `APP_READY_SECONDS` | 20 | how long `/readyz` may take to answer 200 |
//! | `APP_DRAIN_SECONDS` | 30 | the deadline, counted from SIGTERM, or from the moment on at which no other instance serves |
//! | `APP_DRAIN_SUCCESSOR_SECONDS` | 600 | the deadline while another instance serves, counted from SIGTERM |
//! | `APP_CONNECTIONS` | 16384 | the most connections that are open at once; beyond, clients wait in the socket's queue |
//! | `RUNTIME_DIRECTORY` | | where instances find each other, and keep a file about themselves |
//! | `APP_INSTANCE` | the process id | the number of the instance there, which no other one has |
//! | `APP_RELEASE` | `dev` | what its file says that it is |
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
//! | a client that takes nothing of its response | 60 s | the connection is cut |
//! | an HTTP/2 client that is gone | asked every 30 s, 20 s to answer | closed |
//! | streams of an HTTP/2 connection | 200 | the client waits (RFC 9113, 5.1.2) |

mod accept;
mod answer;
mod chunks;
mod clock;
mod config;
mod connection;
mod counts;
mod drain;
mod error;
mod exchange;
mod frames;
mod head;
mod http2;
mod io;
mod listener;
mod message;
mod metrics;
mod notify;
mod offer;
mod packet;
mod parked;
mod place;
mod predecessor;
mod report;
mod resting;
mod retire;
mod routes;
mod said;
#[cfg(test)]
mod served;
mod server;
mod stream;
mod successor;

pub use drain::Retiring;
pub use error::Error;
pub use server::Server;
pub use stream::UnixPeer;
