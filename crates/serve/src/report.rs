//! The file that an instance keeps of itself, for the tools of its host: JSON, whose `format` changes with the meaning of
//! what is there, and not with what is added.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;

use crate::{config::Config, counts::Counts, exchange::Cut, said::Said};

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
    /// What the file says.
    written: Mutex<Vec<u8>>,
    /// That it cannot be written.
    failing: Said,
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
    taken: u64,
    handed_over: u64,
    drained: u64,
    cut: u64,
    /// While it retires: what it waits for, the longest first.
    waits: Vec<Wait>,
}

#[derive(Serialize)]
struct Wait {
    kind: &'static str,
    route: String,
    age_ms: u64,
}

/// How often the file is made anew.
pub(crate) const EACH_SECOND: Duration = Duration::from_secs(1);
/// Of what an instance waits for, so many are told.
const WAITS: usize = 5;

impl Reporter {
    pub(crate) fn new(config: &Config, counts: Arc<Counts>) -> Self {
        let path = config.runtime.as_ref().map(|folder| folder.join(format!("{}.json", config.n)));
        Self {
            path,
            release: config.release.clone(),
            n: config.n,
            counts,
            written: Mutex::default(),
            failing: Said::default(),
        }
    }

    /// Replaces the file, where it would say something else. `accepting` is false from the moment on at which nothing will ever be accepted again.
    pub(crate) fn write(&self, state: State, accepting: bool) {
        let Some(path) = &self.path else { return };
        let counts = &self.counts;
        let (requests, under_way) = match state {
            State::Retiring => counts.under_way(),
            _ => (counts.requests(), Vec::new()),
        };
        let report = Report {
            format: 1,
            release: &self.release,
            n: self.n,
            pid: std::process::id(),
            state,
            accepting,
            connections: counts.connections(),
            requests,
            late_bytes: counts.late_bytes(),
            taken: counts.taken(),
            handed_over: counts.handed_over(),
            drained: counts.drained(),
            cut: counts.cut(),
            waits: waits(under_way),
        };
        let report = serde_json::to_vec(&report).unwrap_or_default();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written == report {
            return;
        }
        match replace(path, &report) {
            Ok(()) => {
                *written = report;
                self.failing.ends();
            }
            Err(error) if self.failing.begins() => {
                tracing::warn!(%error, path = %path.display(), "cannot write the instance's file")
            }
            Err(_) => {}
        }
    }

    /// What is open, one by one.
    pub(crate) fn each(&self) -> Vec<Cut> {
        self.counts.describe()
    }

    pub(crate) fn late_bytes(&self) -> u64 {
        self.counts.late_bytes()
    }

    /// How far the retirement is, and what holds it up, for people.
    pub(crate) fn progress(&self) -> String {
        let (handed_over, drained) = (self.counts.handed_over(), self.counts.drained());
        let (requests, under_way) = self.counts.under_way();
        let open = self.open_beside(requests);
        let mut line = format!("{open}; {handed_over} handed over, {drained} drained");
        for Wait { kind, route, age_ms } in waits(under_way) {
            // A connection without a request has no route.
            let what = format!("{kind} {route}");
            line.push_str(&format!("; {} for {} s", what.trim_end(), age_ms / 1000));
        }
        line
    }

    /// What has become of the connections since the signal, for people.
    pub(crate) fn closed(&self) -> String {
        let counts = &self.counts;
        let (handed_over, drained, cut) = (counts.handed_over(), counts.drained(), counts.cut());
        format!("{handed_over} connections handed over, {drained} drained, {cut} cut")
    }

    /// What is still open, for people.
    pub(crate) fn open(&self) -> String {
        self.open_beside(self.counts.requests())
    }

    fn open_beside(&self, requests: u64) -> String {
        format!("{} connections, {requests} requests in flight", self.counts.connections())
    }
}

/// The longest first.
fn waits(mut under_way: Vec<Cut>) -> Vec<Wait> {
    under_way.sort_by_key(|open| std::cmp::Reverse(open.age));
    let wait = |open: &Cut| Wait { kind: open.kind, route: open.route(), age_ms: open.age.as_millis() as u64 };
    under_way.iter().take(WAITS).map(wait).collect()
}

/// Whole at every moment for who reads it; it need not outlive a power cut.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("json.new");
    fs::write(&aside, bytes)?;
    fs::rename(aside, path)
}
