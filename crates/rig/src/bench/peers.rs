//! Who else replaces what serves, each as its own documentation advises; what they are set up by is beside this file.

mod cell;
mod kind;
mod release;
mod root;

use std::{fs, io, path::Path, time::Instant};

use releases::{
    bundle::Contents,
    probe::{self, Address},
};

use self::kind::ecdysis;
pub(super) use self::{
    cell::Cell,
    kind::Kind,
    root::{root, version, versions},
};
use crate::{
    Load, Mode,
    lossless::Stage,
    report::Span,
    subject::do_not_bake,
    succession::{Runtime, Succession},
    table::Server,
};

/// Makes and builds all of them; one that cannot be had is named.
///
/// # Errors
/// Where what is ours does not build.
pub(super) fn prepare() -> io::Result<()> {
    for error in [root(), ecdysis()].into_iter().filter_map(Result::err) {
        eprintln!("a peer cannot be had: {error}");
    }
    [Server::App, Server::Stock].into_iter().try_for_each(|server| server.build().map(drop))
}

/// One of them at work.
#[derive(Debug)]
pub(super) struct Peer {
    kind: Kind,
    way: Way,
    /// Of the release that serves.
    count: u64,
}

#[derive(Debug)]
enum Way {
    Host(Box<Stage>),
    Overlap(Succession),
    Restart(Succession),
    Reload(Cell),
}

impl Peer {
    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// Where it cannot be had, or does not serve.
    ///
    /// # Panics
    /// Where the host does not boot.
    pub fn start(kind: Kind) -> io::Result<Self> {
        let succession = |server: Server| Succession::start(&server.build()?, Runtime::Shared);
        let way = match kind {
            Kind::Ours => Way::Host(Box::new(stage()?)),
            Kind::Restart => Way::Restart(succession(Server::App)?),
            Kind::AxumRestart => Way::Restart(succession(Server::Stock)?),
            Kind::Axum => Way::Overlap(succession(Server::Stock)?),
            _ => Way::Reload(Cell::of(&kind.root()?)?),
        };
        let mut peer = Self { kind, way, count: 0 };
        if let Way::Reload(cell) = &mut peer.way {
            start(kind, cell)?;
        }
        Ok(peer)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it runs in, where it is one that is reloaded.
    pub fn into_cell(self) -> Option<Cell> {
        if let Way::Reload(cell) = self.way { Some(cell) } else { None }
    }

    /// Takes away what the next release would be made of.
    #[cfg(test)]
    pub fn spoil(&self) -> io::Result<()> {
        let Way::Reload(cell) = &self.way else { return Err(io::Error::other("it is not one that is reloaded")) };
        fs::remove_file(cell.path("nginx.conf"))
    }

    /// Clients of it.
    ///
    /// # Errors
    /// Where it has no address.
    pub fn load(&self, mode: Mode, clients: usize) -> io::Result<Load> {
        Ok(match &self.way {
            Way::Host(stage) => Load::start(&stage.host, mode, clients),
            Way::Overlap(succession) | Way::Restart(succession) => Load::start_at(succession.address()?, mode, clients),
            Way::Reload(cell) => cell.load(mode, clients),
        })
    }

    /// Has the next release take over, and waits until it answers.
    ///
    /// # Errors
    /// Where it does not.
    ///
    /// # Panics
    /// Where that fails on a host.
    pub fn activate(&mut self) -> io::Result<Span> {
        self.count += 1;
        match &mut self.way {
            Way::Host(stage) => Ok(stage.activate().span),
            Way::Overlap(succession) => succession.activate(),
            Way::Restart(succession) => succession.restart(),
            Way::Reload(cell) => {
                let began = Instant::now();
                release::write(self.kind, cell, self.count)?;
                cell.run(self.kind.commands()[1])?;
                wait_for(cell, self.count)?;
                Ok(Span::since(began))
            }
        }
    }
}

fn stage() -> io::Result<Stage> {
    let mut contents = Contents::build(crate::workspace()).map_err(io::Error::other)?;
    do_not_bake(&mut contents);
    let pack = |label| contents.pack(label).map_err(io::Error::other);
    Ok(Stage::set_with([pack("bench one")?, pack("bench two")?]))
}

/// What is not its own to answer, a proxy asks of a server of ours behind it, which stays.
fn start(kind: Kind, cell: &mut Cell) -> io::Result<()> {
    if kind != Kind::Ecdysis {
        cell.serve(8000, &Server::Stock.build()?, &[])?;
    }
    fs::write(cell.path("64k"), vec![b'x'; 64 << 10])?;
    kind.set_up(cell)?;
    release::write(kind, cell, 0)?;
    cell.start(kind.commands()[0])?;
    wait_for(cell, 0)
}

fn wait_for(cell: &Cell, n: u64) -> io::Result<()> {
    let (address, release) = (Address::Tcp(([127, 0, 0, 1], 80).into()), release::id(n));
    cell.wait_until(&format!("release {release} answers"), || probe::ask(&address).as_ref() == Ok(&release))
}

/// Of a package in a lock file.
fn locked(lock: &Path, package: &str) -> Option<String> {
    let text = fs::read_to_string(lock).ok()?;
    let (_, after) = text.split_once(&format!("\nname = \"{package}\"\nversion = \""))?;
    Some(after.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_brings_the_next_release_to_the_port_where_there_is_a_system_for_it() {
        crate::machine::prepare().unwrap();
        if let Err(error) = root() {
            return println!("nothing is reloaded: {error}");
        }
        for kind in [Kind::Nginx, Kind::PatientNginx, Kind::Haproxy, Kind::Caddy] {
            let mut peer = Peer::start(kind).unwrap();
            // It returns when the next one answers. The worker that goes may take a connection after that.
            peer.activate().unwrap_or_else(|error| panic!("{}: {error}", kind.name()));
        }
    }

    #[test]
    fn a_version_is_that_of_the_lock_file() {
        let version = locked(&crate::workspace().join("Cargo.lock"), "axum").unwrap();
        assert!(version.starts_with("0.8."), "{version}");
        assert_eq!(locked(&crate::workspace().join("Cargo.lock"), "no-such-crate"), None);
    }
}
