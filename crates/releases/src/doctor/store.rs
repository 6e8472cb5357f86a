//! The store: its links, its releases, who may write it, and what killed verbs have left.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::Finding;
use crate::{
    Result, Store, boot, notify,
    store::{self, Link},
    trail::Marks,
    tree,
};

pub(super) fn look(store: &Store) -> Result<Vec<Finding>> {
    Ok(vec![
        links(store)?,
        digests(store),
        owners(store),
        secrets(store),
        notifier(store),
        leftovers(store),
        clock(store)?,
    ])
}

fn links(store: &Store) -> Result<Finding> {
    let check = "links";
    let (current, validated) = (store.named_by(Link::Current), store.named_by(Link::Validated));
    let records = store.records()?;
    let advice = "`releasectl validate`, or `releasectl rollback`";
    Ok(match (current, validated) {
        (Some(current), Some(validated)) if current == validated => match Marks::of(&current, &records) {
            Marks { bad: Some(reason), .. } => {
                Finding::broken(check, format!("release {current} is current, and bad: {reason}"), advice)
            }
            Marks { passed: false, .. } => {
                Finding::warning(check, format!("release {current} is current, and was never validated"), advice)
            }
            _ => Finding::sound(check, format!("release {current} is current and validated")),
        },
        (Some(current), Some(_)) => {
            let back = boot::validated(store)?.map_or("itself again".to_owned(), |id| id.to_string());
            let text = format!("release {current} is provisional: a crash or a reboot comes up on {back}");
            Finding::warning(check, text, advice)
        }
        (Some(_), None) => Finding::broken(
            check,
            "validated is lost: a boot has no tool to start the service with, and nobody else has one",
            "`/opt/app/current/bin/releasectl validate`",
        ),
        (None, Some(_)) => Finding::broken(
            check,
            "current is lost, or nothing was activated",
            "`releasectl boot` takes the validated release; or deploy again",
        ),
        (None, None) => Finding::broken(check, "no release is installed", "deploy one"),
    })
}

fn digests(store: &Store) -> Finding {
    let check = "digests";
    for link in [Link::Current, Link::Validated] {
        let Some(id) = store.named_by(link) else { continue };
        let whole =
            store.release(&id).and_then(|release| tree::verify(&release.folder, &release.manifest).map(|()| release));
        match whole {
            Err(error) => {
                let advice = "deploy the same bundle again, which repairs it, or `releasectl rollback`";
                return Finding::broken(check, error.to_string(), advice);
            }
            Ok(release) if release.manifest.arch != machine() => {
                let text =
                    format!("release {id} is built for {}, and this machine is {}", release.manifest.arch, machine());
                return Finding::broken(check, text, "make a bundle for it");
            }
            Ok(_) => {}
        }
    }
    Finding::sound(check, "current and validated are whole, and for this machine")
}

fn machine() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}

/// Root's, and writable for nobody else: who can write here is root at the next deployment.
fn owners(store: &Store) -> Finding {
    let check = "owners";
    let mut paths = vec![store.path(""), store.host().path("/etc/app")];
    for folder in [store.path(""), store.path("releases")] {
        paths.extend(fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    if let Ok(release) = store.current().and_then(|id| store.release(&id)) {
        paths.extend(release.manifest.files.iter().map(|file| release.folder.join(&file.path)));
    }
    let units = fs::read_dir(store.host().path("/etc/systemd/system")).into_iter().flatten().flatten();
    for path in units.map(|entry| entry.path()).filter(|path| name(path).is_some_and(|name| name.starts_with("app"))) {
        paths.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        paths.push(path);
    }
    let is_wrong = |path: &&PathBuf| {
        fs::symlink_metadata(path)
            .is_ok_and(|metadata| metadata.uid() != 0 || !metadata.is_symlink() && metadata.mode() & 0o022 != 0)
    };
    match paths.iter().find(is_wrong) {
        Some(path) => Finding::broken(
            check,
            format!("{} can be written by others than root", path.display()),
            format!("`chown root:root {0}; chmod go-w {0}`, and ask who did", path.display()),
        ),
        None => Finding::sound(check, "the store and the units are root's alone"),
    }
}

fn secrets(store: &Store) -> Finding {
    let (check, path) = ("secrets", store.host().path("/etc/app/env"));
    match fs::metadata(&path) {
        Ok(metadata) if metadata.uid() != 0 || metadata.mode() & 0o077 != 0 => Finding::warning(
            check,
            "/etc/app/env can be read, or written, by others than root",
            "`chown root:root /etc/app/env; chmod 600 /etc/app/env`",
        ),
        Ok(_) => Finding::sound(check, "/etc/app/env is root's alone"),
        Err(_) => Finding::sound(check, "there is no /etc/app/env"),
    }
}

fn notifier(store: &Store) -> Finding {
    let check = "notify";
    match fs::symlink_metadata(store.host().path(notify::PATH)).map(|metadata| notify::fault(&metadata)) {
        Ok(Some(fault)) => Finding::warning(check, format!("{} is not run", notify::PATH), format!("it {fault}")),
        Ok(None) => Finding::sound(check, format!("{} gets each receipt", notify::PATH)),
        Err(_) => Finding::sound(check, format!("there is no {}", notify::PATH)),
    }
}

fn leftovers(store: &Store) -> Finding {
    let check = "leftovers";
    let unfinished = |folder: PathBuf, is_one: fn(&str) -> bool| {
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        names.map(|entry| entry.path()).filter(move |path| name(path).is_some_and(is_one))
    };
    let mut left = unfinished(store.path("releases"), |name| name.starts_with('.'))
        .chain(unfinished(store.path(""), |name| name.ends_with(".new")));
    match left.next() {
        Some(path) => {
            let advice = "`releasectl prune` removes it, unless a deployment is under way";
            Finding::warning(check, format!("{} was left by a verb that was killed", path.display()), advice)
        }
        None => Finding::sound(check, "killed verbs have left nothing"),
    }
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// CodeDeploy signs with the time of day, and the log is in its order.
fn clock(store: &Store) -> Result<Finding> {
    let (check, now) = ("clock", store::now());
    let latest = store.records()?.iter().map(crate::trail::Record::time).max().unwrap_or(0);
    Ok(if latest > now + 60 {
        Finding::warning(
            check,
            format!("the clock is {} s behind the last line of the log", latest - now),
            "let it be set from the network: `timedatectl set-ntp true`",
        )
    } else {
        Finding::sound(check, "it is not behind the log")
    })
}
