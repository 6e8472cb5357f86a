//! A real process, real sockets, real signals. What it says to systemd is what the tests wait for; nothing sleeps.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixStream},
    },
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// The example under a systemd that this test plays.
struct Served {
    child: Child,
    notify: UnixDatagram,
    folder: TempDir,
}

/// How it is started.
struct Start {
    variables: Vec<(&'static str, String)>,
    /// Passed as descriptors 3 and 4.
    sockets: Vec<OwnedFd>,
    names: &'static str,
}

impl Start {
    /// Without a socket: it binds one of its own.
    fn alone() -> Self {
        Self { variables: vec![("APP_LISTEN", "127.0.0.1:0".to_owned())], sockets: Vec::new(), names: "" }
    }

    /// With a socket as systemd passes it; the test keeps it too.
    fn inherited() -> (Self, TcpListener) {
        let listener = listener();
        let sockets = vec![listener.try_clone().unwrap().into()];
        (Self { variables: Vec::new(), sockets, names: "http" }, listener)
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.variables.push((name, value.to_string()));
        self
    }

    fn spawn(self) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let notify = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
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
        command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("RUNTIME_DIRECTORY", folder.path());
        command.env("APP_RELEASE", "0123456789abcdef").env("APP_INSTANCE", "7").envs(self.variables);
        Served { child: command.spawn().unwrap(), notify, folder }
    }

    /// Starts it and waits for READY; the address is in its STATUS.
    fn ready(self) -> (Served, String) {
        let served = self.spawn();
        let said = served.wait_for("READY=1");
        let address = said.lines().find_map(|line| line.strip_prefix("STATUS=serving on ")).unwrap().to_owned();
        (served, address)
    }

    /// Starts it, and returns what it printed when it has failed.
    #[track_caller]
    fn refused(self) -> String {
        let output = self.spawn().output();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.lines().count() == 1, "{text}");
        text
    }
}

impl Served {
    fn next_message(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.notify.recv(&mut buffer).expect("a message within the time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn wait_for(&self, words: &str) -> String {
        loop {
            let message = self.next_message();
            if message.contains(words) {
                return message;
            }
        }
    }

    fn signal(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Signals, and returns when the accept loop has ended.
    fn retire(&self) {
        self.signal();
        self.wait_for("STOPPING=1");
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder.path().join("7.json")).unwrap()).unwrap()
    }

