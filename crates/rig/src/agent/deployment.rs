//! What a deployment did, event by event.

use std::time::Duration;

use super::Failure;

/// What a deployment did.
#[derive(Debug)]
pub struct Deployment {
    /// `d-` and nine letters or digits.
    pub id: String,
    /// Those that came to pass, in order.
    pub events: Vec<Event>,
}

/// One event, with all of its scripts.
#[derive(Debug)]
pub struct Event {
    /// Its name.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// How long it took.
    pub duration: Duration,
    /// Everything its scripts printed, each line marked `[stdout]` or `[stderr]`.
    pub output: String,
    pub(super) tail: String,
}

/// How an event ended.
#[derive(Debug)]
pub enum Status {
    /// Well; or it had no scripts.
    Succeeded,
    /// Not well: the deployment is over.
    Failed(Failure),
    /// Not well, and the deployment goes on, as it was told to.
    Ignored(Failure),
}

impl Deployment {
    /// Whether no event ended it.
    pub fn succeeded(&self) -> bool {
        self.failure().is_none()
    }

    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        self.events.iter().find_map(|event| match &event.status {
            Status::Failed(failure) => Some(failure),
            Status::Succeeded | Status::Ignored(_) => None,
        })
    }

    /// The last event: the one that failed, if one did.
    ///
    /// # Panics
    /// Never: each deployment has one.
    pub fn last(&self) -> &Event {
        self.events.last().expect("a deployment has events")
    }

    /// The event of this name.
    ///
    /// # Panics
    /// Where the deployment did not come to it.
    #[track_caller]
    pub fn event(&self, name: &str) -> &Event {
        self.events.iter().find(|event| event.name == name).unwrap_or_else(|| panic!("no {name}: {}", self.ended()))
    }

    /// How it ended, in a line: `ok`, or the event that failed, and the code.
    pub fn ended(&self) -> String {
        let failed = |failure: &Failure| format!("{} {:?}", self.last().name, failure.code);
        self.failure().map_or("ok".to_owned(), failed)
    }

    /// Why it failed, if it did: the event, the code, and the end of what its script said.
    ///
    /// # Errors
    /// With that.
    pub fn outcome(&self) -> Result<(), String> {
        if self.succeeded() { Ok(()) } else { Err(format!("{}: {}", self.ended(), self.last().tail().trim())) }
    }

    /// The deployment, if it succeeded.
    ///
    /// # Panics
    /// With the output of the script that failed.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        let told =
            || format!("{}: {}", self.failure().map(ToString::to_string).unwrap_or_default(), self.last().tail());
        assert!(self.succeeded(), "{} failed: {}", self.last().name, told());
        self
    }

    /// The deployment, if it failed in `event`.
    ///
    /// # Panics
    /// Where it succeeded, or failed elsewhere.
    #[track_caller]
    pub fn expect_failure(self, event: &str) -> Self {
        assert!(!self.succeeded(), "wanted {event} to fail, and it did not: {}", self.last().tail());
        assert_eq!(self.last().name, event, "{}", self.last().tail());
        self
    }
}

impl Event {
    /// The end of the output, as much as the agent reports.
    pub fn tail(&self) -> &str {
        &self.tail
    }
}
