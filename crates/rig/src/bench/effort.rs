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
}

impl Effort {
    /// What the committed run is made with.
    pub const WHOLE: Self = Self { times: 11, rounds: 5, busy: Duration::from_secs(3), activations: 110, most: 10_000 };
    /// Enough to see that it works.
    pub const SHORT: Self = Self { times: 1, rounds: 1, busy: Duration::from_millis(200), activations: 2, most: 100 };

    /// Whether it is enough for figures that are published.
    pub(super) fn is_whole(self) -> bool {
        self.activations >= Self::WHOLE.activations
    }
}
