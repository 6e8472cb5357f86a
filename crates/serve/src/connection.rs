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
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    answer::Answer,
    clock::{Clock, IDLE_TIMEOUT, Keeps, Rung},
    drain::Watch,
    exchange::Exchange,
    head,
    io::{Io, LINGER, Protocol, linger},
    offer::Turn,
    parked::Parked,
    routes::Routes,
    stream::Stream,
};

/// How often an HTTP/2 client is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long, from the signal on, an HTTP/2 client may take to finish its greeting.
const GREETING: Duration = Duration::from_secs(5);

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
            Waits::Speaks(Protocol::Http2) => return Box::pin(http2(io, routes, watch)).await,
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

/// It is never handed over: what its two ends know of each other is in hyper.
async fn http2<T>(io: Box<Io>, routes: &Routes, watch: &mut Watch) -> Option<T> {
    let (stream, exchange) = (io.stream(), io.exchange());
    let answer = Answer::new(&io, routes.clone(), watch.clone());
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).max_header_list_size(head::LIMIT as u32);
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use axum::{
        Router,
        body::{Body, Bytes},
        routing::{get, post},
    };
    use futures_util::StreamExt;
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
        sync::{Notify, Semaphore},
        time::sleep,
    };

    use super::*;
    use crate::{
        clock::RESTS_AFTER,
        counts::{Counts, Open},
        drain::{self, Phase, Signal},
        offer::Offers,
        resting,
        stream::Peer,
    };

    const SECOND: Duration = Duration::from_secs(1);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    /// Who hold a resting connection's exchange: what counts it, twice, and the test. Any task of its own would, too.
    const RESTING: usize = 3;

    const TWO_CHUNKS: &[u8] =
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n";

    /// A connection that is served, and its client.
    struct Served {
        client: TcpStream,
        signal: Signal,
        counts: Arc<Counts>,
        exchange: Arc<Exchange>,
    }

    impl Served {
        async fn accepted(router: Router) -> Self {
            let (client, stream, peer) = pair().await;
            Self::new(client, router, |watch, open| Io::new(stream, peer, watch, open), Instant::now())
        }

        fn new(client: TcpStream, router: Router, io: impl FnOnce(Watch, Open) -> Io, idle_since: Instant) -> Self {
            let (signal, watch) = drain::channel();
            let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            let (io, counts) = (io(watch.clone(), watch.open(permit, idle_since).unwrap()), watch.counts());
            let (exchange, routes) = (io.exchange(), Routes::new(router));
            let watch = resting::begin(&routes, watch);
            tokio::spawn(serve(Box::new(io), routes, watch));
            Self { client, signal, counts, exchange }
        }

        /// It has answered that.
        async fn resting(request: &[u8]) -> Self {
            let mut served = Self::accepted(hello()).await;
            assert!(served.ask(request).await.ends_with("hello"));
            sleep(2 * RESTS_AFTER).await;
            assert!(served.rests());
            served
        }

        fn hands_over(&mut self) -> Offers {
            let offers = self.signal.retire(SECOND).unwrap();
            self.signal.phases().to(Phase::HandingOver);
            offers
        }

        async fn ask(&mut self, request: &[u8]) -> String {
            self.client.write_all(request).await.unwrap();
            let mut bytes = [0; 4096];
            let length = self.client.read(&mut bytes).await.unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        }

        fn rests(&self) -> bool {
            Arc::strong_count(&self.exchange) == RESTING
        }

        /// How long the client waits for the end.
        async fn ends_after(&mut self) -> Duration {
            let began = Instant::now();
            assert_eq!(self.client.read(&mut [0; 16]).await.unwrap_or(0), 0);
            began.elapsed()
        }
    }

    async fn pair() -> (TcpStream, Stream, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        // Where the clock stands still, 40 ms are an age: what it sends must not wait for what it has sent to be acknowledged.
        client.set_nodelay(true).unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        (client, Stream::Tcp(stream), Peer::Tcp(peer))
    }

    fn hello() -> Router {
        Router::new().route("/", get(async || "hello"))
    }

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
    async fn a_connection_that_stays_idle_has_no_task_and_serves_on() {
        let mut served = Served::accepted(hello()).await;
        for _ in 0..3 {
            for _ in 0..3 {
                assert!(served.ask(GET).await.ends_with("hello"));
                sleep(RESTS_AFTER / 2).await;
                assert!(!served.rests());
            }
            sleep(2 * RESTS_AFTER).await;
            assert!(served.rests());
        }
        let mut offers = served.hands_over();
        assert!(timeout(SECOND, offers.recv()).await.unwrap().unwrap().parked.ahead.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rests_is_offered_and_goes_on_where_nobody_takes_it() {
        let mut served = Served::resting(GET).await;
        let mut offers = served.hands_over();
        let offer = timeout(SECOND, offers.recv()).await.unwrap().unwrap();
        served.signal.phases().to(Phase::Alone);
        offer.give_back();
        assert!(served.ask(GET).await.ends_with("hello"));
        assert_eq!((served.counts.handed_over(), served.counts.drained()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rests_is_answered_within_the_grace_where_nobody_comes_after_it() {
        for asks in [true, false] {
            let mut served = Served::resting(GET).await;
            let _offers = served.signal.retire(SECOND);
            served.signal.phases().to(Phase::Alone);
            sleep(SECOND).await;
            if asks {
                assert!(served.ask(GET).await.contains("connection: close"));
            } else {
                let took = served.ends_after().await.as_secs_f64();
                assert!((took - 4.0).abs() < 0.1, "{took} s");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rests_and_cannot_leave_is_not_offered() {
        let mut served = Served::resting(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let mut offers = served.hands_over();
        assert!(timeout(10 * SECOND, offers.recv()).await.is_err());
        assert!(served.ask(GET).await.contains("connection: close"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rests_is_cut_with_the_others() {
        let mut served = Served::resting(GET).await;
        let _offers = served.signal.retire(SECOND);
        served.signal.cut();
        assert_eq!(served.ends_after().await, Duration::ZERO);
        assert_eq!((served.counts.cut(), served.counts.connections()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_before_a_head_and_is_none_keeps_no_connection_from_resting() {
        let mut served = Served::accepted(hello()).await;
        assert!(served.ask(GET).await.ends_with("hello"));
        // An empty line, in two halves.
        for part in [b"\r", b"\n"] {
            served.client.write_all(part).await.unwrap();
            sleep(2 * RESTS_AFTER).await;
            assert!(served.rests());
        }
        assert!(served.ask(GET).await.ends_with("hello"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_head_came_in_two_parts_rests_as_soon() {
        let mut served = Served::accepted(hello()).await;
        for _ in 0..2 {
            served.client.write_all(&GET[..20]).await.unwrap();
            sleep(RESTS_AFTER).await;
            assert!(served.ask(&GET[20..]).await.ends_with("hello"));
            sleep(2 * RESTS_AFTER).await;
            assert!(served.rests());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_does_not_rest() {
        let router = Router::new().route("/", post(async |body: String| body));
        let mut served = Served::accepted(router).await;
        let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n";
        for part in [&head[..20], &head[20..], b"hel"] {
            served.client.write_all(part).await.unwrap();
            sleep(4 * RESTS_AFTER).await;
            assert!(!served.rests());
        }
        assert!(served.ask(b"lo").await.ends_with("hello"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_while_it_rests_is_let_go() {
        let mut served = Served::accepted(hello()).await;
        assert!(served.ask(GET).await.ends_with("hello"));
        sleep(2 * RESTS_AFTER).await;
        drop(served.client);
        sleep(SECOND).await;
        assert_eq!(served.counts.connections(), 0);
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
        const LENGTH: usize = 32 << 20;
        let router = Router::new().route("/", get(async || Bytes::from(vec![b'x'; LENGTH])));
        let mut served = Served::accepted(router).await;
        served.client.write_all(GET).await.unwrap();
        let (mut bytes, mut read) = (vec![0; 1 << 20], 0);
        while read < LENGTH {
            let length = served.client.read(&mut bytes).await.unwrap();
            assert!(length > 0, "cut after {read} bytes");
            read += length;
            sleep(5 * SECOND).await;
        }
        served.client.write_all(GET).await.unwrap();
        assert!(served.client.read(&mut bytes).await.unwrap() > 0, "it is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_for_a_minute_is_given_up() {
        let router = Router::new().route("/", get(async || Bytes::from(vec![b'x'; 64 << 20])));
        let mut served = Served::accepted(router).await;
        served.client.write_all(GET).await.unwrap();
        let mut bytes = vec![0; 12 << 20];
        // Whoever takes something every now and then is waited for.
        for _ in 0..3 {
            sleep(55 * SECOND).await;
            served.client.read_exact(&mut bytes).await.expect("it is being sent");
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
        let chunks =
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n";
        assert!(served.ask(chunks).await.ends_with("later"));
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
        let (mut bytes, mut length) = (vec![0; 1 << 20], 0);
        while !bytes[..length].ends_with(b"hello") {
            length = timeout(10 * SECOND, served.client.read(&mut bytes)).await.expect("it is answered").unwrap();
            assert!(length > 0, "closed");
        }
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
