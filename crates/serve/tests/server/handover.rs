//! A connection goes from one instance to the next, and its client does not notice.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::faults::pair;
use crate::peer::{self, TOOK};
use crate::served::{
    PATIENCE, Served, Start, ask, ask_until, assert_is_the_last, connect, listener, receive, says_close, send,
};

/// A host's public socket and runtime directory, without its systemd.
pub struct Host {
    pub listener: TcpListener,
    pub runtime: TempDir,
}

impl Host {
    pub fn new() -> Self {
        Self { listener: listener(), runtime: tempfile::tempdir().unwrap() }
    }

    pub fn instance(&self, n: u64) -> Start {
        Start::passed(vec![self.listener.try_clone().unwrap().into()], "http").sharing(self.path(), n)
    }

    pub fn start(&self, n: u64) -> Served {
        self.instance(n).ready().0
    }

    pub fn connect(&self) -> TcpStream {
        connect(&self.listener.local_addr().unwrap().to_string())
    }

    /// So many idle connections to the instance that serves, each used once.
    pub fn idle(&self, count: usize) -> Vec<TcpStream> {
        let mut idle: Vec<_> = (0..count).map(|_| self.connect()).collect();
        idle.iter_mut().for_each(|stream| drop(ask(stream, "/")));
        idle
    }

    pub fn path(&self) -> &Path {
        self.runtime.path()
    }
}

/// The connection is open, says nothing of an end, and that instance answers on it.
#[track_caller]
pub fn assert_served_by(stream: &mut (impl Read + Write), n: u64) {
    let response = ask(stream, "/instance");
    assert!(response.ends_with(&format!("\r\n\r\n{n}")) && !response.contains("connection: close"), "{n}: {response}");
}

#[test]
fn idle_and_fresh_connections_go_to_the_successor_and_the_old_one_is_gone_at_once() {
    let host = Host::new();
    let old = host.start(1);
    let (mut fresh, mut idle) = (host.connect(), host.idle(50));
    let new = host.start(2);
    let began = Instant::now();
    old.signal();
    let report = old.ended().report();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!((&report["handed_over"], &report["drained"], &report["cut"]), (&51.into(), &0.into(), &0.into()));
    for stream in &mut idle {
        assert_served_by(stream, 2);
        let own = stream.local_addr().unwrap().to_string();
        assert!(ask(stream, "/peer").ends_with(&own), "handlers know the peer");
    }
    assert_served_by(&mut fresh, 2);
    new.wait_for_report("taken", 51);
    assert_eq!(new.report()["connections"], 51);
}

