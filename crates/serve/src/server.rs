//! A server's life: ready, serve, retire, end.

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, StatusCode};
use tokio::{
    sync::Semaphore,
    time::{Instant, interval, sleep, timeout},
};

use crate::{
    Error,
    accept::{Acceptor, Troubles},
    config::Config,
    drain::{self, Watch},
    listener::{Listener, Owner, Passed},
    metrics,
    notify::{self, Alive, MARGIN, Stop},
    place::Place,
    predecessor::{Door, Intake},
    report::{EACH_SECOND, Reporter, State},
    resting,
    retire::retire,
    routes::Routes,
};

/// Between two questions for `/readyz`.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A socket and a configuration, taken from the environment.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: Listener,
    owner: Owner,
    metrics: Option<Listener>,
}

impl Server {
    /// Takes the socket that systemd passes, or binds one. Call it before any thread exists.
    ///
    /// # Errors
    /// [`Error::Variable`], [`Error::Socket`] and [`Error::Listen`], each one clear line.
    pub fn from_env() -> Result<Self, Error> {
        let config = Config::from_env()?;
        let mut passed = Passed::from_env();
        let (listener, owner) = passed.http(&config.listen)?;
        let metrics = passed.metrics()?;
        grow_descriptor_table(config.connections);
        Ok(Self { config, listener, owner, metrics })
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
        let Self { config, listener, owner, metrics } = self;
        let address = listener.address();
        let failed = |source| Error::Listen { address: address.clone(), source };
        let listener = listener.accepting().map_err(failed)?;
        let (routes, counts) = (Routes::new(router), watch.counts());
        let watch = resting::begin(&routes, watch);
        let permits = Arc::new(Semaphore::new(config.connections as usize));
        let (said, served_by, watched) = (Troubles::default(), routes.clone(), watch.clone());
        let acceptor = Acceptor { listener, owner, routes: served_by, watch: watched, permits: permits.clone(), said };
        if config.runtime.is_none() {
            tracing::info!("RUNTIME_DIRECTORY is not set: no connection is handed over");
        }
        let place = config.runtime.as_ref().map(|folder| Place::new(folder.clone(), config.n));
        // Before READY: whoever is told to stop then looks for this instance.
        let door = place.clone().and_then(|place| open(Intake { place, routes, watch, permits }));
        let metrics = metrics.map(|listener| metrics::expose(listener, &config, counts)).transpose().map_err(failed)?;
        reporter.write(State::Serving, true);
        notify::ready(&format!("serving on {address}"));
        tracing::info!(address, release = config.release, instance = config.n, "serving");
        serve_until(stop, reporter, &acceptor).await;
        // Whoever asks is to ask the next instance.
        drop(metrics);
        if let Some(door) = door {
            door.close().await;
        }
        retire(&config, reporter, signal, acceptor, place, stop).await;
        Ok(())
    }
}

/// Lets instances that retire find this one, where it can.
fn open(intake: Intake) -> Option<Door> {
    let door = intake.open();
    if let Err(error) = &door {
        tracing::warn!("no instance can hand its connections over to this one: {error}");
    }
    door.ok()
}

/// Accepts until the instance is told to stop. The pings come from here: a loop that does not come round misses them, and
/// so does a runtime whose workers are all blocked. One blocked worker of several is not noticed.
async fn serve_until(stop: &mut Stop, reporter: &Reporter, acceptor: &Acceptor) {
    let (mut alive, mut second) = (Alive::new(), interval(EACH_SECOND));
    let mut accept = pin!(acceptor.run());
    loop {
        tokio::select! {
            biased;
            () = stop.asked() => return,
            () = alive.tick() => notify::alive(),
            _ = second.tick() => reporter.write(State::Serving, true),
            never = &mut accept => match never {},
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

/// Makes room for the descriptors at once. The table of a process with threads grows under a lock that readers of another
/// kind must leave first (`expand_fdtable`, `synchronize_rcu`): 10 to 20 ms at each doubling, for every thread.
fn grow_descriptor_table(connections: u32) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::from(u32::MAX));
    let last = u64::from(connections).saturating_add(1023).min(limit.saturating_sub(1));
    // Nothing is lost where it fails but those milliseconds.
    drop(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), last as i32));
}
