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
        // A response that ends meanwhile wakes nobody: it puts the end off, at the earliest from now on.
        let now = Instant::now();
        let since = if exchange.in_flight() { now } else { exchange.idle_since() };
        if now >= since + IDLE_TIMEOUT {
            return;
        }
        sleep_until(since + IDLE_TIMEOUT).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::sleep,
    };

    use super::*;
    use crate::{
        frames::PREFACE,
        served::{SECOND, Served},
    };

    /// RFC 9113, 6.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const ACK: u8 = 1;
    /// `GET /` of h, by RFC 7541's table: END_HEADERS and END_STREAM.
    const REQUEST: [u8; 15] = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86, 0x41, 1, b'h'];

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_told_to_go_after_75_seconds_whatever_was_asked_on_it() {
        // When it asks, and how long it is answered.
        for asks in [None, Some((10 * SECOND, Duration::ZERO)), Some((70 * SECOND, 100 * SECOND))] {
            let slow = move || async move { sleep(asks.map_or(Duration::ZERO, |(_, takes)| takes)).await };
            let mut served = Served::accepted(Router::new().route("/", get(slow))).await;
            served.client.write_all(&[PREFACE, &SETTINGS].concat()).await.unwrap();
            let began = Instant::now();
            let mut goes = IDLE_TIMEOUT;
            if let Some((after, takes)) = asks {
                assert!(timeout(after, told_to_go(&mut served)).await.is_err(), "after {:?}", began.elapsed());
                served.client.write_all(&REQUEST).await.unwrap();
                goes += after + takes;
            }
            timeout(2 * goes, told_to_go(&mut served)).await.expect("it is told");
            let late = began.elapsed().abs_diff(goes);
            assert!(late < SECOND / 10, "{asks:?}: {late:?}");
        }
    }

    /// Answers what asks whether it still lives. Between two frames it may be dropped.
    async fn told_to_go(served: &mut Served) {
        loop {
            let mut header = [0; 9];
            served.client.read_exact(&mut header).await.unwrap();
            let [a, b, c, kind, flags, ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            served.client.read_exact(&mut payload).await.unwrap();
            match (kind, flags & ACK) {
                (GOAWAY, _) => return,
                (PING, 0) => {
                    header[4] = ACK;
                    served.client.write_all(&[header.as_slice(), &payload].concat()).await.unwrap();
                }
                _ => {}
            }
        }
    }
}
