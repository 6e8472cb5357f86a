//! What happens to an agent, or to its host, in the midst of a deployment.

use std::sync::atomic::{AtomicBool, Ordering};

use super::lifecycle::Event;
use crate::Host;

/// Something that happens once, at an event.
#[derive(Debug)]
pub struct Incident {
    event: &'static str,
    /// A command that exits with 0 once the script of the event is where it is to happen; before the event, where there is none.
    moment: Option<String>,
    what: What,
    has_happened: AtomicBool,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum What {
    /// The process that has started the script and reads what it prints is killed; the script is not.
    Killed,
    /// The agent's service is restarted: all of its control group ends.
    Restarted,
    /// A command runs on the host.
    Command(String),
}

impl Incident {
    /// Before an event begins.
    pub fn before(event: &'static str, command: impl Into<String>) -> Self {
        Self { event, moment: None, what: What::Command(command.into()), has_happened: AtomicBool::new(false) }
    }

    /// While a script of an event runs, as soon as the command `moment` exits with 0 in the host.
    pub fn during(event: &'static str, moment: impl Into<String>, what: What) -> Self {
        Self { event, moment: Some(moment.into()), what, has_happened: AtomicBool::new(false) }
    }

    fn happens(&self) -> bool {
        !self.has_happened.swap(true, Ordering::Relaxed)
    }
}

/// Those of one agent.
#[derive(Debug, Default)]
pub(super) struct Incidents(Vec<Incident>);

impl Incidents {
    pub fn push(&mut self, incident: Incident) {
        self.0.push(incident);
    }

    /// Does what is to be done before an event.
    pub fn before(&self, event: Event, host: &Host) {
        for incident in self.0.iter().filter(|incident| incident.event == event.name() && incident.moment.is_none()) {
            if let What::Command(command) = &incident.what
                && incident.happens()
            {
                host.run(command);
            }
        }
    }

    /// Whether something may yet happen while scripts of this event run.
    pub fn may_come(&self, event: Event) -> bool {
        self.0.iter().any(|incident| incident.waits_for(event))
    }

    /// What happens now.
    pub fn now(&self, event: Event, host: &Host) -> Option<&What> {
        let mut waiting = self.0.iter().filter(|incident| incident.waits_for(event));
        let is_here = |moment: &String| host.run(moment).code == 0;
        let incident = waiting.find(|incident| incident.moment.as_ref().is_some_and(is_here))?;
        incident.happens().then_some(&incident.what)
    }

    /// Those that never happened: whoever wanted to see what comes of them has seen nothing.
    pub fn missed(&self) -> Vec<String> {
        let missed = self.0.iter().filter(|incident| !incident.has_happened.load(Ordering::Relaxed));
        missed.map(|incident| format!("{:?} in {}", incident.what, incident.event)).collect()
    }
}

impl Incident {
    fn waits_for(&self, event: Event) -> bool {
        self.event == event.name() && self.moment.is_some() && !self.has_happened.load(Ordering::Relaxed)
    }
}
