//! Instructions for each request, as callgrind counts them: two runs that differ in how many there are, so that what a
//! start and an end take is in neither.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
};

use super::{
    BARE, SHIPPED,
    answer::Answer,
    axum,
    subject::{Programs, serve},
};
use crate::{
    bench::{Effort, figure::Figure, figure::in_turn, peers::Cell},
    host::in_network,
};

/// What comes before: whatever is made once is made.
const FIRST: usize = 100;
const MORE: usize = 2_000;

pub(super) fn instructions(Programs { app, greeting }: &Programs, effort: Effort) -> io::Result<Vec<Figure>> {
    let (axum, more) = (axum(), MORE.min(effort.most));
    let measure = |program: &Path, arguments: &[&str]| {
        let (few, many) = (count(program, arguments, FIRST)?, count(program, arguments, FIRST + more)?);
        Ok((many as f64 - few as f64) / more as f64)
    };
    let mut ways: [(&str, &mut dyn FnMut() -> io::Result<f64>); 3] = [
        (SHIPPED, &mut || measure(app, &[])),
        (BARE, &mut || measure(greeting, &["serve"])),
        (&axum, &mut || measure(greeting, &["axum"])),
    ];
    in_turn("instructions for each greeting, HTTP/1.1, 1 connection", "", effort.rounds, &mut ways)
}

/// Of a whole run, from its start to its end.
fn count(program: &Path, arguments: &[&str], requests: usize) -> io::Result<u64> {
    let mut cell = Cell::of(Path::new("/"))?;
    let log = cell.path("callgrind");
    let log_file = format!("--log-file={}", log.display());
    let valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", &log_file];
    serve(&mut cell, &valgrind, program, arguments)?;
    in_network(cell.leader(), || ask(requests))?;
    cell.end()?;
    let said = fs::read_to_string(&log)?;
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    let collected = line.and_then(|(_, number)| number.trim().parse().ok());
    collected.ok_or_else(|| io::Error::other(format!("callgrind counted nothing: {said}")))
}

/// One after the other, on one connection.
fn ask(requests: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect("127.0.0.1:80")?;
    let (body, mut received, mut buffer) = (Answer::Greeting.body(), Vec::new(), [0; 4096]);
    for _ in 0..requests {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: rig\r\n\r\n")?;
        received.clear();
        while !received.ends_with(&body) {
            match stream.read(&mut buffer)? {
                0 => return Err(io::Error::other("the connection was closed")),
                length => received.extend_from_slice(&buffer[..length]),
            }
        }
    }
    Ok(())
}
