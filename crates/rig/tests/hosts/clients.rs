//! What a client may send, and what it must not cost the others.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use rig::{Agent, Host};

use crate::{bundles::good, deploy::assert_converged};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const HEAD: usize = 9;

/// RFC 9113, 4.1: length, type, flags, stream 0.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 0], payload].concat()
}

fn wait_for_pong(stream: &mut TcpStream, payload: &[u8]) {
    loop {
        let mut head = [0; HEAD];
        stream.read_exact(&mut head).unwrap();
        let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut body).unwrap();
        if (head[3], head[4], body.as_slice()) == (PING, ACK, payload) {
            return;
        }
    }
}

/// h2 warns of each, and whoever logs waits for the journal: a client could hold all others up, and fill the disk.
#[test]
fn frames_that_a_client_sends_without_end_are_not_logged() {
    let (host, good) = (Host::boot(), good("good"));
    Agent::new(&host).deploy(&good.archive).expect_success();
    host.in_network(|| {
        let mut stream = TcpStream::connect("127.0.0.1:80").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, b"")].concat()).unwrap();
        for _ in 0..200 {
            stream.write_all(&frame(PING, ACK, b"nobodys!").repeat(100)).unwrap();
        }
        stream.write_all(&frame(PING, 0, b"answered")).unwrap();
        wait_for_pong(&mut stream, b"answered");
    });
    let log = host.succeed("journalctl --sync; journalctl --no-pager -o cat -u 'app-*'");
    assert!(!log.contains("PING"), "{} lines", log.lines().count());
    assert_converged(&host, good.id.as_str());
}
