//! One connection, from its first byte to its end.
//!
//! It is *fresh* until something has arrived, *busy* from the first byte of a request to the end of its response, and
//! *idle* between. What has begun to arrive is answered, whatever is signalled meanwhile. While a successor takes
//! connections over, one that is fresh or idle goes to it as it is; a busy one does so as soon as it is idle. They go a few at a
//! time, and whoever waits for its turn is served here meanwhile.
//!
//! One that stays idle *rests*: it is taken out of hyper and out of its task, and is no more than a socket that is waited at.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;

use crate::{
    answer::Answer,
    clock::{Clock, Keeps, Rung},
    drain::Watch,
    head, http2,
    io::{Io, Protocol, linger},
    offer::Turn,
    parked::Parked,
    routes::Routes,
    stream::Stream,
};

/// Serves one connection until it has ended, or is another process's, or until what is left is cut.
///
/// In a box it is not once more in each of the futures that it goes through.
pub(crate) async fn serve(io: Box<Io>, routes: Routes, watch: Watch) {
    tokio::select! {
        biased;
        () = watch.clone().cut() => {}
        () = converse(io, &routes, watch) => {}
    }
}

async fn converse(io: Box<Io>, routes: &Routes, mut watch: Watch) {
    if let Some((parked, turn)) = serve_here(io, routes, &mut watch).await {
        watch.hand_over(parked, turn, routes.clone());
    }
}

/// Goes on with a connection that was parked, in a task of its own.
pub(crate) fn resume(parked: Parked, routes: Routes, watch: Watch) {
    match Io::resume(parked, watch.clone()) {
        Ok(io) => drop(tokio::spawn(serve(Box::new(io), routes, watch))),
        Err(error) => tracing::warn!(%error, "a connection is lost: it cannot be registered again"),
    }
}

/// Returns the connection where it is to be handed over and its turn has come, `None` where it has ended.
async fn serve_here(mut io: Box<Io>, routes: &Routes, watch: &mut Watch) -> Option<(Parked, Turn)> {
    loop {
        match waits(&mut io, watch).await {
            // In boxes: what waits is to be no larger than it is.
            Waits::Speaks(Protocol::Http1) => match Box::pin(http1(io, routes, watch)).await? {
                // How long one is kept that nobody may take over, its own task says.
                Spoke::Rests(back) if watch.stage().is_retiring() => io = back,
                Spoke::Rests(back) => {
                    rest(*back, routes, watch);
                    return None;
                }
                Spoke::Leaves(parked, turn) => return Some((parked, turn)),
            },
            Waits::Speaks(Protocol::Http2) => return ended(Box::pin(http2::serve(io, routes, watch)).await),
            Waits::Leaves(turn) => return io.park(&[]).zip(Some(turn)),
            Waits::Ends => return io.shutdown().await.ok().and(None),
        }
    }
}

fn rest(io: Io, routes: &Routes, watch: &Watch) {
    match io.park(&[]).map(|parked| watch.begin_rest(parked)) {
        Some(Ok(resting)) => resting.leave(),
        Some(Err(parked)) => resume(*parked, routes.clone(), watch.clone()),
        None => {}
    }
}

/// What becomes of a connection that waits for its client.
enum Waits {
    Speaks(Protocol),
    Leaves(Turn),
    Ends,
}

/// It is fresh, or would rest if it could.
async fn waits(io: &mut Io, watch: &mut Watch) -> Waits {
    let (stream, exchange, turns) = (io.stream(), io.exchange(), watch.turns());
    let mut clock = Clock::new(watch.stage(), Keeps::Connection);
    loop {
        let stage = watch.stage();
        clock.set(stage);
        let leaves = stage.hands_over() && !exchange.stays();
        tokio::select! {
            biased;
            turn = turns.next(), if leaves => return Waits::Leaves(turn),
            spoken = io.spoken() => return spoken.map_or(Waits::Ends, Waits::Speaks),
            () = watch.leaves(stage) => {}
            // It has nothing that could be lost.
            _ = clock.rings(&stream, &exchange) => return Waits::Ends,
        }
    }
}

