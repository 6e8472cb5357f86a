//! A deployment group: what was deployed to it, and what is to be.

use std::fmt;

use serde::{Deserialize, de::IgnoredAny};

use super::{
    Watcher,
    aws::Request,
    id::Id,
    record::{self, Deployment},
    revision::Revision,
};
use crate::{Error, Result, screen::say};

/// How far back the way back is known; AWS tells of 25 at once.
const MOST: usize = 50;
const AT_ONCE: usize = 25;

/// Of an application.
#[derive(Debug)]
pub struct Group {
    /// The application's name.
    pub application: String,
    /// Its own.
    pub name: String,
}

/// Why a revision is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Deployment,
    Rollback,
}

impl Group {
    /// Its last deployments, newest first.
    pub fn deployments(&self, watcher: &Watcher) -> Result<Vec<Deployment>> {
        #[derive(Deserialize)]
        struct Ids {
            deployments: Vec<Id>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            deployments_info: Vec<Deployment>,
        }
        let ids = watcher.ask::<Ids>(&self.request("list-deployments").words(["--no-paginate"]))?.deployments;
        let mut all = Vec::new();
        for ids in ids[..ids.len().min(MOST)].chunks(AT_ONCE) {
            let request = Request::new("deploy", "batch-get-deployments");
            let words = ["--deployment-ids"].into_iter().chain(ids.iter().map(Id::as_str));
            all.extend(watcher.ask::<Answer>(&request.words(words))?.deployments_info);
        }
        all.sort_by(|one, other| other.create_time.0.total_cmp(&one.create_time.0));
        Ok(all)
    }

    /// Has CodeDeploy begin, and returns the deployment's id.
    pub fn create(&self, revision: &Revision, kind: Kind, watcher: &Watcher) -> Result<Id> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            deployment_id: Id,
        }
        if watcher.is_interrupted() {
            return Err(Error::Aws("interrupted before a deployment was made".to_owned()));
        }
        let what = if kind == Kind::Rollback { record::ROLLBACK } else { "deploy" };
        let mut request = self.request("create-deployment").with("revision", revision.json());
        if kind == Kind::Rollback {
            // An alarm that the bad release has set off must not stop the way back from it.
            request = request.with("override-alarm-configuration", "enabled=false");
        }
        let answer = request.with("description", format!("{what}: {revision}")).send::<Answer>();
        let lost = |error| match error {
            _ if watcher.is_interrupted() => self.unknown("interrupted"),
            Error::Release(why) => self.unknown(&why),
            refused => refused,
        };
        let id = answer.map_err(lost)?.deployment_id;
        say(&format!("deployment {id}"));
        Ok(id)
    }

    /// Stops a deployment, and waits until its hosts have ended what they were at.
    pub fn stop(&self, id: &Id, watcher: &Watcher) -> Result<()> {
        let request = Request::new("deploy", "stop-deployment").with("deployment-id", id);
        // What follows it is ours to say.
        let stopped = request.words(["--no-auto-rollback-enabled"]).send::<IgnoredAny>();
        match stopped {
            // It was quicker.
            Err(Error::Aws(text)) if text.contains("DeploymentAlreadyCompletedException") => {}
            stopped => drop(stopped?),
        }
        watcher.see_end(id).map(drop)
    }

    /// There is no way back.
    pub fn nothing_before(&self) -> Error {
        Error::Aws(format!(
            "{self}: none of its last {MOST} deployments brought another revision; name one: `just deploy {} --revision s3://BUCKET/KEY`",
            self.name
        ))
    }

    fn request(&self, operation: &'static str) -> Request {
        let request = Request::new("deploy", operation).with("application-name", &self.application);
        request.with("deployment-group-name", &self.name)
    }

    fn unknown(&self, why: &str) -> Error {
        Error::Release(format!(
            "{why} while the deployment was made: `aws deploy list-deployments --application-name {} \
             --deployment-group-name {} --max-items 1` says whether it was",
            self.application, self.name
        ))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} of application {}", self.name, self.application)
    }
}
