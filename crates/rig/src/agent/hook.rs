//! Running one script of an event: started by a worker in the host, its pipes read here, one deadline for all of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use super::{
    Code, Failure, What,
    appspec::Script,
    lifecycle::Event,
    output::Output,
    record::Place,
    service,
    settings::{Folder, Settings, Version},
    worker::{News, Worker},
};
use crate::Host;

/// Between the polite and the final end of a script that is out of time, in version 2.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often an incident is looked out for.
const LOOK: Duration = Duration::from_millis(5);

/// One script, and what there is to know to run it.
pub(super) struct Hook<'a> {
    pub host: &'a Host,
    pub settings: &'a Settings,
    pub event: Event,
    pub place: &'a Place,
    pub archive: &'a str,
    pub script: &'a Script,
}

/// What the script still owes.
struct Owed {
    exit: Option<i32>,
    pipes: Vec<&'static str>,
    /// The log on the host did not take a line.
    unlogged: Option<std::io::Error>,
}

impl Hook<'_> {
    /// Runs it to its end, whichever that is.
    pub fn run(&self, output: &mut Output) -> Result<(), Failure> {
        self.make_executable()?;
        output.add(&format!("Script - {}\n", self.script.location)).map_err(|error| self.failed_with(&error))?;
        let deadline = Instant::now() + Duration::from_secs(self.script.timeout);
        let mut worker = Worker::start(self.host, &self.shell());
        let mut owed = Owed { exit: None, pipes: vec!["STDOUT", "STDERR"], unlogged: None };
        while owed.exit.is_none() || !owed.pipes.is_empty() {
            match worker.next(self.until(deadline)) {
                Some(News::Line(line)) => owed.unlogged = owed.unlogged.or(output.add(&line).err()),
                Some(News::Closed(pipe)) => owed.pipes.retain(|open| *open != pipe),
                Some(News::Exited(code)) => owed.exit = Some(code),
                Some(News::Died) => return Err(self.restarted()),
                None if Instant::now() >= deadline => return Err(self.out_of_time(worker, &owed)),
                None if self.ends_the_agent(&mut worker) => return Err(self.restarted()),
                None => {}
            }
        }
        match (owed.unlogged, owed.exit) {
            (Some(error), _) => Err(self.failed_with(&error)),
            (None, Some(0)) => Ok(()),
            (None, code) => {
                Err(self.failed(Code::ScriptFailed, &format!("failed with exit code {}", code.unwrap_or(-1))))
            }
        }
    }

    fn until(&self, deadline: Instant) -> Instant {
        if self.settings.incidents.may_come(self.event) { deadline.min(Instant::now() + LOOK) } else { deadline }
    }

    /// Does what is to happen now, if anything is; whether the agent outlives it.
    fn ends_the_agent(&self, worker: &mut Worker<'_>) -> bool {
        match self.settings.incidents.now(self.event, self.host) {
            None => return false,
            Some(What::Command(command)) => {
                self.host.run(command);
                return false;
            }
            Some(What::Killed) => worker.kill(),
            Some(What::Restarted) => {
                self.host.run(&format!("systemctl restart {}", service::UNIT));
                worker.close();
            }
        }
        true
    }

    /// A script that has ended and left a pipe to a child: the child lives on.
    fn out_of_time(&self, mut worker: Worker<'_>, owed: &Owed) -> Failure {
        if owed.exit.is_some() {
            let pipe = owed.pipes.first().copied().unwrap_or_default();
            return self.failed(Code::OutputsLeftOpen, &format!("failed to close {pipe}"));
        }
        worker.signal_group("TERM");
        worker.close();
        let last = (self.settings.version == Version::V2).then(|| Instant::now() + LAST_WORDS);
        if !worker.wait(last) {
            worker.signal_group("KILL");
            worker.wait(None);
        }
        let seconds = self.script.timeout;
        self.failed(Code::ScriptTimedOut, &format!("failed to complete in {seconds} seconds"))
    }

    fn path(&self) -> String {
        format!("{}/{}", self.archive, self.script.location)
    }

    fn make_executable(&self) -> Result<(), Failure> {
        let path = self.host.path(&self.path());
        let Ok(metadata) = fs::metadata(&path) else {
            let message = format!("does not exist: {}", self.path());
            return Err(self.failed(Code::ScriptMissing, &message));
        };
        let mut permissions = metadata.permissions();
        if permissions.mode() & 0o111 != 0 {
            return Ok(());
        }
        permissions.set_mode(permissions.mode() | 0o111);
        let set = fs::set_permissions(&path, permissions);
        set.map_err(|error| self.failed(Code::ScriptNotExecutable, &format!("cannot be made executable: {error}")))
    }

    /// How a worker starts it: no shell, no arguments but what a blank in its name makes one, a clean environment, a process
    /// group of its own, nothing on its standard input.
    fn shell(&self) -> String {
        let folder = match self.settings.folder {
            Folder::Root => "cd /",
            Folder::Deleted => "mkdir gone && cd gone && rmdir ../gone",
        };
        let (event, id, group) = (self.event.name(), &self.place.id, &self.place.group);
        let mut variables = vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin".to_owned(),
            format!("LIFECYCLE_EVENT={event}"),
            format!("DEPLOYMENT_ID={id}"),
            "APPLICATION_NAME=app".to_owned(),
            format!("DEPLOYMENT_GROUP_NAME={}", group.name),
            format!("DEPLOYMENT_GROUP_ID={}", group.id),
        ];
        variables.extend(self.settings.source.variables().iter().map(|variable| (*variable).to_owned()));
        format!("umask 022\n{folder}\nset -- setsid env -i {} {}\n", quoted(&variables), quoted(&self.words()))
    }

    fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        if self.script.sudo {
            words.push("sudo".to_owned());
        }
        if let Some(user) = &self.script.runas {
            words.extend(["su", user, "-c"].map(str::to_owned));
        }
        words.extend(self.path().split_whitespace().map(str::to_owned));
        words
    }

    fn failed(&self, code: Code, message: &str) -> Failure {
        let script = self.script.location.clone();
        Failure { code, message: format!("Script at specified location: {script} {message}"), script }
    }

    /// What the agent reports when it is back.
    fn restarted(&self) -> Failure {
        self.failed(Code::FailedAfterRestart, "was under way when the agent was restarted")
    }

    fn failed_with(&self, error: &std::io::Error) -> Failure {
        self.failed(Code::ScriptFailed, &format!("failed with error {error}"))
    }
}

fn quoted(words: &[String]) -> String {
    let quote = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}
