//! Every step of every verb, on a real host under load: the process is killed there, alone or with its group, or the step
//! fails as a bad disk lets it fail. Then nothing is broken, and the next deployment or a boot heals the host.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
};

use clap::ValueEnum;
use releases::{ReleaseId, bundle::Contents};

use crate::{
    Load, Mode,
    findings::Finding,
    host::Ran,
    subject::{self, BUNDLE, LIAR, STEPS, Subject},
    trace,
};

/// Hosts at once: a trial waits more than it works.
const HOSTS: usize = 4;
/// Of each kind: enough that a fresh connection is made every few milliseconds, and not so many that the trials wait for them.
const CLIENTS: usize = 6;
/// Beyond, a host is replaced: the small disk has room for some 24 of them.
const MOST_RELEASES: usize = 16;
/// An instance serves, and the boot that started it has ended.
const SETTLED: &str =
    "systemctl is-active -q 'app-*@*' && ! systemctl show -p ActiveState app.service | grep -q =activating";

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
    /// ValidateService of a release that fails, so that it goes back
    GoBack,
    /// Boot where what is current was provisional and has died, so that it goes back
    BootBack,
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
    /// or is read-only: as the verb sees it, for a disk that something on it is open for writing cannot be made so.
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

/// A disk that does not take what it is given is one of its own.
impl How {
    fn is_of_a_disk(self) -> bool {
        !matches!(self, Self::Kill | Self::KillGroup)
    }
}

/// Runs all trials, or of each kind every `every`th. A finding for each kind, and one for each verb that says whether all
/// that it changes are steps of its.
///
/// # Errors
/// Where the bundle does not build.
///
/// # Panics
/// Where a host does not boot.
pub fn run(verbs: &[Verb], every: usize) -> io::Result<Vec<Finding>> {
    let contents = subject::contents()?;
    let (counts, mut findings) = Stage::set(&contents, false)?.count(verbs);
    let mut trials = VecDeque::new();
    let mut kinds: BTreeMap<(Verb, How, Heal), Finding> = BTreeMap::new();
    for (kind, (verb, steps)) in counts.iter().enumerate() {
        for (at, (how, heal)) in
            HOWS.into_iter().flat_map(|how| [(how, Heal::Deployment), (how, Heal::Boot)]).enumerate()
        {
            // A small disk is in memory, and gone with a reboot.
            if heal == Heal::Boot && how.is_of_a_disk() {
                continue;
            }
            let name = Trial { verb: *verb, how, heal, step: 0 }.to_string();
            let finding = Finding { name, points: Some(*steps), lost: Some(0), ..Finding::default() };
            kinds.insert((*verb, how, heal), finding);
            // Each kind begins elsewhere, so that a part of them still is not always the same.
            let first = (kind + at) % every.max(1) + 1;
            trials.extend((first..=*steps).step_by(every.max(1)).map(|step| Trial { verb: *verb, how, heal, step }));
        }
    }
    let (trials, kinds) = (Mutex::new(trials), Mutex::new(kinds));
    thread::scope(|scope| {
        for _ in 0..HOSTS {
            scope.spawn(|| {
                let mut stages: [Option<Stage>; 2] = [None, None];
                loop {
                    let Some(trial) = next(&trials) else { return };
                    let stage = &mut stages[usize::from(trial.how.is_of_a_disk())];
                    let (result, fit) = attempt(trial, stage.take(), &contents);
                    *stage = fit;
                    let mut kinds = kinds.lock().expect("no trial panics");
                    let finding = kinds.get_mut(&(trial.verb, trial.how, trial.heal)).expect("it is of a kind");
                    let known = finding.broken.len();
                    finding.add(trial, result);
                    // At once: the table is an hour away.
                    finding.broken[known..].iter().for_each(|fault| eprintln!("{}: {fault}", finding.name));
                }
            });
        }
    });
    findings.extend(kinds.into_inner().expect("no trial panics").into_values());
    Ok(findings)
}

