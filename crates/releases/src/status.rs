//! What is there: for people as a table, for programs as JSON.

use std::fmt::Write;

use indicatif::{HumanBytes, HumanDuration};
use serde::Serialize;

use crate::{
    ReleaseId, Result, Store,
    instance::{Instance, Report, Wait},
    listener::Listener,
    probe::Address,
    screen::{self, cut, printable, wrap},
    store::{self, Link},
    switch,
    systemd::{self, Units},
    trail::{self, Marks, Record},
};

/// The host at one moment. The field names are the JSON's; times are in seconds since 1970.
#[derive(Debug, Serialize)]
pub struct Status {
    /// What the host serves.
    pub current: Option<ReleaseId>,
    /// Since when it is current.
    pub since: Option<u64>,
    /// What a bare `rollback` goes back to.
    pub previous: Option<ReleaseId>,
    /// What a boot falls back to.
    pub validated: Option<ReleaseId>,
    /// Since when it is validated.
    pub validated_since: Option<u64>,
    /// Whether `current` has yet to pass `validate`.
    pub provisional: bool,
    /// `active` while clients can connect; `unknown` below `--root`.
    pub socket: String,
    /// Where it listens, as systemd has it: `[::]:80`.
    pub listens: Option<String>,
    /// Connections that nobody has accepted yet; none where it is no TCP socket.
    pub waiting: Option<u64>,
    /// How many may wait.
    pub backlog: Option<u64>,
    /// In order of `n`.
    pub instances: Vec<InstanceStatus>,
    /// Every sound release.
    pub releases: Vec<Listed>,
    /// What only root may see, and is left out here.
    pub left_out: Option<&'static str>,
}

/// One instance.
#[derive(Debug, Serialize)]
pub struct InstanceStatus {
    /// Its unit.
    pub unit: String,
    /// Its release.
    pub release: ReleaseId,
    /// Its number.
    pub n: u64,
    /// What systemd says: `active`, `deactivating`, `failed`, …
    pub active: String,
    /// What it says itself, where it says anything.
    pub accepting: Option<bool>,
    /// Open connections, as it says itself.
    pub connections: Option<u64>,
    /// Connections that instances handed over to it when they retired.
    pub taken: Option<u64>,
    /// What became of its connections since it was told to stop: another instance has them,
    pub handed_over: Option<u64>,
    /// they ended by themselves,
    pub drained: Option<u64>,
    /// or they were cut at the deadline.
    pub cut: Option<u64>,
    /// What it waits for while it retires, the longest first, five at most.
    pub waits: Vec<Wait>,
}

impl InstanceStatus {
    fn new(instance: Instance, active: String, report: Option<Report>) -> Self {
        let count = |field: fn(&Report) -> u64| report.as_ref().map(field);
        Self {
            unit: instance.unit(),
            n: instance.n,
            release: instance.release,
            active,
            accepting: report.as_ref().map(|report| report.accepting),
            connections: count(|report| report.connections),
            taken: count(|report| report.taken),
            handed_over: count(|report| report.handed_over),
            drained: count(|report| report.drained),
            cut: count(|report| report.cut),
            waits: report.map(|report| report.waits).unwrap_or_default(),
        }
    }

    /// In one word.
    fn state(&self) -> &str {
        match (self.active.as_str(), self.accepting) {
            ("active", Some(true)) => "serving",
            ("active", Some(false)) | ("deactivating", _) => "retiring",
            ("activating", _) => "starting",
            (other, _) => other,
        }
    }
}

/// One release of the store.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub id: ReleaseId,
    /// What people call it.
    pub label: String,
    /// What it was built from.
    pub commit: String,
    /// Its files, in bytes.
    pub size: u64,
    /// When it was installed last.
    pub installed: Option<u64>,
    /// Whether `current` names it.
    pub current: bool,
    /// Whether `validated` names it.
    pub validated: bool,
    /// Whether it has passed `validate` at least once.
    pub passed: bool,
    /// Why it is bad: it failed, and has not been validated since.
    pub bad: Option<String>,
    /// Whether it is kept whatever is pruned.
    pub pinned: bool,
}

/// The host now.
///
/// # Errors
/// Where systemd does not answer.
pub fn status(store: &Store) -> Result<Status> {
    let (current, validated) = (store.named_by(Link::Current), store.named_by(Link::Validated));
    let records = store.records()?;
    let previous = current.as_ref().and_then(|current| trail::ways_back(current, &records).next());
    let since = |link: &Option<ReleaseId>, is_it: fn(&Record) -> Option<&ReleaseId>| {
        let named = link.as_ref()?;
        records.iter().rev().find(|record| is_it(record) == Some(named)).map(Record::time)
    };
    let mut status = Status {
        since: since(&current, Record::activated),
        validated_since: since(&validated, Record::validated),
        provisional: current.is_some() && current != validated,
        current,
        previous,
        validated,
        socket: "unknown".to_owned(),
        listens: None,
        waiting: None,
        backlog: None,
        instances: Vec::new(),
        releases: list(store)?,
        left_out: None,
    };
    if store.host().is_live() {
        systemd::require_running()?;
        status.ask(store)?;
    }
    Ok(status)
}