/// What becomes of an HTTP/1.1 connection that does not end here.
enum Spoke {
    /// Nothing is under way.
    Rests(Box<Io>),
    Leaves(Parked, Turn),
}

async fn http1(io: Box<Io>, routes: &Routes, watch: &mut Watch) -> Option<Spoke> {
    let (stream, exchange, turns) = (io.stream(), io.exchange(), watch.turns());
    let (alive, answer) = (io.alive(), Answer::new(&io, routes.clone(), watch.clone()));
    let mut builder = http1::Builder::new();
    // The clocks are ours: they go on in the next process.
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(head::LIMIT);
    // Whether a client has gone is looked at here, where its response is not there at once. hyper would look each time, and
    // for that make room for what may come: 8 KiB, which the request keeps it from taking of the buffer that it has.
    builder.half_close(true);
    let mut connection = builder.serve_connection(TokioIo::new(io), answer).with_upgrades();
    let (mut turn, mut clock) = (None, Clock::new(watch.stage(), Keeps::Buffers));
    loop {
        let stage = watch.stage();
        clock.set(stage);
        let leaves = stage.hands_over() && !exchange.stays();
        // A busy connection waits for no turn, and for none to be free others do not wait for it.
        let busy = !exchange.is_at_boundary();
        turn = if leaves && !busy { turn.or_else(|| turns.try_next()) } else { None };
        // One that would be busy again at once (its client does not wait for responses) must come to rest.
        let (may_leave, rests) = (turn.is_some(), leaves && (turn.is_some() || busy));
        exchange.hold(rests);
        let served = poll_fn(|context| match Pin::new(&mut connection).poll(context) {
            Poll::Ready(result) => Poll::Ready(Served::Ended(result)),
            Poll::Pending if exchange.is_waited_for() && has_gone(&stream, context) => Poll::Ready(Served::Deserted),
            Poll::Pending if !rests || !exchange.is_at_boundary() => Poll::Pending,
            Poll::Pending => Poll::Ready(if may_leave { Served::Leaves } else { Served::Waits }),
        });
        tokio::select! {
            biased;
            served = served => match served {
                Served::Ended(result) => {
                    // After a request with an `Upgrade` that nobody took up, hyper ends without the end of a connection. The
                    // drain waits for that too.
                    if result.is_ok() && !exchange.is_closing() && !exchange.is_upgraded() {
                        let _ = linger(&stream).await;
                    }
                    drop(alive);
                    return ended(result);
                }
                Served::Deserted => return None,
                Served::Leaves => break,
                Served::Waits => {}
            },
            () = watch.leaves(stage) => {}
            next = turns.next(), if leaves && !busy && turn.is_none() => turn = Some(next),
            rung = clock.rings(&stream, &exchange) => match rung {
                Rung::Late => return None,
                // Of a next message hyper has an empty line at most, which comes before a head and is none (RFC 9112, 2.2).
                Rung::Idle => return connection.into_parts().map(|parts| Spoke::Rests(parts.io.into_inner())),
            },
        }
    }
    // Taken out of hyper between two messages, with what it has read of a next head.
    let http1::Parts { io, read_buf, service, .. } = connection.into_parts()?;
    drop((service, stream));
    io.into_inner().park(&read_buf).zip(turn).map(|(parked, turn)| Spoke::Leaves(parked, turn))
}

/// What becomes of an HTTP/1.1 connection in hyper.
enum Served {
    Ended(hyper::Result<()>),
    /// Its client has gone, and waits for no response.
    Deserted,
    Leaves,
    /// It is at a boundary, and has no turn yet.
    Waits,
}

/// Whether a client has ended the connection, or it has failed. If not, who asks is woken when that is so.
fn has_gone(stream: &Stream, context: &mut Context<'_>) -> bool {
    matches!(stream.poll_peek(context), Poll::Ready(Ok(0) | Err(_)))
}