/// On a host that is there, or a new one; returns it where the next trial can have it.
fn attempt(trial: Trial, stage: Option<Stage>, contents: &Contents) -> (Ended, Option<Stage>) {
    let tried = catch_unwind(AssertUnwindSafe(|| -> io::Result<_> {
        let mut stage = stage.map_or_else(|| Stage::set(contents, trial.how.is_of_a_disk()), Ok)?;
        let ended = stage.run(trial);
        // What is broken must not spoil the next trial.
        let is_fit = ended.broken.is_empty() && stage.has_room();
        Ok((ended, is_fit.then_some(stage)))
    }));
    match tried {
        Ok(Ok(tried)) => tried,
        Ok(Err(error)) => (Ended::broken(format!("the host cannot be set up: {error}")), None),
        // It has said why, with its host's journal. All the others are to be in the table all the same.
        Err(_) => (Ended::broken("the rig panicked".to_owned()), None),
    }
}

impl Finding {
    fn add(&mut self, trial: Trial, result: Ended) {
        self.tried += 1;
        self.reached += usize::from(result.is_reached);
        *self.lost.get_or_insert_default() += result.lost;
        let at = format!("at step {}", trial.step);
        if !result.is_reached {
            self.broken.push(format!("{at}: it was not reached"));
        }
        if result.lost > 0 {
            self.broken.push(format!("{at}: {} requests lost: {}", result.lost, result.losses));
        }
        self.broken.extend(result.broken.into_iter().map(|fault| format!("{at}: {fault}")));
    }
}

/// The next one; now and then it tells how many there are, since all of them take an hour.
fn next(trials: &Mutex<VecDeque<Trial>>) -> Option<Trial> {
    let mut trials = trials.lock().expect("no trial panics");
    if trials.len().is_multiple_of(100) {
        eprintln!("{} trials to come", trials.len());
    }
    trials.pop_front()
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heal = if self.heal == Heal::Boot { "a boot" } else { "a deployment" };
        write!(f, "{}: {}, then {heal}", self.verb.name(), self.how)
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
    /// Whether the verb ended as it may: by the signal, or by itself; and if not well, with a line that helps.
    fn judge(self, ran: &Ran) -> Result<(), String> {
        let last = ran.output.trim().lines().last().unwrap_or_default();
        match ran.code {
            137 if !self.is_of_a_disk() => Ok(()),
            code if !self.is_of_a_disk() => Err(format!("it was killed, and exited with {code}")),
            0 => Ok(()),
            1 if names_something(last) => Ok(()),
            1 => Err(format!("its last line names no path, command or release: {last:?}")),
            code => Err(format!("it exited with {code}")),
        }
    }

    /// As fault.rs of `releases` is told it.
    fn request(self, step: usize) -> String {
        let run = |command: &str| format!("run {step} {command}");
        match self {
            Self::Kill => format!("kill {step}"),
            Self::KillGroup => format!("kill-group {step}"),
            Self::Fails => format!("error {step} 5"),
            // Each exits with 0 once it has taken effect.
            Self::Full => run("exec 2>/dev/null; head -c 1G /dev/zero >/opt/app/.filler; ! echo >>/opt/app/.filler"),
            Self::NoInodes => {
                run("cd /opt/app/.fillers && ! seq 9999 | xargs touch 2>/dev/null && ! touch more 2>/dev/null")
            }
            Self::ReadOnly => format!("errors {step} 30 /opt/app"),
            Self::NoDescriptors => run("prlimit --pid $PPID --nofile=3"),
        }
    }
}

/// Whether a line says of what path, command or release it speaks.
fn names_something(line: &str) -> bool {
    let is_release = |word: &str| word.trim_matches(|c: char| !c.is_ascii_hexdigit()).parse::<ReleaseId>().is_ok();
    line.contains(" /") || line.contains(" ./") || line.contains('`') || line.split_whitespace().any(is_release)
}

/// How the first `releasectl boot` of a journal ended, where systemd says that it was not well; and what that one said.
fn first_boot(journal: &str) -> Option<Ran> {
    let (_, end) = journal.split_once("app.service: Main process exited, code=")?;
    let (how, status) = end.split_once(", status=")?;
    let status: i32 = status.split('/').next()?.parse().ok()?;
    // By who said it: what systemd says meanwhile may come before or after.
    let said: Vec<_> =
        journal.lines().filter_map(|line| line.split_once(" releasectl[")?.1.split_once("]: ")).collect();
    let first = said.first().map(|(pid, _)| *pid);
    let said: Vec<_> = said.iter().filter(|(pid, _)| Some(*pid) == first).map(|(_, line)| *line).collect();
    Some(Ran { code: if how == "exited" { status } else { 128 + status }, output: said.join("\n") })
}

