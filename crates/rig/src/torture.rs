//! Every step of every verb, on a real host under load: the process is killed there, alone or with its group, or the step
//! fails as a bad disk lets it fail. Then nothing is broken, and the next deployment or a boot heals the host.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, fs, io,
    path::Path,
    sync::Mutex,
    thread,
};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use releases::{Manifest, ReleaseId, bundle::Contents, tree};
use serde_json::Value;

use crate::{Host, Load, Mode};

const BUNDLE: &str = "/root/bundle";
const REQUEST: &str = "/run/releasectl.fault";
const STEPS: &str = "/run/releasectl.steps";
/// Hosts at once: a trial waits more than it works.
const HOSTS: usize = 3;
const CLIENTS: usize = 4;

/// What is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Verb {
    /// AfterInstall
    Install,
    /// ApplicationStart
    Activate,
    /// ValidateService, with the pruning that it ends with
    Validate,
    /// `releasectl rollback`
    Rollback,
    /// What systemd runs when nobody serves
    Boot,
    /// `releasectl prune`
    Prune,
}

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// The process is killed.
    Kill,
    /// Its whole process group is.
    KillGroup,
    /// The step fails with EIO.
    Fails,
    /// From there on the disk of the store is full,
    Full,
    /// has no inodes left,
    NoInodes,
    /// or is read-only.
    ReadOnly,
    /// From there on the process may open no more files.
    NoDescriptors,
}

/// What heals the host afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heal {
    /// The next deployment.
    Deployment,
    /// A reboot.
    Boot,
}

const HOWS: [How; 7] =
    [How::Kill, How::KillGroup, How::Fails, How::Full, How::NoInodes, How::ReadOnly, How::NoDescriptors];

/// One step of one verb, what happens there, and what comes after.
#[derive(Clone, Copy, Debug)]
struct Trial {
    verb: Verb,
    how: How,
    heal: Heal,
    step: usize,
}

/// What a kind of trial has come to.
#[derive(Debug, Default)]
struct Row {
    steps: usize,
    tried: usize,
    reached: usize,
    lost: u64,
    broken: Vec<String>,
}

/// A disk that does not take what it is given is one of its own.
impl How {
    fn is_of_a_disk(self) -> bool {
        !matches!(self, Self::Kill | Self::KillGroup)
    }
}

/// Runs all trials, or of each kind every `every`th; returns whether every step was reached, nothing was broken and no
/// request was lost.
///
/// # Errors
/// Where the bundle does not build.
///
/// # Panics
/// Where a host does not boot.
pub fn run(verbs: &[Verb], every: usize) -> io::Result<bool> {
    let contents = contents()?;
    let counts = Stage::set(&contents, false)?.count(verbs);
    let mut trials = VecDeque::new();
    let mut rows: BTreeMap<(Verb, How, Heal), Row> = BTreeMap::new();
    for (kind, (verb, steps)) in counts.iter().enumerate() {
        for (at, (how, heal)) in
            HOWS.into_iter().flat_map(|how| [(how, Heal::Deployment), (how, Heal::Boot)]).enumerate()
        {
            // A small disk is in memory, and gone with a reboot; on one that cannot be written a boot cannot serve.
            if heal == Heal::Boot && how.is_of_a_disk() || *verb == Verb::Boot && how == How::ReadOnly {
                continue;
            }
            rows.entry((*verb, how, heal)).or_default().steps = *steps;
            // Each kind begins elsewhere, so that a part of them still is not always the same.
            let first = (kind + at) % every.max(1) + 1;
            trials.extend((first..=*steps).step_by(every.max(1)).map(|step| Trial { verb: *verb, how, heal, step }));
        }
    }
    eprintln!("{} trials", trials.len());
    let (trials, rows) = (Mutex::new(trials), Mutex::new(rows));
    thread::scope(|scope| {
        for _ in 0..HOSTS {
            scope.spawn(|| {
                let mut stages: [Option<Stage>; 2] = [None, None];
                loop {
                    let Some(trial) = trials.lock().expect("no trial panics").pop_front() else { return };
                    let is_small = trial.how.is_of_a_disk();
                    let stage = &mut stages[usize::from(is_small)];
                    let result = match stage.take().map_or_else(|| Stage::set(&contents, is_small), Ok) {
                        Ok(mut fresh) => {
                            let result = fresh.run(trial);
                            // What is broken must not spoil the next trial.
                            *stage = result.broken.is_empty().then_some(fresh);
                            result
                        }
                        Err(error) => Ended::broken(format!("the host cannot be set up: {error}")),
                    };
                    let mut rows = rows.lock().expect("no trial panics");
                    rows.entry((trial.verb, trial.how, trial.heal)).or_default().add(trial, result);
                }
            });
        }
    });
    let rows = rows.into_inner().expect("no trial panics");
    println!("{}", render(&rows));
    for fault in rows.values().flat_map(|row| &row.broken) {
        println!("{fault}");
    }
    let is_good = |row: &Row| row.broken.is_empty() && row.lost == 0 && row.reached == row.tried && row.tried > 0;
    Ok(rows.values().all(is_good))
}

