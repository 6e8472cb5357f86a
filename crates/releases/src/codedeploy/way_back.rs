//! The way back, as far as CodeDeploy's records tell it: what `releasectl rollback` does on a host, for a group.

use super::{
    record::{Deployment, Status},
    revision::Revision,
};

/// The newest revision on the way back that is not the last attempt's, of deployments from the newest to the oldest.
pub fn target(deployments: &[Deployment]) -> Option<&Revision> {
    let last = deployments.first()?;
    // A rollback that was stopped was not tried to its end.
    let is_cut_short = last.is_rollback() && last.status == Status::Stopped;
    let way = way(deployments);
    way.into_iter().rev().find(|revision| is_cut_short || **revision != last.revision)
}

/// What good deployments have left, oldest first. A rollback takes away what it went back from, even where it failed:
/// nobody wanted that any more.
fn way(deployments: &[Deployment]) -> Vec<&Revision> {
    let mut way = Vec::new();
    for deployment in deployments.iter().rev() {
        if deployment.is_rollback() {
            let stood = way.iter().rposition(|revision| *revision == &deployment.revision);
            way.truncate(stood.map_or(way.len(), |at| at + 1));
        }
        let is_new = way.last() != Some(&&deployment.revision);
        if is_new && deployment.status == Status::Succeeded {
            way.push(&deployment.revision);
        }
    }
    way
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words such as `2`, `3 Failed` and `back 2`, oldest first; and what is gone back to.
    fn target_after(words: &[&str]) -> Option<String> {
        let deployment = |(at, words): (usize, &&str)| -> Deployment {
            let (description, words) =
                words.strip_prefix("back ").map_or(("deploy", *words), |rest| ("rollback: x", rest));
            let (key, status) = words.split_once(' ').unwrap_or((words, "Succeeded"));
            serde_json::from_value(serde_json::json!({
                "deploymentId": format!("d-{at}"), "status": status, "createTime": at, "description": description,
                "revision": {"revisionType": "S3", "s3Location": {"bucket": "b", "key": key, "bundleType": "tgz"}},
            }))
            .unwrap()
        };
        let mut all: Vec<_> = words.iter().enumerate().map(deployment).collect();
        all.reverse();
        target(&all).map(|revision| revision.to_string().replace("s3://b/", ""))
    }

    #[test]
    fn it_goes_back_to_what_the_group_had_before() {
        for (words, back) in [
            (&["1", "2"][..], Some("1")),
            (&["1", "2", "3 Failed"], Some("2")),
            (&["1", "2", "3 Stopped"], Some("2")),
            (&["1", "2", "3 InProgress"], Some("2")),
            (&["1", "2", "3 Failed", "back 2"], Some("1")),
            (&["1", "2", "2"], Some("1")),
            (&["1", "2", "2 Failed"], Some("1")),
            (&["1"], None),
            (&["1 Failed"], None),
            (&[], None),
        ] {
            assert_eq!(target_after(words).as_deref(), back, "{words:?}");
        }
    }

    #[test]
    fn called_again_it_goes_further_back_and_never_forward() {
        assert_eq!(target_after(&["1", "2", "3", "back 2"]).as_deref(), Some("1"));
        assert_eq!(target_after(&["1", "2", "3", "back 2", "back 1"]), None);
        assert_eq!(target_after(&["1", "2", "3", "back 2", "4"]).as_deref(), Some("2"));
        assert_eq!(target_after(&["1", "2", "3", "back 2 Failed"]).as_deref(), Some("1"));
        assert_eq!(target_after(&["1", "2", "3", "back 2 Stopped"]).as_deref(), Some("2"));
    }
}
