//! A server's life, as its service manager sees it.

use std::{
    fs,
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixStream},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::served::{Start, ask, assert_is_the_last, connect, listener, receive, send};

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
    let (served, address) = Start::passed(sockets, "metrics:http").ready();
    assert_eq!(address, http.local_addr().unwrap().to_string());
    let mut stream = connect(&address);
    let own = stream.local_addr().unwrap().to_string();
    assert!(ask(&mut stream, "/peer").ends_with(&own), "handlers know the peer");
    served.retire();
    served.ends_well();
}

#[test]
fn a_socket_that_cannot_serve_is_refused_in_one_line() {
    let passed = |socket: OwnedFd, names| Start::passed(vec![socket], names).refused();
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
    let text = served.log();
    assert!(text.contains("503 Service Unavailable: the database does not answer"), "{text}");
    assert!(listener.accept().is_ok(), "the connection still waits in the queue");
}

/// sd_notify(3), EXTEND_TIMEOUT_USEC: the unit's TimeoutStartSec= must not end a start that has its own limit.
#[test]
fn systemd_is_asked_for_as_long_as_the_router_may_take_to_be_ready() {
    let served = Start::alone().with("HELLO_NOT_READY", 1).with("APP_READY_SECONDS", 40).spawn();
    served.wait_for("EXTEND_TIMEOUT_USEC=45000000");
    served.signal();
    served.ends_well();
}

#[test]
fn the_file_tells_each_state_and_what_an_instance_that_retires_waits_for() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    ask(&mut stream, "/");
    let report = served.report();
    assert_eq!((&report["format"], &report["release"]), (&1.into(), &"0123456789abcdef".into()));
    assert_eq!((&report["n"], &report["pid"]), (&7.into(), &served.child.id().into()));
    assert_eq!((&report["state"], &report["accepting"]), (&"serving".into(), &true.into()));
    send(&mut stream, "/slow/6000");
    ask(&mut connect(&address), "/");
    served.retire_alone();
    served.wait_for("; request /slow/{ms} for 1 s");
    let report = served.report();
    assert_eq!((&report["state"], &report["accepting"]), (&"retiring".into(), &false.into()));
    assert_eq!((&report["connections"], &report["waits"][0]["route"]), (&1.into(), &"/slow/{ms}".into()));
    assert!(report["waits"][0]["age_ms"].as_u64().unwrap() >= 1000, "{report}");
    receive(&mut stream);
    drop(stream);
    let report = served.ended().report();
    assert_eq!((&report["cut"], &report["handed_over"]), (&0.into(), &0.into()));
    assert!(report["drained"].as_u64().unwrap() >= 1, "{report}");
}

#[test]
fn alone_it_answers_what_waits_in_a_queue_that_others_would_close() {
    let (start, listener) = Start::inherited();
    let (served, address) = start.ready();
    served.retire_alone();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let mut stream = connect(&address);
        let response = ask(&mut stream, "/");
        assert_is_the_last(stream, &response, "hello");
    }
    assert_eq!(served.report()["accepting"], true);
    let served = served.ended();
    assert_eq!(served.report()["accepting"], false);
    let _next = connect(&address);
    assert!(listener.accept().is_ok(), "its parent's socket is open");
}

/// Whoever came before the end of the grace, and whom nobody had time to accept: a host that shuts down is busy.
#[test]
fn what_waits_in_the_queue_at_the_end_of_the_grace_is_answered() {
    let (start, listener) = Start::inherited();
    rustix::net::listen(&listener, 1024).unwrap();
    let (served, address) = start.ready();
    served.retire_alone();
    let end = Instant::now() + Duration::from_secs(5);
    served.stop();
    assert_eq!(served.report()["accepting"], true);
    let mut waiting: Vec<_> = (0..600).map(|_| connect(&address)).collect();
    waiting.iter_mut().for_each(|stream| send(stream, "/"));
    thread::sleep(end.saturating_duration_since(Instant::now()));
    served.kill(Signal::CONT);
    served.wait_for_report("accepting", false);
    // As systemd does then: whatever was still in the queue would be reset.
    drop(listener);
    for mut stream in waiting {
        let response = receive(&mut stream);
        assert_is_the_last(stream, &response, "hello");
    }
    served.ends_well();
}

/// Each would be a line for each connection, or for each second.
#[test]
fn what_lasts_is_said_once() {
    let (served, address) = Start::alone().with("APP_CONNECTIONS", 1).with("HELLO_LOG", 1).ready();
    let file = served.folder().join(format!("{}.json", served.n));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    for _ in 0..10 {
        ask(&mut connect(&address), "/");
    }
    // One a second, and the file each second too.
    let mut slow = connect(&address);
    send(&mut slow, "/slow/2500");
    served.signal();
    (0..2).for_each(|_| drop(served.wait_for("STATUS=retiring")));
    let text = served.log();
    for words in ["as many connections are open as may be", "cannot write the instance's file"] {
        assert_eq!(text.matches(words).count(), 1, "{words}: {text}");
    }
}

/// Growing it later stops every thread for 10 to 20 ms at each doubling.
#[test]
fn the_descriptor_table_has_room_before_anything_is_accepted() {
    let (served, _) = Start::alone().with("APP_CONNECTIONS", 500).ready();
    let status = fs::read_to_string(format!("/proc/{}/status", served.child.id())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
    assert!(size.trim().parse::<u32>().unwrap() >= 1024, "{size}");
    served.retire();
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
fn requests_that_were_sent_without_waiting_are_answered_in_order() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.write_all((get("/slow/100") + &get("/").repeat(40)).as_bytes()).unwrap();
    assert!(receive(&mut stream).ends_with("slow"));
    (0..40).for_each(|_| assert!(receive(&mut stream).ends_with("hello")));
    served.signal();
    drop(stream);
    served.ends_well();
}
