//! A server's end: from the signal until its last connection has ended, or the deadline.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, interval, sleep_until, timeout};

use crate::{
    accept::Acceptor,
    config::Config,
    drain::{Phases, Signal},
    notify::{self, Alive, MARGIN, Stop},
    place::Place,
    report::{EACH_SECOND, Reporter, State},
    successor::Succession,
};

/// For how long systemd is asked at once. A process that hangs must not hold a reboot up for the whole of a long deadline.
const ASK_FOR: Duration = Duration::from_secs(15);
/// How often the file is made anew at first: most of a handover is a matter of milliseconds, and who asked for it looks.
const OFTEN: Duration = Duration::from_millis(10);
/// It looks at each connection, and who hands thousands over has better to do: so many times what it takes lie between.
const SELDOM: u32 = 20;
/// How long what is cut may take to be dropped.
const DROP: Duration = Duration::from_millis(100);

/// Hands over what can be, and waits until the rest has ended; at the deadline, or when told to stop again, cuts what is
/// left.
pub(crate) async fn retire(
    config: &Config,
    reporter: &Reporter,
    mut signal: Signal,
    acceptor: Acceptor,
    place: Option<Place>,
    stop: &mut Stop,
) {
    let phases = signal.phases();
    // Before anybody hears of it: no connection goes on as if nothing had happened.
    let Some(offers) = signal.retire(config.drain) else { return };
    reporter.write(State::Retiring, true);
    notify::extend(config.drain.min(ASK_FOR) + MARGIN);
    let open = reporter.open();
    notify::stopping(&format!("retiring: {open}"));
    tracing::info!(open, "retiring");
    let (mut succession, mut close) =
        (pin!(Succession::new(place, phases.clone(), offers).run()), pin!(acceptor.close(phases.clone())));
    let (mut second, mut alive, mut stages) = (interval(EACH_SECOND), Alive::new(), phases.subscribe());
    let (mut often, until) = (interval(OFTEN), Instant::now() + EACH_SECOND);
    let mut accepting = true;
    loop {
        let deadline = phases.stage().deadline(config.drain, config.drain_beside);
        tokio::select! {
            biased;
            () = signal.ended(), if !accepting => break,
            () = sleep_until(deadline) => return cut(reporter, &mut signal, "the deadline").await,
            () = stop.asked() => return cut(reporter, &mut signal, "a second signal").await,
            () = &mut close, if accepting => {
                accepting = false;
                reporter.write(State::Retiring, accepting);
            }
            never = &mut succession => match never {},
            _ = stages.changed() => notify::status(&status(&phases, reporter)),
            _ = often.tick(), if Instant::now() < until => {
                let began = Instant::now();
                reporter.write(State::Retiring, accepting);
                often.reset_after(OFTEN.max(began.elapsed() * SELDOM));
            }
            () = alive.tick() => notify::alive(),
            _ = second.tick() => {
                reporter.write(State::Retiring, accepting);
                notify::extend(deadline.saturating_duration_since(Instant::now()).min(ASK_FOR) + MARGIN);
                notify::status(&status(&phases, reporter));
            }
        }
    }
    notify::status(&format!("ended: {}", reporter.closed()));
    tracing::info!(late_bytes = reporter.late_bytes(), "ended: {}", reporter.closed());
}

fn status(phases: &Phases, reporter: &Reporter) -> String {
    format!("retiring, {}: {}", phases.stage().phase, reporter.progress())
}

async fn cut(reporter: &Reporter, signal: &mut Signal, why: &str) {
    let (open, left) = (reporter.each(), reporter.open());
    tracing::warn!(open = open.len(), "cut at {why}");
    for open in &open {
        tracing::warn!(kind = open.kind, route = open.route(), age_ms = open.age.as_millis() as u64, "cut");
    }
    signal.cut();
    notify::status(&format!("ended: {}; {left} were cut at {why}", reporter.closed()));
    // What was upgraded belongs to its handler, and ends with the process.
    let _ = timeout(DROP, signal.ended()).await;
    tracing::info!(late_bytes = reporter.late_bytes(), "ended: {}", reporter.closed());
}
