//! A stand-in for CodeDeploy's agent: it does to a bundle, on a real host, what the real one does.
//!
//! What it knows of version 1 was read in the source of 1.8.1; of version 2 only the change log is public. The hooks run below
//! a real service, `codedeploy-agent.service`, so that they can be killed with it.

mod appspec;
mod archive;
mod console;
mod deployment;
mod failure;
mod hook;
mod incident;
mod lifecycle;
mod output;
mod record;
mod service;
mod settings;
mod worker;

use std::{fs, time::Instant};

use appspec::Appspec;
use failure::unknown;
use hook::Hook;
use lifecycle::Event as Lifecycle;
use output::Output;
use record::Place;
use settings::Settings;

pub use archive::{Kind, as_zip};
pub use console::tell;
pub use deployment::{Deployment, Event, Status};
pub use failure::{Code, Failure};
pub use incident::{Incident, What};
pub use settings::{Source, Version};

use crate::Host;

/// An agent for one host and one deployment group. What it remembers is on the host, as the real one's is.
#[derive(Debug)]
pub struct Agent<'a> {
    host: &'a Host,
    settings: Settings,
}

/// Where the files of a deployment come from.
#[derive(Clone, Copy)]
enum Revision<'a> {
    Bundle(&'a [u8]),
    /// The copy that a deployment before has left, in its folder.
    Copy(&'a str),
}

impl<'a> Agent<'a> {
    /// The agent of a host.
    pub fn new(host: &'a Host) -> Self {
        Self { host, settings: Settings::default() }
    }

    /// Unpacks a bundle and runs its events; the first that fails ends the deployment.
    pub fn deploy(&mut self, bundle: &[u8]) -> Deployment {
        self.deploy_and_tell(bundle, |_, _| {})
    }

    /// The same, and `tell` is told of each event before it: what the deployment did so far, and the event's name.
    pub fn deploy_and_tell(&mut self, bundle: &[u8], tell: impl FnMut(&Deployment, &'static str)) -> Deployment {
        self.roll_out(Revision::Bundle(bundle), tell)
    }

    /// What version 2.1 calls a RESTART: the last revision that was installed, under a new id, from the copy on the host; or
    /// from `bundle`, where that copy is gone.
    pub fn restart(&mut self, bundle: &[u8]) -> Deployment {
        let last = record::last_installed(self.host, &self.settings.group);
        let copy = last.filter(|folder| self.host.path(&format!("{folder}/{}", record::ARCHIVE)).is_dir());
        self.roll_out(copy.as_deref().map_or(Revision::Bundle(bundle), Revision::Copy), |_, _| {})
    }

    /// The incidents that have not come to pass: a deployment in which they were to has shown nothing.
    pub fn missed(&self) -> Vec<String> {
        self.settings.incidents.missed()
    }

    fn roll_out(&mut self, revision: Revision<'_>, mut tell: impl FnMut(&Deployment, &'static str)) -> Deployment {
        service::start(self.host);
        let place = Place::fresh(&self.settings.group);
        let mut deployment = Deployment { id: place.id.clone(), events: Vec::new() };
        for event in lifecycle::all(self.settings.traffic) {
            tell(&deployment, event.name());
            deployment.events.push(self.execute(event, &place, revision));
            if !deployment.succeeded() {
                break;
            }
        }
        deployment
    }

    fn execute(&self, event: Lifecycle, place: &Place, revision: Revision<'_>) -> Event {
        let (began, mut output) = (Instant::now(), Output::default());
        self.settings.incidents.before(event, self.host);
        let done = fs::create_dir_all(self.host.path(&place.folder)).map_err(unknown).and_then(|()| match event {
            Lifecycle::DownloadBundle => self.download(place, revision),
            Lifecycle::Install => self.install(place),
            // The balancer's own part: nothing runs on the host.
            Lifecycle::BlockTraffic | Lifecycle::AllowTraffic => Ok(()),
            _ => self.run_hooks(event, place, &mut output),
        });
        let status = match done {
            Ok(()) => Status::Succeeded,
            Err(failure) if event.is_of_the_previous_bundle() && self.settings.ignores_previous_failures => {
                Status::Ignored(failure)
            }
            Err(failure) => Status::Failed(failure),
        };
        let (tail, output) = (output.tail(), output.whole());
        Event { name: event.name(), status, duration: began.elapsed(), tail, output }
    }

    fn download(&self, place: &Place, revision: Revision<'_>) -> Result<(), Failure> {
        record::prune(self.host, place, self.settings.max_revisions).map_err(unknown)?;
        match revision {
            Revision::Copy(folder) => archive::copy(self.host, folder, &place.archive()).map_err(unknown)?,
            Revision::Bundle(bundle) => {
                fs::write(self.host.path(&place.bundle()), bundle).map_err(unknown)?;
                let kind = self.settings.kind.unwrap_or_else(|| Kind::of(bundle));
                archive::unpack(self.host, kind, place).map_err(unknown)?;
            }
        }
        record::remember_download(self.host, place).map_err(unknown)
    }

    /// Ours bring no `files:`, so there is nothing to do but to succeed, and to be the last bundle that did.
    fn install(&self, place: &Place) -> Result<(), Failure> {
        let appspec = self.appspec(&place.archive())?;
        if appspec.copies_files {
            return Err(unknown("the stand-in for the agent copies no `files:`; see what they do in hooks"));
        }
        if self.settings.rejects_unknown_events {
            let unknown_events: Vec<_> =
                appspec.hooks.keys().filter(|name| !lifecycle::is_known(name)).map(String::as_str).collect();
            if !unknown_events.is_empty() {
                let names = unknown_events.join(", ");
                return Err(unknown(format!("appspec.yml file contains unknown lifecycle events: {names}")));
            }
        }
        record::remember_install(self.host, place).map_err(unknown)
    }

    /// Reads the appspec anew at each event, of the bundle that the event is taken from, as it is then.
    fn run_hooks(&self, event: Lifecycle, place: &Place, output: &mut Output) -> Result<(), Failure> {
        let Some(archive) = self.archive_for(event, place) else { return Ok(()) };
        let mut appspec = self.appspec(&archive)?;
        let scripts = appspec.hooks.remove(event.name()).unwrap_or_default();
        if scripts.is_empty() {
            return Ok(());
        }
        output.log_to(self.host.path(&place.log())).map_err(unknown)?;
        output.add(&format!("LifecycleEvent - {}\n", event.name())).map_err(unknown)?;
        let mut run = |script| {
            Hook { host: self.host, settings: &self.settings, event, place, archive: &archive, script }.run(output)
        };
        scripts.iter().try_for_each(&mut run)
    }

    /// The previous bundle's, where it is its event: that one knows how to stop what runs.
    fn archive_for(&self, event: Lifecycle, place: &Place) -> Option<String> {
        if !event.is_of_the_previous_bundle() {
            return Some(place.archive());
        }
        let folder = record::last_installed(self.host, &place.group)?;
        let archive = format!("{folder}/{}", record::ARCHIVE);
        // The record may outlive the archive. Version 1 then fails for want of its appspec.
        let is_gone = !self.host.path(&archive).is_dir();
        (self.settings.version == Version::V1 || !is_gone).then_some(archive)
    }

    fn appspec(&self, archive: &str) -> Result<Appspec, Failure> {
        let path = format!("{archive}/appspec.yml");
        let text = fs::read_to_string(self.host.path(&path)).map_err(|error| {
            unknown(format!("The CodeDeploy agent did not find an AppSpec file at \"{path}\": {error}"))
        })?;
        Appspec::parse(&text).map_err(unknown)
    }
}
