//! Servers that keep idle connections on this machine: ours, and its peers.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use super::{memory, nginx::Nginx, processor, stage};
use crate::{
    succession::{Runtime, Succession},
    table::Server,
};

/// A server that runs; dropping it ends it.
pub(super) struct Served {
    pub address: SocketAddr,
    kept: Kept,
}

enum Kept {
    Succession(Succession),
    Nginx(Nginx),
}

impl Served {
    pub fn program(program: &Path) -> io::Result<Self> {
        let succession = Succession::start(program, Runtime::Shared)?;
        Ok(Self { address: succession.address()?, kept: Kept::Succession(succession) })
    }

    pub fn nginx() -> io::Result<Self> {
        let nginx = Nginx::start()?;
        Ok(Self { address: nginx.address, kept: Kept::Nginx(nginx) })
    }

    /// KiB of all its processes.
    pub fn resident(&self) -> f64 {
        self.processes().into_iter().map(memory::of_process).sum()
    }

    /// Of all its processes.
    pub fn processor_time(&self) -> Duration {
        self.processes().into_iter().map(processor::time_of).sum()
    }

    fn processes(&self) -> Vec<u32> {
        match &self.kept {
            Kept::Succession(succession) => vec![succession.pid()],
            Kept::Nginx(nginx) => nginx.processes(),
        }
    }
}

/// How a server is started, and whose it is.
pub(super) struct Way {
    pub whose: String,
    pub start: Box<dyn Fn() -> io::Result<Served>>,
}

impl Way {
    fn new(whose: impl Into<String>, start: impl Fn() -> io::Result<Served> + 'static) -> Self {
        Self { whose: whose.into(), start: Box::new(start) }
    }
}

/// All of them; and why one cannot be had.
///
/// # Errors
/// Where ours, or `axum::serve` behind the same router, does not build.
pub(super) fn all() -> io::Result<(Vec<Way>, Option<String>)> {
    let (app, stock) = (stage::program()?, Server::Stock.build()?);
    let mut ways = vec![
        Way::new("ours, as shipped", move || Served::program(&app)),
        Way::new("axum::serve", move || Served::program(&stock)),
    ];
    match Nginx::version() {
        Ok(version) => ways.push(Way::new(version, Served::nginx)),
        Err(error) => return Ok((ways, Some(format!("nginx could not be had: {error}")))),
    }
    Ok((ways, None))
}
