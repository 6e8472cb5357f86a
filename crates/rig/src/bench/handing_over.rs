//! Idle connections handed over to a fresh instance: how long that takes, who waits for it, and how it grows.

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use super::{
    Effort,
    chapter::{Bound, Chapter, Curve, Goal},
    figure::Figure,
    idle::{Idle, Request},
    stage::{SOCKET, Stage, ms, timed},
};
use crate::Host;

const ABOUT: &str = "On a real systemd host, all in memory. So many connections stand open, each with a request behind it. \
    `releasectl restart` is an activation of the release that is current, and hands them over; `systemctl start` of the same \
    unit comes in turn with it, and nobody asks anything meanwhile. Then an instance is stopped by hand, while another is ready: \
    from `systemctl stop` to its end, nobody asking either. In an activation of its own, and as long without one, 2,000 requests \
    a second are asked for two seconds, or until each connection has been asked once, each at a moment of its own: a connection \
    is idle nearly all of the time. What the requests take without an activation is what the machine and the client themselves \
    take.";
const NOTE: &str = "Where the time goes: an idle connection is out of hyper already, no more than its socket, and is handed over \
    from there: sendmsg(2) and recvmsg(2) of descriptors, sixteen under way at once, epoll_ctl(2) on both sides, and an answer \
    for each when it rests in the successor. What an activation takes beyond the start is told in the chapter before. Tried: \
    each connection taken out of hyper when it is handed over, and put into hyper where it comes to: 10,000 took four and a half \
    times as long, without systemd (1,058 ms beside 234).";
/// In which clients ask, at the least; the activation begins after a quarter of it.
const WINDOW: Duration = Duration::from_secs(2);
/// More would measure the client, which is one thread.
const REQUESTS_PER_SECOND: usize = 2_000;
const COUNTS: [usize; 3] = [10, 1_000, 10_000];
const GONE: &str = "systemctl stop to the end of who had them, all handed over";
const LONGEST: &str = "longest request on any of them";

/// # Panics
/// Where a host does not boot, an activation fails, or a connection is closed.
pub(super) fn run(effort: Effort) -> io::Result<Chapter> {
    let stage = Stage::in_memory()?;
    let address: SocketAddr = SOCKET.parse().expect("an address");
    let (mut idle, mut crowds) = (Idle::none()?, Vec::new());
    let counts = COUNTS.map(|count| count.min(effort.most));
    for (at, count) in counts.into_iter().enumerate().filter(|(at, count)| *at == 0 || counts[at - 1] < *count) {
        stage.host().in_network(|| idle.open_until(count, address))?;
        let mut crowd = Crowd { count, ..Crowd::default() };
        for n in 1..=effort.rounds {
            eprintln!("{count} idle connections, {n} of {}", effort.rounds);
            crowd.measure(&stage, &mut idle, at * 1_000 + n)?;
        }
        crowds.push(crowd);
    }
    let mut chapter = Chapter {
        title: "Handing over",
        about: ABOUT.to_owned(),
        figures: Vec::new(),
        curves: Vec::new(),
        goals: Vec::new(),
        notes: vec![NOTE.to_owned()],
    };
    tell(crowds, &mut chapter);
    Ok(chapter)
}

/// In milliseconds.
#[derive(Default)]
struct Crowd {
    count: usize,
    start: Vec<f64>,
    restart: Vec<f64>,
    gone: Vec<f64>,
    longest: Vec<f64>,
    longest_without: Vec<f64>,
    /// Rounds whose requests missed the activation, or its end: their longest tells nothing of it.
    missed: usize,
}

impl Crowd {
    fn measure(&mut self, stage: &Stage, idle: &mut Idle, n: usize) -> io::Result<()> {
        self.start.push(stage.start(&stage.extra(n)));
        self.restart.push(timed(|| restart(stage)));
        stage.settle();
        self.longest_without.push(longest(&self.ask(idle)?));
        let (span, requests) = self.ask_around(idle, || restart(stage))?;
        stage.settle();
        self.longest.push(longest(&requests));
        let are_there = requests.iter().any(|request| request.meets(&span));
        let go_on = requests.iter().any(|request| request.began > span.end);
        self.missed += usize::from(!are_there || !go_on);
        self.gone.push(stop_who_has_them(stage, n));
        // The one that nobody knows of hands them back.
        restart(stage);
        stage.settle();
        // All of them are there, and none has come to its idle limit when it goes on.
        self.ask(idle).map(drop)
    }

