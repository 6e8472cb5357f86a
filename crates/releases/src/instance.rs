//! An instance: a running process of a release, and the file that it keeps of itself.

use std::{fmt, io::Read, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, ReleaseId, Result, effect, host::Host, screen::printable};

/// Where instances keep their files: made by systemd, owned by the service's user.
pub const RUNTIME: &str = "/run/app";
const MOST_BYTES: u64 = 64 << 10;
/// Of what an instance waits for, so many are told, and so many characters of each name.
const MOST_WAITS: usize = 5;
const MOST_CHARACTERS: usize = 100;

/// `app-<id>@<n>.service`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// From the store's counter, never used again.
    pub n: u64,
    /// What it runs.
    pub release: ReleaseId,
}

impl Instance {
    /// The name of its unit.
    pub fn unit(&self) -> String {
        format!("app-{}@{}.service", self.release, self.n)
    }

    /// A pattern for the names of all instances of a release.
    pub fn all_of(release: &ReleaseId) -> String {
        format!("app-{release}@*.service")
    }

    /// What it says of itself; `None` where it says nothing, or nothing that can be believed.
    ///
    /// The file belongs to the service, so it is hostile: a link is not followed, what is too large, is no regular file
    /// or says that it is somebody else is not believed.
    pub fn report(&self, host: &Host) -> Option<Report> {
        let path = host.path(RUNTIME).join(format!("{}.json", self.n));
        let mut report: Report = serde_json::from_slice(&read_hostile(&path)?).ok()?;
        report.waits.truncate(MOST_WAITS);
        for text in report.waits.iter_mut().flat_map(|wait| [&mut wait.kind, &mut wait.route]) {
            *text = printable(text).chars().take(MOST_CHARACTERS).collect();
        }
        (report.format == 1 && report.n == self.n && report.release == self.release.as_str()).then_some(report)
    }
}

/// The highest number of the files that instances keep; one that no host comes to is somebody's joke.
pub fn highest_n(host: &Host) -> u64 {
    let files = std::fs::read_dir(host.path(RUNTIME)).into_iter().flatten().flatten();
    let n = |file: std::fs::DirEntry| file.file_name().to_str()?.split('.').next()?.parse::<u32>().ok();
    files.filter_map(n).max().unwrap_or(0).into()
}

impl FromStr for Instance {
    type Err = Error;

    fn from_str(unit: &str) -> Result<Self> {
        let parts = || unit.strip_prefix("app-")?.strip_suffix(".service")?.split_once('@');
        let not_one = || Error::NotARelease(unit.to_owned());
        let (release, n) = parts().ok_or_else(not_one)?;
        let (release, n) = (release.parse()?, n.parse().map_err(|_| not_one())?);
        let instance = Self { n, release };
        // `007` would be a second name for 7.
        if instance.unit() == unit { Ok(instance) } else { Err(not_one()) }
    }
}

/// What an instance says of itself in `/run/app/<n>.json`; fields that we do not know are ignored.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    format: u32,
    release: String,
    n: u64,
    /// Where it is in its life.
    pub state: State,
    /// Whether it takes connections from the socket; once false, never true again.
    pub accepting: bool,
    /// Open connections.
    pub connections: u64,
    /// Requests in flight.
    #[serde(default)]
    pub requests: u64,
    /// Connections that came from instances that retired.
    #[serde(default)]
    pub taken: u64,
    /// Connections that went to the next instance.
    #[serde(default)]
    pub handed_over: u64,
    /// Connections that ended by themselves since it was told to stop.
    #[serde(default)]
    pub drained: u64,
    /// Connections that were cut at its deadline.
    #[serde(default)]
    pub cut: u64,
    /// What it waits for while it retires, the longest first.
    #[serde(default)]
    pub waits: Vec<Wait>,
}

/// What an instance that retires waits for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Wait {
    /// `request`, `response`, `upgraded` or `head`.
    pub kind: String,
    /// The route that it took, as the router has it.
    pub route: String,
    /// For how long it has been under way.
    pub age_ms: u64,
}

