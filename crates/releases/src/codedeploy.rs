//! CodeDeploy by the AWS CLI: a bundle is pushed to S3, a revision is deployed to a group, and a group goes back.
//!
//! - The AWS CLI is the user's own, with its profile, region and login; nothing of that is read or stored here.
//! - A deployment is CodeDeploy's. Here it is only watched: whatever ends the watching, it goes on, and the last line says how to
//!   watch it again and how to stop it.
//! - What is pushed was held against its manifest, and S3 holds what arrives against its SHA-256.

mod aws;
mod board;
mod ended;
mod group;
mod id;
mod record;
mod refusal;
mod revision;
mod watch;
mod way_back;

use std::path::Path;

pub use aws::who_asks;
pub use group::Group;
pub use id::Id;
pub use revision::Bucket;
pub use watch::Watcher;

use group::Kind;
use record::Deployment;
use revision::Revision;

use crate::{Error, Result, screen::say, source::Source};

/// Verifies a bundle, uploads it under a key that its release names, and registers it; the last line is the revision.
///
/// # Errors
/// [`Error::Manifest`] and [`Error::Damaged`] where it is not sound, [`Error::Aws`] where nothing was uploaded, and
/// [`Error::Release`] where it is uploaded and not registered.
pub fn push(bundle: &Path, bucket: &Bucket, application: &str) -> Result<()> {
    let (source, archive) = Source::read_archive(bundle)?;
    let revision = Revision::of_release(bucket, &source.id);
    let what = format!("release {} ({}, commit {})", source.id, source.manifest.label, source.manifest.commit);
    say(&format!("{what} to {bucket}"));
    revision.upload(bundle, &archive)?;
    let uploaded = format!("{revision} is uploaded, and not registered; push again");
    revision.register(application, &what).map_err(|error| after(error, &uploaded))?;
    say(&revision.to_string());
    Ok(())
}

/// Deploys the revision that was registered last, or `asked`, to a group, and watches.
///
/// # Errors
/// [`Error::Aws`] where no deployment was made; [`Error::Release`] where it failed, or the watching ended before it did.
pub fn deploy(group: &Group, asked: Option<&str>, watcher: &Watcher) -> Result<()> {
    let revision = match asked {
        Some(name) => revision::named(&group.application, name, watcher)?,
        None => revision::newest(&group.application, watcher)?,
    };
    say(&format!("{revision} to {group}"));
    watcher.see(&group.create(&revision, Kind::Deployment, watcher)?)
}

/// Goes back to the revision before, by a deployment of it, and watches. Called again, it goes further back.
///
/// It is the newest revision on the way back that is not the last attempt's. A deployment that succeeded adds its revision to
/// the way, a rollback (this one, or CodeDeploy's own) returns to where its revision last stood. So a failed deployment is gone
/// back from to what the group had before it, and a good one to the one before. A rollback that was stopped is made again. The
/// group's last 50 deployments are looked at.
///
/// A deployment that is under way is stopped first: whoever goes back wants no more hosts to get what it brings, and CodeDeploy
/// takes no second one. But a rollback that is under way is watched, for it does what is wanted.
///
/// # Errors
/// As [`deploy`]; and where there is nothing to go back to.
pub fn rollback(group: &Group, watcher: &Watcher) -> Result<()> {
    let deployments = group.deployments(watcher)?;
    let Some(running) = deployments.first().filter(|deployment| !deployment.status.is_final()) else {
        return go_back(group, &deployments, watcher);
    };
    let id = &running.deployment_id;
    if running.is_rollback() {
        say(&format!("{id} goes back to {} already", running.revision));
        return watcher.see(id);
    }
    // Not before there is something to go back to.
    way_back::target(&deployments).ok_or_else(|| group.nothing_before())?;
    say(&format!("stopping {id}, which brings {}", running.revision));
    group.stop(id, watcher)?;
    // It may have succeeded meanwhile.
    let back = group.deployments(watcher).and_then(|deployments| go_back(group, &deployments, watcher));
    back.map_err(|error| after(error, &format!("{id} has been stopped; `just rollback {}` again", group.name)))
}

/// Watches a deployment that somebody has made.
///
/// # Errors
/// [`Error::Aws`] where there is none of that id; else as [`deploy`].
pub fn watch(id: &Id, watcher: &Watcher) -> Result<()> {
    say(&format!("{id} brings {}", watcher.find(id)?.revision));
    watcher.see(id)
}

fn go_back(group: &Group, deployments: &[Deployment], watcher: &Watcher) -> Result<()> {
    let target = way_back::target(deployments).ok_or_else(|| group.nothing_before())?;
    say(&format!("back to {target} on {group}"));
    watcher.see(&group.create(target, Kind::Rollback, watcher)?)
}

/// A refusal that came too late to have changed nothing.
fn after(error: Error, change: &str) -> Error {
    match error {
        Error::Aws(text) => Error::Release(format!("{text}\n{change}")),
        other => other,
    }
}
