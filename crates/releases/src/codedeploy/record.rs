//! What CodeDeploy has on record: deployments, and what each host did.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{id::Id, revision::Revision};

/// What the description of a rollback begins with: CodeDeploy has no other place to say that it is one.
pub const ROLLBACK: &str = "rollback";

/// One deployment.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    pub deployment_id: Id,
    pub status: Status,
    pub revision: Revision,
    pub create_time: Time,
    pub description: Option<String>,
    /// `user`, `autoscaling`, `codeDeployRollback`.
    pub creator: Option<String>,
    #[serde(default)]
    pub error_information: Told,
    #[serde(default)]
    pub rollback_info: RollbackInfo,
}

/// Of a deployment, a host or an event: all are told in these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Status {
    Created,
    Queued,
    Pending,
    InProgress,
    Baking,
    Ready,
    Succeeded,
    Failed,
    Stopped,
    Skipped,
    /// CodeDeploy's own word, and any that it says and this does not know.
    #[serde(other)]
    Unknown,
}

/// Why a deployment failed.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Told {
    pub code: Option<String>,
    pub message: Option<String>,
}

/// CodeDeploy's own rollback of a deployment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollbackInfo {
    pub rollback_deployment_id: Option<Id>,
}

/// A host, in one deployment.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    pub target_id: Id,
    pub status: Status,
    #[serde(default)]
    pub lifecycle_events: Vec<Event>,
}

/// One event on a host.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub lifecycle_event_name: String,
    pub status: Status,
    pub start_time: Option<Time>,
    pub end_time: Option<Time>,
    pub diagnostics: Option<Diagnostics>,
}

/// What the agent reports of one that failed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Diagnostics {
    pub error_code: String,
    pub message: String,
    pub log_tail: String,
}

/// Seconds since 1970: version 1 of the AWS CLI prints them, and 2 prints a date.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Time(pub f64);

impl Deployment {
    pub fn is_rollback(&self) -> bool {
        self.creator.as_deref() == Some("codeDeployRollback")
            || self.description.as_deref().is_some_and(|description| description.starts_with(ROLLBACK))
    }
}

impl Status {
    /// Whether it stays so.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped | Self::Skipped)
    }

    /// Whether hosts may have been told already.
    pub fn has_begun(self) -> bool {
        !matches!(self, Self::Created | Self::Queued)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Host {
    /// From the begin of its first event to the end of its last.
    pub fn took(&self) -> Duration {
        let began =
            self.lifecycle_events.iter().filter_map(|event| event.start_time).map(|time| time.0).reduce(f64::min);
        let ended = self.lifecycle_events.iter().filter_map(|event| event.end_time).map(|time| time.0).reduce(f64::max);
        let seconds = began.zip(ended).map_or(0.0, |(began, ended)| ended - began);
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    /// The event that is under way, or was the last to begin.
    pub fn event(&self) -> Option<&Event> {
        self.lifecycle_events.iter().rev().find(|event| !matches!(event.status, Status::Pending | Status::Skipped))
    }

    pub fn failed_event(&self) -> Option<&Event> {
        self.lifecycle_events.iter().find(|event| event.status == Status::Failed)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let date = |text: &str| text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond() as f64 / 1000.0);
        let seconds = value.as_f64().or_else(|| value.as_str().and_then(date));
        seconds.map(Self).ok_or_else(|| serde::de::Error::custom(format!("{value} is no time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_the_cli_tell_the_same_time() {
        let times = ["1764123456.5", "\"2025-11-26T02:17:36.500000+00:00\"", "\"2025-11-26T03:17:36.500000+01:00\""];
        for time in times {
            assert_eq!(serde_json::from_str::<Time>(time).unwrap(), Time(1_764_123_456.5), "{time}");
        }
        assert!(serde_json::from_str::<Time>("\"soon\"").is_err());
    }
}
