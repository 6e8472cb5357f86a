//! A simple CodeDeploy agent: it runs an appspec's events on a host as CodeDeploy's own does.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::Host;

/// In order, for a deployment in place without a load balancer.
const EVENTS: [&str; 5] = ["ApplicationStop", "BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService"];
const ROOT: &str = "/opt/codedeploy-agent/deployment-root";
const GROUP: &str = "1c0ffee0-aaaa-4bbb-8ccc-0123456789ab";
/// What CodeDeploy's console shows of a script's output.
const TAIL: usize = 2047;
/// Between the polite and the final end of a script that is out of time.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// An agent for one host. It remembers the last bundle that was installed, as the real one does.
#[derive(Debug)]
pub struct Agent<'a> {
    host: &'a Host,
    last_installed: Option<String>,
}

/// What a deployment did.
#[derive(Debug)]
pub struct Deployment {
    /// `d-` and nine letters or digits.
    pub id: String,
    /// The download and the scripts that ran, in order.
    pub events: Vec<Event>,
}

/// One event's script, or the download.
#[derive(Debug)]
pub struct Event {
    /// The event's name.
    pub name: String,
    /// Its exit code; none where it ran out of time.
    pub code: Option<i32>,
    /// How long it took.
    pub duration: Duration,
    /// What it printed, each line marked `[stdout]` or `[stderr]`.
    pub output: String,
}

#[derive(Deserialize)]
struct Appspec {
    os: String,
    #[serde(default)]
    hooks: BTreeMap<String, Vec<Script>>,
}

#[derive(Deserialize)]
struct Script {
    location: String,
    #[serde(default = "an_hour")]
    timeout: u64,
}

fn an_hour() -> u64 {
    3600
}

impl Deployment {
    /// Whether every script exited with 0.
    pub fn succeeded(&self) -> bool {
        self.events.iter().all(|event| event.code == Some(0))
    }

    /// The last one: the one that failed, if one did.
    ///
    /// # Panics
    /// Never: a deployment begins with the download.
    pub fn last(&self) -> &Event {
        self.events.last().expect("the download is one")
    }

    /// The deployment, if it succeeded.
    ///
    /// # Panics
    /// With the output of the script that failed.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(self.succeeded(), "{} failed: {}", self.last().name, self.last().tail());
        self
    }

    /// The deployment, if it failed in `event`.
    ///
    /// # Panics
    /// Where it succeeded, or failed elsewhere.
    #[track_caller]
    pub fn expect_failure(self, event: &str) -> Self {
        assert!(!self.succeeded(), "wanted {event} to fail, and it did not: {}", self.last().tail());
        assert_eq!(self.last().name, event, "{}", self.last().tail());
        self
    }
}

impl Event {
    /// The end of the output, as much as CodeDeploy's console shows.
    pub fn tail(&self) -> &str {
        let from = self.output.len().saturating_sub(TAIL);
        let from = (from..=self.output.len()).find(|at| self.output.is_char_boundary(*at)).unwrap_or(0);
        &self.output[from..]
    }
}

impl<'a> Agent<'a> {
    /// The agent of a host.
    pub fn new(host: &'a Host) -> Self {
        Self { host, last_installed: None }
    }

    /// Unpacks a bundle (a gzipped tar archive) and runs its events; the first that fails ends the deployment.
    ///
    /// # Panics
    /// Where its appspec cannot be read.
    pub fn deploy(&mut self, bundle: &[u8]) -> Deployment {
        let id = format!("d-{}", (0..9).map(|_| fastrand::char('A'..='Z')).collect::<String>());
        let folder = format!("{ROOT}/{GROUP}/{id}");
        let archive = format!("{folder}/deployment-archive");
        let mut deployment = Deployment { id, events: vec![self.download(bundle, &folder, &archive)] };
        if !deployment.succeeded() {
            return deployment;
        }
        for event in EVENTS {
            // ApplicationStop is the previous bundle's, as it was the one that knew how to stop what runs.
            let from = if event == "ApplicationStop" { self.last_installed.clone() } else { Some(archive.clone()) };
            for script in from.iter().flat_map(|from| self.scripts(from, event)) {
                let ran = self.run(event, from.as_deref().unwrap_or_default(), &script, &deployment.id, &folder);
                deployment.events.push(ran);
                if !deployment.succeeded() {
                    return deployment;
                }
            }
            if event == "BeforeInstall" {
                // The Install event comes next; without `files:` it has nothing to do but succeed.
                self.last_installed = Some(archive.clone());
            }
        }
        deployment
    }

