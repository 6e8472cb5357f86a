//! Instructions for each request, as callgrind counts them: two runs that differ in how many there are, so that what a
//! start and an end take is in neither.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
};

use super::{BARE, GREETING, SHIPPED};
use crate::{
    bench::{Effort, figure::Figure, figure::in_turn, peers::Cell},
    host::in_network,
    table::Server,
};

/// What comes before: whatever is made once is made.
const FIRST: usize = 100;
const MORE: usize = 2_000;

pub(super) fn instructions(greeting: &Path, axum: &str, effort: Effort) -> io::Result<Vec<Figure>> {
    let (app, more) = (Server::App.build()?, MORE.min(effort.most));
    let measure = |program: &Path, arguments: &[&str]| {
        let (few, many) = (count(program, arguments, FIRST)?, count(program, arguments, FIRST + more)?);
        Ok((many as f64 - few as f64) / more as f64)
    };
    let mut ways: [(&str, &mut dyn FnMut() -> io::Result<f64>); 3] = [
        (SHIPPED, &mut || measure(&app, &[])),
        (BARE, &mut || measure(greeting, &["serve"])),
        (axum, &mut || measure(greeting, &["axum"])),
    ];
    in_turn("instructions for each greeting, HTTP/1.1, 1 connection", "", effort.rounds, &mut ways)
}

/// Of a whole run, from its start to its end.
fn count(program: &Path, arguments: &[&str], requests: usize) -> io::Result<u64> {
    let mut cell = Cell::of(Path::new("/"))?;
    let log = cell.path("callgrind");
    let options = ["--tool=callgrind", "--callgrind-out-file=/dev/null", &format!("--log-file={}", log.display())];
    let program = program.to_str().ok_or_else(|| io::Error::other("a path is no UTF-8"))?;
    cell.serve(80, Path::new("valgrind"), &[options.as_slice(), &[program], arguments].concat())?;
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
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    for _ in 0..requests {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: rig\r\n\r\n")?;
        received.clear();
        while !received.ends_with(GREETING.as_bytes()) {
            match stream.read(&mut buffer)? {
                0 => return Err(io::Error::other("the connection was closed")),
                length => received.extend_from_slice(&buffer[..length]),
            }
        }
    }
    Ok(())
}
