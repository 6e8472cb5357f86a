//! How a deployment has ended.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use super::{
    id::Id,
    record::{Deployment, Host, Status},
};
use crate::screen::printable;

/// One that has.
#[derive(Debug)]
pub struct Ended {
    pub deployment: Deployment,
    pub hosts: Vec<Host>,
}

impl Ended {
    /// Whether every host has it. CodeDeploy calls it a success, too, where no more hosts have failed than may.
    pub fn is_good(&self) -> bool {
        let has_it = |host: &Host| host.status == Status::Succeeded;
        self.deployment.status == Status::Succeeded && !self.hosts.is_empty() && self.hosts.iter().all(has_it)
    }

    /// The deployment by which CodeDeploy itself goes back from it.
    pub fn way_back(&self) -> Option<&Id> {
        self.deployment.rollback_info.rollback_deployment_id.as_ref()
    }

    /// `Succeeded: i-1; Failed: i-2 i-3`.
    fn by_status(&self) -> String {
        let mut ids: BTreeMap<Status, String> = BTreeMap::new();
        for Host { target_id, status, .. } in &self.hosts {
            let _ = write!(ids.entry(*status).or_default(), " {target_id}");
        }
        ids.iter().map(|(status, ids)| format!("{status}:{ids}")).collect::<Vec<_>>().join("; ")
    }
}

/// What, why and where.
impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Deployment { deployment_id: id, status, revision, error_information: told, .. } = &self.deployment;
        if self.is_good() {
            return write!(f, "{id} has succeeded: {revision} on {} hosts", self.hosts.len());
        }
        write!(f, "{id}: {status}")?;
        if let Some(message) = &told.message {
            write!(f, ": {} ({})", printable(message), printable(told.code.as_deref().unwrap_or("no code")))?;
        } else if *status == Status::Succeeded {
            write!(f, ", says CodeDeploy, and not every host has it; deploy again, or go back")?;
        }
        let hosts = self.by_status();
        if hosts.is_empty() { Ok(()) } else { write!(f, "\n{hosts}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: &str, hosts: &[(&str, &str)]) -> Ended {
        let deployment = serde_json::json!({
            "deploymentId": "d-1", "status": status, "createTime": 1,
            "revision": {"revisionType": "S3", "s3Location": {"bucket": "b", "key": "k", "bundleType": "tgz"}},
        });
        let host = |(id, status): &(&str, &str)| {
            serde_json::from_value(serde_json::json!({"targetId": id, "status": status})).unwrap()
        };
        let hosts = hosts.iter().map(host).collect();
        Ended { deployment: serde_json::from_value(deployment).unwrap(), hosts }
    }

    #[test]
    fn a_success_is_good_where_every_host_has_it() {
        let good = ended("Succeeded", &[("i-1", "Succeeded"), ("i-2", "Succeeded")]);
        assert_eq!((good.is_good(), good.to_string().as_str()), (true, "d-1 has succeeded: s3://b/k on 2 hosts"));
        for status in ["Skipped", "Stopped", "Pending", "InProgress", "Unknown", "Odd"] {
            assert!(!ended("Succeeded", &[("i-1", "Succeeded"), ("i-2", status)]).is_good(), "{status}");
        }
        assert!(!ended("Succeeded", &[]).is_good(), "on no host");
        let bad = ended("Succeeded", &[("i-1", "Succeeded"), ("i-2", "Failed")]);
        let told = bad.to_string();
        assert!(!bad.is_good() && told.starts_with("d-1: Succeeded, says CodeDeploy"), "{told}");
        assert_eq!(told.lines().last(), Some("Succeeded: i-1; Failed: i-2"));
    }

    #[test]
    fn one_that_ended_before_any_host_was_asked_is_one_line() {
        assert_eq!(ended("Stopped", &[]).to_string(), "d-1: Stopped");
    }
}
