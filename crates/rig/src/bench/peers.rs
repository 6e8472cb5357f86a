//! Who else replaces what serves, each as its own documentation advises; what they are set up by is beside this file.

mod cell;
mod release;
mod root;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use releases::{
    bundle::Contents,
    probe::{self, Address},
};

use self::root::root;
pub(super) use self::{
    cell::Cell,
    root::{version, versions},
};
use crate::{
    Load, Mode,
    lossless::Stage,
    report::Span,
    subject::do_not_bake,
    succession::{Runtime, Succession},
    table::{self, Server},
};

/// A way to replace what serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `releasectl activate` on a real host.
    Ours,
    /// This project without its way: SIGTERM, wait, start, on one socket.
    Restart,
    /// The same of `axum::serve` with its graceful shutdown.
    AxumRestart,
    /// `axum::serve` with its graceful shutdown, the next one started before it.
    Axum,
    Ecdysis,
    Nginx,
    /// With `keepalive_min_timeout`.
    PatientNginx,
    Haproxy,
    Caddy,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Ours,
        Self::Restart,
        Self::AxumRestart,
        Self::Axum,
        Self::Ecdysis,
        Self::Nginx,
        Self::PatientNginx,
        Self::Haproxy,
        Self::Caddy,
    ];

    /// For people, with its version.
    pub fn name(self) -> String {
        match self {
            Self::Ours => "ours".to_owned(),
            Self::Restart => "this project, stop and start".to_owned(),
            Self::AxumRestart => format!("axum {}, stop and start", version("axum")),
            Self::Axum => format!("axum {}, overlapping", version("axum")),
            Self::Ecdysis => format!("ecdysis {}", version("ecdysis")),
            Self::Nginx => format!("nginx {}", version("nginx")),
            Self::PatientNginx => format!("nginx {}, min_timeout", version("nginx")),
            Self::Haproxy => format!("HAProxy {}", version("haproxy")),
            Self::Caddy => format!("Caddy {}", version("caddy")),
        }
    }

    /// What it is started with, and reloaded with; /mnt is its folder.
    fn commands(self) -> [&'static str; 2] {
        match self {
            Self::Ecdysis => ["exec /mnt/ecdysis-peer", "kill -HUP $(cat /mnt/pid)"],
            Self::Haproxy => ["echo $$ >/mnt/pid; exec haproxy -W -f /mnt/haproxy.cfg", "kill -USR2 $(cat /mnt/pid)"],
            Self::Caddy => ["exec caddy run --config /mnt/Caddyfile", "caddy reload --config /mnt/Caddyfile"],
            _ => ["exec nginx -c /mnt/nginx.conf", "nginx -c /mnt/nginx.conf -s reload"],
        }
    }

    /// Puts what it is set up by into the cell's folder.
    fn set_up(self, cell: &Cell) -> io::Result<()> {
        let write = |name: &str, text: &str| fs::write(cell.path(name), text);
        match self {
            Self::Ecdysis => fs::copy(ecdysis()?, cell.path("ecdysis-peer")).map(drop),
            Self::Haproxy => write("haproxy.cfg", include_str!("peers/haproxy.cfg")),
            Self::Caddy => write("Caddyfile", include_str!("peers/Caddyfile")),
            _ => {
                let patience = if self == Self::PatientNginx { "keepalive_min_timeout 5s;\n" } else { "" };
                write("patience.conf", patience)?;
                write("nginx.conf", include_str!("peers/nginx.conf"))
            }
        }
    }

    fn root(self) -> io::Result<PathBuf> {
        if self == Self::Ecdysis { Ok(PathBuf::from("/")) } else { root() }
    }
}

fn ecdysis() -> io::Result<PathBuf> {
    const MANIFEST: &str = "crates/rig/src/bench/peers/ecdysis/Cargo.toml";
    table::build(&["--manifest-path", MANIFEST, "--target-dir", "target/peers"])
}

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

    /// What it runs in, where it is one that is reloaded.
    pub fn into_cell(self) -> Option<Cell> {
        if let Way::Reload(cell) = self.way { Some(cell) } else { None }
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
    use crate::host::in_network;

    #[test]
    fn a_reload_brings_the_next_release_to_the_port() {
        crate::machine::prepare().unwrap();
        for kind in [Kind::Nginx, Kind::PatientNginx, Kind::Haproxy, Kind::Caddy] {
            let mut peer = Peer::start(kind).unwrap();
            peer.activate().unwrap();
            let cell = peer.into_cell().unwrap();
            let answers = || probe::ask(&Address::Tcp(([127, 0, 0, 1], 80).into()));
            assert_eq!(in_network(cell.leader(), answers), Ok(release::id(1)), "{}", kind.name());
        }
    }

    #[test]
    fn a_version_is_that_of_the_lock_file() {
        let version = locked(&crate::workspace().join("Cargo.lock"), "axum").unwrap();
        assert!(version.starts_with("0.8."), "{version}");
        assert_eq!(locked(&crate::workspace().join("Cargo.lock"), "no-such-crate"), None);
    }
}