fn render(rows: &BTreeMap<(Verb, How, Heal), Row>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["VERB", "AT A STEP", "THEN", "STEPS", "TRIED", "REACHED", "BROKEN", "LOST"]);
    for ((verb, how, heal), row) in rows {
        let verb = verb.to_possible_value().expect("none is skipped").get_name().to_owned();
        let heal = if *heal == Heal::Boot { "boot" } else { "deployment" }.to_owned();
        let counts = [row.steps, row.tried, row.reached, row.broken.len(), row.lost as usize];
        table.add_row([verb, how.to_string(), heal].into_iter().chain(counts.map(|count| count.to_string())));
    }
    table
}

impl Row {
    fn add(&mut self, trial: Trial, result: Ended) {
        self.tried += 1;
        self.reached += usize::from(result.is_reached);
        self.lost += result.lost;
        let name = format!("{:?} {} at {}, then {:?}", trial.verb, trial.how, trial.step, trial.heal);
        if !result.is_reached {
            self.broken.push(format!("{name}: the step was not reached"));
        }
        if result.lost > 0 {
            self.broken.push(format!("{name}: {} requests lost: {}", result.lost, result.losses));
        }
        self.broken.extend(result.broken.into_iter().map(|fault| format!("{name}: {fault}")));
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "killed",
            Self::KillGroup => "killed with its group",
            Self::Fails => "EIO",
            Self::Full => "the disk is full",
            Self::NoInodes => "no inodes are left",
            Self::ReadOnly => "the disk is read-only",
            Self::NoDescriptors => "no descriptors are left",
        })
    }
}

impl How {
    /// As fault.rs of `releases` is told it.
    fn request(self, step: usize) -> String {
        let run = |command: &str| format!("run {step} {command}");
        match self {
            Self::Kill => format!("kill {step}"),
            Self::KillGroup => format!("kill-group {step}"),
            Self::Fails => format!("error {step} 5"),
            Self::Full => run("head -c 1G /dev/zero >/opt/app/.filler 2>/dev/null"),
            Self::NoInodes => run("cd /opt/app/.fillers; n=0; while : >$n; do n=$((n+1)); done 2>/dev/null"),
            Self::ReadOnly => run("mount -o remount,ro /opt/app"),
            Self::NoDescriptors => run("prlimit --pid $PPID --nofile=3"),
        }
    }
}

/// What one trial has come to.
#[derive(Debug, Default)]
struct Ended {
    is_reached: bool,
    lost: u64,
    losses: String,
    broken: Vec<String>,
}

impl Ended {
    fn broken(fault: String) -> Self {
        Self { broken: vec![fault], ..Self::default() }
    }
}

/// The product with a `releasectl` whose steps can be counted and fail.
fn contents() -> io::Result<Contents> {
    let mut contents = Contents::build(crate::workspace()).map_err(io::Error::other)?;
    contents.use_faults(crate::workspace()).map_err(io::Error::other)?;
    let validate = "#!/bin/sh\ncd \"${0%/*}/..\" || exit 1\nexec bin/releasectl validate . --bake 0 --keep 2\n";
    contents.put("hooks/validate-service", 0o755, validate.as_bytes());
    Ok(contents)
}

/// A host with a validated release and one before it, and the unpacked bundle of the next. Its store may be on a disk of its
/// own, in memory.
struct Stage {
    host: Host,
    manifest: Value,
    revision: u32,
    /// The release that was last reported as validated.
    reported: Option<ReleaseId>,
}

impl Stage {
    fn set(contents: &Contents, is_small: bool) -> io::Result<Self> {
        let host = Host::boot();
        if is_small {
            host.succeed("mkdir -p /opt/app && mount -t tmpfs -o size=200m,nr_inodes=1000,mode=755 tmpfs /opt/app");
            host.succeed("mkdir /opt/app/.fillers");
        }
        let bundle = contents.pack("0").map_err(io::Error::other)?;
        fs::write(host.path("/root/bundle.tgz"), bundle.archive)?;
        host.succeed(&format!("mkdir {BUNDLE} && tar -xzf /root/bundle.tgz -C {BUNDLE}"));
        let manifest = serde_json::from_slice(&fs::read(host.path(&format!("{BUNDLE}/manifest.json")))?)?;
        let mut stage = Self { host, manifest, revision: 0, reported: None };
        for _ in 0..2 {
            stage.deploy().map_err(io::Error::other)?;
        }
        Ok(stage)
    }

