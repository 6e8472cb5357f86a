//! Servers that keep idle connections on this machine: ours, and its peers.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    idle::Idle,
    memory,
    peers::{self, Cell, version},
    processor,
    stage::{self, Program},
    turns::Turns,
};
use crate::{
    host::in_network,
    succession::{Runtime, Succession},
    table::Server,
};

const NGINX: &str = include_str!("peers/small_nginx.conf");
/// In a cell, where nothing else listens.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);

/// A server that runs, and the idle connections to it. Dropping it ends both.
pub(super) struct Served {
    idle: Idle,
    kept: Kept,
}

enum Kept {
    Succession(Succession),
    Cell(Cell),
}

/// What a server is started from.
pub(super) enum Source {
    Shipped(Program),
    Built(PathBuf),
    /// The system that has it.
    Nginx(PathBuf),
}

/// All of them, each started as often as it is measured.
///
/// # Errors
/// Where ours does not build.
pub(super) fn all() -> io::Result<Turns<Source>> {
    let (app, stock, nginx) = (stage::program()?, Server::Stock.build(), peers::root());
    Ok(Turns::of("ours, as shipped", Source::Shipped(app))
        .and(format!("axum::serve {}", version("axum")), stock.map(Source::Built))
        .and(format!("nginx {}", version("nginx")), nginx.map(Source::Nginx)))
}

impl Source {
    pub fn start(&self) -> io::Result<Served> {
        let program = |program: &Path| Succession::start(program, Runtime::Shared).map(Kept::Succession);
        let kept = match self {
            Self::Shipped(path) => program(path)?,
            Self::Built(path) => program(path)?,
            Self::Nginx(root) => Kept::Cell(nginx(root)?),
        };
        Ok(Served { idle: Idle::none()?, kept })
    }
}

fn nginx(root: &Path) -> io::Result<Cell> {
    let mut cell = Cell::of(root)?;
    fs::write(cell.path("nginx.conf"), NGINX)?;
    cell.start("exec nginx -c /mnt/nginx.conf")?;
    cell.wait_until("nginx listens", || TcpStream::connect(ADDRESS).is_ok())?;
    Ok(cell)
}

impl Served {
    /// Opens connections until there are so many, each with a request behind it.
    ///
    /// # Errors
    /// Where one is refused, or closed.
    pub fn open_until(&mut self, count: usize) -> io::Result<()> {
        let Self { idle, kept } = self;
        match kept {
            Kept::Succession(succession) => idle.open_until(count, succession.address()?),
            Kept::Cell(cell) => in_network(cell.leader(), || idle.open_until(count, ADDRESS)),
        }
    }

    /// One request on each within so long.
    ///
    /// # Errors
    /// Where one was closed.
    pub fn ask_each(&mut self, within: Duration) -> io::Result<()> {
        self.idle.ask_each(within, 1).map(drop)
    }

    /// KiB of all its processes.
    ///
    /// # Errors
    /// Where one of them has ended.
    pub fn resident(&self) -> io::Result<f64> {
        self.processes()?.into_iter().map(memory::of_process).sum()
    }

    /// Time on the processor of all its processes while `act` goes on.
    ///
    /// # Errors
    /// As `act`.
    pub fn busy_while(&mut self, act: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<Duration> {
        let before = self.processor_time()?;
        act(self)?;
        // A thread that ended meanwhile took what it had been counted for with it.
        Ok(self.processor_time()?.saturating_sub(before))
    }

    fn processor_time(&self) -> io::Result<Duration> {
        Ok(self.processes()?.into_iter().map(processor::time_of).sum())
    }

    fn processes(&self) -> io::Result<Vec<u32>> {
        match &self.kept {
            Kept::Succession(succession) => Ok(vec![succession.pid()]),
            // The cell's own process 1 only keeps it.
            Kept::Cell(cell) => Ok(cell.processes()?.into_iter().filter(|pid| *pid != cell.leader()).collect()),
        }
    }
}
