//! Load: many clients of one kind, on a thread of their own, in a host's network or this machine's.

use std::{fmt, net::SocketAddr, rc::Rc, thread::JoinHandle, time::Duration};

use clap::ValueEnum;
use futures_util::future::join_all;
use tokio::{
    sync::watch,
    task::LocalSet,
    time::{Instant, sleep},
};

use crate::{
    Host, Report,
    client::{Answer, Connection},
    host::enter_network,
    outcome::Outcome,
    talk::{Socket, Streams},
};

/// One way, where there is a wire.
const WIRE: Duration = Duration::from_millis(10);
/// Not a retry: a request that found no connection is lost and counted, and the next one need not spin.
const AFTER_REFUSAL: Duration = Duration::from_millis(10);

/// What the clients do. The numbers are those of the measurements that the server was built by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// A new connection for each request
    C1,
    /// Keep-alive, back to back
    C2,
    /// Keep-alive, thinking 1 to 50 ms between requests
    C3,
    /// As c3, and 10 ms on the wire each way
    C3b,
    /// HTTP/2, ten streams at a time on each connection
    C4,
    /// Keep-alive, each response comes after 300 ms
    C5,
    /// Keep-alive, each response takes 1 s
    C6,
    /// Keep-alive, each request takes 1 s
    C7,
    /// A new connection for each request, which comes 1 to 20 ms after it
    C8,
    /// Keep-alive, thinking 0.1 to 4 s, and 10 ms on the wire
    C9,
    /// Keep-alive, each head in two segments
    C10,
    /// Server-sent events, for 1 s or until the server ends them
    Events,
    /// WebSocket, a message every 50 ms for 1 s or until the server closes with 1012
    Socket,
}

/// How many clients make a load, and how long each one's round takes, about.
struct Shape {
    clients: usize,
    round: Duration,
}

impl Mode {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::C1,
        Self::C2,
        Self::C3,
        Self::C3b,
        Self::C4,
        Self::C5,
        Self::C6,
        Self::C7,
        Self::C8,
        Self::C9,
        Self::C10,
        Self::Events,
        Self::Socket,
    ];

    /// How many clients of it make a load.
    pub fn clients(self) -> usize {
        self.shape().clients
    }

    /// Measured where nothing else goes on.
    fn shape(self) -> Shape {
        let (clients, round) = match self {
            Self::C1 => (24, 3),
            Self::C2 => (2, 1),
            Self::C3 => (100, 26),
            Self::C3b => (50, 46),
            Self::C4 => (16, 6),
            Self::C5 => (20, 400),
            Self::C6 | Self::C7 => (24, 1_300),
            Self::C8 => (60, 13),
            Self::C9 => (600, 2_000),
            Self::C10 => (20, 10),
            Self::Events | Self::Socket => (12, 1_100),
        };
        Shape { clients, round: Duration::from_millis(round) }
    }

    fn path(self) -> &'static str {
        match self {
            Self::C5 => "/slow?ms=300",
            Self::C6 => "/stream?secs=1",
            Self::C7 => "/upload",
            Self::Events => "/events",
            Self::Socket => "/ws",
            // It says which release answers.
            _ => "/version",
        }
    }

    /// How far apart activations must be, so that at each some clients are on a connection that the last one did not close.
    pub(crate) fn between_activations(self) -> Duration {
        Duration::from_millis(match self {
            Self::C5 => 500,
            // Its response was under way at the last one, and the one after it said close.
            Self::C6 => 3_000,
            Self::C7 => 1_400,
            _ => 200,
        })
    }

    /// Whether its clients have connections on which nothing is in flight.
    pub(crate) fn is_idle_at_times(self) -> bool {
        !matches!(self, Self::C1 | Self::C2 | Self::C4 | Self::Events | Self::Socket)
    }

    /// Whether its clients keep HTTP/1.1 connections, which an activation must not close.
    pub(crate) fn is_handed_over(self) -> bool {
        self.keeps_connections() && !matches!(self, Self::C4 | Self::Events | Self::Socket)
    }

    fn keeps_connections(self) -> bool {
        !matches!(self, Self::C1 | Self::C8)
    }

    fn wire(self) -> Duration {
        if matches!(self, Self::C3b | Self::C9) { WIRE } else { Duration::ZERO }
    }

    fn think(self) -> Duration {
        let between = |least, most| Duration::from_millis(fastrand::u64(least..=most));
        match self {
            // Enough for one machine to have ports left.
            Self::C1 | Self::C8 => Duration::from_millis(2),
            Self::C2 => Duration::ZERO,
            Self::C3 | Self::C3b => between(1, 50),
            Self::C4 => between(1, 10),
            Self::C5 => Duration::from_millis(100),
            Self::C6 | Self::C7 => Duration::from_millis(300),
            Self::C9 => between(100, 4_000),
            Self::C10 => between(1, 10),
            // Else the next activation finds all of them at the same point.
            Self::Events | Self::Socket => between(10, 200),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::C1 => "c1 new connection each",
            Self::C2 => "c2 keep-alive, back to back",
            Self::C3 => "c3 keep-alive, think 1-50 ms",
            Self::C3b => "c3b and 10 ms on the wire",
            Self::C4 => "c4 HTTP/2, 10 streams",
            Self::C5 => "c5 slow, 300 ms",
            Self::C6 => "c6 streamed, 1 s",
            Self::C7 => "c7 upload, 1 s",
            Self::C8 => "c8 fresh, waits 1-20 ms",
            Self::C9 => "c9 think 0.1-4 s, 10 ms wire",
            Self::C10 => "c10 head in two segments",
            Self::Events => "events (SSE), 1 s",
            Self::Socket => "WebSocket, 1 s",
        })
    }
}

