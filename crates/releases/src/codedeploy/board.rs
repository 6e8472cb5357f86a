//! A line for each host that is being deployed to, and one for the whole, below what is said, where a person watches.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar};

use super::{
    id::Id,
    record::{Deployment, Host, Status},
};
use crate::screen::{TICK, columns, cut, printable, say, spinner, step};

/// Of a host that failed, so many last lines.
const TAIL: usize = 20;

/// What was said of each host so far.
#[derive(Debug)]
pub struct Board {
    said: BTreeMap<Id, Status>,
    all: MultiProgress,
    hosts: BTreeMap<Id, ProgressBar>,
    /// The last line: also while no host does anything, somebody is to see that this goes on.
    whole: ProgressBar,
}

impl Board {
    /// Nothing was said yet.
    pub fn new() -> Self {
        let all = MultiProgress::new();
        let whole = all.add(spinner());
        whole.enable_steady_tick(TICK);
        Self { said: BTreeMap::new(), all, hosts: BTreeMap::new(), whole }
    }

    /// Says what is new.
    pub fn update<'a>(&mut self, deployment: &Deployment, hosts: impl ExactSizeIterator<Item = &'a Host>) {
        let (all, mut ended) = (hosts.len(), 0);
        for host in hosts {
            ended += usize::from(host.status.is_final());
            self.show(host);
            let before = self.said.insert(host.target_id.clone(), host.status);
            if before != Some(host.status) && host.status != Status::Pending {
                self.all.suspend(|| say(&told(host)));
            }
        }
        let Deployment { deployment_id: id, status, .. } = deployment;
        self.whole.set_message(fitted(&format!("{id} {status}, {ended} of {all} hosts")));
    }

    fn show(&mut self, host: &Host) {
        let event = host.event().filter(|_| host.status == Status::InProgress);
        let Some(event) = event else {
            if let Some(line) = self.hosts.remove(&host.target_id) {
                line.finish_and_clear();
            }
            return;
        };
        let line = self.hosts.entry(host.target_id.clone()).or_insert_with(|| {
            let line = self.all.insert_before(&self.whole, spinner());
            line.enable_steady_tick(TICK);
            line
        });
        line.set_message(fitted(&format!("{} {}", host.target_id, event.lifecycle_event_name)));
    }
}

/// What follows is said where they were.
impl Drop for Board {
    fn drop(&mut self) {
        self.hosts.values().chain([&self.whole]).for_each(ProgressBar::finish_and_clear);
    }
}

/// The spinner, and how long it takes, need some columns, too.
fn fitted(message: &str) -> String {
    cut(message, columns().saturating_sub(10))
}

/// A line; of a host that failed the event, the code, the message, and the last lines of its output.
fn told(host: &Host) -> String {
    // One that was skipped has begun nothing.
    if !host.status.is_final() || host.event().is_none() {
        return format!("  {:<19} {}", host.target_id, host.status);
    }
    let mut text = step(host.target_id.as_str(), host.took(), &host.status.to_string());
    if let Some(event) = host.failed_event() {
        let diagnostics = event.diagnostics.clone().unwrap_or_default();
        let why = format!("{}: {}: {}", event.lifecycle_event_name, diagnostics.error_code, diagnostics.message);
        let lines: Vec<_> = diagnostics.log_tail.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].iter().map(|line| format!("\n  | {}", printable(line)));
        text += &format!("\n  {}{}", printable(&why), tail.collect::<String>());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_failed_is_told_with_its_event_its_code_and_the_end_of_its_output() {
        let log: String = (0..30).map(|line| format!("line {line}\\n")).collect();
        let host: Host = serde_json::from_str(&format!(
            r#"{{"targetId":"i-1","status":"Failed","lifecycleEvents":[
                {{"lifecycleEventName":"Install","status":"Succeeded","startTime":10,"endTime":11}},
                {{"lifecycleEventName":"AfterInstall","status":"Failed","startTime":11,"endTime":12.5,
                  "diagnostics":{{"errorCode":"ScriptFailed","scriptName":"a","message":"no","logTail":"{log}"}}}},
                {{"lifecycleEventName":"ApplicationStart","status":"Skipped"}}]}}"#
        ))
        .unwrap();
        let told = told(&host);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(
            lines[..3],
            ["  i-1                    2.5 s  Failed", "  AfterInstall: ScriptFailed: no", "  | line 10"]
        );
        assert_eq!((lines.len(), lines[21]), (22, "  | line 29"));
    }

    #[test]
    fn a_host_that_was_skipped_took_no_time() {
        let host = r#"{"targetId":"i-1","status":"Skipped","lifecycleEvents":[
            {"lifecycleEventName":"Install","status":"Skipped"}]}"#;
        assert_eq!(told(&serde_json::from_str(host).unwrap()), "  i-1                 Skipped");
    }
}
