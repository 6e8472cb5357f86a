//! A real systemd host, in a second and without a download.
//!
//! It is the machine's own system, or another one, seen through an overlay and booted in a container with a network of its
//! own.

use std::{
    fmt::Debug,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use releases::probe::{self, Address};

use crate::machine;

const KEEPER: &str = include_str!("keeper.sh");
/// Beyond anything that works, so that what does not work fails and does not hang.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
pub(crate) const ENVIRONMENT: [&str; 3] =
    ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"];

/// A running host. Dropping it takes everything away; so does the end of this process, however it ends.
#[derive(Debug)]
pub struct Host {
    name: String,
    keeper: Child,
    says: BufReader<ChildStdout>,
    leader: u32,
}

/// How a command in a host ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code, or 128 and more after a signal.
    pub code: i32,
    /// What it printed, standard output first.
    pub output: String,
}

impl Host {
    /// Boots a host of the machine's own system and waits until systemd says `running`.
    ///
    /// # Panics
    /// In one line where the machine cannot boot hosts; with the console where this one does not come up.
    pub fn boot() -> Self {
        Self::boot_of(Path::new("/"))
    }

    /// The same of the system in that folder, which is only read.
    ///
    /// # Panics
    /// As [`Self::boot`].
    pub fn boot_of(system: &Path) -> Self {
        machine::prepare().unwrap_or_else(|error| panic!("{error}"));
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rig-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Its own process group: an interrupt from the terminal is for us, and the keeper must live to clean up.
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper", &name]).arg(system).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().expect("sh starts");
        let says = BufReader::new(keeper.stdout.take().expect("its output is piped"));
        let mut host = Self { name, keeper, says, leader: 0 };
        host.wait_for_boot(0, "running");
        host
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's process 1, as this machine numbers it.
    pub fn leader(&self) -> u32 {
        self.leader
    }

    /// Where the path of the host is on this machine.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.leader)).join(path.trim_start_matches('/'))
    }

    /// A program to be run in the host, with a clean environment and nothing on its standard input.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader.to_string(), "-a", "--", "env", "-i"]).args(ENVIRONMENT).arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a shell command in the host.
    pub fn run(&self, command: &str) -> Ran {
        // Out of the folder that this process happens to be in.
        let output = self.command("sh").args(["-c", &format!("cd /; {command}")]).output();
        Ran::from(output.expect("nsenter starts"))
    }

    /// Puts the files of packages into it, without what they would do when they are installed. The machine gets nothing.
    ///
    /// # Errors
    /// One line, where the packages are not to be had.
    ///
    /// # Panics
    /// Where the host does not take them.
    pub fn unpack(&self, packages: &[&str]) -> Result<(), String> {
        for archive in machine::downloaded(packages)? {
            let mut unpack = self.command("tar");
            unpack.args(["-xp", "--keep-directory-symlink", "-C", "/"]).stdin(Stdio::piped());
            let mut unpacks = unpack.spawn().expect("nsenter starts");
            let to = unpacks.stdin.take().expect("piped");
            let packed = Command::new("dpkg").arg("--fsys-tarfile").arg(&archive).stdout(to).status();
            let ended = [packed, unpacks.wait()];
            let are_well = ended.iter().all(|status| status.as_ref().is_ok_and(ExitStatus::success));
            assert!(are_well, "{}: {ended:?}", archive.display());
        }
        Ok(())
    }

    /// Runs a command that must exit with 0, and returns what it printed.
    ///
    /// # Panics
    /// Where it does not, with what it printed.
    #[track_caller]
    pub fn succeed(&self, command: &str) -> String {
        let ran = self.run(command);
        assert!(ran.code == 0, "`{command}` in {} exited with {}:\n{}", self.name, ran.code, ran.output);
        ran.output
    }

    /// Runs a command that must not exit with 0, and returns what it printed.
    ///
    /// # Panics
    /// Where it does.
    #[track_caller]
    pub fn fail(&self, command: &str) -> String {
        let ran = self.run(command);
        assert!(ran.code != 0, "`{command}` in {} exited with 0:\n{}", self.name, ran.output);
        ran.output
    }

    /// Waits until something holds that cannot tell when it does.
    ///
    /// # Panics
    /// After a minute, with `what`.
    #[track_caller]
    pub fn wait_until(&self, what: &str, holds: impl FnMut(&Self) -> bool) {
        assert!(self.comes_true(holds), "{}: waited a minute for: {what}", self.name);
    }