fn ended<T>(result: hyper::Result<()>) -> Option<T> {
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc, time::Duration};

    use axum::{
        Router,
        body::{Body, Bytes},
        routing::{get, post},
    };
    use futures_util::StreamExt;
    use tokio::{
        io::AsyncReadExt,
        sync::Notify,
        time::{self, Instant, sleep, timeout},
    };

    use super::*;
    use crate::served::{GET, SECOND, Served, hello, pair};

    const MIB: usize = 1 << 20;
    const TWO_CHUNKS: &[u8] =
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_kept_for_75_seconds_whatever_was_asked_on_it() {
        for asks in 0..3 {
            let mut served = Served::accepted(hello()).await;
            for _ in 0..asks {
                assert!(served.ask(GET).await.ends_with("hello"));
                sleep(10 * SECOND).await;
            }
            let left = if asks == 0 { 75 } else { 65 };
            let took = served.ends_after().await.as_secs_f64();
            assert!((took - f64::from(left)).abs() < 0.1, "{asks} requests, then {took} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_may_take_15_seconds_also_after_others() {
        let mut served = Served::accepted(hello()).await;
        for _ in 0..2 {
            assert!(served.ask(GET).await.ends_with("hello"));
        }
        sleep(60 * SECOND).await;
        served.client.write_all(b"GET / HT").await.unwrap();
        let took = served.ends_after().await.as_secs_f64();
        assert!((took - 15.0).abs() < 0.1, "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_with_a_connection_whose_time_is_up_is_answered() {
        for fresh in [true, false] {
            let (mut client, stream, peer) = pair().await;
            client.write_all(GET).await.unwrap();
            // As another process sends it: no reactor knows yet what has arrived.
            let Stream::Tcp(stream) = stream else { unreachable!("it is TCP") };
            let socket = stream.into_std().unwrap().into();
            let ahead = Default::default();
            let io =
                |watch, open| Io::resume(Parked { socket, peer, ahead, fresh, head_since: None, open }, watch).unwrap();
            let mut served = Served::new(client, hello(), io, Instant::now() - 80 * SECOND);
            assert!(served.ask(b"").await.ends_with("hello"), "fresh: {fresh}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_is_in_flight_until_its_client_has_it() {
        let router = Router::new().route("/", get(async || Bytes::from(vec![b'x'; 24 * MIB])));
        let mut served = Served::accepted(router).await;
        served.client.write_all(GET).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(served.client.read_u8().await.unwrap());
        }
        // It takes longer than a connection may be idle.
        for taken in 0..24 {
            assert!(taken > 19 || served.exchange.in_flight(), "the kernel has no room for it");
            served.takes(MIB).await;
            sleep(5 * SECOND).await;
        }
        assert!(served.ask(GET).await.starts_with("HTTP/1.1 200"), "it is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_for_a_minute_is_given_up() {
        let router = Router::new().route("/", get(async || Bytes::from(vec![b'x'; 20 * MIB])));
        let mut served = Served::accepted(router).await;
        served.client.write_all(GET).await.unwrap();
        // Whoever takes something every now and then is waited for.
        for _ in 0..3 {
            sleep(55 * SECOND).await;
            served.takes(5 * MIB).await;
        }
        sleep(59 * SECOND).await;
        assert_eq!(served.counts.connections(), 1);
        sleep(2 * SECOND).await;
        assert_eq!(served.counts.connections(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_hyper_holds_of_a_body_is_not_handed_over_as_a_next_request() {
        let (go_on, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (going_on, all) = (go_on.clone(), goes_on.clone());
        let later = async move |body: Body| {
            tokio::spawn(async move {
                going_on.notified().await;
                assert_eq!(axum::body::to_bytes(body, 1024).await.unwrap(), "helloworld");
                all.notify_one();
            });
            "later"
        };
        let mut served = Served::accepted(Router::new().route("/", post(later))).await;
        assert!(served.ask(TWO_CHUNKS).await.ends_with("later"));
        let mut offers = served.hands_over();
        assert!(timeout(SECOND, offers.recv()).await.is_err(), "hyper has the rest of the body");
        go_on.notify_one();
        let offer = timeout(SECOND, offers.recv()).await.unwrap().unwrap();
        assert!(offer.parked.ahead.is_empty(), "{:?}", offer.parked.ahead);
        timeout(SECOND, goes_on.notified()).await.expect("the handler has the whole body");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_reads_is_not_handed_over_as_a_next_request() {
        let no = async || {
            sleep(SECOND).await;
            "no"
        };
        for retires_first in [false, true] {
            let mut served = Served::accepted(Router::new().route("/", post(no))).await;
            served.client.write_all(TWO_CHUNKS).await.unwrap();
            sleep(SECOND / 2).await;
            let mut offers = retires_first.then(|| served.hands_over());
            assert!(served.ask(b"").await.ends_with("no"));
            let mut offers = offers.take().unwrap_or_else(|| served.hands_over());
            if let Ok(Some(offer)) = timeout(SECOND, offers.recv()).await {
                assert!(offer.parked.ahead.is_empty(), "{:?}", offer.parked.ahead);
            }
        }
    }

    // A clock that stands still but for sleeps would not wait for what the kernel has yet to bring.
    #[tokio::test]
    async fn a_request_that_comes_while_a_response_is_being_sent_is_read_after_it() {
        let taken = Arc::new(Notify::new());
        let all = taken.clone();
        let large = async move |body: Body| {
            tokio::spawn(async move {
                let (mut data, mut left) = (body.into_data_stream(), 10);
                while left > 0 {
                    left -= data.next().await.unwrap().unwrap().len();
                }
                all.notify_one();
            });
            Bytes::from(vec![b'x'; 32 << 20])
        };
        let mut served = Served::accepted(hello().route("/large", post(large))).await;
        let half = b"POST /large HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello";
        assert!(served.ask(half).await.starts_with("HTTP/1.1 200"));
        // hyper looks for what follows as soon as it has the body, and is told to wait.
        served.client.write_all(&[b"world", GET].concat()).await.unwrap();
        timeout(10 * SECOND, taken.notified()).await.expect("the handler has the body");
        // The clock that would look at the connection later stands still, as long as there is something to do.
        time::pause();
        let (began, until) = (Instant::now(), std::time::Instant::now() + 10 * SECOND);
        tokio::spawn(async move {
            while std::time::Instant::now() < until {
                tokio::task::yield_now().await;
            }
        });
        let (mut bytes, mut length) = (vec![0; 1 << 20], 0);
        while !bytes[..length].ends_with(b"hello") {
            length = timeout(10 * SECOND, served.client.read(&mut bytes)).await.expect("it is answered").unwrap();
            assert!(length > 0, "closed");
        }
        assert_eq!(
            began.elapsed(),
            Duration::ZERO,
            "it is read at the end of the response, and not when a clock rings"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_before_its_response_is_not_waited_for() {
        let never = || async { std::future::pending::<&str>().await };
        let silent = || async { Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>()) };
        for path in ["/never", "/silent"] {
            let router = Router::new().route("/never", get(never)).route("/silent", get(silent));
            let Served { mut client, counts, signal: _signal, .. } = Served::accepted(router).await;
            client.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await.unwrap();
            sleep(SECOND).await;
            assert_eq!((counts.connections(), counts.requests()), (1, 1));
            drop(client);
            sleep(SECOND).await;
            assert_eq!((counts.connections(), counts.requests()), (0, 0), "{path}");
        }
    }

    // A clock that stands still but for sleeps would be ahead of what the kernel tells.
    #[tokio::test]
    async fn a_client_that_still_sends_is_read_until_it_ends() {
        let refuse = async || ([("connection", "close")], "too large");
        let mut served = Served::accepted(Router::new().route("/", post(refuse))).await;
        served.client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
        for _ in 0..5 {
            served.client.write_all(&[b'x'; 10_000]).await.expect("it is read");
            sleep(SECOND / 2).await;
        }
        assert!(served.ask(b"x").await.ends_with("too large"));
    }
}