    /// How many steps each verb has, when nothing happens.
    fn count(mut self, verbs: &[Verb]) -> Vec<(Verb, usize)> {
        let mut counts = Vec::new();
        for verb in verbs {
            self.prepare(*verb).unwrap_or_else(|error| panic!("{verb:?} cannot be prepared: {error}"));
            self.request(&format!("{} count", verb.name()));
            self.perform(*verb);
            let steps = self.steps(*verb);
            assert!(steps > 0, "{verb:?} has no steps");
            counts.push((*verb, steps));
        }
        counts
    }

    fn run(&mut self, trial: Trial) -> Ended {
        let mut ended = Ended::default();
        if let Err(error) = self.prepare(trial.verb) {
            return Ended::broken(format!("cannot be prepared: {error}"));
        }
        let Trial { verb, how, step, .. } = trial;
        self.request(&format!("{} {}", verb.name(), how.request(step)));
        // An instance that is killed takes its requests along: a boot is for those that come then, and wait.
        let loads = [Mode::C1, Mode::C3].map(|mode| Load::start(&self.host, mode, CLIENTS));
        let said = self.perform(verb);
        ended.is_reached = self.steps(verb) >= step;
        let _ = fs::remove_file(self.host.path(REQUEST));
        ended.broken = self.check();
        self.host.succeed("mount -o remount,rw /opt/app; rm -rf /opt/app/.filler /opt/app/.fillers/*");
        if trial.heal == Heal::Deployment {
            ended.broken.extend(self.deploy().err());
        }
        for report in loads.map(Load::stop) {
            ended.lost += report.lost();
            ended.losses = report.losses();
        }
        if trial.heal == Heal::Boot {
            self.host.reboot();
        }
        ended.broken.extend(self.check());
        ended.broken.extend(self.check_converged());
        if let Some(last) = said.lines().last().filter(|_| !ended.broken.is_empty()) {
            ended.broken.push(format!("it had said: {last}"));
        }
        ended
    }

    /// Gives the unpacked bundle another label: another release of the same files.
    fn next_revision(&mut self) -> ReleaseId {
        self.revision += 1;
        self.manifest["label"] = self.revision.to_string().into();
        let bytes = serde_json::to_vec_pretty(&self.manifest).expect("it is JSON");
        fs::write(self.host.path(&format!("{BUNDLE}/manifest.json")), &bytes).expect("the host takes it");
        ReleaseId::of_manifest(&bytes)
    }

    fn hook(&self, name: &str) -> Result<(), String> {
        let ran = self.host.run(&format!("exec setsid --wait {BUNDLE}/hooks/{name}"));
        if ran.code == 0 { Ok(()) } else { Err(format!("{name} exited with {}: {}", ran.code, ran.output.trim())) }
    }

    /// A deployment, whole; it must succeed.
    fn deploy(&mut self) -> Result<(), String> {
        let id = self.next_revision();
        ["after-install", "application-start", "validate-service"].into_iter().try_for_each(|name| self.hook(name))?;
        self.reported = Some(id);
        Ok(())
    }

    /// From the same state each time, so that each verb has as many steps as when they were counted.
    fn prepare(&mut self, verb: Verb) -> Result<(), String> {
        self.deploy()?;
        match verb {
            Verb::Install => {
                self.next_revision();
                Ok(())
            }
            Verb::Activate => {
                self.next_revision();
                self.hook("after-install")
            }
            Verb::Validate => {
                self.next_revision();
                self.hook("after-install").and_then(|()| self.hook("application-start"))
            }
            Verb::Rollback => self.deploy(),
            Verb::Boot => {
                self.host.succeed("systemctl kill -s KILL 'app-*@*'");
                self.host.wait_until("nobody serves", |host| host.run("systemctl is-active 'app-*@*'").code != 0);
                Ok(())
            }
            Verb::Prune => (0..2).try_for_each(|_| {
                self.reported = Some(self.next_revision());
                self.hook("after-install").and_then(|()| self.hook("application-start"))?;
                self.host.succeed(&format!("{BUNDLE}/bin/releasectl validate {BUNDLE} --bake 0 --keep 9"));
                Ok(())
            }),
        }
    }