impl Status {
    fn ask(&mut self, store: &Store) -> Result<()> {
        let socket = systemd::properties(store.host(), systemd::SOCKET, "ActiveState,Listen,Backlog")?;
        let value = |name: &str| socket.get(name).map_or("", String::as_str);
        self.socket = value("ActiveState").to_owned();
        self.listens = value("Listen").strip_suffix(" (Stream)").map(printable);
        self.backlog = value("Backlog").parse().ok();
        if let Some(Address::Tcp(address)) = Address::parse(value("Listen")) {
            self.waiting = Listener::at(store.host(), address.port()).map(|listener| listener.waiting);
        }
        for (instance, active) in Units::list(store.host())?.instances {
            let report = instance.report(store.host());
            self.instances.push(InstanceStatus::new(instance, active, report));
        }
        if !rustix::process::geteuid().is_root() {
            self.left_out = Some("what the instances say of their connections");
        }
        Ok(())
    }

    fn listed(&self, id: &ReleaseId) -> Option<&Listed> {
        self.releases.iter().find(|release| release.id == *id)
    }
}

/// Every sound release.
///
/// # Errors
/// Where the log cannot be read.
pub fn list(store: &Store) -> Result<Vec<Listed>> {
    let (current, validated) = (store.named_by(Link::Current), store.named_by(Link::Validated));
    let records = store.records()?;
    let listed = store.releases().into_iter().map(|release| {
        let Marks { passed, bad, pinned } = Marks::of(&release.id, &records);
        Listed {
            current: current.as_ref() == Some(&release.id),
            validated: validated.as_ref() == Some(&release.id),
            passed,
            bad,
            pinned,
            size: release.manifest.files.iter().map(|file| file.size).sum(),
            installed: records.iter().rev().find(|record| record.installed() == Some(&release.id)).map(Record::time),
            label: release.manifest.label,
            commit: release.manifest.commit,
            id: release.id,
        }
    });
    Ok(listed.collect())
}

/// The status for a person, on a screen of so many columns; the last line is the verdict.
pub fn render_status(store: &Store, status: &Status, columns: usize) -> String {
    let verdict = match store.host().is_live() {
        true if status.provisional => format!("{}; provisional until `releasectl validate`", switch::serving(store)),
        true => switch::serving(store),
        false => "files only: nothing runs here".to_owned(),
    };
    render(status, &verdict, columns, store::now())
}

/// What serves, in one line, where this process can know.
pub fn serving(store: &Store) -> Option<String> {
    let can_ask = store.host().is_live() && rustix::process::geteuid().is_root() && systemd::require_running().is_ok();
    can_ask.then(|| switch::serving(store))
}

fn render(status: &Status, verdict: &str, columns: usize, now: u64) -> String {
    let mut text = String::new();
    for (name, value) in head(status, columns, now) {
        let _ = writeln!(text, "{}", wrap(&format!("{name:<11}{value}"), columns, 11));
    }
    if !status.instances.is_empty() {
        let _ = writeln!(text, "\n{}", instances(&status.instances, columns));
    }
    if !status.releases.is_empty() {
        let _ = writeln!(text, "\n{}", render_list_at(&status.releases, columns, now));
    }
    if let Some(left_out) = status.left_out {
        let _ = writeln!(text, "\nonly root may see {left_out}: it is left out");
    }
    text + "\n" + &wrap(verdict, columns, 2)
}