impl Report {
    /// What becomes of its connections, on one line.
    pub fn retirement(&self) -> String {
        let Self { handed_over, drained, cut, connections, .. } = self;
        let mut line =
            format!("{handed_over} connections handed over, {drained} drained, {cut} cut, {connections} open");
        for wait in &self.waits {
            line.push_str(&format!("; {wait}"));
        }
        line
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A connection without a request has no route.
        let what = format!("{} {}", self.kind, self.route);
        write!(f, "{} for {:.1} s", what.trim_end(), self.age_ms as f64 / 1000.0)
    }
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has not said READY.
    Starting,
    /// It accepts.
    Serving,
    /// It has been told to stop, and ends what it has.
    Retiring,
    /// It has ended.
    Ended,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

fn read_hostile(path: &Path) -> Option<Vec<u8>> {
    let file = effect::open_to_read(path).ok()?;
    let is_sound = file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MOST_BYTES);
    let mut bytes = Vec::new();
    (is_sound && file.take(MOST_BYTES).read_to_end(&mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn instance() -> Instance {
        "app-0123456789abcdef@7.service".parse().unwrap()
    }

    fn report_of(bytes: &[u8]) -> Option<Report> {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        fs::create_dir_all(host.path(RUNTIME)).unwrap();
        fs::write(host.path("/run/app/7.json"), bytes).unwrap();
        instance().report(&host)
    }

    #[test]
    fn a_unit_name_has_one_spelling() {
        assert_eq!(instance().unit(), "app-0123456789abcdef@7.service");
        for unit in
            ["app-0123456789abcdef@07.service", "app-x@7.service", "app-0123456789abcdef@.service", "app.service"]
        {
            assert!(unit.parse::<Instance>().is_err(), "{unit}");
        }
    }

    #[test]
    fn fields_and_states_of_the_future_are_read() {
        let text = br#"{"format":1,"release":"0123456789abcdef","n":7,"state":"dreaming","accepting":false,"connections":3,"x":1}"#;
        let report = report_of(text).unwrap();
        assert_eq!((report.state, report.accepting, report.connections), (State::Unknown, false, 3));
    }

    #[test]
    fn what_it_waits_for_is_told_in_few_and_printable_words() {
        let wait = format!(r#"{{"kind":"request","route":"/a\u001b[31m{}","age_ms":1500}}"#, "x".repeat(500));
        let waits = vec![wait; 20].join(",");
        let text = format!(
            r#"{{"format":1,"release":"0123456789abcdef","n":7,"state":"retiring","accepting":false,"connections":3,"waits":[{waits}]}}"#
        );
        let report = report_of(text.as_bytes()).unwrap();
        assert_eq!((report.waits.len(), report.handed_over), (MOST_WAITS, 0));
        let line = report.retirement();
        assert!(line.contains("3 open; request /a") && line.contains("for 1.5 s"), "{line}");
        assert!(line.len() < 1000 && !line.chars().any(char::is_control), "{line}");
    }

    #[test]
    fn a_report_that_is_large_torn_or_of_another_instance_is_not_believed() {
        assert!(report_of(&vec![b' '; 1 << 20]).is_none());
        assert!(report_of(br#"{"format":1,"rel"#).is_none());
        let other =
            br#"{"format":1,"release":"0123456789abcdef","n":8,"state":"serving","accepting":false,"connections":3}"#;
        assert!(report_of(other).is_none());
    }

    #[test]
    fn a_report_that_is_a_link_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        fs::create_dir_all(host.path(RUNTIME)).unwrap();
        fs::write(
            root.path().join("secret"),
            r#"{"format":1,"release":"0123456789abcdef","n":7,"state":"serving","accepting":false,"connections":3}"#,
        )
        .unwrap();
        symlink(root.path().join("secret"), host.path("/run/app/7.json")).unwrap();
        assert!(instance().report(&host).is_none());
    }
}
