//! A server's life: ready, serve, retire, end.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, StatusCode};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout},
};
use tower_layer::layer_fn;

use crate::{
    Error,
    config::Config,
    connection::{self, Routed},
    drain::{self, Watch},
    exchange::Cut,
    io::Io,
    listener::{Accepting, Listener},
    notify,
    report::{Reporter, State},
    stream::{Peer, Stream},
};

const EACH_SECOND: Duration = Duration::from_secs(1);
/// Between two questions for `/readyz`.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// After an error that may last, such as a full descriptor table.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// What systemd grants beyond our own deadline, to end in.
const MARGIN: Duration = Duration::from_secs(5);

/// A socket and a configuration, taken from the environment.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: Listener,
}

impl Server {
    /// Takes the socket that systemd passes, or binds one. Call it before any thread exists.
    ///
    /// # Errors
    /// [`Error::Variable`], [`Error::Socket`] and [`Error::Listen`], each one clear line.
    pub fn from_env() -> Result<Self, Error> {
        let config = Config::from_env()?;
        let listener = Listener::take(&config.listen)?;
        grow_descriptor_table(config.connections);
        Ok(Self { config, listener })
    }

    /// Serves what `router` makes until SIGTERM (or SIGINT), then drains; returns when all has ended.
    ///
    /// # Errors
    /// [`Error::Router`] where `router` fails, [`Error::NotReady`] where `/readyz` never says 200: then nothing was
    /// accepted.
    pub fn run<F, E>(self, router: F) -> Result<(), Error>
    where
        F: Future<Output = Result<Router, E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let failed = |operation| move |source| Error::Runtime { operation, source };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.enable_all().build().map_err(failed("start the runtime"))?;
        // On a worker, where the connections are: a runtime whose workers are all stuck must miss its watchdog pings.
        let served = runtime.block_on(async { tokio::spawn(self.live(router)).await });
        // A handler that blocks a thread must not keep the process.
        runtime.shutdown_background();
        served.map_err(|error| Error::Runtime { operation: "serve", source: io::Error::other(error) })?
    }

    async fn live<F, E>(self, router: F) -> Result<(), Error>
    where
        F: Future<Output = Result<Router, E>> + Send,
        E: std::fmt::Display,
    {
        let mut stop = Stop::new()?;
        let (signal, watch) = drain::channel();
        let reporter = Reporter::new(&self.config, watch.counts());
        reporter.write(State::Starting, false);
        let prepared = tokio::select! {
            router = prepare(router, self.config.ready) => router.map(Some),
            () = stop.asked() => Ok(None),
        };
        let result = match prepared {
            Ok(Some(router)) => self.serve(router, signal, watch, &reporter, &mut stop).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        reporter.write(State::Ended, false);
        result
    }

    async fn serve(
        self,
        router: Router,
        signal: drain::Signal,
        watch: Watch,
        reporter: &Reporter,
        stop: &mut Stop,
    ) -> Result<(), Error> {
        let Self { config, listener } = self;
        let address = listener.address();
        let failed = |source| Error::Listen { address: address.clone(), source };
        let listener = listener.accepting().map_err(failed)?;
        reporter.write(State::Serving, true);
        notify::ready(&format!("serving on {address}"));
        tracing::info!(address, release = config.release, instance = config.n, "serving");
        let router = router.layer(layer_fn(Routed));
        accept(listener, router, watch, config.connections, stop).await;
        // Only now: the loop has ended, so a connection that it accepted last is counted, and no other can come.
        reporter.write(State::Retiring, false);
        drain(&config, reporter, signal, stop).await;
        Ok(())
    }
}

/// SIGTERM, or SIGINT from a terminal.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self, Error> {
        let handle = |kind| signal(kind).map_err(|source| Error::Runtime { operation: "handle signals", source });
        Ok(Self { terminate: handle(SignalKind::terminate())?, interrupt: handle(SignalKind::interrupt())? })
    }

    /// Returns at the next signal. Cancel safe.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Makes the router, and asks it for `/readyz` until it says 200.
async fn prepare<F, E>(router: F, limit: Duration) -> Result<Router, Error>
where
    F: Future<Output = Result<Router, E>>,
    E: std::fmt::Display,
{
    notify::status("starting");
    let router = router.await.map_err(|error| Error::Router(error.to_string()))?;
    // From here on the limit is ours, which may be beyond TimeoutStartSec=.
    notify::extend(limit + MARGIN);
    let (began, mut alive) = (Instant::now(), Alive::new());
    loop {
        let left = limit.saturating_sub(began.elapsed()).max(ASK_AGAIN);
        let answer = match timeout(left, ask_ready(&router)).await {
            Ok(Ok(())) => return Ok(router),
            Ok(Err(answer)) => answer,
            Err(_) => "nothing".to_owned(),
        };
        if began.elapsed() >= limit {
            return Err(Error::NotReady { seconds: limit.as_secs(), answer });
        }
        notify::status(&format!("starting: /readyz answered {answer}"));
        tokio::select! {
            () = sleep(ASK_AGAIN) => {}
            () = alive.tick() => notify::alive(),
        }
    }
}

