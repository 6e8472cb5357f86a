//! Who is measured: each server alone in its cell.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{BARE, SHIPPED, answer::Answer, axum, generator::Generator};
use crate::{
    bench::{
        peers::{Cell, Kind, Peer, version},
        stage::{self, Program},
    },
    table,
};

/// Some ticks of 10 ms, in which processor time is counted.
const REST: Duration = Duration::from_millis(50);

/// What is built here: all of it static, as what is shipped.
pub(super) struct Programs {
    pub app: Program,
    pub greeting: PathBuf,
}

impl Programs {
    pub fn build() -> io::Result<Self> {
        Ok(Self { app: stage::program()?, greeting: table::example("greeting")? })
    }
}

/// A server, alone in its cell.
pub(super) struct Subject {
    pub whose: String,
    pub role: Role,
    cell: Cell,
}

/// What it is measured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A goal is of it, or its steps lead to one that is: without it there is nothing to tell.
    Needed,
    /// It stands beside: where it fails, it is named and left out.
    Peer,
}

/// What so many seconds of load were to a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Requests, for each second of processor time.
    pub rate: f64,
    /// Seconds of processor time, for each second.
    pub busy: f64,
}

impl Subject {
    /// Starts all of them; and says which peer could not be had.
    ///
    /// # Errors
    /// Where one that is needed does not start.
    pub fn all(Programs { app, greeting }: &Programs) -> io::Result<(Vec<Self>, Vec<String>)> {
        let layers = format!("the same, tower-http {}", version("tower-http"));
        let hyper = format!("hyper {}, no router", version("hyper"));
        let mut subjects = vec![
            Self::start(SHIPPED, app, &[])?,
            Self::start(BARE, greeting, &["serve"])?,
            Self::start(&axum(), greeting, &["axum"])?,
            Self::start(&layers, greeting, &["layers"])?,
            Self::start(&hyper, greeting, &["hyper"])?,
        ];
        let mut lacks = Vec::new();
        for kind in [Kind::Nginx, Kind::Caddy] {
            let whose = kind.name();
            match Peer::start(kind).map(Peer::into_cell) {
                Ok(cell) => subjects.extend(cell.map(|cell| Self { whose, role: Role::Peer, cell })),
                Err(error) => lacks.push(format!("{whose} could not be had: {error}")),
            }
        }
        Ok((subjects, lacks))
    }

    fn start(whose: &str, program: &Path, arguments: &[&str]) -> io::Result<Self> {
        let mut cell = Cell::of(Path::new("/"))?;
        serve(&mut cell, &[], program, arguments)?;
        Ok(Self { whose: whose.to_owned(), role: Role::Needed, cell })
    }

    /// Waits until it answers as it must.
    pub fn wait_for(&self, answer: Answer) -> io::Result<()> {
        let path = self.path(answer);
        self.cell.wait_until(&format!("{} answers {path} as it must", self.whose), || answer.is_at(path))
    }

    /// What opening and closing the connections takes is its own, and all of it is counted: when the processor time is read
    /// before and after, nothing is left to be done.
    pub fn under(&self, generator: Generator, answer: Answer, busy: Duration) -> io::Result<Seen> {
        let before = self.processor_time_at_rest()?;
        let began = Instant::now();
        let answered = generator.run(&self.cell, self.path(answer), busy)?;
        let took = began.elapsed().as_secs_f64();
        let spent = self.processor_time_at_rest()? - before;
        Ok(Seen { rate: answered as f64 / spent, busy: spent / took })
    }

    fn processor_time_at_rest(&self) -> io::Result<f64> {
        let (mut last, mut since) = (None, Instant::now());
        self.cell.wait_until(&format!("{} has nothing left to do", self.whose), || {
            let now = self.cell.processor_time().ok();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() >= REST
        })?;
        self.cell.processor_time()
    }

    fn path(&self, answer: Answer) -> &'static str {
        match (answer, self.role) {
            (Answer::Greeting, _) => "/",
            (Answer::Large, Role::Needed) => "/large",
            (Answer::Large, Role::Peer) => "/64k",
        }
    }
}

/// Starts a program with a socket and a runtime directory, as systemd does, `under` another such as valgrind.
pub(super) fn serve(cell: &mut Cell, under: &[&str], program: &Path, arguments: &[&str]) -> io::Result<()> {
    let no_text = || io::Error::other(format!("start {}: its path is no UTF-8", program.display()));
    let folder = cell.path("run");
    // One that others may enter is refused.
    DirBuilder::new().mode(0o700).create(&folder)?;
    let variable = format!("RUNTIME_DIRECTORY={}", folder.display());
    let program = program.to_str().ok_or_else(no_text)?;
    cell.serve(80, Path::new("env"), &[&[&*variable], under, &[program], arguments].concat())
}
