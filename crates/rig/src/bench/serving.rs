//! Requests per second of the server's processor time, and instructions for each.

mod answer;
mod callgrind;
mod comparison;
mod generator;
mod subject;

use std::{io, iter};

use self::{
    answer::Answer,
    comparison::{Comparison, title},
    generator::{Generator, Tool},
    subject::{Programs, Subject},
};
use super::{
    Effort,
    chapter::{Bound, Chapter, Goal},
    figure::{Figure, short},
    peers::version,
};
use crate::machine;

const NEEDED: [(&str, &str); 2] = [("/usr/bin/h2load", "nghttp2-client"), ("/usr/bin/valgrind", "valgrind")];
const SHIPPED: &str = "ours, as shipped";
const BARE: &str = "ours, bare serve";
/// Where the time goes, and what was tried. What callgrind counts in this run stands beside them.
const NOTES: [&str; 5] = [
    "What the bare crate does beyond axum::serve with the same router: it notes where each message begins and ends, by which a \
     connection can leave between two of them and lose none, and tells each request two things, who asks and whether its \
     instance retires. Seen by callgrind on 2026-11-26, for a greeting, of static builds: 13,384 instructions, beside 12,180 of \
     axum::serve and some 8,200 of hyper without a router. Of the 1,200, some 450 are those two, 350 to put a small response \
     together and to note its end, and 250 to copy what is read and to find the end of a head.",
    "A twentieth faster than axum::serve, it would have to answer with some 8,700 instructions: two thirds of its time are the \
     kernel's, for the calls that axum::serve makes too, one to receive and one to send. Taken out, from 19,386 on: \
     endpoints that were made for each request, a search byte by byte for the end of a head, a second buffer of a small \
     response, three wakers compared at each turn, a layer that put down the route, a boxed future, ten reference counts, two \
     counters that all threads wrote to; a map of extensions that grew for the fourth (500), an Arc, a box and a lock for each \
     request, and a read buffer of 8 KiB made anew for each, since hyper looked for the client's end while the request had the \
     last one (400, which axum::serve pays).",
    "Tried, and left: to write flat (350 less, but an idle connection keeps its largest body's buffer); to look for the end of \
     a head 32 bytes at a time (40 less for one request, 41 more for a shorter one). To receive into hyper's buffer needs unsafe \
     code, and not to ask whether a socket can be written loses tokio's budget: an endless response could starve a worker.",
    "What the app does beyond the bare crate, seen on 2026-11-26, too: tower-http's seven layers took 18,500 instructions and 19 \
     allocations of a greeting, 10,100 of them for a span that is formatted whether anything is logged or not; a timer was set \
     before the handler was asked, an id took a system call, and a body that stays as it is three boxes. One layer of the \
     app's own does each of it where it is needed, for 6,300; its tests hold its answers to those of tower-http. Of what it took \
     at first, 1,300 were to format an id, and 1,400 glibc's to put its heap in order: a future of 2,000 bytes is more than it \
     keeps at hand.",
    "Over HTTP/2, axum::serve is ahead for TCP_NODELAY above all, which it leaves to its user, and ours sets. Of dynamic builds, seen on \
     2026-11-27, medians of five, 64 connections with ten streams each: ours 0.72 of it for the greeting and 0.88 for 64 KiB; with \
     the option set there too, 0.98 and 0.96. Without it the kernel puts the frames of several turns into one segment (RFC 896), \
     and one that waits for a client's delayed acknowledgement waits for up to 40 ms on Linux: that is a wait that a release may \
     not add, and no server should.",
];
/// What the goals are of.
const USUAL: Generator = Generator { tool: Tool::Wrk, connections: 64 };
/// The same by another tool: what looks too good is checked.
const CHECK: Generator = Generator { tool: Tool::H2loadHttp1, connections: 64 };
const OTHERS: [Generator; 4] = [
    Generator { tool: Tool::H2load, connections: 1 },
    Generator { tool: Tool::Wrk, connections: 1 },
    Generator { tool: Tool::Wrk, connections: 2_000 },
    Generator { tool: Tool::H2load, connections: 64 },
];
/// As far as two tools' ratios may lie apart to agree: the goal is a twentieth above 1.
const NEAR: f64 = 0.05;

