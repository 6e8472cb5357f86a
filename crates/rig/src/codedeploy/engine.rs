//! A deployment, as it is done, and the one that CodeDeploy itself goes back by where it fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::{
    account::Account,
    ledger::{Ledger, Record},
};
use crate::{
    Agent, Host,
    rollout::{Configuration, Rollout},
};

/// What does one that is under way.
pub struct Engine {
    pub account: Arc<Account>,
    pub ledger: Arc<Mutex<Ledger>>,
    pub hosts: Vec<(String, Arc<Host>)>,
    pub id: String,
}

impl Engine {
    /// To the end, and back where its group asks for that.
    pub fn run(mut self) {
        let rollout = self.roll_out();
        if let Some(back) = self.end(&rollout) {
            self.id = back;
            let rollout = self.roll_out();
            self.end(&rollout);
        }
    }

    /// As its configuration has it, until somebody stops it, or an alarm does.
    fn roll_out(&self) -> Rollout<usize> {
        let asked = self.record(|record| {
            record.status = "InProgress";
            record.asked.clone()
        });
        let bundle = self.fetch(&asked["revision"]["s3Location"]);
        let configuration: Configuration =
            text(&asked["deploymentConfigName"]).parse().expect("it was looked at when it was made");
        let hosts: Vec<usize> = (0..self.hosts.len()).collect();
        configuration.roll_out(&hosts, || self.goes_on(), |at| self.deploy(at, &bundle))
    }

    fn goes_on(&self) -> bool {
        let alarm = self.ledger().alarm;
        self.record(|record| !(record.stops || alarm && record.heeds_alarms()))
    }

    fn deploy(&self, at: usize, bundle: &[u8]) -> Result<(), String> {
        let tell = |deployment: &_, event| self.record(|record| record.hosts[at].does(deployment, event));
        let deployment = Agent::new(&self.hosts[at].1).deploy_and_tell(bundle, tell);
        self.record(|record| record.hosts[at].ended(&deployment));
        deployment.outcome()
    }

    /// Returns the id of the deployment that goes back from it, if one does. The two are one step: nobody sees it failed and
    /// nothing that goes back, nor a group that is free meanwhile.
    fn end(&self, rollout: &Rollout<usize>) -> Option<String> {
        let status = match rollout {
            Rollout { is_stopped: true, .. } => "Stopped",
            rollout if rollout.succeeded() => "Succeeded",
            _ => "Failed",
        };
        let back = self.ledger().way_back(&self.id, status).map(|asked| (self.create(&asked), asked));
        let mut ledger = self.ledger();
        let ended = ledger.deployment(&self.id).expect("it was made");
        ended.end(status);
        let (back, asked) = back?;
        ended.rollback = json!({"rollbackDeploymentId": back});
        let mut record = Record::new(&back, &asked, self.hosts.iter().map(|(name, _)| name.clone()));
        record.rollback = json!({"rollbackTriggeringDeploymentId": self.id});
        ledger.deployments.push(record);
        Some(back)
    }

    /// Its id is moto's, as of each other.
    fn create(&self, asked: &Value) -> String {
        let input = json!({
            "applicationName": asked["applicationName"], "deploymentGroupName": asked["deploymentGroupName"],
            "revision": asked["revision"],
        });
        let input = input.to_string();
        let made = self.account.aws(&["deploy", "create-deployment", "--output", "json", "--cli-input-json", &input]);
        let made: Value = serde_json::from_slice(&made).expect("it prints JSON");
        text(&made["deploymentId"]).to_owned()
    }

    /// As an agent does, before each host's DownloadBundle; here once for all.
    fn fetch(&self, revision: &Value) -> Vec<u8> {
        let url = format!("s3://{}/{}", text(&revision["bucket"]), text(&revision["key"]));
        self.account.aws(&["s3", "cp", "--quiet", &url, "-"])
    }

    fn record<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        change(self.ledger().deployment(&self.id).expect("it was made"))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
