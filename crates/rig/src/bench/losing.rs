//! What a release costs the clients: requests lost, connections closed and time, beside other ways to replace what serves.

use std::{io, thread, time::Duration};

use super::{
    Effort,
    chapter::{Bound, Chapter, Goal},
    figure::Figure,
    peers::{Kind, Peer},
};
use crate::{
    Load, Mode, Report,
    lossless::{each_round, mixed, stop},
    report::Span,
};

/// Until every client is in the midst of it.
const SETTLE: Duration = Duration::from_secs(2);
/// Rounds without activations that are enough to compare with: ten seconds.
const STEADY: usize = 33;
/// Connections of the mixed load.
const MIXED: usize = 2_000;
/// Each stop of this project takes as long as it waits for what may be on its way, 5 s.
const FEWER: usize = 5;
const ABSENT: &str = "Not in it: Pingora and shellflip, whose way ecdysis stands for; Puma, gunicorn and Capistrano.";
/// What the headline shows.
pub(super) const LOST: &str = "requests lost, c3b";
pub(super) const CLOSED: &str = "HTTP/1.1 connections closed, c3b";

/// Clients at once.
struct Scene {
    name: String,
    clients: Vec<(Mode, usize)>,
    /// Or ours alone.
    for_all: bool,
}

/// What one way did to the clients of a scene.
struct Run {
    whose: String,
    activations: usize,
    with: Vec<Report>,
    /// For a while, with none.
    without: Vec<Report>,
    lacks: Option<&'static str>,
}

/// # Errors
/// Where ours does not serve.
///
/// # Panics
/// Where the host does not boot, or an activation on it fails.
pub(super) fn run(effort: Effort) -> io::Result<Chapter> {
    let mut notes = vec![ABSENT.to_owned()];
    let mut peers = start(&mut notes)?;
    let (mut figures, mut totals) = (Vec::new(), [0.0; 2]);
    for scene in scenes(effort) {
        let mut runs = Vec::new();
        for (kind, peer) in peers.iter_mut().filter(|(kind, _)| scene.for_all || *kind == Kind::Ours) {
            eprintln!("{}: {}", scene.name, kind.name());
            runs.push(measure(*kind, peer, &scene, effort)?);
        }
        totals = [totals[0] + runs[0].lost(), totals[1] + runs[0].closed()];
        notes.extend(runs.iter().filter_map(|run| run.tell(&scene)));
        figures.extend(shown(&scene, &runs));
    }
    let slower = slower(&mut peers[0].1, effort)?;
    let total = |what: &str, n: usize| Figure::new(what, "ours", "", vec![totals[n]]);
    let goals = vec![
        Goal::of("requests lost by ours, all kinds of clients", Bound::AtMost(0.0), &total("", 0)),
        Goal::of("HTTP/1.1 connections closed by ours, all kinds", Bound::AtMost(0.0), &total("", 1)),
        Goal::of("p99.9 of c3 with activations, times that without", Bound::AtMost(1.1), &slower),
    ];
    figures.push(slower);
    Ok(Chapter { title: "Losing nothing", about: about(effort), figures, curves: Vec::new(), goals, notes })
}

fn about(effort: Effort) -> String {
    let (times, fewer) = (effort.activations, effort.activations.div_ceil(FEWER));
    format!(
        "Clients that never retry, over {times} releases, one each 300 ms or when the one before is done. Ours is `releasectl \
         activate` on a real systemd host; this project is also stopped and started, as it would be without its way, \
         {fewer} times, since each stop waits 5 s for what may be on its way. Each of the others is set up by its own \
         documentation's advice, and changes what it answers each time; a proxy has a server behind it that stays. Times are \
         compared with the same clients of the same program without releases, of all kinds at once for the one that suffers \
         most."
    )
}

/// All that can be had, ours first.
fn start(notes: &mut Vec<String>) -> io::Result<Vec<(Kind, Peer)>> {
    let mut peers = Vec::new();
    for kind in Kind::ALL {
        eprintln!("starting {}", kind.name());
        match Peer::start(kind) {
            Ok(peer) => peers.push((kind, peer)),
            Err(error) if kind == Kind::Ours => return Err(error),
            Err(error) => notes.push(format!("{} could not be had: {error}", kind.name())),
        }
    }
    Ok(peers)
}

/// Each kind of client by itself, and all of them together. What a kind alone can tell of the others, these tell: a new
/// connection each time, one that is never idle, and one that is, with a wire between.
fn scenes(effort: Effort) -> Vec<Scene> {
    let modes = if effort.is_whole() { Mode::ALL } else { &[Mode::C3b] };
    let alone = modes.iter().map(|mode| Scene {
        name: mode.to_string().split(' ').next().unwrap_or_default().to_owned(),
        clients: vec![(*mode, mode.clients())],
        for_all: matches!(mode, Mode::C1 | Mode::C2 | Mode::C3b),
    });
    let count = MIXED.min(effort.most);
    let together = Scene { name: "all kinds".to_owned(), clients: mixed(count), for_all: effort.is_whole() };
    alone.chain([together]).collect()
}

