//! The example as a real process, with real sockets, under a systemd that the tests play.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixDatagram, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// The example under a systemd that this test plays.
pub struct Served {
    pub child: Child,
    /// What it says to systemd. A thread takes it in: a full queue would block who sends.
    messages: Receiver<String>,
    runtime: PathBuf,
    pub n: u64,
    _folder: TempDir,
}

/// How it is started.
pub struct Start {
    pub variables: Vec<(&'static str, String)>,
    /// Passed as descriptors 3 and 4.
    pub sockets: Vec<OwnedFd>,
    pub names: &'static str,
    /// The directory that instances share; without one the process has its own.
    pub runtime: Option<PathBuf>,
    pub n: u64,
    /// As another user than the test's, which is root.
    pub unprivileged: bool,
}

impl Start {
    /// Without a socket: it binds one of its own.
    pub fn alone() -> Self {
        Self { variables: vec![("APP_LISTEN", "127.0.0.1:0".to_owned())], ..Self::passed(Vec::new(), "") }
    }

    /// With a socket as systemd passes it; the test keeps it too.
    pub fn inherited() -> (Self, TcpListener) {
        let listener = listener();
        (Self::passed(vec![listener.try_clone().unwrap().into()], "http"), listener)
    }

    pub fn passed(sockets: Vec<OwnedFd>, names: &'static str) -> Self {
        Self { variables: Vec::new(), sockets, names, runtime: None, n: 7, unprivileged: false }
    }

    /// Instance `n` of those that share a runtime directory.
    pub fn sharing(mut self, runtime: &Path, n: u64) -> Self {
        (self.runtime, self.n) = (Some(runtime.to_owned()), n);
        self
    }

    /// As a user that has no privileges.
    pub fn unprivileged(mut self) -> Self {
        self.unprivileged = true;
        self
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.variables.push((name, value.to_string()));
        self
    }

    pub fn spawn(self) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let runtime = self.runtime.unwrap_or_else(|| folder.path().to_owned());
        let notify = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let mut command = Command::new("sh");
        // The shell puts the sockets where systemd would.
        let redirect = ["", "3<&0 </dev/null", "3<&0 4<&1 </dev/null >/dev/null"][self.sockets.len()];
        command.args(["-c", &format!("exec \"$0\" {redirect}")]).arg(example());
        if !self.sockets.is_empty() {
            command.env("LISTEN_FDS", self.sockets.len().to_string()).env("LISTEN_FDNAMES", self.names);
        }
        let mut sockets = self.sockets.into_iter();
        command.stdin(sockets.next().map_or_else(Stdio::null, Stdio::from));
        command.stdout(sockets.next().map_or_else(Stdio::null, Stdio::from)).stderr(Stdio::piped());
        command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("RUNTIME_DIRECTORY", &runtime);
        command.env("APP_RELEASE", "0123456789abcdef").env("APP_INSTANCE", self.n.to_string()).envs(self.variables);
        if self.unprivileged {
            let everybody = fs::Permissions::from_mode(0o777);
            for path in [folder.path(), &folder.path().join("notify"), &runtime] {
                fs::set_permissions(path, everybody.clone()).unwrap();
            }
            command.uid(65_534);
        }
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = notify.recv(&mut buffer) {
                // A test that has ended listens no more.
                let _ = sender.send(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        });
        Served { child: command.spawn().unwrap(), messages, runtime, n: self.n, _folder: folder }
    }

    /// Starts it and waits for READY; the address is in its STATUS.
    pub fn ready(self) -> (Served, String) {
        let served = self.spawn();
        let said = served.wait_for("READY=1");
        let address = said.lines().find_map(|line| line.strip_prefix("STATUS=serving on ")).unwrap().to_owned();
        (served, address)
    }

    /// Starts it, and returns what it printed when it has failed.
    #[track_caller]
    pub fn refused(self) -> String {
        let output = self.spawn().output();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.lines().count() == 1, "{text}");
        text
    }
}

impl Served {
    pub fn wait_for(&self, words: &str) -> String {
        loop {
            let message = self.messages.recv_timeout(PATIENCE).expect("a message within the time");
            if message.contains(words) {
                return message;
            }
        }
    }

    pub fn signal(&self) {
        self.kill(Signal::TERM);
    }