    fn download(&self, bundle: &[u8], folder: &str, archive: &str) -> Event {
        let began = Instant::now();
        self.host.succeed(&format!("mkdir -p {archive} {folder}/logs"));
        fs::write(self.host.path(&format!("{folder}/bundle.tar")), bundle).expect("the host's disk takes the bundle");
        // A sole folder at the top that holds the appspec is stripped.
        let ran = self.host.run(&format!(
            "tar -xzf {folder}/bundle.tar -C {archive} && cd {archive} && set -- * && \
             if [ $# -eq 1 ] && [ -f \"$1/appspec.yml\" ]; then mv \"$1\"/* . && rmdir \"$1\"; fi"
        ));
        let output = ran.output;
        Event { name: "DownloadBundle".to_owned(), code: Some(ran.code), duration: began.elapsed(), output }
    }

    fn scripts(&self, archive: &str, event: &str) -> Vec<Script> {
        let text = fs::read_to_string(self.host.path(&format!("{archive}/appspec.yml"))).expect("an appspec.yml");
        let mut appspec: Appspec = serde_saphyr::from_str(&text).expect("a sound appspec.yml");
        assert_eq!(appspec.os, "linux");
        appspec.hooks.remove(event).unwrap_or_default()
    }

    fn run(&self, event: &str, archive: &str, script: &Script, id: &str, folder: &str) -> Event {
        let path = format!("{archive}/{}", script.location);
        let began = Instant::now();
        self.host.succeed(&format!("chmod +x {path}"));
        let mut child = self.command(event, &path, id).spawn().expect("nsenter starts");
        let (code, output) = wait(&mut child, Duration::from_secs(script.timeout));
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.host.path(&format!("{folder}/logs/scripts.log")));
        let _ = log.and_then(|mut log| write!(log, "LifecycleEvent - {event}\nScript - {}\n{output}", script.location));
        Event { name: event.to_owned(), code, duration: began.elapsed(), output }
    }

    /// As the agent does it: no shell, no arguments, `/`, a clean environment, a process group of its own.
    fn command(&self, event: &str, path: &str, id: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.host.leader().to_string(), "-a", "--", "env", "-i", "--chdir=/"]);
        command.arg("PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin");
        command.args([&format!("LIFECYCLE_EVENT={event}"), &format!("DEPLOYMENT_ID={id}")]);
        command.args(["APPLICATION_NAME=app", "DEPLOYMENT_GROUP_NAME=rig", &format!("DEPLOYMENT_GROUP_ID={GROUP}")]);
        command.args(["BUNDLE_BUCKET=rig", "BUNDLE_KEY=app.tgz", path]);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Waits for the exit and for the end of both pipes, within one time limit; past it the whole group is ended.
fn wait(child: &mut Child, limit: Duration) -> (Option<i32>, String) {
    let deadline = Instant::now() + limit;
    let (lines, read) = mpsc::channel();
    pass_on(child.stdout.take().expect("piped"), "[stdout]", lines.clone());
    pass_on(child.stderr.take().expect("piped"), "[stderr]", lines);
    let mut output = String::new();
    loop {
        match read.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => output.push_str(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                end_group(child);
                return (None, output + "[stderr]script timed out\n");
            }
        }
    }
    (child.wait().ok().and_then(|status| status.code()), output)
}

fn pass_on(pipe: impl Read + Send + 'static, mark: &'static str, lines: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let _ = lines.send(format!("{mark}{}\n", String::from_utf8_lossy(&line)));
        }
    });
}

fn end_group(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
    let last = Instant::now() + LAST_WORDS;
    while Instant::now() < last && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(10));
    }
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    let _ = child.wait();
}
