//! What a release costs the clients: requests lost, connections closed and time, beside other ways to replace what serves.

mod beside;
mod goals;
mod round;
mod run;
mod scene;
mod seen;

use std::io;

use self::{beside::Beside, goals::goals, round::Round, run::Run, scene::Scene};
use super::{
    Effort,
    chapter::Chapter,
    peers::{Kind, Peer},
};
use crate::Mode;

/// The releases of a scene are split over so many rounds, in turn with those of the other ways.
const ROUNDS: usize = 2;
/// Each stop of this project takes as long as it waits for what may be on its way, 5 s.
const FEWER: usize = 5;
/// Releases of each run where runs of c3 with and without are compared pair by pair: as long as ten seconds.
const OF_A_PAIR: usize = 33;
const ABSENT: &str = "Not in it: Pingora and shellflip, whose way ecdysis stands for; Puma, gunicorn and Capistrano.";
const WAITS: &str = "Where p99.9 with releases comes from: server and clients of c3 take 18 % of the two processors, and an activation \
    each 300 ms takes 30 % more, so who asks waits for a turn on them. Of the 30, what systemd does between fork and exec of the \
    new instance, its mount namespace above all, takes 13, systemctl 6, systemd 5, releasectl 3, the rest of the host 3 (perf, \
    system-wide, by process). Where a unit hardened alike that serves nobody is started each 300 ms, and nothing is activated, \
    p99.9 of c3 is 1.5 to 1.7 times that without (3.2 to 3.8 ms, three runs); with activations it was 5.1 to 6.8 ms in the same \
    minutes. Tried: releasectl and all it starts at nice 10, which made no difference (5.6 to 6.0 ms).";
/// What the headline shows: of the clients that are hardest to keep, as far away as clients are.
pub(super) const SHOWN: Mode = Mode::C3b;
pub(super) const RELEASES: &str = "releases, c3b";
pub(super) const LOST: &str = "requests lost in 100 releases, c3b";
pub(super) const CLOSED: &str = "HTTP/1.1 connections closed in 100 releases, c3b";

/// # Errors
/// Where ours does not serve.
///
/// # Panics
/// Where the host does not boot, or an activation on it fails.
pub(super) fn run(effort: Effort) -> io::Result<Chapter> {
    let mut notes = [ABSENT, WAITS].map(str::to_owned).to_vec();
    let mut peers = start(&mut notes)?;
    let mut played = Vec::new();
    for scene in Scene::all(effort) {
        let runs = in_turn(&mut peers, &scene, effort, &mut notes)?;
        played.push(Beside { scene, runs });
    }
    let pairs = pairs(&mut peers[0], effort)?;
    let goals = goals(&played, &pairs);
    played.push(pairs);
    notes.extend(played.iter().flat_map(Beside::notes));
    let (figures, about) = (played.iter().flat_map(Beside::figures).collect(), about(effort));
    Ok(Chapter { title: "Losing nothing", about, figures, curves: Vec::new(), goals, notes })
}

fn about(effort: Effort) -> String {
    let (times, fewer) = (effort.activations, effort.activations.div_ceil(FEWER));
    format!(
        "Clients that never retry, over {times} releases, one each 300 ms or when the one before is done, in {} rounds that \
         alternate over all ways, each after ten seconds of the same clients without releases. Ours is `releasectl \
         activate` on a real systemd host; this project is also stopped and started, as it would be without its way, \
         {fewer} times, since each stop waits 5 s for what may be on its way: losses and closes are given for 100 releases. Each \
         of the others is set up by its own documentation's advice, and changes what it answers each time; a proxy has a \
         server behind it that stays. Times are of answered requests; of all kinds of clients at once p99.9 is that of the \
         kind that suffers most, the longest request that of any. \
         All ways meet c1 (whose new connections wait in a queue), c2 (whose connection is never idle), c3b (whose connection \
         is, with a wire between), c4 (HTTP/2) and all kinds at once. The other kinds by themselves are for ours alone, to see \
         that none of them is lost: of the other ways they would tell no more than these.",
        rounds(effort)
    )
}