/// Clients at work. They stop when told to, each after its request in flight has ended.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Report>,
}

impl Load {
    /// Starts `clients` clients of a host's port 80.
    pub fn start(host: &Host, mode: Mode, clients: usize) -> Self {
        Self::start_in(host.leader(), "127.0.0.1:80".parse().expect("an address"), mode, clients)
    }

    /// Starts clients of any server that the network of a process reaches.
    pub fn start_in(network: u32, address: SocketAddr, mode: Mode, clients: usize) -> Self {
        Self::spawn(move || enter_network(network), address, mode, clients)
    }

    /// Starts clients of any server that this machine reaches.
    pub fn start_at(address: SocketAddr, mode: Mode, clients: usize) -> Self {
        Self::spawn(|| {}, address, mode, clients)
    }

    /// Tells the clients to stop; [`Self::stop`] waits for them.
    pub fn halt(&self) {
        self.stop.send_replace(true);
    }

    /// Stops the clients and counts.
    ///
    /// # Panics
    /// Where a client did.
    pub fn stop(self) -> Report {
        self.halt();
        self.thread.join().expect("clients do not panic")
    }

    fn spawn(enter: impl FnOnce() + Send + 'static, address: SocketAddr, mode: Mode, clients: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, all(address, mode, clients, stopped))
        });
        Self { stop, thread }
    }
}

async fn all(address: SocketAddr, mode: Mode, clients: usize, stopped: watch::Receiver<bool>) -> Report {
    let stopped = Rc::new(stopped);
    let client = |n: usize| {
        let client = Client { address, mode, stopped: stopped.clone(), report: Report::new(mode) };
        // Spread over a round, so that at any moment some are here in it and some there.
        let spread = mode.shape().round.mul_f64(n as f64 / clients as f64);
        tokio::task::spawn_local(async move {
            sleep(spread).await;
            client.work().await
        })
    };
    let tasks: Vec<_> = (0..clients).map(client).collect();
    let mut report = Report::new(mode);
    for task in tasks {
        report.add(task.await.expect("a client does not panic"));
    }
    report
}

struct Client {
    address: SocketAddr,
    mode: Mode,
    stopped: Rc<watch::Receiver<bool>>,
    report: Report,
}

