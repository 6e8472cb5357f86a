//! A deployment, as it is done: CodeDeployDefault.OneAtATime.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::{
    account::Account,
    ledger::{Ledger, Record},
};
use crate::{Agent, Host};

/// One that is under way.
pub struct RollOut {
    pub account: Arc<Account>,
    pub ledger: Arc<Mutex<Ledger>>,
    pub hosts: Vec<(String, Arc<Host>)>,
    pub id: String,
}

impl RollOut {
    /// To one host after the other, until one fails, or it is stopped, by somebody or an alarm.
    pub fn run(&self) {
        let revision = self.record(|record| {
            record.status = "InProgress";
            record.asked["revision"]["s3Location"].clone()
        });
        let bundle = self.fetch(&revision);
        for (at, (_, host)) in self.hosts.iter().enumerate() {
            let alarm = self.ledger().alarm;
            if self.record(|record| record.stops || alarm && record.heeds_alarms()) {
                return self.record(|record| record.end("Stopped"));
            }
            if !self.deploy(at, host, &bundle) {
                return self.record(|record| record.end("Failed"));
            }
        }
        self.record(|record| record.end("Succeeded"));
    }

    fn deploy(&self, at: usize, host: &Host, bundle: &[u8]) -> bool {
        let tell = |deployment: &_, event| self.record(|record| record.hosts[at].does(deployment, event));
        let deployment = Agent::new(host).deploy_and_tell(bundle, tell);
        self.record(|record| record.hosts[at].ended(&deployment));
        deployment.succeeded()
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
