//! What an instance does with what has arrived when it is told to retire.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use rig::{Agent, Host};

use crate::{
    bundles::{contents, good, unit},
    deploy::assert_converged,
};

fn connect() -> TcpStream {
    let stream = TcpStream::connect("127.0.0.1:80").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

#[track_caller]
fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("Hello, lambros!\n"), "{text:?}");
    text
}

/// Connections made before a deployment are the old instance's, whatever they have sent by then.
#[test]
fn connections_that_have_sent_nothing_half_a_head_or_one_request_are_answered_after_a_deployment() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    host.in_network(|| {
        let (mut fresh, mut half, mut idle) = (connect(), connect(), connect());
        half.write_all(b"GET /lambros HTTP/1.1\r\nHo").unwrap();
        idle.write_all(b"GET /lambros HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut first = [0; 16];
        idle.read_exact(&mut first).unwrap();
        while !first.ends_with(b"Hello, lambros!\n") {
            first.rotate_left(1);
            idle.read_exact(&mut first[15..]).unwrap();
        }
        agent.deploy(&two.archive).expect_success();
        half.write_all(b"st: h\r\n\r\n").unwrap();
        for stream in [&mut fresh, &mut idle] {
            stream.write_all(b"GET /lambros HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        }
        for stream in [fresh, half, idle] {
            assert!(answer(stream).to_lowercase().contains("connection: close"));
        }
    });
    assert_converged(&host, two.id.as_str());
}

/// sd_notify(3), EXTEND_TIMEOUT_USEC: the service's own deadline counts, not the unit's.
#[test]
fn a_drain_that_is_longer_than_the_units_stop_timeout_is_not_cut() {
    let host = Host::boot();
    let mut contents = contents();
    unit(&mut contents, "TimeoutStopSec=45", "TimeoutStopSec=2");
    let (one, two) = (contents.pack("one").unwrap(), good("two"));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    host.in_network(|| {
        let mut slow = connect();
        slow.write_all(b"GET /slow?ms=6000 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        // Accepted in order: once a later one is answered, this one has been accepted.
        let mut later = connect();
        later.write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
        later.read_to_string(&mut String::new()).unwrap();
        agent.deploy(&two.archive).expect_success();
        let mut text = String::new();
        slow.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("after 6000 ms\n"), "{text:?}");
    });
}