impl Client {
    async fn work(mut self) -> Report {
        match self.mode {
            Mode::C4 => self.streams().await,
            Mode::Socket => self.sockets().await,
            _ => self.exchanges().await,
        }
        self.report
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    async fn refused(&mut self, outcome: Outcome, began: Instant) {
        self.report.count(outcome, began);
        sleep(AFTER_REFUSAL).await;
    }

    async fn exchanges(&mut self) {
        let mut kept: Option<Connection> = None;
        while !self.is_stopped() {
            let began = Instant::now();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => match Connection::open(self.address).await {
                    Ok(connection) => connection.over(self.mode.wire()),
                    Err(_) => {
                        self.refused(Outcome::Refused, began).await;
                        continue;
                    }
                },
            };
            let began = self.wait_before(began).await;
            let answer = self.ask(&mut connection).await;
            self.report.count(answer.outcome, began);
            if self.mode.path() == "/version" {
                self.report.count_release(release_of(&answer.body));
            }
            let began = Instant::now();
            if self.mode.keeps_connections() && answer.is_reusable {
                let is_closed = connection.is_closed_while_idle(self.mode.think()).await;
                self.report.count_closed(is_closed);
                kept = (!is_closed).then_some(connection);
                self.report.idled(began);
            } else {
                // An event stream is left by its client, and by the server with a response that can be followed.
                self.report.count_closed(self.mode.keeps_connections() && self.mode != Mode::Events);
                drop(connection);
                sleep(self.mode.think()).await;
            }
        }
    }

    /// A fresh connection may wait for its request, and is idle for so long.
    async fn wait_before(&mut self, began: Instant) -> Instant {
        if self.mode != Mode::C8 {
            return began;
        }
        sleep(Duration::from_millis(fastrand::u64(1..=20))).await;
        self.report.idled(began);
        Instant::now()
    }

    async fn ask(&self, connection: &mut Connection) -> Answer {
        let path = self.mode.path();
        match self.mode {
            Mode::C5 => connection.get(path).await.with_body(|body| body == b"after 300 ms\n"),
            Mode::C6 => connection.get(path).await.with_body(|body| body.ends_with(b"\n10 of 10\n")),
            Mode::C7 => {
                let pieces = [[b'x'; 1024].as_slice(); 10];
                let answer = connection.upload(path, &pieces, Duration::from_millis(100)).await;
                answer.with_body(|body| body == b"10240\n")
            }
            Mode::C10 => {
                let pause = Duration::from_millis(fastrand::u64(1..=10));
                connection.get_in_two(path, pause).await.with_body(|body| release_of(body).is_some())
            }
            Mode::Events => connection.events(path, Duration::from_secs(1)).await,
            _ => connection.get(path).await.with_body(|body| release_of(body).is_some()),
        }
    }

    async fn streams(&mut self) {
        let mut kept: Option<Streams> = None;
        while !self.is_stopped() {
            let began = Instant::now();
            let mut streams = match kept.take() {
                Some(streams) => streams,
                None => match Streams::open(self.address).await {
                    Ok(streams) => streams,
                    Err(outcome) => {
                        self.refused(outcome, began).await;
                        continue;
                    }
                },
            };
            let path = self.mode.path();
            let began = Instant::now();
            let asked = (0..10).map(|_| {
                let mut streams = streams.clone();
                async move { (streams.get(path).await, Instant::now()) }
            });
            for ((outcome, body), ended) in join_all(asked).await {
                self.report.count_until(outcome, began, ended);
                self.report.count_release(release_of(&body));
            }
            sleep(self.mode.think()).await;
            let is_open = streams.is_open().await;
            self.report.count_closed(!is_open);
            kept = is_open.then_some(streams);
        }
    }

    async fn sockets(&mut self) {
        while !self.is_stopped() {
            let began = Instant::now();
            let outcome = match Socket::open(self.address, self.mode.path()).await {
                Ok(socket) => socket.converse(began + Duration::from_secs(1), Duration::from_millis(50)).await,
                Err(outcome) => outcome,
            };
            self.report.count(outcome, began);
            sleep(self.mode.think()).await;
        }
    }
}

fn release_of(body: &[u8]) -> Option<String> {
    let version: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(version.get("release")?.as_str()?.to_owned())
}
