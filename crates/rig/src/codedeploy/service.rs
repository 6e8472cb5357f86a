//! The operations: what is moto's is asked of moto, the rest is answered from the ledger.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};

use super::{
    account::Account,
    engine::Engine,
    ledger::{Ledger, Record},
    wire::{Answer, Refusal, Request},
};
use crate::{Host, rollout::Configuration};

type Reply = Result<Value, Refusal>;

/// What answers.
#[derive(Debug)]
pub struct Service {
    account: Arc<Account>,
    hosts: Vec<(String, Arc<Host>)>,
    ledger: Arc<Mutex<Ledger>>,
    at_work: Mutex<Vec<JoinHandle<()>>>,
}

impl Service {
    pub fn new(account: Arc<Account>, hosts: Vec<(String, Arc<Host>)>) -> Self {
        Self { account, hosts, ledger: Arc::default(), at_work: Mutex::default() }
    }

    /// Nothing more is begun, and what is under way is waited for.
    pub fn end(&self) {
        self.ledger().deployments.iter_mut().for_each(|record| record.stops = true);
        for thread in self.at_work.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }

    pub fn alarm(&self) {
        self.ledger().alarm = true;
    }

    pub fn answer(&self, request: &Request) -> Answer {
        let asked = &request.body;
        match request.operation.as_str() {
            "RegisterApplicationRevision" => self.register(request),
            "ListApplicationRevisions" => self.list_revisions(request),
            "CreateDeployment" => self.create(request),
            "ListDeployments" => Ok(self.list(asked)).into(),
            "GetDeployment" => self.of_deployment(asked, |record| json!({"deploymentInfo": record.info()})).into(),
            "BatchGetDeployments" => Ok(self.batch(asked)).into(),
            "ListDeploymentTargets" => self.of_deployment(asked, targets).into(),
            "BatchGetDeploymentTargets" => self.of_deployment(asked, |record| tell_targets(record, asked)).into(),
            "StopDeployment" => self.stop(asked).into(),
            _ => self.moto(request),
        }
    }

    fn moto(&self, request: &Request) -> Answer {
        match request.ask(self.account.address()) {
            Ok(answer) if answer.status == 403 => Err(no_right(&answer)).into(),
            Ok(answer) => answer,
            Err(error) => broken(&error).into(),
        }
    }

    /// Of an application that moto knows.
    fn register(&self, request: &Request) -> Answer {
        self.with_application(request, |asked, application| {
            let mut ledger = self.ledger();
            let revision = asked["revision"].clone();
            // Once more is no new one, but the newest.
            ledger.revisions.retain(|(of, known)| (of, known) != (&application, &revision));
            ledger.revisions.push((application, revision));
            json!({})
        })
    }

    fn list_revisions(&self, request: &Request) -> Answer {
        self.with_application(request, |asked, application| {
            let ledger = self.ledger();
            let of = ledger.revisions.iter().filter(|(of, _)| *of == application);
            let mut revisions: Vec<_> = of.map(|(_, revision)| revision.clone()).collect();
            if asked["sortOrder"] == "descending" {
                revisions.reverse();
            }
            json!({"revisions": revisions})
        })
    }

    fn with_application(&self, request: &Request, reply: impl FnOnce(&Value, String) -> Value) -> Answer {
        let name = request.body["applicationName"].as_str().unwrap_or_default().to_owned();
        let known = request.ask_as("GetApplication", &json!({"applicationName": name}), self.account.address());
        match known {
            Ok(answer) if answer.status == 200 => Ok(reply(&request.body, name)).into(),
            Ok(refused) => refused,
            Err(error) => broken(&error).into(),
        }
    }

