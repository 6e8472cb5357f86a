//! HTTP/2 around the signal, frame by frame (RFC 9113).

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::served::{Served, Start, connect};

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

/// A connection that has said hello.
fn greeted() -> (Served, TcpStream) {
    let (served, address) = Start::alone().ready();
    let mut stream = connect(&address);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    let (kind, ..) = next(&mut stream);
    assert_eq!(kind, SETTINGS);
    stream.write_all(&frame(SETTINGS, ACK, 0, &[])).unwrap();
    (served, stream)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A GET of `/`, whole.
fn get(stream: u32) -> Vec<u8> {
    // :method GET, :scheme http, :path / and :authority (RFC 7541, appendix A), END_STREAM and END_HEADERS.
    frame(1, 1 | 4, stream, &[0x82, 0x86, 0x84, 0x41, 1, b'h'])
}

/// Type, flags, stream and payload.
fn next(stream: &mut TcpStream) -> (u8, u8, u32, Vec<u8>) {
    let mut header = [0; 9];
    stream.read_exact(&mut header).expect("a frame before the end");
    let [a, b, c, kind, flags, id @ ..] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).unwrap();
    (kind, flags, u32::from_be_bytes(id), payload)
}

/// The payload of the next frame that is one of `kind` and has no ACK.
fn wait_for(stream: &mut TcpStream, kind: u8) -> Vec<u8> {
    loop {
        match next(stream) {
            (found, flags, _, payload) if found == kind && flags & ACK == 0 => return payload,
            _ => {}
        }
    }
}

/// The streams that were answered to their ends, and the last that GOAWAY says was taken.
fn rest(stream: &mut TcpStream) -> (Vec<u32>, u32) {
    let (mut answered, mut last) = (Vec::new(), 0);
    loop {
        match next(stream) {
            (0, flags, id, _) if flags & 1 == 1 => answered.push(id),
            (GOAWAY, _, _, payload) => {
                last = u32::from_be_bytes(payload[..4].try_into().unwrap());
                if stream.peek(&mut [0]).unwrap() == 0 {
                    return (answered, last);
                }
            }
            _ => {}
        }
        if stream.peek(&mut [0]).unwrap() == 0 {
            return (answered, last);
        }
    }
}

#[test]
fn streams_that_a_client_sends_behind_its_pong_are_answered() {
    let (served, mut stream) = greeted();
    served.retire_alone();
    let first = wait_for(&mut stream, GOAWAY);
    assert_eq!(first[..4], [0x7f, 0xff, 0xff, 0xff], "the first GOAWAY refuses nothing (RFC 9113, 6.8)");
    let ping = wait_for(&mut stream, PING);
    // A client writes what it owes at once, and then what it had queued.
    stream.write_all(&[frame(PING, ACK, 0, &ping), get(1)].concat()).unwrap();
    stream.write_all(&get(3)).unwrap();
    assert_eq!(rest(&mut stream), (vec![1, 3], 3));
    served.ends_well();
}

#[test]
fn a_connection_that_begins_after_the_signal_is_answered() {
    let (served, address) = Start::alone().ready();
    let fresh: Vec<TcpStream> = (0..8).map(|_| connect(&address)).collect();
    crate::served::ask(&mut connect(&address), "/");
    served.retire_alone();
    for mut stream in fresh {
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[]), &get(1)].concat();
        stream.write_all(&hello).unwrap();
        let ping = wait_for(&mut stream, PING);
        stream.write_all(&frame(PING, ACK, 0, &ping)).unwrap();
        assert_eq!(rest(&mut stream).1, 1);
    }
    served.ends_well();
}

#[test]
fn streams_in_flight_are_answered() {
    let (served, mut stream) = greeted();
    stream.write_all(&get(1)).unwrap();
    served.retire_alone();
    stream.write_all(&get(3)).unwrap();
    let ping = wait_for(&mut stream, PING);
    stream.write_all(&frame(PING, ACK, 0, &ping)).unwrap();
    let (_, last) = rest(&mut stream);
    assert_eq!(last, 3);
    served.ends_well();
}

/// Its body is hyper's at once; the window (65,535 bytes) lets it out bit by bit.
#[test]
fn a_large_response_is_sent_to_its_end_beyond_the_grace() {
    let (served, mut stream) = greeted();
    // As `get`, with the path /big as a literal.
    stream.write_all(&frame(1, 1 | 4, 1, &[0x82, 0x86, 0x04, 4, b'/', b'b', b'i', b'g', 0x41, 1, b'h'])).unwrap();
    served.retire_alone();
    let (mut size, mut waited) = (0, false);
    loop {
        match next(&mut stream) {
            (0, flags, 1, payload) => {
                size += payload.len();
                if flags & 1 == 1 {
                    break;
                }
                if size == 65_535 {
                    // One a second; the grace is 5 s.
                    (0..7).for_each(|_| drop(served.wait_for("STATUS=retiring")));
                    waited = true;
                }
                if waited {
                    let more = (payload.len() as u32).max(65_535).to_be_bytes();
                    stream.write_all(&[frame(8, 0, 0, &more), frame(8, 0, 1, &more)].concat()).unwrap();
                }
            }
            (PING, flags, _, payload) if flags & ACK == 0 => stream.write_all(&frame(PING, ACK, 0, &payload)).unwrap(),
            _ => {}
        }
    }
    assert_eq!((size, waited), (2 << 20, true));
    served.ends_well();
}

#[test]
fn a_client_that_never_answers_does_not_keep_the_instance() {
    let (served, address) = Start::alone().ready();
    let mut preface = connect(&address);
    // No SETTINGS follow.
    preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    let mut half = connect(&address);
    half.write_all(b"PRI * HTTP/2.0\r\n").unwrap();
    crate::served::ask(&mut connect(&address), "/");
    served.retire_alone();
    let began = Instant::now();
    served.ends_well();
    assert!(began.elapsed() < Duration::from_secs(20), "the grace, not the deadline: {:?}", began.elapsed());
}