fn measure(kind: Kind, peer: &mut Peer, scene: &Scene, effort: Effort) -> io::Result<Run> {
    let activations = if kind == Kind::Restart { effort.activations.div_ceil(FEWER) } else { effort.activations };
    let settle = SETTLE.min(effort.busy);
    let (without, _) = load(peer, scene, 0, activations.min(STEADY), settle)?;
    let (with, spans) = load(peer, scene, activations, activations, settle)?;
    let lacks = with.iter().find_map(|report| spans.iter().find_map(|span| report.lacks(*span)));
    Ok(Run { whose: kind.name(), activations, with, without, lacks })
}

/// The scene's clients over some activations, and as long as if there were `rounds` of them.
fn load(
    peer: &mut Peer,
    scene: &Scene,
    activations: usize,
    rounds: usize,
    settle: Duration,
) -> io::Result<(Vec<Report>, Vec<Span>)> {
    let start = |(mode, count): &(Mode, usize)| peer.load(*mode, *count);
    let loads = scene.clients.iter().map(start).collect::<io::Result<Vec<Load>>>()?;
    thread::sleep(settle);
    let mut done = Vec::new();
    each_round(rounds, |n| {
        if n < activations && !done.iter().any(io::Result::is_err) {
            done.push(peer.activate());
        }
    });
    let reports = stop(loads);
    Ok((reports, done.into_iter().collect::<io::Result<_>>()?))
}

fn shown(scene: &Scene, runs: &[Run]) -> Vec<Figure> {
    let name = &scene.name;
    let group = |what: String, unit, value: &dyn Fn(&Run) -> f64| {
        runs.iter().map(move |run| Figure::new(what.clone(), run.whose.clone(), unit, vec![value(run)])).collect()
    };
    let mut groups: Vec<Vec<Figure>> = vec![group(format!("requests lost, {name}"), "", &Run::lost)];
    if scene.clients.iter().any(|(mode, _)| mode.is_handed_over()) {
        groups.push(group(format!("HTTP/1.1 connections closed, {name}"), "", &Run::closed));
    }
    groups.push(group(format!("p99.9 times that without releases, {name}"), "", &Run::slower));
    groups.push(group(format!("the longest request, {name}"), "ms", &Run::longest));
    groups.concat()
}

impl Run {
    fn lost(&self) -> f64 {
        self.with.iter().map(Report::lost).sum::<u64>() as f64
    }

    /// Only those on which a client would go on.
    fn closed(&self) -> f64 {
        let kept = self.with.iter().filter(|report| report.mode.is_handed_over());
        kept.map(|report| report.connections_closed).sum::<u64>() as f64
    }

    /// Of all kinds of clients the one that suffers most.
    fn slower(&self) -> f64 {
        let pairs = self.with.iter().zip(&self.without).filter(|(_, without)| without.sent() > 0);
        pairs.map(|(with, without)| with.quantile(0.999) / without.quantile(0.999)).fold(0.0, f64::max)
    }

    fn longest(&self) -> f64 {
        self.with.iter().map(|report| report.longest().as_secs_f64() * 1e3).fold(0.0, f64::max)
    }

    /// What was lost of what, by class; nothing where there is nothing to say.
    fn tell(&self, scene: &Scene) -> Option<String> {
        let lost = self.with.iter().filter(|report| report.lost() > 0);
        let kind = |report: &Report| format!("{}: {} of {} sent", report.mode, report.losses(), report.sent());
        let mut told: Vec<String> = lost.map(kind).collect();
        let before: u64 = self.without.iter().map(Report::lost).sum();
        told.extend((before > 0).then(|| format!("{before} without any release")));
        told.extend(self.lacks.map(|lack| format!("at some release there was {lack}")));
        let (name, times) = (&scene.name, self.activations);
        (!told.is_empty()).then(|| format!("{}, {name}, {times} releases: {}", self.whose, told.join("; ")))
    }
}

/// The same clients of ours in turn without and with activations, pair by pair.
fn slower(ours: &mut Peer, effort: Effort) -> io::Result<Figure> {
    let scene = Scene { name: String::new(), clients: vec![(Mode::C3, Mode::C3.clients())], for_all: false };
    let rounds = effort.activations.min(STEADY);
    let [mut with, mut without] = [const { Vec::new() }; 2];
    for round in 1..=effort.rounds {
        eprintln!("c3 without and with activations, {round} of {}", effort.rounds);
        for (activations, values) in [(0, &mut without), (rounds, &mut with)] {
            let (reports, _) = load(ours, &scene, activations, rounds, SETTLE.min(effort.busy))?;
            values.push(reports[0].quantile(0.999));
        }
    }
    let [with, without] = [with, without].map(|values| Figure::new("p99.9 of c3", "ours", "ms", values));
    let mut ratio = with.ratio_to(&without);
    ratio.whose = "ours, with activations / without".to_owned();
    Ok(ratio)
}