    /// Runs the verb as it is run on a host, in a session of its own, and returns what it said.
    fn perform(&self, verb: Verb) -> String {
        let run = |command: &str| self.host.run(&format!("exec setsid --wait {command}")).output;
        match verb {
            Verb::Install => run(&format!("{BUNDLE}/hooks/after-install")),
            Verb::Activate => run(&format!("{BUNDLE}/hooks/application-start")),
            Verb::Validate => run(&format!("{BUNDLE}/hooks/validate-service")),
            Verb::Rollback => run("releasectl rollback"),
            Verb::Prune => run("releasectl prune --keep 0"),
            // systemd runs it, for the clients that knock.
            Verb::Boot => {
                self.host.run("curl -s --max-time 60 localhost/livez; until systemctl is-active -q 'app-*@*'; do sleep 0.01; done")
                    .output
            }
        }
    }

    fn request(&self, line: &str) {
        let _ = fs::remove_file(self.host.path(STEPS));
        fs::write(self.host.path(REQUEST), format!("{line}\n")).expect("the host takes it");
    }

    /// The highest step that a process of the verb has come to.
    fn steps(&self, verb: Verb) -> usize {
        let text = fs::read_to_string(self.host.path(STEPS)).unwrap_or_default();
        let step = |line: &str| line.strip_prefix(verb.name())?.split(' ').nth(2)?.parse().ok();
        text.lines().filter_map(step).max().unwrap_or(0)
    }

    /// What of releases.md's invariants does not hold at this moment.
    fn check(&self) -> Vec<String> {
        let base = self.host.path("/opt/app");
        let mut broken = Vec::new();
        for link in ["current", "validated"] {
            match fs::read_link(base.join(link)) {
                Ok(target) => broken.extend(whole(&base.join(target)).err().map(|fault| format!("{link}: {fault}"))),
                Err(error) => broken.push(format!("{link}: {error}")),
            }
        }
        for entry in fs::read_dir(base.join("releases")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().parse::<ReleaseId>().is_ok() {
                broken.extend(whole(&entry.path()).err().map(|fault| format!("R2: {fault}")));
            }
        }
        let reported = self.reported.as_ref().map(|id| base.join("releases").join(id.as_str()));
        if reported.is_some_and(|folder| !folder.is_dir()) {
            broken.push("what was reported as validated is not there".to_owned());
        }
        broken
    }

    /// What is not as it is on a host on which nothing ever happened.
    fn check_converged(&self) -> Vec<String> {
        let settled = |host: &Host| {
            let units = host.run("systemctl list-units --all --plain --no-legend 'app-*@*'").output;
            units.lines().count() == 1 && units.contains(" active ")
        };
        let mut broken = Vec::new();
        if !self.host.comes_true(settled) {
            broken.push(format!("not one instance: {}", self.host.run("systemctl list-units --all 'app*'").output));
        }
        let ran = self.host.run("releasectl status --json");
        let status: Value = serde_json::from_str(&ran.output).unwrap_or_default();
        let instance = &status["instances"][0];
        if instance["release"] != status["current"] || instance["accepting"] != true || status["provisional"] != false {
            broken.push(format!("it is not the instance of what is current: {status}"));
        }
        let running = self.host.run("systemctl is-system-running").output;
        if running.trim() != "running" {
            broken.push(format!("the host is {}: {}", running.trim(), self.host.run("systemctl --failed").output));
        }
        let leftovers = "cd /opt/app/releases && ls -d .[0-9a-f]* 2>/dev/null; ls /opt/app /etc/systemd/system | grep '[.]new$'; \
             for unit in /etc/systemd/system/app-*@.service; do id=${unit#*/app-}; [ -d ${id%@.service} ] || echo $unit; done; \
             for file in /run/app/[0-9]*; do n=${file#/run/app/}; systemctl list-units --plain --no-legend \"app-*@${n%%.*}.service\" | grep -q . || echo $file; done";
        let left = self.host.run(leftovers).output;
        if !left.trim().is_empty() {
            broken.push(format!("left over: {}", left.trim().replace('\n', ", ")));
        }
        broken
    }
}

/// Whether a folder is a release, complete, each byte as its name says.
fn whole(folder: &Path) -> Result<(), String> {
    let (manifest, id) = Manifest::read(folder).map_err(|error| error.to_string())?;
    if folder.file_name().is_none_or(|name| name != id.as_str()) {
        return Err(format!("{} holds release {id}", folder.display()));
    }
    tree::verify(folder, &manifest).map_err(|error| error.to_string())
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Activate => "activate",
            Self::Validate => "validate",
            Self::Rollback => "rollback",
            Self::Boot => "boot",
            Self::Prune => "prune",
        }
    }
}
