//! Load: many clients of one kind, on a thread of their own, in a host's network or this machine's.

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, thread::JoinHandle, time::Duration};

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
};

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// c1: a new connection for each request.
    Fresh,
    /// c2: keep-alive, back to back.
    BackToBack,
    /// c3: keep-alive, thinking 1 to 50 ms between requests.
    Thinking,
    /// c5: keep-alive, each response takes 300 ms.
    Slow,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fresh, Self::BackToBack, Self::Thinking, Self::Slow];

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "c1 new connection each",
            Self::BackToBack => "c2 keep-alive, back to back",
            Self::Thinking => "c3 keep-alive, think 1-50 ms",
            Self::Slow => "c5 slow, 300 ms",
        }
    }

    fn path(self) -> &'static str {
        match self {
            // It says which release answers.
            Self::Fresh | Self::BackToBack | Self::Thinking => "/version",
            Self::Slow => "/slow?ms=300",
        }
    }

    fn keeps_connections(self) -> bool {
        self != Self::Fresh
    }

    fn think(self) -> Duration {
        match self {
            // Enough for one machine to have ports left.
            Self::Fresh => Duration::from_millis(2),
            Self::BackToBack => Duration::ZERO,
            Self::Thinking => Duration::from_millis(fastrand::u64(1..=50)),
            Self::Slow => Duration::from_millis(5),
        }
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
        let leader = host.leader();
        let address = "127.0.0.1:80".parse().expect("an address");
        Self::spawn(move || enter_network(leader), address, mode, clients)
    }

    /// Starts clients of any server that this machine reaches.
    pub fn start_at(address: SocketAddr, mode: Mode, clients: usize) -> Self {
        Self::spawn(|| {}, address, mode, clients)
    }

    /// Stops the clients and counts.
    ///
    /// # Panics
    /// Where a client did.
    pub fn stop(self) -> Report {
        self.stop.send_replace(true);
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
    let tasks: Vec<_> =
        (0..clients).map(|_| tokio::task::spawn_local(client(address, mode, stopped.clone()))).collect();
    let mut report = Report::new(mode.name());
    for task in tasks {
        report.add(&task.await.expect("a client does not panic"));
    }
    report
}

async fn client(address: SocketAddr, mode: Mode, stopped: Rc<watch::Receiver<bool>>) -> Report {
    let mut report = Report::new(mode.name());
    let mut kept: Option<Connection> = None;
    while !*stopped.borrow() {
        let began = Instant::now();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => match Connection::open(address).await {
                Ok(connection) => connection,
                Err(_) => {
                    report.count(Outcome::Refused, began.elapsed());
                    // Not a retry: the request is lost and counted, and the next one need not spin.
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        let answer = connection.get(mode.path()).await;
        report.count(answer.outcome, began.elapsed());
        report.count_release(&release_of(&answer));
        if mode.keeps_connections() {
            let is_closed = !answer.is_reusable || connection.is_closed_while_idle(mode.think()).await;
            report.connections_closed += u64::from(is_closed);
            kept = (!is_closed).then_some(connection);
        } else {
            drop(connection);
            sleep(mode.think()).await;
        }
    }
    report
}

fn release_of(answer: &Answer) -> Option<String> {
    let version: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&answer.body).ok()?;
    Some(version.get("release")?.as_str()?.to_owned())
}
