//! What is there: for people as a table, for programs as JSON.

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{
    ReleaseId, Result, Store,
    instance::{Instance, Report, Wait},
    store::Link,
    switch,
    systemd::{self, Units, printable},
    trail::Marks,
};

/// The host at one moment. The field names are the JSON's.
#[derive(Debug, Serialize)]
pub struct Status {
    /// What the host serves.
    pub current: Option<ReleaseId>,
    /// What a boot falls back to.
    pub validated: Option<ReleaseId>,
    /// Whether `current` has yet to pass `validate`.
    pub provisional: bool,
    /// `active` while clients can connect; `unknown` below `--root`.
    pub socket: String,
    /// In order of `n`.
    pub instances: Vec<InstanceStatus>,
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
}

/// One release of the store.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub id: ReleaseId,
    /// What people call it.
    pub label: String,
    /// What it was built from.
    pub commit: String,
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
    let mut instances = Vec::new();
    let mut socket = "unknown".to_owned();
    if store.host().is_live() {
        systemd::require_running()?;
        socket = systemd::property(store.host(), systemd::SOCKET, "ActiveState")?;
        for (instance, active) in Units::list(store.host())?.instances {
            let report = instance.report(store.host());
            instances.push(InstanceStatus::new(instance, active, report));
        }
    }
    Ok(Status { provisional: current.is_some() && current != validated, current, validated, socket, instances })
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
            label: release.manifest.label,
            commit: release.manifest.commit,
            id: release.id,
        }
    });
    Ok(listed.collect())
}

/// The status for a person; the last line is the verdict.
pub fn render_status(store: &Store, status: &Status) -> String {
    let name = |id: &Option<ReleaseId>| id.as_ref().map_or("none".to_owned(), ToString::to_string);
    let mut table = table(["INSTANCE", "STATE", "ACCEPTING", "CONNECTIONS", "TAKEN", "HANDED OVER", "DRAINED", "CUT"]);
    let mut waits = String::new();
    for instance in &status.instances {
        let accepting = instance.accepting.map_or("-", |accepting| if accepting { "yes" } else { "no" });
        let InstanceStatus { unit, active, connections, taken, handed_over, drained, cut, .. } = instance;
        let counts = [connections, taken, handed_over, drained, cut];
        let counts = counts.map(|count| count.map_or("-".to_owned(), |count| count.to_string()));
        table.add_row([unit, active, accepting].map(str::to_owned).into_iter().chain(counts));
        for wait in &instance.waits {
            waits.push_str(&format!("{unit} waits for: {wait}\n"));
        }
    }
    if !waits.is_empty() {
        waits.push('\n');
    }
    let provisional = if status.provisional { " (provisional until `releasectl validate`)" } else { "" };
    let verdict =
        if store.host().is_live() { switch::serving(store) } else { "files only: nothing runs here".to_owned() };
    format!(
        "current    {}{provisional}\nvalidated  {}\nsocket     {}\n\n{table}\n\n{waits}{verdict}",
        name(&status.current),
        name(&status.validated),
        status.socket,
    )
}

/// The releases for a person.
pub fn render_list(listed: &[Listed]) -> String {
    let mut table = table(["RELEASE", "LABEL", "COMMIT", "MARKS"]);
    for release in listed {
        let marks = [
            (release.current, "current"),
            (release.validated, "validated"),
            (release.passed, "passed"),
            (release.pinned, "pinned"),
        ];
        let mut marks: Vec<String> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| (*mark).to_owned()).collect();
        marks.extend(release.bad.as_deref().map(|reason| format!("bad ({})", printable(reason))));
        let commit: String = release.commit.chars().take(12).collect();
        table.add_row([release.id.as_str(), &printable(&release.label), &commit, &marks.join(" ")]);
    }
    table.to_string()
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}
