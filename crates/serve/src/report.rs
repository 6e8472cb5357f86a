//! The file that an instance keeps of itself, for the tools of its host. `releases.md` has its schema.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use crate::{config::Config, drain::Counts, exchange::Cut};

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Starting,
    Serving,
    Retiring,
    Ended,
}

/// Where the file is, and what stays the same in it.
#[derive(Debug)]
pub(crate) struct Reporter {
    path: Option<PathBuf>,
    release: String,
    n: u64,
    counts: Arc<Counts>,
}

#[derive(Serialize)]
struct Report<'a> {
    format: u32,
    release: &'a str,
    n: u64,
    pid: u32,
    state: State,
    accepting: bool,
    connections: u64,
    requests: u64,
    late_bytes: u64,
}

impl Reporter {
    pub(crate) fn new(config: &Config, counts: Arc<Counts>) -> Self {
        let path = config.runtime.as_ref().map(|folder| folder.join(format!("{}.json", config.n)));
        Self { path, release: config.release.clone(), n: config.n, counts }
    }

    /// Replaces the file. `accepting` is false from the moment on at which nothing will ever be accepted again.
    pub(crate) fn write(&self, state: State, accepting: bool) {
        let Some(path) = &self.path else { return };
        let (connections, requests) = (self.counts.connections(), self.counts.requests());
        let late_bytes = self.counts.late_bytes();
        let (release, n, pid) = (self.release.as_str(), self.n, std::process::id());
        let report = Report { format: 1, release, n, pid, state, accepting, connections, requests, late_bytes };
        if let Err(error) = replace(path, &serde_json::to_vec(&report).unwrap_or_default()) {
            tracing::warn!(%error, path = %path.display(), "cannot write the instance's file");
        }
    }

    /// What is open, one by one.
    pub(crate) fn each(&self) -> Vec<Cut> {
        self.counts.describe()
    }

    pub(crate) fn late_bytes(&self) -> u64 {
        self.counts.late_bytes()
    }

    /// What is still open, for people.
    pub(crate) fn open(&self) -> String {
        format!("{} connections, {} requests in flight", self.counts.connections(), self.counts.requests())
    }
}

/// Whole at every moment for who reads it; it need not outlive a power cut.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("json.new");
    fs::write(&aside, bytes)?;
    fs::rename(aside, path)
}
