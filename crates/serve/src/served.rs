//! A connection that is served, and its client: for tests.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::{self, Instant, sleep},
};

use crate::{
    clock::RESTS_AFTER,
    connection,
    counts::{Counts, Open},
    drain::{self, Phase, Signal, Watch},
    exchange::Exchange,
    io::Io,
    offer::Offers,
    resting,
    routes::Routes,
    stream::{Peer, Stream},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// What the kernel keeps at each end, at most twice that (socket(7)): else it is as much as the machine likes.
const BUFFER: usize = 256 * 1024;

/// Who hold a resting connection's exchange: what counts it, twice, and the test. Any task of its own would, too.
const RESTING: usize = 3;

/// A connection that is served, and its client.
pub(crate) struct Served {
    pub(crate) client: TcpStream,
    pub(crate) signal: Signal,
    pub(crate) counts: Arc<Counts>,
    pub(crate) exchange: Arc<Exchange>,
}

impl Served {
    pub(crate) async fn accepted(router: Router) -> Self {
        let (client, stream, peer) = pair().await;
        Self::new(client, router, |watch, open| Io::new(stream, peer, watch, open), Instant::now())
    }

    pub(crate) fn new(
        client: TcpStream,
        router: Router,
        io: impl FnOnce(Watch, Open) -> Io,
        idle_since: Instant,
    ) -> Self {
        let (signal, watch) = drain::channel();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (io, counts) = (io(watch.clone(), watch.open(permit, idle_since).unwrap()), watch.counts());
        let (exchange, routes) = (io.exchange(), Routes::new(router));
        let watch = resting::begin(&routes, watch);
        tokio::spawn(connection::serve(Box::new(io), routes, watch));
        Self { client, signal, counts, exchange }
    }

    /// It has answered that.
    pub(crate) async fn resting(request: &[u8]) -> Self {
        let mut served = Self::accepted(hello()).await;
        assert!(served.ask(request).await.ends_with("hello"));
        sleep(2 * RESTS_AFTER).await;
        assert!(served.rests());
        served
    }

    pub(crate) fn hands_over(&mut self) -> Offers {
        let offers = self.signal.retire(SECOND).unwrap();
        self.signal.phases().to(Phase::HandingOver);
        offers
    }

    pub(crate) async fn ask(&mut self, request: &[u8]) -> String {
        self.client.write_all(request).await.unwrap();
        let mut bytes = [0; 4096];
        let length = self.client.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// While it reads, the clock goes: one that stands still but for sleeps would jump over what the kernel has yet to bring.
    pub(crate) async fn takes(&mut self, bytes: usize) {
        time::resume();
        self.client.read_exact(&mut vec![0; bytes]).await.expect("it is being sent");
        time::pause();
    }

    pub(crate) fn rests(&self) -> bool {
        Arc::strong_count(&self.exchange) == RESTING
    }

    /// How long the client waits for the end.
    pub(crate) async fn ends_after(&mut self) -> Duration {
        let began = Instant::now();
        assert_eq!(self.client.read(&mut [0; 16]).await.unwrap_or(0), 0);
        began.elapsed()
    }
}

pub(crate) async fn pair() -> (TcpStream, Stream, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(BUFFER as u32).unwrap();
    let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    // Where the clock stands still, 40 ms are an age: what is sent must not wait for what was sent to be acknowledged.
    client.set_nodelay(true).unwrap();
    stream.set_nodelay(true).unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, BUFFER).unwrap();
    (client, Stream::Tcp(stream), Peer::Tcp(peer))
}

pub(crate) fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}
