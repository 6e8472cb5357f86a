//! Clients at once.

use std::{io, thread, time::Duration};

use crate::{
    Load, Mode, Report,
    bench::{
        Effort,
        peers::{Kind, Peer},
    },
    lossless::{each_round, mixed, stop},
    report::Span,
};

/// Until every client is in the midst of it.
const SETTLE: Duration = Duration::from_secs(2);
/// Connections of the mixed load.
const MIXED: usize = 2_000;

/// Clients at once.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    /// What figures of it are told by.
    pub name: String,
    pub clients: Vec<(Mode, usize)>,
    is_for_all: bool,
}

impl Scene {
    /// Each kind of client by itself, and all of them together.
    pub fn all(effort: Effort) -> Vec<Self> {
        let modes = if effort.is_whole() { Mode::ALL } else { &[Mode::C3b] };
        let clients = mixed(MIXED.min(effort.most));
        let together = Self { name: "all kinds".to_owned(), clients, is_for_all: effort.is_whole() };
        modes.iter().copied().map(Self::of).chain([together]).collect()
    }

    /// One kind of client by itself. What it can tell of all ways, four tell: one with a new connection each time, one whose
    /// connection is never idle, one whose is, with a wire between, and HTTP/2.
    pub fn of(mode: Mode) -> Self {
        let name = mode.to_string().split(' ').next().unwrap_or_default().to_owned();
        let is_for_all = matches!(mode, Mode::C1 | Mode::C2 | Mode::C3b | Mode::C4);
        Self { name, clients: vec![(mode, mode.clients())], is_for_all }
    }

    /// Or ours alone.
    pub fn is_for(&self, kind: Kind) -> bool {
        self.is_for_all || kind == Kind::Ours
    }

    /// The clients' kind, where there is only one.
    pub fn mode(&self) -> Option<Mode> {
        if let [(mode, _)] = self.clients.as_slice() { Some(*mode) } else { None }
    }

    /// Whether it has connections that a release must not close.
    pub fn is_handed_over(&self) -> bool {
        self.clients.iter().any(|(mode, _)| mode.is_handed_over())
    }

    /// What its clients see over some releases, and as long as if there were `rounds` of them.
    ///
    /// # Errors
    /// Where one does not come to serve.
    pub fn play(
        &self,
        peer: &mut Peer,
        releases: usize,
        rounds: usize,
        effort: Effort,
    ) -> io::Result<(Vec<Report>, Vec<Span>)> {
        let start = |(mode, count): &(Mode, usize)| peer.load(*mode, *count);
        let loads = self.clients.iter().map(start).collect::<io::Result<Vec<Load>>>()?;
        thread::sleep(SETTLE.min(effort.busy));
        let mut done = Vec::new();
        each_round(rounds, |n| {
            if n < releases && !done.iter().any(io::Result::is_err) {
                done.push(peer.activate());
            }
        });
        let reports = stop(loads);
        Ok((reports, done.into_iter().collect::<io::Result<_>>()?))
    }
}
