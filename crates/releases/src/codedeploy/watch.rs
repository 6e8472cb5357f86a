//! Watching a deployment that CodeDeploy does.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    aws::Request,
    board::Board,
    ended::Ended,
    id::Id,
    record::{Deployment, Host, Status},
    refusal::hints,
};
use crate::{Error, Result, interrupt::Interrupt, screen::say};

/// Three requests or so each time; CodeDeploy itself counts in seconds.
const POLL: Duration = Duration::from_secs(2);
/// The most hosts that AWS tells of at once.
const MOST_HOSTS: usize = 25;

/// Somebody who watches, until a signal comes or the time is over.
#[derive(Debug)]
pub struct Watcher {
    interrupt: Interrupt,
    began: Instant,
    limit: Option<Duration>,
}

impl Watcher {
    /// Begins now; without a limit for as long as it takes.
    ///
    /// # Errors
    /// Where signals cannot be caught.
    pub fn begin(limit: Option<Duration>) -> Result<Self> {
        let (began, interrupt) = (Instant::now(), Interrupt::heed()?);
        limit.into_iter().for_each(|limit| interrupt.ends_after(limit));
        Ok(Self { interrupt, began, limit })
    }

    /// Asks what changes nothing, before there is anything to watch.
    ///
    /// # Errors
    /// [`Error::Aws`] where the watching ended first; else as [`Request::look`].
    pub(super) fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let answer = request.look(&self.interrupt);
        answer.map_err(|error| {
            self.ended().map_or(error, |why| Error::Aws(format!("{why} before a deployment was made")))
        })
    }

    /// Watches a deployment to its end, which must be a good one on each host; and where CodeDeploy goes back from it by itself,
    /// that as well.
    ///
    /// # Errors
    /// [`Error::Release`] where it is not, or was not seen.
    pub fn see(&self, id: &Id) -> Result<()> {
        let ended = self.see_end(id)?;
        if ended.is_good() {
            say(&ended.to_string());
            return Ok(());
        }
        Err(Error::Release(match ended.way_back() {
            None => ended.to_string(),
            Some(back) => self.see_way_back(&ended, back),
        }))
    }

    /// The one of this id.
    ///
    /// # Errors
    /// [`Error::Aws`] where there is none; [`Error::Release`] where it was not seen.
    pub fn find(&self, id: &Id) -> Result<Deployment> {
        self.look_up(id).map_err(|error| match error {
            Error::Release(_) => self.lost(id, &error),
            refused => refused,
        })
    }

    /// As [`Self::see`], whatever its end is.
    pub fn see_end(&self, id: &Id) -> Result<Ended> {
        let (mut board, mut hosts) = (Board::new(), BTreeMap::new());
        loop {
            let deployment = self.look(id, &mut hosts).map_err(|error| self.lost(id, &error))?;
            board.update(&deployment, hosts.values());
            if deployment.status.is_final() {
                return Ok(Ended { deployment, hosts: hosts.into_values().collect() });
            }
            if self.interrupt.comes_within(self.pause()) {
                return Err(goes_on(id, "interrupted"));
            }
            if let Some(limit) = self.limit.filter(|limit| self.began.elapsed() >= *limit) {
                return Err(goes_on(id, &format!("{} after {} s", deployment.status, limit.as_secs())));
            }
        }
    }

    /// What is said last of a deployment that failed, whatever comes of the way back.
    fn see_way_back(&self, ended: &Ended, back: &Id) -> String {
        say(&format!("{ended}\nCodeDeploy goes back by itself\ndeployment {back}"));
        let Deployment { deployment_id: id, status, .. } = &ended.deployment;
        match self.see_end(back) {
            Ok(back) if back.is_good() => format!("{id}: {status}, and CodeDeploy went back by itself\n{back}"),
            Ok(back) => format!("{id}: {status}, and CodeDeploy's own way back, too\n{back}"),
            Err(error) => format!("{id}: {status}; CodeDeploy goes back by itself\n{error}"),
        }
    }

    /// Whether the user wants no more of it.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.came()
    }

    fn pause(&self) -> Duration {
        self.limit.map_or(POLL, |limit| POLL.min(limit.saturating_sub(self.began.elapsed())))
    }

    /// Why the AWS CLI was ended, where it was; Ctrl-C in a terminal is for it as well.
    fn ended(&self) -> Option<String> {
        match self.limit.filter(|limit| self.began.elapsed() >= *limit) {
            _ if self.is_interrupted() => Some("interrupted".to_owned()),
            limit => limit.map(|limit| format!("no answer after {} s", limit.as_secs())),
        }
    }

    fn lost(&self, id: &Id, error: &Error) -> Error {
        goes_on(id, &self.ended().unwrap_or_else(|| error.to_string()))
    }

    /// The deployment first: where it has ended, so have its hosts.
    fn look(&self, id: &Id, hosts: &mut BTreeMap<Id, Host>) -> Result<Deployment> {
        let deployment = self.look_up(id)?;
        if deployment.status.has_begun() {
            self.look_at_hosts(id, hosts)?;
        }
        Ok(deployment)
    }

    /// What CodeDeploy has on record of it.
    fn look_up(&self, id: &Id) -> Result<Deployment> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            deployment_info: Deployment,
        }
        let answer: Answer =
            Request::new("deploy", "get-deployment").with("deployment-id", id).look(&self.interrupt)?;
        Ok(answer.deployment_info)
    }

    /// Of those that have ended there is no news.
    fn look_at_hosts(&self, id: &Id, hosts: &mut BTreeMap<Id, Host>) -> Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Ids {
            #[serde(default)]
            target_ids: Vec<Id>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            deployment_targets: Vec<Target>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Target {
            instance_target: Option<Host>,
        }
        let mut ids = Request::new("deploy", "list-deployment-targets")
            .with("deployment-id", id)
            .look::<Ids>(&self.interrupt)?
            .target_ids;
        ids.retain(|id| hosts.get(id).is_none_or(|host| !host.status.is_final()));
        for ids in ids.chunks(MOST_HOSTS) {
            let request = Request::new("deploy", "batch-get-deployment-targets").with("deployment-id", id);
            let answer: Answer =
                request.words(["--target-ids"].into_iter().chain(ids.iter().map(Id::as_str))).look(&self.interrupt)?;
            // Who is not told of has not succeeded.
            let unknown =
                |id: &Id| Host { target_id: id.clone(), status: Status::Unknown, lifecycle_events: Vec::new() };
            hosts.extend(ids.iter().map(|id| (id.clone(), unknown(id))));
            let known = answer.deployment_targets.into_iter().filter_map(|target| target.instance_target);
            hosts.extend(known.map(|host| (host.target_id.clone(), host)));
        }
        Ok(())
    }
}

fn goes_on(id: &Id, why: &str) -> Error {
    Error::Release(format!("{why}\nthe deployment {id} goes on; {}", hints(id)))
}