#[test]
fn half_a_head_travels_with_its_connection() {
    let host = Host::new();
    let old = host.start(1);
    let (mut fresh, mut kept, mut preface) = (host.connect(), host.connect(), host.connect());
    ask(&mut kept, "/");
    for stream in [&mut fresh, &mut kept] {
        stream.write_all(b"GET /insta").unwrap();
    }
    preface.write_all(b"PRI * HT").unwrap();
    ask(&mut host.connect(), "/");
    let _new = host.start(2);
    old.signal();
    assert_eq!(old.ended().report()["handed_over"], 3);
    for mut stream in [fresh, kept] {
        stream.write_all(b"nce HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert!(receive(&mut stream).ends_with("\r\n\r\n2"));
    }
    preface.write_all(b"TP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut settings = [0; 9];
    preface.read_exact(&mut settings).unwrap();
    assert_eq!(settings[3], 4, "SETTINGS: it is known for HTTP/2");
}

#[test]
fn a_busy_connection_is_answered_by_the_old_one_and_goes_on_with_the_new() {
    let host = Host::new();
    let old = host.start(1);
    let (mut slow, mut upload, mut chunks, mut streamed) =
        (host.connect(), host.connect(), host.connect(), host.connect());
    send(&mut slow, "/slow/4000");
    send(&mut streamed, "/chunks/1500");
    upload.write_all(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n01234").unwrap();
    chunks.write_all(b"POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").unwrap();
    ask(&mut host.connect(), "/");
    let _new = host.start(2);
    old.retire();
    // What comes behind the body in the same segment is the successor's.
    let next = "GET /instance HTTP/1.1\r\nHost: h\r\n\r\n";
    upload.write_all(format!("56789{next}").as_bytes()).unwrap();
    chunks.write_all(format!("2\r\nde\r\n0\r\n\r\n{next}").as_bytes()).unwrap();
    for (mut stream, body) in [(upload, "10"), (chunks, "5")] {
        let response = receive(&mut stream);
        assert!(response.ends_with(&format!("\r\n\r\n{body}")) && !response.contains("close"), "{response}");
        assert!(receive(&mut stream).ends_with("\r\n\r\n2"));
    }
    assert!(receive(&mut slow).ends_with("slow"));
    assert_served_by(&mut slow, 2);
    let mut body = String::new();
    while !body.ends_with("0\r\n\r\n") {
        let mut byte = [0];
        streamed.read_exact(&mut byte).unwrap();
        body.push(byte[0].into());
    }
    assert_served_by(&mut streamed, 2);
    assert_eq!(old.ended().report()["handed_over"], 4);
}

#[test]
fn requests_that_were_sent_without_waiting_are_answered_by_one_or_the_other() {
    let host = Host::new();
    let old = host.start(1);
    let mut stream = host.connect();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.write_all((get("/slow/4000") + &get("/instance").repeat(20)).as_bytes()).unwrap();
    ask(&mut host.connect(), "/");
    let _new = host.start(2);
    old.signal();
    assert!(receive(&mut stream).ends_with("slow"));
    for _ in 0..20 {
        assert!(receive(&mut stream).ends_with("\r\n\r\n2"));
    }
    assert_served_by(&mut stream, 2);
    old.ends_well();
}

#[test]
fn a_unix_connection_is_handed_over_and_its_peer_is_known() {
    let host = Host::new();
    let path = host.path().join("public");
    let public = UnixListener::bind(&path).unwrap();
    public.set_nonblocking(true).unwrap();
    let start = |n| Start::passed(vec![public.try_clone().unwrap().into()], "http").sharing(host.path(), n);
    let old = start(1).ready().0;
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_served_by(&mut stream, 1);
    let _new = start(2).ready().0;
    old.signal();
    old.ends_well();
    assert_served_by(&mut stream, 2);
    assert!(ask(&mut stream, "/unix").contains(&std::process::id().to_string()));
}

#[test]
fn what_says_close_http_1_0_and_what_was_upgraded_end_as_they_always_did() {
    let host = Host::new();
    let old = host.start(1);
    let (mut says_close, mut old_http, mut upgraded) = (host.connect(), host.connect(), host.connect());
    says_close.write_all(b"GET /slow/4000 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    old_http.write_all(b"GET /slow/4000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
    upgraded.write_all(b"GET /echo HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    receive(&mut upgraded);
    ask(&mut host.connect(), "/");
    let _new = host.start(2);
    old.signal();
    for mut stream in [says_close, old_http] {
        let response = receive(&mut stream);
        assert!(response.contains("connection: close") && response.ends_with("slow"), "{response}");
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    let mut bytes = [0; 1];
    upgraded.read_exact(&mut bytes).unwrap();
    assert_eq!((&bytes, upgraded.read(&mut [0]).unwrap()), (b"!", 0));
    assert_eq!(old.ended().report()["handed_over"], 0);
}

#[test]
fn the_time_limit_of_a_head_goes_on_from_where_it_was() {
    let host = Host::new();
    let old = host.start(1);
    let mut stream = host.connect();
    stream.write_all(b"GET / HT").unwrap();
    let began = Instant::now();
    ask(&mut host.connect(), "/");
    let new = host.start(2);
    // Two thirds of the limit, then the other third.
    for _ in 0..10 {
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "nothing is said yet");
    }
    old.signal();
    old.ends_well();
    new.wait_for_report("taken", 1);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    let took = began.elapsed();
    assert!(Duration::from_secs(14) < took && took < Duration::from_secs(18), "{took:?}");
}

/// The other half of it: what it carries, and what is made of that.
#[test]
fn the_time_limit_of_an_idle_connection_goes_on_from_where_it_was() {
    let host = Host::new();
    let old = host.start(1);
    let mut idle = host.idle(1);
    idle[0].set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert!(idle[0].read(&mut [0]).is_err(), "nothing is said yet");
    let listening = peer::listen(host.path(), 2);
    old.signal();
    let (message, _) = peer::welcome(&listening, 2, 1).receive();
    let idle_ms = u32::from_le_bytes(message[3..7].try_into().unwrap());
    assert!((1000..5000).contains(&idle_ms), "{idle_ms} ms");

    let new = host.start(3);
    let (mut client, ours) = pair();
    let retires = peer::call(host.path(), new.n);
    let began = Instant::now();
    retires.send_with(&peer::idle_for(73_000, false, 10_000, b""), &[ours.as_fd()]);
    assert_eq!(retires.receive().0, TOOK);
    drop(ours);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let took = began.elapsed();
    assert!(Duration::from_millis(1900) < took && took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn with_a_successor_it_leaves_the_queue_and_stays_ready() {
    let host = Host::new();
    let old = host.start(1);
    let mut stream = host.connect();
    let readyz = b"GET /readyz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    stream.write_all(b"GET /slow/4000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
    stream.write_all(readyz).unwrap();
    ask(&mut host.connect(), "/");
    let new = host.start(2);
    old.signal();
    old.wait_for_report("accepting", false);
    let mut next = host.connect();
    assert_served_by(&mut next, 2);
    // HTTP/1.0 is not handed over: the old one answers.
    assert!(receive(&mut stream).ends_with("slow"));
    let response = receive(&mut stream);
    assert!(response.starts_with("HTTP/1.0 200") && response.contains("connection: close"), "{response}");
    old.ends_well();
    assert_eq!(new.report()["state"], "serving");
}

#[test]
fn a_candidate_that_is_rejected_hands_its_connections_back() {
    let host = Host::new();
    let old = host.start(1);
    let candidate = host.start(2);
    // Some are accepted by the one, some by the other.
    let mut idle = host.idle(40);
    candidate.signal();
    let handed_over = candidate.ended().report()["handed_over"].as_u64().unwrap();
    for stream in &mut idle {
        assert_served_by(stream, 1);
    }
    old.wait_for_report("taken", handed_over);
}

#[test]
fn three_releases_in_one_millisecond_lose_nothing() {
    let host = Host::new();
    let first = host.start(1);
    let mut idle = host.idle(200);
    let (second, third) = (host.start(2), host.start(3));
    first.signal();
    second.signal();
    first.ends_well();
    second.ends_well();
    for stream in &mut idle {
        assert_served_by(stream, 3);
    }
    assert_eq!(third.report()["state"], "serving");
}

#[test]
fn two_that_retire_at_once_do_not_hand_over_in_a_circle() {
    let host = Host::new();
    let (first, second) = (host.start(1), host.start(2));
    let mut idle = host.idle(20);
    first.signal();
    second.retire();
    first.wait_for("STOPPING=1");
    for mut stream in idle.drain(..) {
        let response = ask_until(&mut stream, "/", says_close);
        assert_is_the_last(stream, &response, "hello");
    }
    first.ends_well();
    second.ends_well();
}

#[test]
fn without_a_runtime_directory_it_closes_as_it_always_did_and_says_so_once() {
    let nowhere = tempfile::tempdir().unwrap().path().join("gone");
    let lines = [
        (String::new(), "RUNTIME_DIRECTORY is not set: no connection is handed over"),
        (nowhere.to_str().unwrap().to_owned(), "no instance can hand its connections over to this one"),
    ];
    for (folder, line) in lines {
        let host = Host::new();
        let old = host.instance(1).with("RUNTIME_DIRECTORY", &folder).with("HELLO_LOG", 1).ready().0;
        let mut stream = host.connect();
        ask(&mut stream, "/");
        let _new = host.start(2);
        old.retire_alone();
        // One a second; the successor is looked for as often.
        (0..2).for_each(|_| drop(old.wait_for("STATUS=retiring, alone")));
        let response = ask(&mut stream, "/");
        assert_is_the_last(stream, &response, "hello");
        let log = old.log();
        assert_eq!(log.matches(line).count(), 1, "{log}");
        assert!(log.matches("cannot look for a successor").count() <= 1, "{log}");
    }
}