/// All that can be had, ours first.
fn start(notes: &mut Vec<String>) -> io::Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for kind in Kind::ALL {
        eprintln!("starting {}", kind.name());
        match Peer::start(kind) {
            Ok(peer) => peers.push(peer),
            Err(error) if kind == Kind::Ours => return Err(error),
            Err(error) => notes.push(format!("{} could not be had: {error}", kind.name())),
        }
    }
    Ok(peers)
}

/// A B A B, so that what the machine does meanwhile meets all of them. A peer that fails is told of, and not asked again.
fn in_turn(peers: &mut Vec<Peer>, scene: &Scene, effort: Effort, notes: &mut Vec<String>) -> io::Result<Vec<Run>> {
    let kinds = peers.iter().map(Peer::kind).filter(|kind| scene.is_for(*kind));
    let mut runs: Vec<Run> = kinds.map(Run::of).collect();
    for n in 1..=rounds(effort) {
        for run in &mut runs {
            let Some(at) = peers.iter().position(|peer| peer.kind() == run.kind) else { continue };
            let whose = run.kind.name();
            eprintln!("{}, {n} of {}: {whose}", scene.name, rounds(effort));
            match Round::measure(&mut peers[at], scene, releases(run.kind, effort), effort) {
                Ok(round) => run.rounds.push(round),
                Err(error) if run.kind == Kind::Ours => return Err(error),
                Err(error) => {
                    notes.push(format!("{whose} failed in {}, and is not in what follows: {error}", scene.name));
                    peers.remove(at);
                }
            }
        }
    }
    runs.retain(|run| !run.rounds.is_empty());
    Ok(runs)
}

fn rounds(effort: Effort) -> usize {
    effort.rounds.min(ROUNDS)
}

/// Of one round.
fn releases(kind: Kind, effort: Effort) -> usize {
    let all = if kind == Kind::Restart { effort.activations.div_ceil(FEWER) } else { effort.activations };
    all.div_ceil(rounds(effort))
}

/// Runs of c3 without releases and with them, in turn, more often than the others.
fn pairs(ours: &mut Peer, effort: Effort) -> io::Result<Beside> {
    let (mut scene, mut run) = (Scene::of(Mode::C3), Run::of(Kind::Ours));
    scene.name = "c3, pair by pair".to_owned();
    for n in 1..=effort.rounds {
        eprintln!("{}, {n} of {}", scene.name, effort.rounds);
        run.rounds.push(Round::measure(ours, &scene, OF_A_PAIR.min(effort.activations), effort)?);
    }
    Ok(Beside { scene, runs: vec![run] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bench::peers, machine};

    #[test]
    fn a_peer_that_fails_in_the_middle_is_named_and_the_others_go_on_where_there_is_a_system_for_them() {
        machine::prepare().unwrap();
        if let Err(error) = peers::root() {
            return println!("none fails: {error}");
        }
        let [nginx, haproxy] = [Kind::Nginx, Kind::Haproxy].map(|kind| Peer::start(kind).unwrap());
        nginx.spoil().unwrap();
        let (mut peers, mut notes) = (vec![nginx, haproxy], Vec::new());
        let mut scene = Scene::of(Mode::C3b);
        scene.clients[0].1 = 2;
        let runs = in_turn(&mut peers, &scene, Effort::SHORT, &mut notes).unwrap();
        assert_eq!(runs.iter().map(|run| run.kind).collect::<Vec<_>>(), [Kind::Haproxy]);
        assert_eq!(peers.iter().map(Peer::kind).collect::<Vec<_>>(), [Kind::Haproxy]);
        assert!(notes.len() == 1 && notes[0].starts_with(&Kind::Nginx.name()), "{notes:?}");
    }
}
