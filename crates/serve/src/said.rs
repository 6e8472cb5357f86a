//! What the log says once, and not again for as long as it lasts.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether it has been said.
#[derive(Debug, Default)]
pub(crate) struct Said(AtomicBool);

impl Said {
    /// Whether it is to be said now.
    pub(crate) fn begins(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    /// It is over: the next time is another one.
    pub(crate) fn ends(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_said_once_and_what_comes_again_is_said_again() {
        let said = Said::default();
        assert!(said.begins() && !said.begins());
        said.ends();
        assert!(said.begins());
    }
}
