//! What one way did to the clients of a scene, once: without releases, and then with some.

use std::io;

use super::{scene::Scene, seen::Seen};
use crate::bench::{Effort, peers::Peer};

/// As long as ten seconds without releases: enough to compare with.
const STEADY: usize = 33;

#[derive(Clone, Debug)]
pub(super) struct Round {
    pub releases: usize,
    /// For each of the scene's kinds of clients.
    pub with: Vec<Seen>,
    pub without: Vec<Seen>,
    /// What would have to be there at each release for this to show anything.
    pub lacks: Option<&'static str>,
}

impl Round {
    /// # Errors
    /// Where a release does not come to serve.
    pub fn measure(peer: &mut Peer, scene: &Scene, releases: usize, effort: Effort) -> io::Result<Self> {
        let (without, _) = scene.play(peer, 0, STEADY.min(effort.activations), effort)?;
        let (with, spans) = scene.play(peer, releases, releases, effort)?;
        let lacks = with.iter().find_map(|report| spans.iter().find_map(|span| report.lacks(*span)));
        let [with, without] = [with, without].map(|reports| reports.iter().map(Seen::of).collect());
        Ok(Self { releases, with, without, lacks })
    }

    /// Each way in the same measure, however many releases it came to.
    pub fn in_100(&self, count: impl Fn(&Seen) -> u64) -> f64 {
        self.with.iter().map(count).sum::<u64>() as f64 * 100.0 / self.releases as f64
    }

    /// Everything, with releases and without.
    pub fn total(&self, count: impl Fn(&Seen) -> u64) -> u64 {
        self.with.iter().chain(&self.without).map(count).sum()
    }

    /// How many times p99.9 is what it is without releases, of the nth kind; none where nothing was answered.
    pub fn ratio(&self, n: usize) -> Option<f64> {
        Some(self.with[n].times?.p99_9 / self.without[n].times?.p99_9)
    }
}

/// Of all kinds of clients, in milliseconds.
pub(super) fn longest(seen: &[Seen]) -> Option<f64> {
    seen.iter().filter_map(|seen| Some(seen.times?.longest)).reduce(f64::max)
}
