//! What a deployment can hurt, around the signal. Each pitfall of a drain is a test here or in http2.rs.

use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

use crate::served::{Start, ask, assert_is_the_last, connect, receive, send};

/// How long a head may take, from its first byte on: three times the grace of an instance that is alone.
const OF_A_HEAD: Duration = Duration::from_secs(15);
/// A moment after the signal, and well within every grace.
const LATER: Duration = Duration::from_millis(100);

#[test]
fn a_fresh_connection_is_answered_after_the_signal() {
    let (served, address) = Start::alone().ready();
    let (mut first, mut stream) = (connect(&address), connect(&address));
    // Accepted in order: once a later one is answered, this one has been accepted.
    ask(&mut connect(&address), "/");
    ask(&mut first, "/");
    served.retire_alone();
    thread::sleep(LATER);
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
    served.retire_alone();
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
    send(&mut slow, "/slow/3000");
    upload.write_all(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n01234").unwrap();
    ask(&mut connect(&address), "/");
    served.retire_alone();
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
    assert!(said.contains("1 cut; 1 connections, 1 requests in flight were cut at the deadline"), "{said}");
    assert_eq!(slow.read(&mut [0]).unwrap_or(0), 0);
    served.ends_well();
}

#[test]
fn a_second_signal_cuts_at_once() {
    let (served, address) = Start::alone().ready();
    let mut slow = connect(&address);
    send(&mut slow, "/slow/60000");
    ask(&mut connect(&address), "/");
    served.retire_alone();
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
fn a_client_back_to_back_is_let_go_with_its_next_response() {
    // The second comes when its buffers are gone.
    for later in [LATER, 5 * LATER] {
        let (served, address) = Start::alone().ready();
        let mut stream = connect(&address);
        ask(&mut stream, "/");
        served.retire_alone();
        thread::sleep(later);
        let began = Instant::now();
        let response = ask(&mut stream, "/");
        assert_is_the_last(stream, &response, "hello");
        served.ends_well();
        assert!(began.elapsed() < Duration::from_secs(4), "no grace where nothing is open: {:?}", began.elapsed());
    }
}

#[test]
fn requests_that_were_sent_without_waiting_are_all_answered() {
    let (served, address) = Start::alone().ready();
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let post = "POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    // In one segment: three, of which the first is answered after the signal.
    let mut stream = connect(&address);
    stream.write_all(format!("{}{post}{get}", get.replace("/ ", "/slow/3000 ")).as_bytes()).unwrap();
    ask(&mut connect(&address), "/");
    served.retire_alone();
    assert!(receive(&mut stream).ends_with("slow"));
    assert!(receive(&mut stream).ends_with("\r\n\r\n3"));
    let response = receive(&mut stream);
    assert_is_the_last(stream, &response, "hello");
    served.ends_well();
}

#[test]
fn a_request_that_arrives_while_another_is_in_flight_is_answered() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    send(&mut stream, "/slow/3000");
    ask(&mut connect(&address), "/");
    served.retire_alone();
    send(&mut stream, "/");
    assert!(receive(&mut stream).ends_with("slow"));
    let response = receive(&mut stream);
    assert_is_the_last(stream, &response, "hello");
    served.ends_well();
}

#[test]
fn a_stream_whose_head_was_out_before_the_signal_leaves_a_connection_that_can_be_used() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    send(&mut stream, "/chunks/2000");
    let mut body = String::new();
    while !body.contains("chunk\r\n") {
        body.push_str(&read_some(&mut stream));
    }
    served.retire_alone();
    while !body.ends_with("0\r\n\r\n") {
        body.push_str(&read_some(&mut stream));
    }
    assert_eq!(body.matches("5\r\nchunk\r\n").count(), 2, "{body}");
    // The grace of the signal is over; this connection's own is not, also where it has come to rest.
    thread::sleep(5 * LATER);
    let response = ask(&mut stream, "/");
    assert_is_the_last(stream, &response, "hello");
    served.ends_well();
}

#[test]
fn an_upload_in_chunks_is_read_to_its_end() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    stream.write_all(b"POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").unwrap();
    ask(&mut connect(&address), "/");
    served.retire_alone();
    stream.write_all(b"2\r\nde\r\n0\r\n\r\n").unwrap();
    let response = receive(&mut stream);
    assert_is_the_last(stream, &response, "5");
    served.ends_well();
}

#[test]
fn an_answer_to_an_upload_that_is_not_read_arrives_whole() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    stream.write_all(b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    ask(&mut connect(&address), "/");
    served.retire_alone();
    // An error of sending must not hide what was answered.
    let _ = stream.write_all(&vec![0; 500_000]);
    assert!(receive(&mut stream).ends_with("early"));
    drop(stream);
    assert_eq!(served.ended().report()["late_bytes"], 0, "the rest of a request that has had its answer is not lost");
}