    /// Waits as long as [`Self::wait_until`], and returns whether it came true.
    pub fn comes_true(&self, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let began = Instant::now();
        while !holds(self) {
            if began.elapsed() > PATIENCE {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// Waits until a unit is active.
    ///
    /// # Panics
    /// After a minute.
    #[track_caller]
    pub fn wait_for_unit(&self, unit: &str) {
        self.wait_until(&format!("{unit} is active"), |host| {
            host.run(&format!("systemctl is-active {unit}")).code == 0
        });
    }

    /// Ten fresh connections to port 80, each answered by this release, ready.
    ///
    /// # Panics
    /// At the first that is not.
    #[track_caller]
    pub fn assert_serving(&self, release: &str) {
        let answers = self.in_network(|| {
            let address = Address::Tcp("127.0.0.1:80".parse().expect("an address"));
            (0..10).map(|_| probe::ask(&address)).collect::<Vec<_>>()
        });
        for answer in answers {
            assert_eq!(answer.as_deref(), Ok(release), "{}", self.name);
        }
    }

    /// Waits until one instance is left: those that retire have ended.
    ///
    /// # Panics
    /// Where that is not so within a minute.
    pub fn settle(&self) {
        let instances = "systemctl list-units --all --plain --no-legend 'app-*@*'";
        self.wait_until("one instance is left", |host| {
            let listed = host.run(instances);
            listed.code == 0 && listed.output.lines().count() == 1
        });
    }

    /// Gives the main process of a unit, once it is there, so many bytes of memory, where the host's systemd has no memory
    /// controller to do that with (cgroup v1). Elsewhere the unit's own `MemoryMax=` does.
    ///
    /// # Panics
    /// Where the unit does not come up within a minute.
    pub fn limit_memory(&self, unit: &str, bytes: u64) {
        let group = PathBuf::from("/sys/fs/cgroup/memory").join(&self.name).join("limited");
        let mut pid = String::new();
        self.wait_until(&format!("{unit} is active"), |host| {
            pid = host.run(&format!("systemctl show -P MainPID --state=active '{unit}'")).output.trim().to_owned();
            !pid.is_empty() && pid != "0"
        });
        if !group.parent().is_some_and(Path::exists) {
            return;
        }
        fs::create_dir_all(&group).expect("the group is ours");
        fs::write(group.join("memory.limit_in_bytes"), bytes.to_string()).expect("a limit");
        let outside = self.outside(&pid).expect("it runs");
        fs::write(group.join("cgroup.procs"), outside).expect("it runs");
    }

    /// The number on this machine of a process of the host.
    fn outside(&self, pid: &str) -> Option<String> {
        let is_it = |process: &PathBuf| {
            let status = fs::read_to_string(process.join("status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            let same = fs::read_link(process.join("ns/pid")).ok()
                == fs::read_link(format!("/proc/{}/ns/pid", self.leader)).ok();
            same && numbers.split_whitespace().last() == Some(pid)
        };
        let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
        let found = processes.filter(|path| path.join("status").exists()).find(is_it)?;
        Some(found.file_name()?.to_str()?.to_owned())
    }

    /// Runs `job` on a thread in the host's network: its sockets are the host's, the rest is this process's.
    ///
    /// # Panics
    /// Where `job` does.
    pub fn in_network<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        in_network(self.leader, job)
    }

    /// Reboots it as an operator does, and waits until it runs again, on the same root.
    ///
    /// # Panics
    /// Where it does not come up.
    pub fn reboot(&mut self) {
        self.reboot_to("running");
    }

    /// Reboots it and waits until systemd says `state`, such as `degraded` where a unit must have failed.
    ///
    /// # Panics
    /// Where it does not.
    pub fn reboot_to(&mut self, state: &str) {
        // nspawn ends with 133 when the system in it asks for a reboot.
        let _ = self.run("systemctl reboot");
        self.wait_for_end("ended 133", state);
    }

    /// Cuts it off at once, as a crash does, and boots it again on the same root.
    ///
    /// # Panics
    /// Where it does not come up.
    pub fn crash(&mut self) {
        self.kill();
        self.come_back();
    }

    /// Cuts it off at once, as a crash does. Until [`Self::come_back`] nothing may be asked of it.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill(&self) {
        let leader = i32::try_from(self.leader).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        rustix::process::kill_process(leader, rustix::process::Signal::KILL).expect("the leader is ours");
    }

    /// Waits until it runs again after [`Self::kill`], on the same root.
    ///
    /// # Panics
    /// Where it does not come up.
    pub fn come_back(&mut self) {
        self.wait_for_end("ended ", "running");
    }

    /// Its journal since the last boot, oldest first.
    pub fn journal(&self) -> String {
        self.run("journalctl --sync; journalctl --no-pager -b -n 200 -o short-precise").output
    }

    fn wait_for_end(&mut self, expected: &str, state: &str) {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("the keeper says how it ended");
        assert!(line.starts_with(expected), "{}: wanted {expected:?}, and the keeper said {line:?}", self.name);
        let before = std::mem::take(&mut self.leader);
        self.wait_for_boot(before, state);
    }

    fn wait_for_boot(&mut self, before: u32, state: &str) {
        let began = Instant::now();
        while self.leader == 0 {
            assert!(began.elapsed() < PATIENCE, "{}: systemd does not come up", self.name);
            assert!(matches!(self.keeper.try_wait(), Ok(None)), "{}: the keeper ended", self.name);
            self.leader = leader_below(self.keeper.id()).filter(|leader| *leader != before).unwrap_or(0);
            thread::sleep(POLL);
        }
        let is_up = |host: &Self| host.run("systemctl is-system-running").output.trim() == state;
        assert!(
            self.comes_true(is_up),
            "{}: not `{state}`:\n{}",
            self.name,
            self.run("systemctl is-system-running; systemctl list-jobs; systemctl --failed").output
        );
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if thread::panicking() {
            let failed = self.run("systemctl --failed --no-pager").output;
            eprintln!("--- the journal of {}\n{}\n{failed}---", self.name, self.journal());
        }
        // The end of its input is the keeper's end.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status).map(|signal| 128 + signal);
        let code = output.status.code().or(signal).unwrap_or(-1);
        Self { code, output: String::from_utf8_lossy(&text).into_owned() }
    }
}

/// Runs `job` on a thread in the network of a process.
pub(crate) fn in_network<T: Send>(pid: u32, job: impl FnOnce() -> T + Send) -> T {
    let enter = move || {
        enter_network(pid);
        job()
    };
    thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Moves the calling thread into the network of a process.
pub fn enter_network(pid: u32) {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).expect("the host runs");
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(kind))
        .expect("root may enter");
}

/// The process below `pid` that is number 1 in a namespace within the keeper's.
fn leader_below(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let mut children = children.split_whitespace().filter_map(|child| child.parse().ok());
    children.find_map(|child| if is_leader(child) { Some(child) } else { leader_below(child) })
}

fn is_leader(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    numbers.len() >= 3 && numbers.last() == Some(&"1") && Path::ends_with(&program, "systemd")
}
