//! A deployment as CodeDeploy's console shows it.

use super::{Deployment, Event, Status};

/// Each event: how it ended, how long it took, the end of what its scripts printed, and its error code.
pub fn tell(deployment: &Deployment) -> String {
    let how = if deployment.succeeded() { "Succeeded" } else { "Failed" };
    let events: String = deployment.events.iter().map(event).collect();
    format!("{} {how}\n{events}", deployment.id)
}

fn event(event: &Event) -> String {
    let (status, failure) = match &event.status {
        Status::Succeeded => ("Succeeded", None),
        Status::Failed(failure) => ("Failed", Some(failure)),
        Status::Ignored(failure) => ("Ignored", Some(failure)),
    };
    let mut text = format!("  {:<18} {status:<9} {:>6} ms", event.name, event.duration.as_millis());
    if let Some(failure) = failure {
        text += &format!("  {failure}");
    }
    text.push('\n');
    event.tail().lines().for_each(|line| text += &format!("      {line}\n"));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agent::{Code, Failure};

    #[test]
    fn an_event_that_failed_is_shown_with_its_code_its_message_and_the_end_of_its_output() {
        let failure = Failure { code: Code::ScriptTimedOut, script: "a".to_owned(), message: "too late".to_owned() };
        let last = Event {
            name: "AfterInstall",
            status: Status::Failed(failure),
            duration: Duration::from_millis(1500),
            output: "more\n[stdout]b\n".to_owned(),
            tail: "[stdout]b\n".to_owned(),
        };
        let told = tell(&Deployment { id: "d-A".to_owned(), events: vec![last] });
        let line = "  AfterInstall       Failed      1500 ms  ScriptTimedOut (3): too late\n      [stdout]b\n";
        assert_eq!(told, format!("d-A Failed\n{line}"));
    }
}