fn head(status: &Status, columns: usize, now: u64) -> [(&'static str, String); 4] {
    // Beside the id, and before since when.
    let longest = columns.saturating_sub(60).max(20);
    let name = |id: &Option<ReleaseId>| match id {
        None => "none".to_owned(),
        Some(id) => {
            let label = status.listed(id).map(|listed| format!(" ({})", cut(&listed.label, longest)));
            format!("{id}{}", label.unwrap_or_default())
        }
    };
    let since = |time: Option<u64>| time.map_or(String::new(), |time| format!(", since {}", age(time, now)));
    let state = match (&status.current, status.provisional) {
        (None, _) => String::new(),
        (_, true) => format!("{}, provisional until `releasectl validate`", since(status.since)),
        (_, false) => since(status.since),
    };
    let mut socket = status.socket.clone();
    let listens = status.listens.iter().map(|listens| format!(", {listens}"));
    socket.extend(listens);
    if let (Some(waiting), Some(backlog)) = (status.waiting, status.backlog) {
        let _ = write!(socket, ", {waiting} of {backlog} wait to be accepted");
    }
    [
        ("current", name(&status.current) + &state),
        ("previous", name(&status.previous)),
        ("validated", name(&status.validated) + &since(status.validated_since)),
        ("socket", socket),
    ]
}

fn instances(instances: &[InstanceStatus], columns: usize) -> String {
    let mut table = screen::table(["INSTANCE", "STATE", "OPEN", "TAKEN", "HANDED OVER", "DRAINED", "CUT"]);
    let mut waits = String::new();
    for instance in instances {
        let InstanceStatus { unit, connections, taken, handed_over, drained, cut, .. } = instance;
        let name = unit.strip_suffix(".service").unwrap_or(unit);
        let counts = [connections, taken, handed_over, drained, cut];
        let counts = counts.map(|count| count.map_or("-".to_owned(), |count| count.to_string()));
        table.add_row([name, instance.state()].map(str::to_owned).into_iter().chain(counts));
        for wait in &instance.waits {
            let _ = write!(waits, "\n{}", wrap(&format!("{name} waits for: {wait}"), columns, 2));
        }
    }
    screen::lines(&table) + &waits
}

/// The releases for a person, on a screen of so many columns.
pub fn render_list(listed: &[Listed], columns: usize) -> String {
    render_list_at(listed, columns, store::now())
}

fn render_list_at(listed: &[Listed], columns: usize, now: u64) -> String {
    let rows = listed.iter().map(|release| row(release, columns, now)).collect();
    let reasons = listed.iter().filter_map(|release| {
        let reason = printable(release.bad.as_ref()?);
        Some("\n".to_owned() + &wrap(&format!("{} is bad: {reason}", release.id), columns, 2))
    });
    screen::fitted(&HEADER, rows, LABEL, columns) + &reasons.collect::<String>()
}

const HEADER: [&str; 6] = ["RELEASE", "LABEL", "COMMIT", "SIZE", "AGE", "MARKS"];
/// The column that may be cut.
const LABEL: usize = 1;

fn row(release: &Listed, columns: usize, now: u64) -> Vec<String> {
    let marks = [
        (release.current, "current"),
        (release.validated, "validated"),
        (release.passed && !release.validated, "passed"),
        (release.pinned, "pinned"),
        (release.bad.is_some(), "bad"),
    ];
    let marks: Vec<&str> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
    // As short as git has them, and as long as there is room for.
    let commit = if columns < 100 { 7 } else { 12 };
    vec![
        release.id.to_string(),
        release.label.clone(),
        printable(&release.commit).chars().take(commit).collect(),
        HumanBytes(release.size).to_string(),
        release.installed.map_or("-".to_owned(), |time| age(time, now)),
        marks.join(" "),
    ]
}

/// How long ago, in one unit.
fn age(time: u64, now: u64) -> String {
    format!("{:#}", HumanDuration(std::time::Duration::from_secs(now.saturating_sub(time))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::id;

    const NOW: u64 = 1_790_000_000;

    fn listed(letter: char, label: &str) -> Listed {
        Listed {
            id: id(letter),
            label: label.to_owned(),
            commit: "0584354b4c09b8e4609175eaf5482390219f5a82".to_owned(),
            size: 7_768_000,
            installed: Some(NOW - 86_400),
            current: letter == 'b',
            validated: letter == 'a',
            passed: letter != 'b',
            bad: (letter == 'c').then(|| "its instance ended: systemd says signal, exit status 9".repeat(4)),
            pinned: letter != 'c',
        }
    }

    fn some(label: &str) -> Status {
        let wait = |route: &str, age_ms| Wait { kind: "request".to_owned(), route: route.to_owned(), age_ms };
        let instance = |letter, n, active: &str, waits| InstanceStatus {
            unit: format!("app-{}@{n}.service", id(letter)),
            release: id(letter),
            n,
            active: active.to_owned(),
            accepting: Some(active == "active"),
            connections: Some(2_000),
            taken: Some(1_998),
            handed_over: Some(0),
            drained: Some(12_345),
            cut: Some(1),
            waits,
        };
        let waits = vec![wait(&"/a/long/route".repeat(8), 61_500), wait("/stream", 4_200)];
        Status {
            current: Some(id('b')),
            since: Some(NOW - 90),
            previous: Some(id('a')),
            validated: Some(id('a')),
            validated_since: Some(NOW - 3 * 86_400),
            provisional: true,
            socket: "active".to_owned(),
            listens: Some("[::]:80".to_owned()),
            waiting: Some(17),
            backlog: Some(4_096),
            instances: vec![instance('a', 6, "deactivating", waits), instance('b', 1_000_000, "active", Vec::new())],
            releases: vec![listed('a', "the first"), listed('b', label), listed('c', "x")],
            left_out: Some("what the instances say of their connections"),
        }
    }

    #[test]
    fn a_status_stays_readable() {
        let verdict = "serving now: release bbbbbbbbbbbbbbbb, app-bbbbbbbbbbbbbbbb@1000000.service; provisional until \
                       `releasectl validate`";
        let text = screen::tests::screens(|columns| {
            render(&some("the next"), verdict, columns, NOW)
                + "\n\n"
                + &render(&some(&screen::tests::odd(300)), verdict, columns, NOW)
        });
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_host_without_anything_has_a_status() {
        let mut status = some("");
        (status.current, status.previous, status.validated) = (None, None, None);
        (status.instances, status.releases, status.left_out) = (Vec::new(), Vec::new(), None);
        (status.socket, status.listens, status.waiting) = ("inactive".to_owned(), None, None);
        insta::assert_snapshot!(render(&status, "nothing is serving: no release is current", 80, NOW));
    }
}
