//! What all ways did to the clients of a scene, beside each other.

use std::collections::BTreeSet;

use super::{
    round::{Round, longest},
    run::Run,
    scene::Scene,
    seen::Seen,
};
use crate::{bench::figure::Figure, outcome::Outcome};

pub(super) struct Beside {
    pub scene: Scene,
    /// Ours first.
    pub runs: Vec<Run>,
}

impl Beside {
    /// What is to be said beside the figures.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.runs.iter().filter_map(|run| run.tell(&self.scene))
    }

    pub fn figures(&self) -> Vec<Figure> {
        [self.counts(), self.classes(), self.closed(), self.times()].concat()
    }

    fn counts(&self) -> Vec<Figure> {
        let what = format!("releases, {}", self.scene.name);
        let releases = |run: &Run| Figure::new(&what, run.kind.name(), "", vec![run.releases() as f64]);
        let releases = self.runs.iter().map(releases).collect();
        let sent = self.all("requests sent in 100 releases", "", |_, round| Some(round.in_100(|seen| seen.sent)));
        let lost = self.all("requests lost in 100 releases", "", |_, round| Some(round.in_100(Seen::lost)));
        [releases, sent, lost].concat()
    }

    /// Those in which any of them lost a request.
    fn classes(&self) -> Vec<Figure> {
        let rounds = self.runs.iter().flat_map(|run| &run.rounds);
        let lost = rounds.flat_map(|round| &round.with).flat_map(|seen| seen.lost.keys().copied());
        let classes: BTreeSet<Outcome> = lost.collect();
        let of = |outcome| {
            let count = move |seen: &Seen| seen.lost.get(&outcome).copied().unwrap_or(0);
            self.all(&format!("requests lost in 100 releases, {outcome}"), "", |_, round| Some(round.in_100(count)))
        };
        classes.into_iter().flat_map(of).collect()
    }

    fn closed(&self) -> Vec<Figure> {
        if !self.scene.is_handed_over() {
            return Vec::new();
        }
        let what = "HTTP/1.1 connections closed in 100 releases";
        self.all(what, "", |_, round| Some(round.in_100(|seen| seen.closed)))
    }

    fn times(&self) -> Vec<Figure> {
        let p99_9 = |seen: &[Seen], run: &Run| Some(seen[run.suffers()?].times?.p99_9);
        [
            self.all("p99.9 with releases", "ms", |run, round| p99_9(&round.with, run)),
            self.all("p99.9 without releases", "ms", |run, round| p99_9(&round.without, run)),
            self.runs.iter().filter_map(|run| run.slower(&self.scene)).collect(),
            self.all("the longest request with releases", "ms", |_, round| longest(&round.with)),
            self.all("the longest request without releases", "ms", |_, round| longest(&round.without)),
        ]
        .concat()
    }

    fn all(&self, what: &str, unit: &'static str, value: impl Fn(&Run, &Round) -> Option<f64>) -> Vec<Figure> {
        let what = format!("{what}, {}", self.scene.name);
        self.runs.iter().filter_map(|run| run.figure(&what, unit, |round| value(run, round))).collect()
    }
}