/// hyper keeps a request's offer to switch protocols, and ends a connection otherwise after it.
#[test]
fn an_answer_to_an_upload_that_offers_an_upgrade_arrives_whole_too() {
    let (served, address) = Start::alone().ready();
    for _ in 0..10 {
        let mut stream = connect(&address);
        let upgrade = "Connection: Upgrade\r\nUpgrade: h2c\r\n";
        stream
            .write_all(
                format!("POST /early HTTP/1.1\r\nHost: h\r\n{upgrade}Content-Length: 1000000\r\n\r\n").as_bytes(),
            )
            .unwrap();
        let _ = stream.write_all(&vec![0; 500_000]);
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("no reset");
        assert!(response.ends_with("early"), "{response}");
    }
    served.retire();
    served.ends_well();
}

#[test]
fn the_process_does_not_end_amid_the_end_of_its_last_connection() {
    let (mut served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    // Accepted in order: once a later one is answered, this one has been accepted.
    ask(&mut connect(&address), "/");
    served.retire_alone();
    let offer =
        "POST /early HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(offer.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("early"), "{response}");
    // The rest of its request, which is read as long as it comes.
    for _ in 0..15 {
        stream.write_all(&[b'x'; 1000]).expect("it is read");
        thread::sleep(LATER);
    }
    assert!(served.child.try_wait().unwrap().is_none());
    drop(stream);
    served.ends_well();
}

/// An empty line comes before a head, and is none (RFC 9112, 2.2).
#[test]
fn a_connection_that_has_sent_an_empty_line_is_idle() {
    let (served, address) = Start::alone().ready();
    let (mut fresh, mut kept) = (connect(&address), connect(&address));
    ask(&mut kept, "/");
    for stream in [&mut fresh, &mut kept] {
        stream.write_all(b"\r\n").unwrap();
    }
    ask(&mut connect(&address), "/");
    served.retire_alone();
    let began = Instant::now();
    for stream in [&mut fresh, &mut kept] {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed after the grace, and not at the deadline");
    }
    assert!(began.elapsed() < OF_A_HEAD, "as one that has begun to ask");
    drop((fresh, kept));
    assert_eq!(served.ended().report()["cut"], 0);
}

#[test]
fn a_large_last_response_is_not_cut_short_by_bytes_that_nobody_reads() {
    let (served, address) = Start::alone().ready();
    for _ in 0..10 {
        let mut stream = connect(&address);
        stream.write_all(b"GET /big HTTP/1.0\r\n\r\n").unwrap();
        let mut response = vec![0; 1];
        stream.read_exact(&mut response).unwrap();
        stream.write_all(b"and more than it reads").unwrap();
        stream.read_to_end(&mut response).expect("no reset");
        assert!(response.len() > 2 << 20, "{} bytes", response.len());
    }
    served.retire_alone();
    served.ends_well();
}

#[test]
fn bytes_that_come_after_the_end_are_counted() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    // Accepted in order: once a later one is answered, this one has been accepted.
    ask(&mut connect(&address), "/");
    served.retire_alone();
    assert!(ask(&mut stream, "/").contains("connection: close"));
    stream.write_all(b"late").unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    drop(stream);
    let served = served.ended();
    assert_eq!(served.report()["late_bytes"], 4);
}

#[test]
fn http_1_0_hears_close_and_nothing_else() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    let get = b"GET /slow/3000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    stream.write_all(get).unwrap();
    assert!(receive(&mut stream).contains("connection: keep-alive"));
    stream.write_all(get).unwrap();
    ask(&mut connect(&address), "/");
    served.retire_alone();
    let response = receive(&mut stream);
    assert!(response.contains("connection: close") && !response.contains("keep-alive"), "{response}");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    served.ends_well();
}

#[test]
fn a_connection_that_was_upgraded_is_its_handlers_who_hears_of_the_signal() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    stream.write_all(b"GET /echo HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nab").unwrap();
    let head = receive(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("connection: upgrade"), "{head}");
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ab");
    served.retire_alone();
    stream.read_exact(&mut bytes[..1]).unwrap();
    assert_eq!(bytes[0], b'!');
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    served.ends_well();
}

#[test]
fn a_switch_of_protocols_keeps_its_own_header_after_the_signal() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    ask(&mut connect(&address), "/");
    served.retire_alone();
    stream.write_all(b"GET /echo HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    let head = receive(&mut stream);
    assert!(head.contains("connection: upgrade") && !head.contains("close"), "{head}");
    served.ends_well();
}