    /// One at a time for each group; its id is moto's.
    fn create(&self, request: &Request) -> Answer {
        let mut asked = request.body.clone();
        let mut ledger = self.ledger();
        if let Some(running) = ledger.running(&asked) {
            let group = asked["deploymentGroupName"].as_str().unwrap_or_default();
            let why = format!("The Deployment Group '{group}' already has an active Deployment '{}'", running.id);
            return Err(Refusal("DeploymentLimitExceededException", why)).into();
        }
        let answer = self.moto(request);
        let made: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let Some(id) = made["deploymentId"].as_str() {
            if let Err(refusal) = self.complete(&mut asked, request) {
                return Err(refusal).into();
            }
            ledger.deployments.push(Record::new(id, &asked, self.hosts.iter().map(|(name, _)| name.clone())));
            drop(ledger);
            self.begin(id);
        }
        answer
    }

    /// What it leaves to its group: moto knows that.
    fn complete(&self, asked: &mut Value, request: &Request) -> Result<(), Refusal> {
        let group = json!({
            "applicationName": asked["applicationName"], "deploymentGroupName": asked["deploymentGroupName"],
        });
        let answer = request.ask_as("GetDeploymentGroup", &group, self.account.address());
        let known: Value = answer.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default();
        for field in ["deploymentConfigName", "autoRollbackConfiguration"] {
            if asked[field].is_null() {
                asked[field] = known["deploymentGroupInfo"][field].clone();
            }
        }
        let name = asked["deploymentConfigName"].as_str().unwrap_or_default();
        let unknown = |why| Refusal("DeploymentConfigDoesNotExistException", why);
        name.parse::<Configuration>().map(drop).map_err(unknown)
    }

    fn begin(&self, id: &str) {
        let (account, ledger) = (Arc::clone(&self.account), Arc::clone(&self.ledger));
        let engine = Engine { account, ledger, hosts: self.hosts.clone(), id: id.to_owned() };
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        at_work.push(thread::spawn(move || engine.run()));
    }

    /// Newest first.
    fn list(&self, asked: &Value) -> Value {
        let ledger = self.ledger();
        json!({"deployments": ledger.of_group(asked).rev().map(|record| &record.id).collect::<Vec<_>>()})
    }

    fn batch(&self, asked: &Value) -> Value {
        let mut ledger = self.ledger();
        let ids = asked["deploymentIds"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let infos: Vec<_> = ids.filter_map(|id| ledger.deployment(id).map(|record| record.info())).collect();
        json!({"deploymentsInfo": infos})
    }

    fn of_deployment(&self, asked: &Value, reply: impl FnOnce(&mut Record) -> Value) -> Reply {
        let id = asked["deploymentId"].as_str().unwrap_or_default();
        let none = || Refusal("DeploymentDoesNotExistException", format!("The deployment {id} could not be found"));
        self.ledger().deployment(id).map(reply).ok_or_else(none)
    }

    fn stop(&self, asked: &Value) -> Reply {
        self.of_deployment(asked, |record| {
            record.stops = true;
            json!({"status": "Pending", "statusMessage": "Stopping deployment..."})
        })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn targets(record: &mut Record) -> Value {
    json!({"targetIds": record.hosts.iter().map(|host| &host.name).collect::<Vec<_>>()})
}

fn tell_targets(record: &mut Record, asked: &Value) -> Value {
    let wanted: Vec<_> = asked["targetIds"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let hosts = record.hosts.iter().filter(|host| wanted.contains(&host.name.as_str()));
    json!({"deploymentTargets": hosts.map(|host| host.info(&record.id)).collect::<Vec<_>>()})
}

/// moto refuses in XML, whatever the protocol; CodeDeploy does it in its own, with these codes.
fn no_right(answer: &Answer) -> Refusal {
    let text = String::from_utf8_lossy(&answer.body);
    let message = text.split_once("<Message>").and_then(|(_, rest)| rest.split_once("</Message>"));
    let message = message.map_or(&*text, |(message, _)| message).to_owned();
    let is_wrong = text.contains("<Code>SignatureDoesNotMatch</Code>");
    Refusal(if is_wrong { "InvalidSignatureException" } else { "AccessDeniedException" }, message)
}

fn broken(error: &std::io::Error) -> Reply {
    Err(Refusal("InternalFailure", format!("moto is not reached: {error}")))
}
