//! What systemd says, by signals, and what it is told (sd_notify(3)). Without systemd it is told nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval},
};

use crate::Error;

/// What systemd grants beyond our own deadline, to end in.
pub(crate) const MARGIN: Duration = Duration::from_secs(5);

pub(crate) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

pub(crate) fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

pub(crate) fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Asks that the unit be not killed for this long, whatever TimeoutStopSec= says.
pub(crate) fn extend(time: Duration) {
    send(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
}

pub(crate) fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often to say that we live: twice in WatchdogSec=; `None` where nobody watches.
fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// SIGTERM, or SIGINT from a terminal.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub(crate) fn new() -> Result<Self, Error> {
        let handle = |kind| signal(kind).map_err(|source| Error::Runtime { operation: "handle signals", source });
        Ok(Self { terminate: handle(SignalKind::terminate())?, interrupt: handle(SignalKind::interrupt())? })
    }

    /// Returns at the next signal. Cancel safe.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The watchdog's clock; it never ticks where nobody watches.
pub(crate) struct Alive(Option<Interval>);

impl Alive {
    pub(crate) fn new() -> Self {
        Self(watchdog_period().map(|period| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        }))
    }

    /// Cancel safe.
    pub(crate) async fn tick(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
    }
}
