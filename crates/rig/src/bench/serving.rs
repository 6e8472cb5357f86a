//! Requests per second of the server's processor time, and instructions for each.

mod callgrind;
mod generator;

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
};

use self::generator::{Generator, Protocol};
use super::{
    Effort,
    chapter::{Bound, Chapter, Goal},
    figure::{Figure, in_turn},
    peers::{Cell, Kind, Peer, version},
};
use crate::{
    machine,
    table::{self, Server},
};

const NEEDED: [(&str, &str); 2] = [("/usr/bin/h2load", "nghttp2-client"), ("/usr/bin/valgrind", "valgrind")];
const GREETING: &str = "Hello, world!\n";
/// All of it is x.
const LARGE: usize = 64 << 10;
const SHIPPED: &str = "ours, as shipped";
const BARE: &str = "ours, bare serve";
/// Where the time goes, and what was tried.
const NOTES: [&str; 2] = [
    "What the bare crate does beyond axum::serve with the same router: it notes where each message begins and ends, by which a \
     connection can leave between two of them and lose none, and gives each request two extensions, who asks and whether its \
     instance retires. Seen once by callgrind, for a greeting: 16,115 instructions and 17 allocations, beside 13,724 and 13 of \
     axum::serve, and 8,234 and 2 of hyper without a router. It was 19,386 and 23, before these were taken out: endpoints that \
     were made for each request, a search byte by byte for the end of a head, a second buffer of a small response, three wakers \
     that were compared at each turn, a layer that put down the route, a boxed future, ten reference counts, and two counters \
     that all threads wrote to.",
    "What the app does beyond the bare crate: tower-http's seven layers took 18,500 instructions and 19 allocations of a greeting, \
     10,100 of them for a span that is formatted whether anything is logged or not; a timer was set before the handler was \
     asked, an id took a system call, and a body that stays as it is three boxes. One layer of the app's own does each of it \
     where it is needed, for 7,800 and 9; its tests hold its answers to those of tower-http.",
];
/// What the goals are of.
const USUAL: Generator = Generator { protocol: Protocol::Http1, connections: 64 };

/// A server, alone in its cell.
struct Subject {
    whose: String,
    cell: Cell,
}

/// # Errors
/// Where a server does not build, start or answer as it must, or a generator cannot be had.
pub(super) fn run(effort: Effort) -> io::Result<Chapter> {
    prepare()?;
    let (mut notes, greeting) = (NOTES.map(str::to_owned).to_vec(), greeting()?);
    let subjects = subjects(&greeting, &mut notes)?;
    let mut figures = Vec::new();
    for generator in generators(effort) {
        figures.extend(compare(&subjects, generator, "/", effort)?);
    }
    let axum = axum();
    let (mut ratios, mut goals) = (Vec::new(), Vec::new());
    for (one, other, least) in [(BARE, axum.as_str(), 1.05), (SHIPPED, BARE, 0.85)] {
        let ratio = usual(&figures, one).ratio_to(usual(&figures, other));
        goals.push(Goal::of(format!("{}, {USUAL}", ratio.whose), Bound::AtLeast(least), &ratio));
        ratios.push(ratio);
    }
    figures.extend(ratios);
    for generator in generators(effort) {
        // The app has no such route.
        figures.extend(compare(&subjects[1..], generator, "/64k", effort)?);
    }
    figures.extend(callgrind::instructions(&greeting, &axum, effort)?);
    let about = format!(
        "Requests a second, divided by the processor time that all of the server's processes took (/proc/PID/stat), so that the \
         load generator's share does not count; {} s each, by wrk and h2load (ten streams at once), on a loopback of its own. \
         The app has its layers, its metrics and its default log level; the bare crate and axum::serve have the same router. \
         64 KiB come from memory, but from a file for nginx and Caddy.",
        effort.busy.as_secs().max(1)
    );
    Ok(Chapter { title: "Serving", about, figures, curves: Vec::new(), goals, notes })
}

/// # Errors
/// Where a generator cannot be had, or the small servers do not build.
pub(super) fn prepare() -> io::Result<()> {
    machine::need(&NEEDED).map_err(io::Error::other)?;
    greeting().map(drop)
}