    fn output(self) -> Output {
        self.child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn ends_well(mut self) {
        // Nobody reads any more, and a full queue would block who sends.
        self.notify = UnixDatagram::unbound().unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        assert_eq!(self.report()["state"], "ended");
    }
}

fn example() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/hello")
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn send(stream: &mut impl Write, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
}

/// One response with a Content-Length; the connection stays as it is.
fn receive(stream: &mut impl Read) -> String {
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

fn ask(stream: &mut (impl Read + Write), path: &str) -> String {
    send(stream, path);
    receive(stream)
}

#[track_caller]
fn assert_is_the_last(mut stream: impl Read, response: &str, body: &str) {
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with(body), "{response}");
    assert!(response.contains("connection: close"), "{response}");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn without_systemd_it_binds_an_address_of_its_own() {
    let (served, address) = Start::alone().ready();
    assert!(ask(&mut connect(&address), "/").ends_with("hello"));
    served.retire();
    served.ends_well();
}

#[test]
fn without_systemd_it_binds_a_unix_socket_even_where_a_dead_one_lies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (served, _) = Start::alone().with("APP_LISTEN", format!("unix:{}", path.display())).ready();
    let response = ask(&mut UnixStream::connect(&path).unwrap(), "/unix");
    assert!(response.contains(&std::process::id().to_string()), "{response}");
    served.retire();
    served.ends_well();
}

#[test]
fn of_two_sockets_it_takes_the_one_named_http() {
    let (http, other) = (listener(), listener());
    let sockets = vec![other.try_clone().unwrap().into(), http.try_clone().unwrap().into()];
    let (served, address) = Start { variables: Vec::new(), sockets, names: "metrics:http" }.ready();
    assert_eq!(address, http.local_addr().unwrap().to_string());
    let mut stream = connect(&address);
    let own = stream.local_addr().unwrap().to_string();
    assert!(ask(&mut stream, "/peer").ends_with(&own), "handlers know the peer");
    served.retire();
    served.ends_well();
}

#[test]
fn a_socket_that_cannot_serve_is_refused_in_one_line() {
    let passed = |socket: OwnedFd, names| Start { variables: Vec::new(), sockets: vec![socket], names }.refused();
    let blocking = listener();
    blocking.set_nonblocking(false).unwrap();
    assert!(passed(blocking.into(), "http").contains("NonBlocking=yes"));
    let (connected, _other) = UnixStream::pair().unwrap();
    assert!(passed(connected.into(), "http").contains("does not listen"));
    assert!(passed(fs::File::open("/dev/null").unwrap().into(), "http").contains("no TCP or Unix stream socket"));
    assert!(passed(listener().into(), "metrics").contains("FileDescriptorName=http"));
}

#[test]
fn a_wrong_value_is_one_line_before_anything_starts() {
    assert!(Start::alone().with("APP_DRAIN_SECONDS", "soon").refused().contains("APP_DRAIN_SECONDS=\"soon\""));
    assert!(Start::alone().with("APP_INSTANCE", "-1").refused().contains("APP_INSTANCE=\"-1\""));
    assert!(Start::alone().with("APP_LISTEN", "nowhere").refused().contains("cannot listen on nowhere"));
}

#[test]
fn a_router_that_is_not_ready_accepts_nothing_and_ends_with_its_reason() {
    let (start, listener) = Start::inherited();
    let _waits = connect(&listener.local_addr().unwrap().to_string());
    let served = start.with("HELLO_NOT_READY", 1).with("APP_READY_SECONDS", 1).spawn();
    let said = served.wait_for("STATUS=starting: /readyz");
    assert!(said.contains("503") && said.contains("the database does not answer"), "{said}");
    let text = String::from_utf8(served.output().stderr).unwrap();
    assert!(text.contains("503 Service Unavailable: the database does not answer"), "{text}");
    assert!(listener.accept().is_ok(), "the connection still waits in the queue");
}

#[test]
fn the_file_tells_each_state_and_accepting_is_false_once_nothing_will_be_accepted() {
    let (start, listener) = Start::inherited();
    let (served, address) = start.ready();
    let mut stream = connect(&address);
    ask(&mut stream, "/");
    let report = served.report();
    assert_eq!((&report["format"], &report["release"]), (&1.into(), &"0123456789abcdef".into()));
    assert_eq!((&report["n"], &report["pid"]), (&7.into(), &served.child.id().into()));
    assert_eq!((&report["state"], &report["accepting"]), (&"serving".into(), &true.into()));
    send(&mut stream, "/slow/500");
    served.retire();
    let report = served.report();
    assert_eq!((&report["state"], &report["accepting"]), (&"retiring".into(), &false.into()));
    assert_eq!(report["connections"], 1);
    let _next = connect(&address);
    assert!(listener.accept().is_ok(), "who retires leaves the queue to its successor");
    receive(&mut stream);
    served.ends_well();
}

#[test]
fn a_fresh_connection_is_answered_after_the_signal() {
    let (served, address) = Start::alone().ready();
    let (mut first, mut stream) = (connect(&address), connect(&address));
    // Accepted in order: once a later one is answered, this one has been accepted.
    ask(&mut connect(&address), "/");
    ask(&mut first, "/");
    served.retire();
    let response = ask(&mut stream, "/");
    assert_is_the_last(stream, &response, "hello");
    let response = ask(&mut first, "/");
    assert_is_the_last(first, &response, "hello");
    served.ends_well();
}

#[test]
fn a_head_in_two_halves_around_the_signal_is_answered() {
    let (served, address) = Start::alone().ready();
    let (mut fresh, mut kept) = (connect(&address), connect(&address));
    ask(&mut kept, "/");
    for stream in [&mut fresh, &mut kept] {
        stream.write_all(b"GET / HT").unwrap();
    }
    ask(&mut connect(&address), "/");
    served.retire();
    for mut stream in [fresh, kept] {
        stream.write_all(b"TP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let response = receive(&mut stream);
        assert_is_the_last(stream, &response, "hello");
    }
    served.ends_well();
}

#[test]
fn requests_in_flight_are_answered_and_an_upload_is_read_to_its_end() {
    let (served, address) = Start::alone().ready();
    let (mut slow, mut upload) = (connect(&address), connect(&address));
    send(&mut slow, "/slow/300");
    upload.write_all(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n01234").unwrap();
    ask(&mut connect(&address), "/");
    served.retire();
    upload.write_all(b"56789").unwrap();
    for (mut stream, body) in [(upload, "10"), (slow, "slow")] {
        let response = receive(&mut stream);
        assert_is_the_last(stream, &response, body);
    }
    served.ends_well();
}

#[test]
fn at_the_deadline_what_is_left_is_cut_and_counted_and_the_exit_is_0() {
    let (served, address) = Start::alone().with("APP_DRAIN_SECONDS", 1).ready();
    let mut slow = connect(&address);
    send(&mut slow, "/slow/60000");
    ask(&mut connect(&address), "/");
    served.signal();
    assert!(served.wait_for("EXTEND_TIMEOUT_USEC=").contains("EXTEND_TIMEOUT_USEC=6000000"));
    let said = served.wait_for("STATUS=ended");
    assert!(said.contains("1 connections, 1 requests in flight were cut at the deadline"), "{said}");
    assert_eq!(slow.read(&mut [0]).unwrap_or(0), 0);
    served.ends_well();
}

#[test]
fn a_second_signal_cuts_at_once() {
    let (served, address) = Start::alone().ready();
    let mut slow = connect(&address);
    send(&mut slow, "/slow/60000");
    ask(&mut connect(&address), "/");
    served.retire();
    served.signal();
    assert!(served.wait_for("STATUS=ended").contains("a second signal"));
    served.ends_well();
}

#[test]
fn a_signal_right_after_ready_ends_it_well() {
    for _ in 0..20 {
        let (served, _) = Start::alone().ready();
        served.signal();
        served.ends_well();
    }
}

#[test]
fn a_signal_before_ready_ends_it_well() {
    let served = Start::alone().with("HELLO_NOT_READY", 1).spawn();
    served.wait_for("STATUS=starting: /readyz");
    served.signal();
    served.ends_well();
}

#[test]
fn the_watchdog_is_fed_by_the_runtime_that_serves_and_starves_when_it_is_stuck() {
    let start = Start::alone().with("WATCHDOG_USEC", 200_000).with("TOKIO_WORKER_THREADS", 1);
    let (served, address) = start.ready();
    served.wait_for("WATCHDOG=1");
    served.wait_for("WATCHDOG=1");
    let mut stream = connect(&address);
    send(&mut stream, "/block/1000");
    // The last ping before the handler got hold of the worker may still be on its way; then there is a gap.
    let mut longest = Duration::ZERO;
    let until = Instant::now() + Duration::from_millis(1200);
    while Instant::now() < until {
        let began = Instant::now();
        served.wait_for("WATCHDOG=1");
        longest = longest.max(began.elapsed());
    }
    assert!(longest > Duration::from_millis(500), "pings every 100 ms, and none for {longest:?}");
    receive(&mut stream);
    served.retire();
    served.ends_well();
}

#[test]
fn http_2_ends_with_goaway() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&settings).unwrap();
    assert_eq!(next_frame(&mut stream), 4, "SETTINGS");
    served.retire();
    while next_frame(&mut stream) != 7 {}
}

/// The type of the next HTTP/2 frame (RFC 9113, 4.1).
fn next_frame(stream: &mut TcpStream) -> u8 {
    let mut header = [0; 9];
    stream.read_exact(&mut header).expect("a frame before the end");
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    stream.read_exact(&mut vec![0; length]).unwrap();
    header[3]
}
