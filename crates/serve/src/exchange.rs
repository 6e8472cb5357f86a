//! Where a connection is in its exchange of messages.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Whether a message is under way on a connection.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// Bytes have arrived that no handler has been given yet: the beginning of a head.
    partial: AtomicBool,
    /// Requests whose responses have not ended.
    requests: AtomicU64,
}

impl Exchange {
    pub(crate) fn has_read(&self, bytes: usize) {
        if bytes > 0 {
            self.partial.store(true, Ordering::Release);
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.partial.load(Ordering::Acquire) || self.requests.load(Ordering::Acquire) > 0
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Message {
        self.requests.fetch_add(1, Ordering::Release);
        self.partial.store(false, Ordering::Release);
        Message(self.clone())
    }
}

/// A request whose response has not ended.
#[derive(Debug)]
pub(crate) struct Message(Arc<Exchange>);

impl Drop for Message {
    fn drop(&mut self) {
        // What was read meanwhile was the request's body; a next head is parsed as soon as this response has ended.
        self.0.partial.store(false, Ordering::Release);
        self.0.requests.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_head_and_a_response_that_has_not_ended_are_under_way() {
        let exchange = Arc::new(Exchange::default());
        assert!(!exchange.has_begun(), "fresh");
        exchange.has_read(3);
        assert!(exchange.has_begun(), "half a head");
        let message = exchange.begin();
        exchange.has_read(9);
        assert!(exchange.has_begun(), "busy");
        drop(message);
        assert!(!exchange.has_begun(), "idle");
    }
}