/// Asks the router itself, through no socket. The error is what it answered instead of 200.
async fn ask_ready(router: &Router) -> Result<(), String> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = hyper::Uri::from_static("/readyz");
    let answer = tower_service::Service::call(&mut router.clone(), request).await;
    let Ok(response) = answer;
    if response.status() == StatusCode::OK {
        return Ok(());
    }
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap_or_default();
    let text: String = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(200).collect();
    Err(format!("{status}: {text}").trim_end_matches(": ").to_owned())
}

/// Accepts until the instance is told to stop. The pings come from here: a loop that does not come round misses them, and
/// so does a runtime whose workers are all blocked. One blocked worker of several is not noticed.
async fn accept(listener: Accepting, router: Router, watch: Watch, most: u32, stop: &mut Stop) {
    let (mut alive, permits) = (Alive::new(), Arc::new(Semaphore::new(most as usize)));
    loop {
        tokio::select! {
            biased;
            () = stop.asked() => return,
            () = alive.tick() => notify::alive(),
            (permit, accepted) = accept_one(&listener, &permits) => match accepted {
                Ok((stream, peer)) => {
                    let io = Io::new(stream, watch.clone(), watch.open(permit));
                    tokio::spawn(connection::serve(io, peer, router.clone(), watch.clone()));
                }
                Err(error) => wait_after(&error).await,
            },
        }
    }
}

/// Beyond the most connections, clients wait in the socket's queue. Cancel safe.
async fn accept_one(
    listener: &Accepting,
    permits: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, io::Result<(Stream, Peer)>) {
    if permits.available_permits() == 0 {
        tracing::warn!("as many connections are open as may be (APP_CONNECTIONS); others wait");
    }
    let permit = permits.clone().acquire_owned().await.unwrap_or_else(|_| unreachable!("it is never closed"));
    (permit, listener.accept().await)
}

/// A client that has gone again costs nothing; what may last (EMFILE, ENFILE, ENOMEM) must not spin (accept(2)).
async fn wait_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "cannot accept a connection");
        sleep(ACCEPT_AGAIN).await;
    }
}

/// Waits until every connection has ended; at the deadline, or when told to stop again, cuts what is left.
async fn drain(config: &Config, reporter: &Reporter, mut signal: drain::Signal, stop: &mut Stop) {
    let deadline = Instant::now() + config.drain;
    // Before anybody hears of it: each response from here on says that it is the last.
    signal.retire();
    notify::extend(config.drain + MARGIN);
    notify::stopping(&format!("retiring: {}", reporter.open()));
    tracing::info!(open = reporter.open(), "retiring");
    let (mut second, mut alive) = (interval(EACH_SECOND), Alive::new());
    loop {
        tokio::select! {
            biased;
            () = signal.ended() => break,
            () = tokio::time::sleep_until(deadline) => return cut(reporter, &mut signal, "the deadline").await,
            () = stop.asked() => return cut(reporter, &mut signal, "a second signal").await,
            () = alive.tick() => notify::alive(),
            _ = second.tick() => {
                reporter.write(State::Retiring, false);
                notify::extend(deadline.saturating_duration_since(Instant::now()) + MARGIN);
                notify::status(&format!("retiring: {}", reporter.open()));
            }
        }
    }
    notify::status("ended: every connection had ended");
    tracing::info!(late_bytes = reporter.late_bytes(), "ended");
}

async fn cut(reporter: &Reporter, signal: &mut drain::Signal, why: &str) {
    let open = reporter.each();
    tracing::warn!(open = open.len(), "cut at {why}");
    for Cut { kind, route, age } in &open {
        tracing::warn!(kind, route, age_ms = age.as_millis() as u64, "cut");
    }
    notify::status(&format!("ended: {} were cut at {why}", reporter.open()));
    signal.cut();
    // What was upgraded belongs to its handler, and ends with the process.
    let _ = timeout(ASK_AGAIN, signal.ended()).await;
}

/// Makes room for the descriptors at once. The table of a process with threads grows under a lock that readers of another
/// kind must leave first: 10 to 20 ms at each doubling, for every thread (drain.md).
fn grow_descriptor_table(connections: u32) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::from(u32::MAX));
    let last = u64::from(connections).saturating_add(1023).min(limit.saturating_sub(1));
    // Nothing is lost where it fails but those milliseconds.
    drop(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), last as i32));
}

/// The watchdog's clock; it never ticks where nobody watches.
struct Alive(Option<Interval>);

impl Alive {
    fn new() -> Self {
        Self(notify::watchdog_period().map(|period| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        }))
    }

    /// Cancel safe.
    async fn tick(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
    }
}
