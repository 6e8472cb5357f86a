//! An HTTP/2 connection. It is never handed over: what its two ends know of each other is in hyper.

use std::{pin::pin, time::Duration};

use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    answer::Answer,
    clock::IDLE_TIMEOUT,
    drain::Watch,
    exchange::Exchange,
    head,
    io::{Io, LINGER},
    routes::Routes,
};

/// How often a client is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long, from the signal on, a client may take to finish its greeting.
const GREETING: Duration = Duration::from_secs(5);

/// Serves one until it has ended.
pub(crate) async fn serve(io: Box<Io>, routes: &Routes, watch: &mut Watch) -> hyper::Result<()> {
    let (stream, exchange) = (io.stream(), io.exchange());
    let answer = Answer::new(&io, routes.clone(), watch.clone());
    let mut builder = Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).max_header_list_size(head::LIMIT as u32);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), answer));
    tokio::select! {
        result = connection.as_mut() => result,
        () = retired_or_idle(watch, &exchange) => {
            // GOAWAY (RFC 9113, 6.8): streams that have begun run to their end.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                () = silent(watch, &exchange) => {
                    let _ = stream.half_close();
                    timeout(LINGER, connection).await.unwrap_or(Ok(()))
                }
            }
        }
    }
}

/// Returns once the instance retires and time is up on a connection that has asked for nothing: its client has not
/// finished its greeting, and may never. Where something was asked, hyper alone knows when the last of it has been sent, and
/// the deadline is for those who do not answer.
async fn silent(watch: &mut Watch, exchange: &Exchange) {
    let signal = watch.retired().await;
    sleep_until(signal + GREETING).await;
    if exchange.has_asked() {
        std::future::pending().await
    }
}

async fn retired_or_idle(watch: &mut Watch, exchange: &Exchange) {
    tokio::select! {
        _ = watch.retired() => {}
        () = idle(exchange) => {}
    }
}

/// Returns once nothing has been asked for as long as a connection may be idle.
async fn idle(exchange: &Exchange) {
    loop {
        let until = exchange.idle_since() + IDLE_TIMEOUT;
        if exchange.in_flight() {
            exchange.response_ended().await;
        } else if Instant::now() < until {
            sleep_until(until).await;
        } else {
            return;
        }
    }
}