/// A client that comes when nobody serves, and waits so many seconds at most until somebody does.
fn knock(seconds: u32) -> String {
    let until_settled = format!("until {SETTLED}; do sleep 0.01; done");
    format!("curl -s --max-time {seconds} localhost/livez; timeout {seconds} sh -c \"{until_settled}\"")
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

/// A subject, and how a verb is run on it. Its store may be on a disk of its own, in memory.
struct Stage(Subject);

impl Stage {
    fn set(contents: &Contents, is_small: bool) -> io::Result<Self> {
        let small = "mkdir -p /opt/app && mount -t tmpfs -o size=200m,nr_inodes=1000,mode=755 tmpfs /opt/app && \
             mkdir /opt/app/.fillers";
        let subject = Subject::boot(contents, |host| drop(host.succeed(if is_small { small } else { "true" })))?;
        Ok(Self(subject))
    }

    /// How many steps each verb has, when nothing happens; and what of it changes the host and is none of them.
    fn count(mut self, verbs: &[Verb]) -> (Vec<(Verb, usize)>, Vec<Finding>) {
        let (mut counts, mut findings) = (Vec::new(), Vec::new());
        for verb in verbs {
            // Whoever retires may end a moment earlier or later, and a verb looks once more, or has a file more to remove: the
            // fewest steps are those that it always has.
            let steps = (0..3).map(|_| self.count_once(*verb)).min().unwrap_or_default();
            assert!(steps > 0, "{verb:?} has no steps");
            counts.push((*verb, steps));
            let (name, broken) =
                (format!("{}: what it changes, by strace, is its steps", verb.name()), self.trace(*verb));
            findings.push(Finding {
                name,
                points: Some(steps),
                tried: steps,
                reached: steps,
                broken,
                ..Finding::default()
            });
        }
        (counts, findings)
    }

    fn count_once(&mut self, verb: Verb) -> usize {
        self.prepare(verb).unwrap_or_else(|error| panic!("{verb:?} cannot be prepared: {error}"));
        let since = self.now();
        self.0.request(&format!("{} count", verb.command_name()));
        let loads = self.load();
        let ran = self.perform(verb, &since);
        drop(loads.map(Load::stop));
        assert_eq!(ran.code, verb.code(), "{verb:?}: {}", ran.output);
        self.steps(verb)
    }

    /// What the kernel saw, against what was counted.
    fn trace(&mut self, verb: Verb) -> Vec<String> {
        self.prepare(verb).unwrap_or_else(|error| panic!("{verb:?} cannot be prepared: {error}"));
        self.0.request(&format!("{} count", verb.command_name()));
        let command = if verb.is_boot() { "releasectl boot".to_owned() } else { verb.command() };
        let ran = self.0.host.run(&format!("exec {} -o /run/trace {command}", trace::STRACE));
        assert_eq!(ran.code, verb.code(), "{verb:?}: {}", ran.output);
        self.0.request_nothing();
        let read = |path| fs::read_to_string(self.0.host.path(path)).unwrap_or_default();
        let (trace, steps) = (read("/run/trace"), read(STEPS));
        assert!(!trace.is_empty() && !steps.is_empty(), "{verb:?} was not seen");
        trace::differences(&trace, &steps)
    }

    /// What interrupted deployments leave is kept for an hour, and this many hosts see more of them than a disk has room for.
    fn has_room(&self) -> bool {
        fs::read_dir(self.0.host.path("/opt/app/releases")).is_ok_and(|entries| entries.count() < MOST_RELEASES)
    }

    fn load(&self) -> [Load; 2] {
        [Mode::C8, Mode::C3].map(|mode| Load::start(&self.0.host, mode, CLIENTS))
    }

    /// A run that had fewer steps has tried nothing, and is made again; a step that is never reached is a failure.
    fn run(&mut self, trial: Trial) -> Ended {
        let tells = |ended: &Ended| ended.is_reached || !ended.broken.is_empty() || ended.lost > 0;
        let told = (0..4).map(|_| self.run_once(trial)).find(tells);
        told.unwrap_or_else(|| self.run_once(trial))
    }

    fn run_once(&mut self, trial: Trial) -> Ended {
        let mut ended = Ended::default();
        if let Err(error) = self.prepare(trial.verb) {
            return Ended::broken(format!("cannot be prepared: {error}"));
        }
        let Trial { verb, how, step, .. } = trial;
        let since = self.now();
        self.0.request(&format!("{} {}", verb.command_name(), how.request(step)));
        // An instance that is killed takes its requests along: a boot is for those that come then, and wait.
        let loads = self.load();
        let ran = self.perform(verb, &since);
        ended.is_reached = self.steps(verb) >= step;
        self.0.request_nothing();
        ended.broken = self.0.check();
        if ended.is_reached {
            ended.broken.extend(how.judge(&ran).err());
            ended.broken.extend(self.took_effect(trial).err());
        }
        self.0.host.succeed("rm -rf /opt/app/.filler /opt/app/.fillers/*");
        if verb.is_boot() && !self.0.host.comes_true(|host| host.run(SETTLED).code == 0) {
            ended.broken.push("nobody serves, a minute after the boot".to_owned());
        }
        if trial.heal == Heal::Deployment {
            ended.broken.extend(self.0.deploy().err());
        }
        for report in loads.map(Load::stop) {
            ended.lost += report.lost();
            ended.losses = report.losses();
        }
        if trial.heal == Heal::Boot {
            self.0.host.reboot();
        }
        ended.broken.extend(self.0.check());
        ended.broken.extend(self.0.check_converged());
        if !ended.broken.is_empty() {
            ended.broken.push(format!(
                "it exited with {} and said: {}",
                ran.code,
                ran.output.trim().replace('\n', " | ")
            ));
        }
        ended
    }

    /// From the same state each time, so that each verb has as many steps as when they were counted.
    fn prepare(&mut self, verb: Verb) -> Result<(), String> {
        self.0.deploy()?;
        match verb {
            Verb::Install => {
                self.0.next_revision();
                Ok(())
            }
            Verb::Activate => {
                self.0.next_revision();
                self.0.hook("after-install")
            }
            Verb::Validate => {
                self.0.next_revision();
                self.0.hook("after-install").and_then(|()| self.0.hook("application-start"))
            }
            Verb::GoBack => {
                ["after-install", "application-start"].into_iter().try_for_each(|name| self.0.hook_of(LIAR, name))
            }
            Verb::Rollback => self.0.deploy(),
            Verb::Boot => {
                self.kill_instances();
                Ok(())
            }
            Verb::BootBack => {
                self.0.next_revision();
                self.0.hook("after-install").and_then(|()| self.0.hook("application-start"))?;
                self.kill_instances();
                Ok(())
            }
            Verb::Prune => (0..2).try_for_each(|_| {
                self.0.reported = Some(self.0.next_revision());
                self.0.hook("after-install").and_then(|()| self.0.hook("application-start"))?;
                self.0.host.succeed(&format!("{BUNDLE}/bin/releasectl validate {BUNDLE} --bake 0 --keep 9"));
                Ok(())
            }),
        }
    }

    fn kill_instances(&self) {
        // One that retires may have gone before its turn comes, which systemctl says and then goes on.
        self.0.host.run("systemctl kill -s KILL 'app-*@*'");
        self.0.host.wait_until("nobody serves", |host| host.run("systemctl is-active 'app-*@*'").code != 0);
    }

    /// This point of the journal.
    fn now(&self) -> String {
        let shown = self.0.host.succeed("journalctl -q -n 1 -o cat --show-cursor | tail -1");
        shown.trim().trim_start_matches("-- cursor: ").to_owned()
    }

    /// Runs the verb as it is run on a host, in a session of its own, and returns how it ended.
    fn perform(&self, verb: Verb, since: &str) -> Ran {
        if !verb.is_boot() {
            return self.0.host.run(&format!("exec setsid --wait {}", verb.command()));
        }
        // systemd runs it, for the clients that knock, and did when the first of them came.
        let knocked = self.0.host.run(&verb.command());
        self.boot_after(since).unwrap_or(knocked)
    }

    /// How the first `releasectl boot` after that point of the journal ended, where that was not well: systemd says so, after
    /// what it said itself.
    fn boot_after(&self, cursor: &str) -> Option<Ran> {
        let command = format!(
            "journalctl --sync; journalctl -q --after-cursor='{cursor}' -o short-unix -t systemd -t releasectl"
        );
        first_boot(&self.0.host.run(&command).output)
    }

    /// Whether the command that a trial is about did what it is for.
    fn took_effect(&self, trial: Trial) -> Result<(), String> {
        if !trial.how.request(trial.step).starts_with("run ") {
            return Ok(());
        }
        let text = self.lines();
        let ended = text.lines().find(|line| line.contains(" exited "));
        match ended {
            Some(line) if line.ends_with(" exited 0") => Ok(()),
            ended => Err(format!("nothing happened to the host: {}", ended.unwrap_or("the command did not end"))),
        }
    }

    fn lines(&self) -> String {
        fs::read_to_string(self.0.host.path(STEPS)).unwrap_or_default()
    }

    /// The highest step that a process of the verb has come to.
    fn steps(&self, verb: Verb) -> usize {
        let text = self.lines();
        let step = |line: &str| line.strip_prefix(verb.command_name())?.split(' ').nth(2)?.parse().ok();
        text.lines().filter_map(step).max().unwrap_or(0)
    }
}

impl Verb {
    fn command(self) -> String {
        match self {
            Self::Install => format!("{BUNDLE}/hooks/after-install"),
            Self::Activate => format!("{BUNDLE}/hooks/application-start"),
            Self::Validate => format!("{BUNDLE}/hooks/validate-service"),
            Self::GoBack => format!("{LIAR}/hooks/validate-service"),
            Self::Rollback => "releasectl rollback".to_owned(),
            Self::Prune => "releasectl prune --keep 0".to_owned(),
            Self::Boot => knock(60),
            // A flip needs a line in the log and a link: on a disk that is full it waits until there is room again, and so
            // do the clients.
            Self::BootBack => knock(10),
        }
    }

    /// For people.
    fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Activate => "activate",
            Self::Validate => "validate",
            Self::GoBack => "validate that goes back",
            Self::Rollback => "rollback",
            Self::Boot => "boot",
            Self::BootBack => "boot that goes back",
            Self::Prune => "prune",
        }
    }

    /// For `releasectl`.
    fn command_name(self) -> &'static str {
        match self {
            Self::GoBack => Self::Validate.name(),
            Self::BootBack => Self::Boot.name(),
            verb => verb.name(),
        }
    }

    fn is_boot(self) -> bool {
        matches!(self, Self::Boot | Self::BootBack)
    }

    /// How it exits when nothing happens to it.
    fn code(self) -> i32 {
        if self == Self::GoBack { 1 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_boot_that_failed_its_own_words_are_read_wherever_systemds_come() {
        let journal = "1.0 h releasectl[7]: verify\n1.1 h releasectl[7]: releasectl: cannot read /opt/app\n\
            1.2 h systemd[1]: Starting app.service...\n\
            1.3 h systemd[1]: app.service: Main process exited, code=exited, status=1/FAILURE\n\
            1.4 h releasectl[9]: serving now\n";
        let ran = first_boot(journal).unwrap();
        assert_eq!((ran.code, ran.output.as_str()), (1, "verify\nreleasectl: cannot read /opt/app"));
        assert_eq!(
            first_boot(&journal.replace("exited, status=1/FAILURE", "killed, status=9/KILL")).unwrap().code,
            137
        );
        assert!(first_boot("1.0 h releasectl[7]: serving now\n").is_none(), "it ended well");
    }

    #[test]
    fn a_line_that_helps_names_a_path_a_command_or_a_release() {
        for line in [
            "releasectl: cannot write /opt/app/counter.new: Input/output error",
            "releasectl: `systemctl show x` failed: exit status: 1",
            "serving now: release 0123456789abcdef, app-0123456789abcdef@7.service",
        ] {
            assert!(names_something(line), "{line}");
        }
        assert!(!names_something("releasectl: Input/output error") && !names_something(""));
    }
}