    /// As many a second, however many connections there are.
    fn ask(&self, idle: &mut Idle) -> io::Result<Vec<Request>> {
        let times = (REQUESTS_PER_SECOND * WINDOW.as_secs() as usize / self.count).max(1);
        idle.ask_each(self.window(), times as u32)
    }

    fn window(&self) -> Duration {
        WINDOW.max(Duration::from_secs(1) * self.count as u32 / REQUESTS_PER_SECOND as u32)
    }

    /// When `act` went on, and the requests that were asked around it.
    fn ask_around(&self, idle: &mut Idle, act: impl FnOnce() + Send) -> io::Result<(Range<Instant>, Vec<Request>)> {
        thread::scope(|scope| {
            let act = scope.spawn(|| {
                thread::sleep(self.window() / 4);
                let began = Instant::now();
                act();
                began..Instant::now()
            });
            let requests = self.ask(idle)?;
            Ok((act.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), requests))
        })
    }

    fn tell_missed(&self) -> Option<String> {
        let Self { count, missed, .. } = self;
        let told =
            || format!("{count} idle connections: in {missed} rounds no request met the activation, or came after it");
        (*missed > 0).then(told)
    }
}

fn restart(stage: &Stage) {
    stage.host().succeed("releasectl restart");
}

fn longest(requests: &[Request]) -> f64 {
    ms(requests.iter().map(|request| request.took).max().unwrap_or_default())
}

/// By hand, so that its end is waited for.
fn stop_who_has_them(stage: &Stage, n: usize) -> f64 {
    let serving = serving(stage.host());
    stage.host().succeed(&format!("systemctl start {}", stage.extra(500_000 + n)));
    timed(|| drop(stage.host().succeed(&format!("systemctl stop {serving}"))))
}

fn serving(host: &Host) -> String {
    let unit = host.succeed("systemctl list-units --plain --no-legend --state=active 'app-*@*' | cut -d' ' -f1");
    assert_eq!(unit.lines().count(), 1, "{}: one instance serves: {unit}", host.name());
    unit.trim().to_owned()
}

fn tell(crowds: Vec<Crowd>, chapter: &mut Chapter) {
    let (mut growth, mut waits) = (Vec::new(), Vec::new());
    for crowd in crowds {
        chapter.notes.extend(crowd.tell_missed());
        let Crowd { count, start, restart, gone, longest, longest_without, .. } = crowd;
        let name = |what: &str| format!("{what}, {count} idle connections");
        let figure = |what: String, whose: &str, values| Figure::new(what, whose, "ms", values);
        let restart = figure(name("an activation beside systemctl start"), "ours, releasectl restart", restart);
        let start = figure(restart.what.clone(), "systemctl start of the same unit", start);
        let beyond = restart.beyond(&start, &name("activation beyond systemctl start"), "ours");
        let gone = figure(name(GONE), "ours", gone);
        let with = figure(name(LONGEST), "ours, during a handover", longest);
        let without = figure(name(LONGEST), "without a handover", longest_without);
        for (is, most) in [(&beyond, 60.0), (&gone, 250.0), (&with, 50.0)] {
            chapter.goals.push(Goal::of(&is.what, Bound::AtMost(most), is));
        }
        growth.extend([&restart, &start, &gone].map(|figure| (count, of_curve(figure))));
        waits.extend([&with, &without].map(|figure| (count, of_curve(figure))));
        chapter.figures.extend([restart, start, beyond, gone, with, without]);
    }
    chapter.goals.extend(growth_goal(&growth));
    let curve = |what: &str, points| Curve { what: what.to_owned(), over: "connections", points };
    chapter.curves = vec![curve("handing over", growth), curve(LONGEST, waits)];
}

/// Whether ten times as many take ten times as long, or less: where it took so long to begin with that it can be told.
fn growth_goal(points: &[(usize, Figure)]) -> Option<Goal> {
    let gone: Vec<_> = points.iter().filter(|(_, figure)| figure.what.starts_with(GONE)).collect();
    let [.., (fewer, before), (more, after)] = gone.as_slice() else { return None };
    let times = *more as f64 / *fewer as f64;
    let what = format!("{GONE}: growth from {fewer} to {more} connections, as a share of linear");
    Some(Goal { what, bound: Bound::AtMost(1.0), is: after.median() / before.median() / times, unit: "" })
}

/// A line of its own: those of one chart are told apart by whose they are.
fn of_curve(figure: &Figure) -> Figure {
    let mut figure = figure.clone();
    if figure.what.starts_with(GONE) {
        figure.whose = "ours, systemctl stop to its end".to_owned();
    }
    figure
}