    pub fn kill(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops every thread of it, until it gets SIGCONT.
    pub fn stop(&self) {
        self.kill(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        let is_stopped = |task: PathBuf| fs::read_to_string(task.join("stat")).unwrap().contains(") T ");
        while !fs::read_dir(&tasks).unwrap().all(|task| is_stopped(task.unwrap().path())) {
            thread::yield_now();
        }
    }

    /// Returns when it has done all that it does about what it has been told: whoever tells a thread wakes it, and none of
    /// them is awake.
    #[track_caller]
    pub fn wait_until_asleep(&self) {
        let (began, mut before) = (Instant::now(), None);
        loop {
            // Seen one after the other, they could wake each other in between: then their counts of switches differ.
            let now = self.asleep();
            if now.is_some() && now == before {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "one of its threads is always awake");
            before = now;
        }
    }

    /// What the kernel says of its threads (proc_pid_status(5)), where all of them sleep.
    fn asleep(&self) -> Option<Vec<String>> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        // A thread may have ended since.
        let said = |task: PathBuf| fs::read_to_string(task.join("status")).unwrap_or_default();
        let all: Vec<_> = tasks.map(|task| said(task.unwrap().path())).collect();
        all.iter().all(|said| said.contains("\nState:\tS")).then_some(all)
    }

    /// Signals, and returns when the accept loop has ended.
    pub fn retire(&self) {
        self.signal();
        self.wait_for("STOPPING=1");
    }

    /// Signals, and returns when it knows that nobody serves beside it: each response says close from now on.
    pub fn retire_alone(&self) {
        self.signal();
        self.wait_for("STATUS=retiring, alone");
    }

    pub fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.runtime.join(format!("{}.json", self.n))).unwrap()).unwrap()
    }

    /// Its file is written each second at the latest.
    #[track_caller]
    pub fn wait_for_report(&self, field: &str, value: impl Into<Value>) {
        let (value, began) = (value.into(), Instant::now());
        while self.report()[field] != value {
            assert!(began.elapsed() < PATIENCE, "{field} is not {value}: {}", self.report());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// It has no more open than before, once it has noticed that its clients have gone.
    #[track_caller]
    pub fn assert_leaks_nothing(&self, before: usize) {
        let began = Instant::now();
        while self.descriptors() > before {
            assert!(began.elapsed() < PATIENCE, "{} descriptors, {before} before", self.descriptors());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The directory that it shares with others.
    pub fn folder(&self) -> &Path {
        &self.runtime
    }

    /// All that it has logged, at its end.
    pub fn log(self) -> String {
        String::from_utf8(self.output().stderr).unwrap()
    }

    pub fn output(mut self) -> Output {
        let mut stderr = Vec::new();
        self.child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        Output { status: self.child.wait().unwrap(), stdout: Vec::new(), stderr }
    }

    #[track_caller]
    pub fn ends_well(self) {
        self.ended();
    }

    /// Ends well, and its file can be read.
    #[track_caller]
    pub fn ended(mut self) -> Self {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        assert_eq!(self.report()["state"], "ended");
        self
    }
}

/// A test that has ended leaves no process.
impl Drop for Served {
    fn drop(&mut self) {
        // Of one that has ended already it is an error, and nothing else.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn example() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/hello")
}

pub fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn send(stream: &mut impl Write, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
}

/// One response with a Content-Length; the connection stays as it is.
pub fn receive(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "it ended after {text:?}");
        bytes.push(byte[0]);
    }
}

pub fn ask(stream: &mut (impl Read + Write), path: &str) -> String {
    send(stream, path);
    receive(stream)
}

/// Asks until a response is such. Until it is a connection's turn to leave, or while a successor is looked for, it is served
/// and kept.
#[track_caller]
pub fn ask_until(stream: &mut TcpStream, path: &str, is_such: impl Fn(&str) -> bool) -> String {
    let began = Instant::now();
    loop {
        let response = ask(stream, path);
        if is_such(&response) {
            return response;
        }
        assert!(response.starts_with("HTTP/1.1 200") && began.elapsed() < PATIENCE, "{response}");
    }
}

pub fn says_close(response: &str) -> bool {
    response.contains("connection: close")
}

#[track_caller]
pub fn assert_is_the_last(mut stream: impl Read, response: &str, body: &str) {
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with(body), "{response}");
    assert!(says_close(response), "{response}");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}
