//! One connection, from its first byte to its end.
//!
//! It is *fresh* until something has arrived, *busy* from the first byte of a request to the end of its response, and
//! *idle* between. What has begun to arrive is answered, whatever is signalled meanwhile. While a successor takes
//! connections over, one that is fresh or idle goes to it as it is; a busy one does so as soon as it is idle. They go a few at a
//! time, and whoever waits for its turn is served here meanwhile.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    answer::Answer,
    drain::{Stage, Turn, Watch},
    exchange::Exchange,
    io::{IDLE_TIMEOUT, Io, LINGER, Protocol},
    parked::Parked,
    stream::Stream,
};

/// The largest head; a request with a larger one is answered 431.
const HEAD_LIMIT: usize = 64 * 1024;
/// How often an HTTP/2 client is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long, from the signal on, an HTTP/2 client may take to finish its greeting.
const GREETING: Duration = Duration::from_secs(5);
/// How soon bytes that the reactor has not told of yet are looked for again.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// Serves one connection until it has ended, or is another process's, or until what is left is cut.
pub(crate) async fn serve(io: Io, router: Router, watch: Watch) {
    tokio::select! {
        () = converse(io, &router, watch.clone()) => {}
        () = watch.cut() => {}
    }
}

async fn converse(mut io: Io, router: &Router, mut watch: Watch) {
    while let Some((parked, turn)) = serve_here(io, router, &mut watch).await {
        let Err(refused) = watch.hand_over(parked, turn).await else { return };
        io = match Io::resume(refused, watch.clone()) {
            Ok(io) => io,
            Err(error) => return tracing::warn!(%error, "cannot take a connection back"),
        };
    }
}

/// Returns the connection where it is to be handed over and its turn has come, `None` where it has ended.
async fn serve_here(mut io: Io, router: &Router, watch: &mut Watch) -> Option<(Parked, Turn)> {
    if io.is_fresh() {
        match fresh(&mut io, watch).await {
            Fresh::Speaks(Protocol::Http1) => {}
            Fresh::Speaks(Protocol::Http2) => return http2(io, router, watch).await,
            Fresh::Leaves(turn) => return io.park(&[]).zip(Some(turn)),
            Fresh::Ends => return io.shutdown().await.ok().and(None),
        }
    }
    http1(io, router, watch).await
}

/// What becomes of a fresh connection.
enum Fresh {
    Speaks(Protocol),
    Leaves(Turn),
    Ends,
}

async fn fresh(io: &mut Io, watch: &mut Watch) -> Fresh {
    let (stream, exchange) = (io.stream(), io.exchange());
    loop {
        let stage = watch.stage();
        let leaves = stage.hands_over() && !exchange.stays();
        let turns = watch.turns();
        tokio::select! {
            biased;
            turn = turns.next(), if leaves => return Fresh::Leaves(turn),
            sniffed = io.sniff() => return sniffed.map_or(Fresh::Ends, Fresh::Speaks),
            () = watch.leaves(stage) => {}
            // It has nothing that could be lost.
            () = quiet(stage, &stream, &exchange) => return Fresh::Ends,
        }
    }
}

async fn http1(io: Io, router: &Router, watch: &mut Watch) -> Option<(Parked, Turn)> {
    let (stream, exchange, turns) = (io.stream(), io.exchange(), watch.turns());
    let answer = Answer::new(&io, router.clone(), watch.clone());
    let mut builder = http1::Builder::new();
    // The I/O has clocks of its own, which go on in the next process.
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD_LIMIT);
    let mut connection = builder.serve_connection(TokioIo::new(io), answer).with_upgrades();
    let mut turn = None;
    loop {
        let stage = watch.stage();
        let leaves = stage.hands_over() && !exchange.stays();
        // A busy connection waits for no turn, and for none to be free others do not wait for it.
        let busy = !exchange.is_at_boundary();
        turn = if leaves && !busy { turn.or_else(|| turns.try_next()) } else { None };
        // One that would be busy again at once (its client does not wait for responses) must come to rest.
        let (may_leave, rests) = (turn.is_some(), leaves && (turn.is_some() || busy));
        exchange.hold(rests);
        let served = poll_fn(|context| match Pin::new(&mut connection).poll(context) {
            Poll::Ready(result) => Poll::Ready(Served::Ended(result)),
            Poll::Pending if !rests || !exchange.is_at_boundary() => Poll::Pending,
            Poll::Pending => Poll::Ready(if may_leave { Served::Leaves } else { Served::Rests }),
        });
        tokio::select! {
            biased;
            served = served => match served {
                Served::Ended(result) => return ended(result),
                Served::Leaves => break,
                Served::Rests => {}
            },
            () = watch.leaves(stage) => {}
            next = turns.next(), if leaves && !busy && turn.is_none() => turn = Some(next),
            () = quiet(stage, &stream, &exchange) => {
                Pin::new(&mut connection).graceful_shutdown();
                return ended(connection.await);
            }
        }
    }
    // Taken out of hyper between two messages, with what it has read of a next head.
    let http1::Parts { io, read_buf, service, .. } = connection.into_parts()?;
    drop((service, stream));
    io.into_inner().park(&read_buf).zip(turn)
}

/// What becomes of an HTTP/1.1 connection that is to leave.
enum Served {
    Ended(hyper::Result<()>),
    Leaves,
    /// It is at a boundary, and has no turn yet.
    Rests,
}

/// Returns once nothing of a request has arrived through a whole grace, not even in the socket's receive queue. The grace
/// counts from the end of the last response, where that is later. Never returns where the connection is kept, or leaves.
async fn quiet(stage: Stage, stream: &Stream, exchange: &Exchange) {
    let Some((since, grace)) = stage.grace() else { return std::future::pending().await };
    loop {
        let over = exchange.idle_since().max(since) + grace;
        if exchange.in_flight() {
            exchange.response_ended().await;
        } else if Instant::now() < over {
            sleep_until(over).await;
        } else if exchange.has_begun() || stream.unread() > 0 {
            // Half a head has its own time limit.
            sleep(LAST_LOOK).await;
        } else {
            return;
        }
    }
}

/// It is never handed over: what its two ends know of each other is in hyper.
async fn http2<T>(io: Io, router: &Router, watch: &mut Watch) -> Option<T> {
    let (stream, exchange) = (io.stream(), io.exchange());
    let answer = Answer::new(&io, router.clone(), watch.clone());
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).max_header_list_size(HEAD_LIMIT as u32);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), answer));
    ended(tokio::select! {
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
    })
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

fn ended<T>(result: hyper::Result<()>) -> Option<T> {
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
    None
}
