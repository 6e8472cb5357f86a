//! Where a deployment's files are on the host, and what the agent remembers there.

use std::{fs, io, path::PathBuf};

use super::settings::Group;
use crate::Host;

const ROOT: &str = "/opt/codedeploy-agent/deployment-root";
const INSTRUCTIONS: &str = "/opt/codedeploy-agent/deployment-root/deployment-instructions";
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// What a bundle is unpacked to, in its deployment's folder.
pub(super) const ARCHIVE: &str = "deployment-archive";

/// The folder of one deployment.
#[derive(Debug)]
pub(super) struct Place {
    pub id: String,
    pub group: Group,
    pub folder: String,
}

impl Place {
    /// Of a deployment that has not been before.
    pub fn fresh(group: &Group) -> Self {
        let letter = |_| char::from(LETTERS[fastrand::usize(..LETTERS.len())]);
        let id = format!("d-{}", (0..9).map(letter).collect::<String>());
        Self { folder: format!("{ROOT}/{}/{id}", group.id), id, group: group.clone() }
    }

    pub fn bundle(&self) -> String {
        // Whatever it is.
        format!("{}/bundle.tar", self.folder)
    }

    pub fn archive(&self) -> String {
        format!("{}/{ARCHIVE}", self.folder)
    }

    pub fn log(&self) -> String {
        format!("{}/logs/scripts.log", self.folder)
    }
}

/// The folder of the group's last deployment whose Install succeeded, whatever came after, and whether it is there or not.
pub(super) fn last_installed(host: &Host, group: &Group) -> Option<String> {
    fs::read_to_string(host.path(&last_install(group))).ok().map(|folder| folder.trim_end().to_owned())
}

pub(super) fn remember_install(host: &Host, place: &Place) -> io::Result<()> {
    remember(host, &last_install(&place.group), place)
}

pub(super) fn remember_download(host: &Host, place: &Place) -> io::Result<()> {
    remember(host, &format!("{INSTRUCTIONS}/{}_most_recent_install", place.group.id), place)
}

fn remember(host: &Host, path: &str, place: &Place) -> io::Result<()> {
    fs::create_dir_all(host.path(INSTRUCTIONS))?;
    fs::write(host.path(path), &place.folder)
}

fn last_install(group: &Group) -> String {
    format!("{INSTRUCTIONS}/{}_last_successful_install", group.id)
}

/// Removes the group's oldest deployments, so that with the one to come there are `most`; never the last that succeeded.
pub(super) fn prune(host: &Host, place: &Place, most: usize) -> io::Result<()> {
    let own = host.path(&place.folder);
    let mut others: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(own.parent().expect("it is in its group's"))? {
        let entry = entry?;
        if entry.path() != own {
            others.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    let extra = (others.len() + 1).saturating_sub(most);
    let last = last_installed(host, &place.group).map(|folder| host.path(&folder));
    others.retain(|(_, path)| Some(path) != last.as_ref());
    others.sort();
    others.iter().take(extra).try_for_each(|(_, path)| fs::remove_dir_all(path))
}
