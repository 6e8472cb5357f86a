//! Bundles for the tests: the real one, and ones that are wrong in one way each.

use std::{
    io::{Read, Write},
    sync::OnceLock,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use releases::bundle::{Bundle, Contents};

const UNIT: &str = "units/app@.service";
const VALIDATE: &str = "hooks/validate-service";

/// What `just bundle` packs, built once; but it bakes for no time, so that these tests do not take hours.
pub fn contents() -> Contents {
    let mut contents = shipped();
    bake(&mut contents, 0);
    contents
}

/// What `just bundle` packs, built once.
pub fn shipped() -> Contents {
    static BUILT: OnceLock<Contents> = OnceLock::new();
    BUILT.get_or_init(|| Contents::build(rig::workspace()).unwrap()).clone()
}

/// Lets the validation of a bundle watch for so many seconds.
pub fn bake(contents: &mut Contents, seconds: u32) {
    let text = String::from_utf8(contents.get(VALIDATE).unwrap().to_vec()).unwrap();
    let (before, _) = text.split_once("validate .").unwrap();
    contents.put(VALIDATE, 0o755, format!("{before}validate . --bake {seconds}\n").as_bytes());
}

pub fn good(label: &str) -> Bundle {
    contents().pack(label).unwrap()
}

/// The product replaced by a script.
pub fn script(label: &str, text: &str) -> Bundle {
    let mut contents = contents();
    contents.put("bin/app", 0o755, text.as_bytes());
    contents.pack(label).unwrap()
}

/// The release's own unit with one line replaced by others.
pub fn unit(contents: &mut Contents, line: &str, lines: &str) {
    let text = String::from_utf8(contents.get(UNIT).unwrap().to_vec()).unwrap();
    assert!(text.contains(line), "{line}");
    contents.put(UNIT, 0o644, text.replace(line, lines).as_bytes());
}

/// A bundle whose product was changed after its manifest had been written.
pub fn damaged(bundle: &Bundle) -> Vec<u8> {
    let mut from = tar::Archive::new(GzDecoder::new(bundle.archive.as_slice()));
    let mut to = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for entry in from.entries().unwrap() {
        let mut entry = entry.unwrap();
        let (mut bytes, path) = (Vec::new(), entry.path().unwrap().into_owned());
        entry.read_to_end(&mut bytes).unwrap();
        if path.ends_with("bin/app") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        let mut header = entry.header().clone();
        to.append_data(&mut header, path, bytes.as_slice()).unwrap();
    }
    let mut gzip = to.into_inner().unwrap();
    gzip.flush().unwrap();
    gzip.finish().unwrap()
}

/// Says READY, answers everybody with 503, and logs at its end as `accepted N` how many that were, `releasectl` apart.
pub fn never_ready_again() -> String {
    r#"#!/usr/bin/python3
import os, select, signal, socket
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
path = os.environ["NOTIFY_SOCKET"]
notify.connect("\0" + path[1:] if path[0] == "@" else path)
listener = socket.socket(fileno=3)
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
notify.send(b"READY=1")
poll = select.poll()
poll.register(listener, select.POLLIN)
accepted = 0
while not stopped:
    notify.send(b"WATCHDOG=1")
    if not poll.poll(100):
        continue
    try:
        client = listener.accept()[0]
    except BlockingIOError:
        continue
    client.setblocking(True)
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(4096) or b"\r\n\r\n"
    # Whoever goes without a word has asked for nothing: `releasectl` may, where it ends.
    accepted += b"releasectl" not in head and head != b"\r\n\r\n"
    client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    client.close()
print("accepted", accepted, flush=True)
"#
    .to_owned()
}

/// Serves what `releasectl` asks for, and anything else, as the product does; and at each turn of its loop does `then`, with
/// the seconds since READY in `age`.
pub fn serves_and(then: &str) -> String {
    let script = r#"#!/usr/bin/python3
import json, os, select, signal, socket, time
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
path = os.environ["NOTIFY_SOCKET"]
notify.connect("\0" + path[1:] if path[0] == "@" else path)
listener = socket.socket(fileno=3)
version = json.dumps({"release": os.environ["APP_RELEASE"]}).encode()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
poll = select.poll()
poll.register(listener, select.POLLIN)
clients, began, hoard = {}, time.monotonic(), []
notify.send(b"READY=1")
while True:
    notify.send(b"WATCHDOG=1")
    age = time.monotonic() - began
    THEN
    for fd, _ in poll.poll(20):
        if fd == listener.fileno():
            try:
                client = listener.accept()[0]
            except BlockingIOError:
                continue
            clients[client.fileno()] = (client, b"")
            poll.register(client, select.POLLIN)
            continue
        client, head = clients[fd]
        try:
            more = client.recv(4096)
        except OSError:
            more = b""
        head += more
        if b"\r\n\r\n" in head:
            body = version if b" /version " in head else b"ok\n"
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            head = b""
        clients[fd] = (client, head)
        if not more:
            poll.unregister(client)
            del clients[fd]
            client.close()
"#;
    script.replace("THEN", then)
}

/// Says READY, takes the next `connections` from the socket, logs `accepted N`, and dies without an answer to any.
pub fn dies_after(connections: u32) -> String {
    format!(
        r#"#!/usr/bin/python3
import os, select, socket, sys
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
path = os.environ["NOTIFY_SOCKET"]
notify.connect("\0" + path[1:] if path[0] == "@" else path)
listener = socket.socket(fileno=3)
notify.send(b"READY=1")
accepted = []
poll = select.poll()
poll.register(listener, select.POLLIN)
while len(accepted) < {connections} and poll.poll(1000):
    try:
        accepted.append(listener.accept()[0])
    except BlockingIOError:
        pass
print("accepted", len(accepted), flush=True)
os._exit(1)
"#
    )
}