/// # Errors
/// Where a server of ours, axum's or hyper's does not build, start or answer as it must, or a generator cannot be had.
pub(super) fn run(effort: Effort) -> io::Result<Chapter> {
    machine::need(&NEEDED).map_err(io::Error::other)?;
    let programs = Programs::build()?;
    let (subjects, lacks) = Subject::all(&programs)?;
    let notes = NOTES.into_iter().map(str::to_owned).chain(lacks).collect();
    let mut chapter = Chapter {
        title: "Serving",
        about: about(effort),
        figures: Vec::new(),
        curves: Vec::new(),
        goals: Vec::new(),
        notes,
    };
    for generator in [USUAL, CHECK].into_iter().chain(others(effort)) {
        compare(&subjects, Answer::Greeting, generator, effort, &mut chapter)?;
    }
    hold_against_the_goals(&mut chapter);
    for generator in iter::once(USUAL).chain(others(effort)) {
        compare(&subjects, Answer::Large, generator, effort, &mut chapter)?;
    }
    chapter.figures.extend(callgrind::instructions(&programs, effort)?);
    Ok(chapter)
}

/// # Errors
/// Where a generator cannot be had, or what is measured does not build.
pub(super) fn prepare() -> io::Result<()> {
    machine::need(&NEEDED).map_err(io::Error::other)?;
    Programs::build().map(drop)
}

fn about(effort: Effort) -> String {
    format!(
        "Requests a second, divided by the processor time that all of the server's processes took (/proc/PID/stat), so that the \
         load generator's share does not count; {} s each after a second that does not count, the next one first in each \
         round, by wrk and h2load (ten streams at once), on a loopback of its own. Opening and closing the connections is in \
         it, to the end. How many processors a server kept busy meanwhile stands beside the goals: below one, it waited for the \
         generator at times, and waking up is in its figure. The app is the shipped binary with its layers, its metrics, its \
         default log level and a runtime directory; of a systemd host it lacks the sandbox, whose filter looks at each system \
         call, the limits of a control group, the watchdog and the journal. The bare crate, axum::serve and hyper are built as it \
         is, and static, too; the first two have the same router. 64 KiB come from memory, but from a file for nginx and \
         Caddy.",
        effort.busy.as_secs().max(1)
    )
}

/// Beside the goals' generator, and what checks it.
fn others(effort: Effort) -> impl Iterator<Item = Generator> {
    OTHERS.into_iter().take(if effort.is_whole() { OTHERS.len() } else { 1 })
}

fn compare(
    subjects: &[Subject],
    answer: Answer,
    generator: Generator,
    effort: Effort,
    chapter: &mut Chapter,
) -> io::Result<()> {
    let Comparison { rates, busy, lacks } = Comparison::of(subjects, answer, generator, effort)?;
    chapter.figures.extend(rates);
    if matches!((answer, generator), (Answer::Greeting, USUAL | CHECK)) {
        chapter.figures.extend(busy);
    }
    chapter.notes.extend(lacks);
    Ok(())
}

fn hold_against_the_goals(chapter: &mut Chapter) {
    let axum = axum();
    let [bare, shipped, checked] = [(USUAL, BARE, axum.as_str()), (USUAL, SHIPPED, BARE), (CHECK, BARE, axum.as_str())]
        .map(|(generator, one, other)| ratio(&chapter.figures, generator, one, other));
    for (ratio, least) in [(&bare, 1.05), (&shipped, 0.85)] {
        chapter.goals.push(Goal::of(format!("{}, {USUAL}", ratio.whose), Bound::AtLeast(least), ratio));
    }
    chapter.notes.push(agreement(&bare, &checked));
    chapter.figures.extend([bare, shipped, checked]);
}

/// Of greetings.
fn ratio(figures: &[Figure], generator: Generator, one: &str, other: &str) -> Figure {
    let title = title(Answer::Greeting, generator);
    let find = |whose| figures.iter().find(|figure| figure.what == title && figure.whose == whose);
    let [one, other] = [one, other].map(|whose| find(whose).expect("it is always measured"));
    one.ratio_to(other)
}

/// What two tools say of the same.
fn agreement(wrk: &Figure, h2load: &Figure) -> String {
    let agrees = (wrk.median() / h2load.median() - 1.0).abs() <= NEAR;
    let verdict = if agrees { "they agree" } else { "they do not agree" };
    format!("{}, {}: {wrk} by wrk, {h2load} by h2load; {verdict} within {} %", wrk.whose, wrk.what, short(NEAR * 100.0))
}

fn axum() -> String {
    format!("axum::serve {}", version("axum"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tools_agree_where_their_ratios_lie_close() {
        let ratio = |value| Figure::new("greeting", "ours / theirs", "", vec![value]);
        assert_eq!(
            agreement(&ratio(1.06), &ratio(1.03)),
            "ours / theirs, greeting: 1.06 by wrk, 1.03 by h2load; they agree within 5 %"
        );
        assert!(agreement(&ratio(1.06), &ratio(0.99)).ends_with("they do not agree within 5 %"));
    }
}
