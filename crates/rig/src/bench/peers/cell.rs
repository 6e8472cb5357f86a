//! A network, a process table and a root for what is measured: dropping it, or the end of this process, ends all of it.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Load, Mode,
    host::{ENVIRONMENT, in_network},
    succession,
};

/// $1 is its root, whose /mnt is its own folder and goes with it. Process 1 of the table reads the life line, its standard
/// input; its end is that of the rest. Were it killed, unshare(1) would say that it cannot end by that signal itself.
const KEEPER: &str = "mount -t tmpfs -o mode=0755 tmpfs \"$1/mnt\" && mount -t proc proc \"$1/proc\" && \
     ip link set lo up && exec chroot \"$1\" sh -c 'echo ready; exec cat'";
/// Beyond what any of them takes to start, to reload, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(in crate::bench) struct Cell {
    keeper: Child,
    leader: u32,
    started: Vec<Child>,
}

impl Cell {
    /// One that sees that folder as its root.
    ///
    /// # Errors
    /// Where the machine does not make it.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--pid", "--net", "--fork", "--kill-child"]);
        command.args(["sh", "-c", KEEPER, "keeper"]).arg(root);
        let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut says = String::new();
        BufReader::new(keeper.stdout.take().expect("its output is piped")).read_line(&mut says)?;
        let pid = keeper.id();
        let mut cell = Self { keeper, leader: 0, started: Vec::new() };
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let leader = children.trim().parse().ok().filter(|_| says == "ready\n");
        cell.leader = leader.ok_or_else(|| io::Error::other(format!("no cell in {}", root.display())))?;
        Ok(cell)
    }

    /// Whose network it is.
    pub fn leader(&self) -> u32 {
        self.leader
    }

    /// Where `name` in its /mnt is on this machine.
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/mnt", self.leader)).join(name)
    }

    /// A program of this machine in its network.
    pub fn command(&self, program: &str) -> Command {
        self.enter(&["--net", "--"], program)
    }

    /// Starts a shell command in it, and leaves it running; what it says goes to `log`.
    ///
    /// # Errors
    /// Where no process can be made.
    pub fn start(&mut self, command: &str) -> io::Result<()> {
        let mut started = self.enter(&["--net", "--pid", "--mount", "--root", "--wd", "--"], "env");
        started.arg("-i").args(ENVIRONMENT).args(["sh", "-c", command]);
        self.leave_running(started.stdin(Stdio::null()))
    }

    /// Runs a shell command in it.
    ///
    /// # Errors
    /// Where it does not exit with 0 within a minute.
    pub fn run(&self, command: &str) -> io::Result<()> {
        let mut run = self.enter(&["--net", "--pid", "--mount", "--root", "--wd", "--"], "env");
        let patience = PATIENCE.as_secs().to_string();
        run.arg("-i").args(ENVIRONMENT).args(["timeout", &patience, "sh", "-c", command]).stdin(Stdio::null());
        let status = run.stdout(self.log()?).stderr(self.log()?).status()?;
        if status.success() { Ok(()) } else { Err(self.error(&format!("`{command}` ended with {status}"))) }
    }

    /// Starts a program of this machine with a socket that listens on `port`, as systemd passes it.
    ///
    /// # Errors
    /// Where the port is taken, or no process can be made.
    pub fn serve(&mut self, port: u16, program: &Path, arguments: &[&str]) -> io::Result<()> {
        let listener = in_network(self.leader, || succession::listen(("127.0.0.1", port)))?;
        let mut command = self.enter(&["--net", "--pid", "--"], "sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 </dev/null"]).arg(program).args(arguments);
        command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "http").env_remove("APP_LOG");
        self.leave_running(command.stdin(Stdio::from(OwnedFd::from(listener))))
    }

    /// Waits for what cannot tell when it is so.
    ///
    /// # Errors
    /// After a minute, with `what` and what was said meanwhile.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool + Send) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        let holds = in_network(self.leader, || {
            while Instant::now() < until {
                if holds() {
                    return true;
                }
                thread::sleep(POLL);
            }
            false
        });
        if holds { Ok(()) } else { Err(self.error(&format!("waited a minute for: {what}"))) }
    }

    /// Clients of its port 80.
    pub fn load(&self, mode: Mode, clients: usize) -> Load {
        Load::start_in(self.leader, SocketAddr::from((Ipv4Addr::LOCALHOST, 80)), mode, clients)
    }

    /// Seconds of user and system time of all its processes (proc_pid_stat(5), fields 14 and 15).
    ///
    /// # Errors
    /// Where /proc cannot be read.
    pub fn processor_time(&self) -> io::Result<f64> {
        let ticks = |pid: u32| {
            // It may have ended since.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
            fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
        };
        let ticks: u64 = self.processes()?.into_iter().map(ticks).sum();
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Tells everything that runs in it to end, and waits until it has.
    ///
    /// # Errors
    /// Where something does not within a minute.
    pub fn end(&mut self) -> io::Result<()> {
        let others = self.processes()?.into_iter().filter(|pid| *pid != self.leader);
        for pid in others.filter_map(|pid| Pid::from_raw(pid.try_into().ok()?)) {
            // One that has ended meanwhile need not be told.
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + PATIENCE;
        while !self.started.is_empty() {
            if Instant::now() > until {
                return Err(self.error("something did not end within a minute"));
            }
            self.started.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Those that have its process table, and not only its network.
    ///
    /// # Errors
    /// Where /proc cannot be read.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let table = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = table(self.leader);
        let all = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(all.filter(|pid| ours.is_some() && table(*pid) == ours).collect())
    }

    fn enter(&self, namespaces: &[&str], program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader.to_string()]).args(namespaces).arg(program);
        command
    }

    fn leave_running(&mut self, command: &mut Command) -> io::Result<()> {
        let child = command.stdout(self.log()?).stderr(self.log()?).spawn()?;
        self.started.push(child);
        Ok(())
    }

    fn log(&self) -> io::Result<fs::File> {
        fs::File::options().create(true).append(true).open(self.path("log"))
    }

    fn error(&self, what: &str) -> io::Error {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        io::Error::other(format!("{what}; it said last: {}", last.into_iter().rev().collect::<Vec<_>>().join(" | ")))
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // Waiting closes the life line first.
        let _ = self.keeper.wait();
        for child in &mut self.started {
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_cell_leaves_no_process_and_no_file() {
        crate::machine::prepare().unwrap();
        let mut cell = Cell::of(Path::new("/")).unwrap();
        cell.start("sleep 1000 & echo $! >/mnt/pid; exec sleep 1000").unwrap();
        let pid = cell.path("pid");
        cell.wait_until("it runs", || pid.exists()).unwrap();
        let processes = cell.processes().unwrap();
        assert!(processes.len() >= 3, "{processes:?}");
        // In a mount of its own, which ends with them.
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", cell.leader())).unwrap();
        assert!(mounts.contains("tmpfs /mnt tmpfs") && !Path::new("/mnt/pid").exists(), "{mounts}");
        drop(cell);
        assert!(processes.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
    }

    #[test]
    fn the_end_of_a_cell_is_no_error() {
        crate::machine::prepare().unwrap();
        let mut cell = Cell::of(Path::new("/")).unwrap();
        cell.start("exec sleep 1000").unwrap();
        assert!(cell.keeper.wait().unwrap().success());
    }
}