#[test]
fn half_a_head_is_waited_for_beyond_the_grace() {
    let (served, address) = Start::alone().ready();
    let (mut fresh, mut kept) = (connect(&address), connect(&address));
    ask(&mut kept, "/");
    for stream in [&mut fresh, &mut kept] {
        stream.write_all(b"GET / HT").unwrap();
    }
    ask(&mut connect(&address), "/");
    served.retire_alone();
    // One a second; the grace is 5 s.
    for _ in 0..7 {
        served.wait_for("STATUS=retiring");
    }
    for mut stream in [fresh, kept] {
        stream.write_all(b"TP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let response = receive(&mut stream);
        assert_is_the_last(stream, &response, "hello");
    }
    served.ends_well();
}

#[test]
fn what_would_go_on_for_ever_hears_of_the_signal() {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    send(&mut stream, "/forever");
    ask(&mut connect(&address), "/");
    served.signal();
    // It may be told before it is known that nobody serves beside it.
    assert!(receive(&mut stream).ends_with("come back"));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    served.ends_well();
}

#[test]
fn from_the_signal_on_it_lives_and_is_not_ready() {
    let (served, address) = Start::alone().ready();
    let (mut livez, mut readyz) = (connect(&address), connect(&address));
    assert!(ask(&mut readyz, "/readyz").starts_with("HTTP/1.1 200"));
    ask(&mut livez, "/livez");
    served.retire_alone();
    assert!(ask(&mut livez, "/livez").starts_with("HTTP/1.1 200"));
    assert!(ask(&mut readyz, "/readyz").starts_with("HTTP/1.1 503"));
    served.ends_well();
}

#[test]
fn what_is_cut_is_told_one_by_one() {
    let (served, address) = Start::alone().with("APP_DRAIN_SECONDS", 1).with("HELLO_LOG", 1).ready();
    let (mut slow, mut chunks, mut half) = (connect(&address), connect(&address), connect(&address));
    let mut upgraded = connect(&address);
    upgraded.write_all(b"GET /echo?deaf HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    receive(&mut upgraded);
    send(&mut slow, "/slow/60000");
    send(&mut chunks, "/chunks/60000");
    half.write_all(b"GET / HT").unwrap();
    let fresh = connect(&address);
    ask(&mut connect(&address), "/");
    served.retire_alone();
    served.wait_for("STATUS=ended");
    drop(fresh);
    let text = served.log();
    let cuts: Vec<&str> = text.lines().filter(|line| line.contains(" cut kind=")).collect();
    for (kind, route) in [("request", "/slow/{ms}"), ("response", "/chunks/{ms}"), ("upgraded", "/echo")] {
        let part = format!("kind=\"{kind}\" route=\"{route}\" age_ms=");
        let age = cuts.iter().find_map(|line| line.split_once(&part)?.1.split(' ').next()?.parse::<u32>().ok());
        // The second until the deadline; a request may be read shortly after the signal.
        assert!(age.is_some_and(|age| (900..2_000).contains(&age)), "{part}: {text}");
    }
    assert!(cuts.iter().any(|line| line.contains("kind=\"head\"")) && cuts.len() == 5, "{text}");
}

#[test]
fn beyond_the_most_connections_a_client_waits() {
    let (served, address) = Start::alone().with("APP_CONNECTIONS", 1).ready();
    let mut first = connect(&address);
    ask(&mut first, "/");
    let mut second = connect(&address);
    send(&mut second, "/");
    second.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(second.read(&mut [0]).is_err(), "it must wait");
    drop(first);
    second.set_read_timeout(Some(crate::served::PATIENCE)).unwrap();
    assert!(receive(&mut second).ends_with("hello"));
    drop(second);
    served.retire_alone();
    served.ends_well();
}

#[test]
fn a_head_of_64_kib_is_answered_and_one_byte_more_is_refused() {
    let (served, address) = Start::alone().ready();
    for (length, answer) in [(65_536, "HTTP/1.1 200"), (65_537, "HTTP/1.1 431"), (200_000, "HTTP/1.1 431")] {
        let mut stream = connect(&address);
        let (begin, end) = ("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX: ", "\r\n\r\n");
        let filler = "x".repeat(length - begin.len() - end.len());
        let _ = stream.write_all(format!("{begin}{filler}{end}").as_bytes());
        let received = receive(&mut stream);
        assert!(received.starts_with(answer), "{length}: {received}");
    }
    served.retire_alone();
    served.ends_well();
}

fn read_some(stream: &mut impl Read) -> String {
    let mut bytes = [0; 4096];
    let read = stream.read(&mut bytes).unwrap();
    assert!(read > 0, "it ended");
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}
