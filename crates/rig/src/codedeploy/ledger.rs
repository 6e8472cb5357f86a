//! What CodeDeploy keeps: revisions, deployments, and what each host did; as it tells them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::agent::{Deployment, Event, Status};

/// In the words of AWS.
const FAILED: (&str, &str) = (
    "HEALTH_CONSTRAINTS",
    "The overall deployment failed because too many individual instances failed deployment, too few healthy instances are \
     available for deployment, or some instances in your deployment group are experiencing problems.",
);
const STOPPED_BY_ALARM: (&str, &str) = ("ALARM_ACTIVE", "One or more alarms have been activated");

const TOLD_AS_ASKED: [&str; 6] = [
    "applicationName",
    "deploymentGroupName",
    "revision",
    "description",
    "deploymentConfigName",
    "autoRollbackConfiguration",
];

/// All of it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By application, the oldest first.
    pub revisions: Vec<(String, Value)>,
    pub deployments: Vec<Record>,
    /// Whether an alarm of each group is on.
    pub alarm: bool,
}

/// A deployment.
#[derive(Debug)]
pub struct Record {
    pub id: String,
    /// What CreateDeployment was asked with.
    pub asked: Value,
    pub status: &'static str,
    /// Whether it is to end before the next batch.
    pub stops: bool,
    /// What goes back from it, or what it goes back from, as AWS tells it.
    pub rollback: Value,
    pub hosts: Vec<Target>,
    created: f64,
    ended: Option<f64>,
}

/// A host, in one deployment.
#[derive(Debug)]
pub struct Target {
    pub name: String,
    pub status: &'static str,
    events: Vec<Value>,
    began: f64,
}

/// In seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

impl Ledger {
    pub fn deployment(&mut self, id: &str) -> Option<&mut Record> {
        self.deployments.iter_mut().find(|record| record.id == id)
    }

    /// The one that is under way for the group that is asked about.
    pub fn running<'a>(&'a self, asked: &'a Value) -> Option<&'a Record> {
        self.of_group(asked).find(|record| record.ended.is_none())
    }

    pub fn of_group<'a>(&'a self, asked: &'a Value) -> impl DoubleEndedIterator<Item = &'a Record> {
        let is_its = |record: &&Record| {
            ["applicationName", "deploymentGroupName"].iter().all(|field| record.asked[field] == asked[field])
        };
        self.deployments.iter().filter(is_its)
    }

    /// What CodeDeploy's own rollback of a deployment that ends so is asked with, if its group wants one: the last good revision,
    /// to all hosts. A rollback is not gone back from, nor what somebody has stopped.
    pub fn way_back(&self, id: &str, status: &str) -> Option<Value> {
        let record = self.deployments.iter().find(|record| record.id == id)?;
        let event = match status {
            "Failed" => "DEPLOYMENT_FAILURE",
            "Stopped" => "DEPLOYMENT_STOP_ON_ALARM",
            _ => return None,
        };
        let wanted = &record.asked["autoRollbackConfiguration"];
        let is_wanted = wanted["enabled"] == true && wanted["events"].as_array()?.iter().any(|wanted| wanted == event);
        if !is_wanted || record.stops || record.is_rollback() {
            return None;
        }
        let good = self.of_group(&record.asked).rev().find(|record| record.status == "Succeeded")?;
        let mut asked = record.asked.clone();
        asked["revision"] = good.asked["revision"].clone();
        asked["description"] = Value::Null;
        Some(asked)
    }
}

impl Record {
    pub fn new(id: &str, asked: &Value, hosts: impl Iterator<Item = String>) -> Self {
        let target = |name| Target { name, status: "Pending", events: Vec::new(), began: 0.0 };
        Self {
            id: id.to_owned(),
            asked: asked.clone(),
            status: "Created",
            stops: false,
            rollback: Value::Null,
            hosts: hosts.map(target).collect(),
            created: now(),
            ended: None,
        }
    }

    /// Whether CodeDeploy has made it itself.
    fn is_rollback(&self) -> bool {
        self.rollback["rollbackTriggeringDeploymentId"].is_string()
    }

    /// Whether it is to be stopped where an alarm of the group is on. What an alarm has begun is not.
    pub fn heeds_alarms(&self) -> bool {
        !self.is_rollback() && self.asked["overrideAlarmConfiguration"]["enabled"] != false
    }

    /// What was not begun is not done.
    pub fn end(&mut self, status: &'static str) {
        self.status = status;
        self.ended = Some(now());
        self.hosts.iter_mut().filter(|host| host.status == "Pending").for_each(|host| host.status = "Skipped");
    }

    /// As GetDeployment tells it.
    pub fn info(&self) -> Value {
        let mut info = json!({
            "deploymentId": self.id, "status": self.status, "createTime": self.created, "rollbackInfo": self.rollback,
            "creator": if self.is_rollback() { "codeDeployRollback" } else { "user" },
        });
        for field in TOLD_AS_ASKED {
            info[field] = self.asked[field].clone();
        }
        if let Some(ended) = self.ended {
            info["completeTime"] = ended.into();
        }
        let error = match self.status {
            "Failed" => Some(FAILED),
            "Stopped" if !self.stops => Some(STOPPED_BY_ALARM),
            _ => None,
        };
        if let Some((code, message)) = error {
            info["errorInformation"] = json!({"code": code, "message": message});
        }
        info
    }
}

impl Target {
    /// What it did so far, and what it does now.
    pub fn does(&mut self, deployment: &Deployment, event: &str) {
        if self.status == "Pending" {
            (self.status, self.began) = ("InProgress", now());
        }
        self.did(deployment);
        self.events.push(json!({"lifecycleEventName": event, "status": "InProgress", "startTime": now()}));
    }

    pub fn ended(&mut self, deployment: &Deployment) {
        self.did(deployment);
        self.status = if deployment.succeeded() { "Succeeded" } else { "Failed" };
    }

    fn did(&mut self, deployment: &Deployment) {
        let mut took = Duration::ZERO;
        self.events = deployment
            .events
            .iter()
            .map(|event| {
                let start = self.began + took.as_secs_f64();
                took += event.duration;
                told(event, start)
            })
            .collect();
    }

    /// As BatchGetDeploymentTargets tells it.
    pub fn info(&self, deployment: &str) -> Value {
        json!({"deploymentTargetType": "InstanceTarget", "instanceTarget": {
            "deploymentId": deployment, "targetId": self.name, "status": self.status, "lifecycleEvents": self.events,
        }})
    }
}

fn told(event: &Event, start: f64) -> Value {
    let (status, failure) = match &event.status {
        Status::Succeeded => ("Succeeded", None),
        Status::Failed(failure) => ("Failed", Some(failure)),
        Status::Ignored(failure) => ("Succeeded", Some(failure)),
    };
    let diagnostics = failure.map_or_else(
        || json!({"errorCode": "Success", "scriptName": "", "message": "Succeeded", "logTail": ""}),
        |failure| {
            json!({
                "errorCode": format!("{:?}", failure.code), "scriptName": failure.script, "message": failure.message,
                "logTail": event.tail(),
            })
        },
    );
    json!({
        "lifecycleEventName": event.name, "status": status, "startTime": start,
        "endTime": start + event.duration.as_secs_f64(), "diagnostics": diagnostics,
    })
}
