//! How much is done for a figure.

use std::time::Duration;

/// How much is done for a figure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often a short thing is timed, such as a verb.
    pub times: usize,
    /// How often what takes seconds is measured, in turn with its peers.
    pub rounds: usize,
    /// How long a server is kept busy for one figure.
    pub busy: Duration,
    /// Activations or reloads that each kind of client sees.
    pub activations: usize,
    /// Where a curve ends: connections, releases, files.
    pub most: usize,
    /// How often everything is built from nothing, which takes minutes.
    pub cold_builds: usize,
}

impl Effort {
    /// What the committed run is made with.
    pub const WHOLE: Self =
        Self { times: 11, rounds: 5, busy: Duration::from_secs(2), activations: 110, most: 10_000, cold_builds: 1 };
    /// Enough to see that it works.
    pub const SHORT: Self =
        Self { times: 1, rounds: 1, busy: Duration::from_millis(200), activations: 2, most: 100, cold_builds: 0 };

    /// Whether it is enough for figures that are published.
    pub(super) fn is_whole(self) -> bool {
        self.activations >= Self::WHOLE.activations
    }

    /// Where a curve is measured that need not go further than `most`: 1, 10, 100, …
    pub(super) fn counts(self, most: usize) -> impl Iterator<Item = usize> {
        let most = most.min(self.most);
        std::iter::successors(Some(1), |count: &usize| Some(count * 10)).take_while(move |count| *count <= most)
    }
}