/// What a goal is of.
fn usual<'a>(figures: &'a [Figure], whose: &str) -> &'a Figure {
    let is_it = |figure: &&Figure| figure.what == title(USUAL, "/") && figure.whose == whose;
    figures.iter().find(is_it).expect("it is always measured")
}

fn axum() -> String {
    format!("axum::serve {}", version("axum"))
}

fn greeting() -> io::Result<std::path::PathBuf> {
    table::build(&["--package", "app", "--example", "greeting"])
}

/// The app first, which alone has no large answer.
fn subjects(greeting: &Path, notes: &mut Vec<String>) -> io::Result<Vec<Subject>> {
    let serve = |whose: String, program: &Path, arguments: &[&str]| {
        let mut cell = Cell::of(Path::new("/"))?;
        cell.serve(80, program, arguments)?;
        Ok::<_, io::Error>(Subject { whose, cell })
    };
    let mut subjects = vec![
        serve(SHIPPED.to_owned(), &Server::App.build()?, &[])?,
        serve(BARE.to_owned(), greeting, &["serve"])?,
        serve(axum(), greeting, &["axum"])?,
        serve(format!("the same, tower-http {}", version("tower-http")), greeting, &["layers"])?,
        serve(format!("hyper {}, no router", version("hyper")), greeting, &["hyper"])?,
    ];
    for kind in [Kind::Nginx, Kind::Caddy] {
        match Peer::start(kind).map(Peer::into_cell) {
            Ok(cell) => subjects.extend(cell.map(|cell| Subject { whose: kind.name(), cell })),
            Err(error) => notes.push(format!("{} could not be had: {error}", kind.name())),
        }
    }
    Ok(subjects)
}

fn generators(effort: Effort) -> Vec<Generator> {
    let all = [
        USUAL,
        Generator { protocol: Protocol::Http2, connections: 1 },
        Generator { protocol: Protocol::Http1, connections: 1 },
        Generator { protocol: Protocol::Http1, connections: 2_000 },
        Generator { protocol: Protocol::Http2, connections: 64 },
    ];
    all[..if effort.is_whole() { all.len() } else { 2 }].to_vec()
}

fn title(generator: Generator, path: &str) -> String {
    format!("{}, {generator}", if path == "/" { "greeting" } else { "64 KiB" })
}

/// Each in turn; one that does not answer as it must is not measured at all.
fn compare(subjects: &[Subject], generator: Generator, path: &str, effort: Effort) -> io::Result<Vec<Figure>> {
    let body = if path == "/" { GREETING.into() } else { vec![b'x'; LARGE] };
    for Subject { whose, cell } in subjects {
        cell.wait_until(&format!("{whose} answers {path}"), || get(path).is_ok_and(|answer| is(&answer, &body)))?;
    }
    let measure = |cell: &Cell| {
        let before = cell.processor_time()?;
        let answered = generator.run(cell, path, effort.busy)?;
        Ok(answered as f64 / (cell.processor_time()? - before))
    };
    let mut measures: Vec<_> = subjects.iter().map(|subject| move || measure(&subject.cell)).collect();
    let names = subjects.iter().map(|subject| subject.whose.as_str());
    let mut ways: Vec<(&str, &mut dyn FnMut() -> io::Result<f64>)> =
        names.zip(&mut measures).map(|(name, measure)| (name, measure as _)).collect();
    in_turn(&title(generator, path), "a second of processor time", effort.rounds, &mut ways)
}

/// What one fresh connection brings.
fn get(path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect("127.0.0.1:80")?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: rig\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn is(answer: &[u8], body: &[u8]) -> bool {
    let head = answer.strip_suffix(body).unwrap_or_default();
    head.starts_with(b"HTTP/1.1 200 ") && head.ends_with(b"\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_whole_body_after_a_head_that_says_200() {
        assert!(is(b"HTTP/1.1 200 OK\r\n\r\nab", b"ab"));
        assert!(!is(b"HTTP/1.1 200 OK\r\n\r\naab", b"ab"));
        assert!(!is(b"HTTP/1.1 503 No\r\n\r\nab", b"ab"));
        assert!(!is(b"HTTP/1.1 200 OK\r\n\r\na", b"ab"));
    }
}
