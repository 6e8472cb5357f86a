//! The whole story of one bundle on each system: a first deployment, an upgrade, a bad release, the way back, a reboot, and
//! a shutdown while clients wait.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use releases::{
    ReleaseId,
    bundle::{Bundle, Contents},
    probe::{self, Address},
};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{Agent, Host, Load, Mode, Report, client::Connection, host, readme, system::System};

const CLIENTS: [(Mode, usize); 4] = [(Mode::C1, 4), (Mode::C3, 30), (Mode::C4, 1), (Mode::C6, 8)];
/// Longer than a shutdown needs to begin, and within its deadline.
const IN_FLIGHT: &str = "/slow?ms=3000";
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
const HEAD: &str = "\
| system | systemd | exposure | first deployment | upgrade | bad release | rollback | reboot | shutdown with clients | requests | lost |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

/// The same three files for every system.
#[derive(Debug)]
pub struct Bundles {
    first: Bundle,
    second: Bundle,
    /// Never ready.
    bad: Bundle,
}

impl Bundles {
    /// Of what is shipped, and of the same with a program that exits.
    ///
    /// # Errors
    /// Where one cannot be packed.
    pub fn pack(contents: &Contents) -> io::Result<Self> {
        let pack = |contents: &Contents, label| contents.pack(label).map_err(io::Error::other);
        let mut bad = contents.clone();
        bad.put("bin/app", 0o755, b"#!/bin/sh\necho out of order >&2\nexit 3\n");
        Ok(Self { first: pack(contents, "one")?, second: pack(contents, "two")?, bad: pack(&bad, "bad")? })
    }
}

/// One system's story.
#[derive(Debug)]
pub struct Row {
    system: System,
    /// systemd's version, and the service's exposure on it.
    facts: [String; 2],
    /// How long each part took; the first that failed is the last one.
    parts: Vec<Result<Duration, String>>,
    sent: u64,
    /// Requests that were lost, all parts together.
    pub lost: u64,
}

const PARTS: [&str; 6] = ["first deployment", "upgrade", "bad release", "rollback", "reboot", "shutdown with clients"];

impl Row {
    /// Tells it on a fresh host.
    ///
    /// # Errors
    /// Where the system cannot be made.
    ///
    /// # Panics
    /// Where the host does not boot.
    pub fn of(system: System, bundles: &Bundles) -> Result<Self, String> {
        let mut story = Story { host: system.boot()?, bundles, reports: Vec::new() };
        let mut parts = Vec::new();
        for part in [Story::begin, Story::upgrade, Story::refuse, Story::go_back, Story::reboot, Story::shut_down] {
            let began = Instant::now();
            parts.push(part(&mut story).map(|()| began.elapsed()));
            if parts.last().is_some_and(Result::is_err) {
                break;
            }
        }
        let sum = |count: fn(&Report) -> u64| story.reports.iter().map(count).sum();
        let (sent, lost) = (sum(Report::sent), sum(Report::lost));
        Ok(Self { system, facts: story.facts(), parts, sent, lost })
    }

    /// What was not as it should be.
    pub fn faults(&self) -> Vec<String> {
        let failed = PARTS.iter().zip(&self.parts).filter_map(|(part, ended)| {
            let error = ended.as_ref().err()?;
            Some(format!("{}: {part}: {error}", self.system))
        });
        let lost = (self.lost > 0).then(|| format!("{}: {} requests lost", self.system, self.lost));
        failed.chain(lost).collect()
    }

    fn to_markdown(&self) -> String {
        let told = |part: &Result<Duration, String>| match part {
            Ok(time) if time.as_secs() > 0 => format!("{:.1} s", time.as_secs_f64()),
            Ok(time) => format!("{} ms", time.as_millis()),
            Err(_) => "**failed**".to_owned(),
        };
        let parts = PARTS.iter().enumerate().map(|(n, _)| self.parts.get(n).map_or("-".to_owned(), told));
        let cells = [self.system.to_string()].into_iter().chain(self.facts.clone()).chain(parts);
        let cells: Vec<String> = cells.chain([self.sent.to_string(), self.lost.to_string()]).collect();
        format!("| {} |\n", cells.join(" | "))
    }
}

/// Tells it on each system, prints the matrix, and puts it into the README; returns whether all is as it should be.
///
/// # Errors
/// Where a bundle or a system cannot be made, or the README not be written.
///
/// # Panics
/// Where a host does not boot.
pub fn run() -> io::Result<bool> {
    let contents = Contents::build(crate::workspace()).map_err(io::Error::other)?;
    let bundles = Bundles::pack(&contents)?;
    let row = |system| Row::of(system, &bundles).map_err(io::Error::other);
    let rows = System::ALL.into_iter().map(row).collect::<io::Result<Vec<_>>>()?;
    let matrix = rows.iter().fold(HEAD.to_owned(), |text, row| text + &row.to_markdown());
    println!("{matrix}");
    let faults: Vec<String> = rows.iter().flat_map(Row::faults).collect();
    faults.iter().for_each(|fault| println!("{fault}"));
    let is_good = faults.is_empty();
    if is_good {
        readme::put("systems", &matrix)?;
    }
    Ok(is_good)
}

struct Story<'a> {
    host: Host,
    bundles: &'a Bundles,
    reports: Vec<Report>,
}

impl Story<'_> {
    fn begin(&mut self) -> Result<(), String> {
        self.deploy(&self.bundles.first)?;
        self.serves(&self.bundles.first.id)?;
        let unknown = self.host.run("journalctl -b -o cat _PID=1 | grep -E '/app.*(Unknown|ignoring)'").output;
        if unknown.is_empty() { Ok(()) } else { Err(format!("systemd does not know all of the units: {unknown}")) }
    }

    fn upgrade(&mut self) -> Result<(), String> {
        self.under_load(|story| {
            story.deploy(&story.bundles.second)?;
            story.serves(&story.bundles.second.id)
        })
    }

    fn refuse(&mut self) -> Result<(), String> {
        self.under_load(|story| {
            let deployment = Agent::new(&story.host).deploy(&story.bundles.bad.archive);
            let last = deployment.last();
            if deployment.succeeded() || last.name != "ApplicationStart" || !last.tail().contains("out of order") {
                return Err(format!("{}: {}", last.name, last.tail()));
            }
            story.serves(&story.bundles.second.id)
        })
    }

    fn go_back(&mut self) -> Result<(), String> {
        self.under_load(|story| {
            let ran = story.host.run("releasectl rollback");
            if ran.code != 0 {
                return Err(ran.output);
            }
            story.serves(&story.bundles.first.id)
        })
    }

    fn reboot(&mut self) -> Result<(), String> {
        self.host.reboot();
        self.serves(&self.bundles.first.id)
    }

    /// A request in flight and one that an idle connection sends after the shutdown has begun: both are answered, whole.
    fn shut_down(&mut self) -> Result<(), String> {
        let report = self.report_of_the_instance()?;
        let (leader, (begun, has_begun)) = (self.host.leader(), mpsc::channel());
        let clients = thread::spawn(move || {
            host::enter_network(leader);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(ask_through_a_shutdown(&report, begun))
        });
        // Where the clients have failed, they say why.
        let _ = has_begun.recv();
        self.host.reboot();
        clients.join().map_err(|_| "a client panicked".to_owned())??;
        self.serves(&self.bundles.first.id)
    }

    fn deploy(&self, bundle: &Bundle) -> Result<(), String> {
        let deployment = Agent::new(&self.host).deploy(&bundle.archive);
        let last = deployment.last();
        if deployment.succeeded() { Ok(()) } else { Err(format!("{}: {}", last.name, last.tail())) }
    }

    /// Every connection is answered by that release, and systemd is content.
    fn serves(&self, release: &ReleaseId) -> Result<(), String> {
        let address = Address::Tcp(address());
        for _ in 0..10 {
            let answer = self.host.in_network(|| probe::ask(&address))?;
            if answer != release.as_str() {
                return Err(format!("{answer} answered, and not {release}"));
            }
        }
        let state = self.host.run("systemctl is-system-running").output;
        if state.trim() == "running" { Ok(()) } else { Err(format!("the host is {}", state.trim())) }
    }

    fn under_load(&mut self, job: impl FnOnce(&Self) -> Result<(), String>) -> Result<(), String> {
        let loads: Vec<Load> = CLIENTS.iter().map(|(mode, count)| Load::start(&self.host, *mode, *count)).collect();
        let ended = job(self);
        loads.iter().for_each(Load::halt);
        self.reports.extend(loads.into_iter().map(Load::stop));
        ended
    }

    fn report_of_the_instance(&self) -> Result<PathBuf, String> {
        let n = self.instance()?["n"].as_u64().ok_or("the instance has no number")?;
        Ok(self.host.path(&format!("/run/app/{n}.json")))
    }

    fn instance(&self) -> Result<Value, String> {
        let ran = self.host.run("releasectl status --json");
        let status: Value = serde_json::from_str(&ran.output).map_err(|error| format!("{error}: {}", ran.output))?;
        Ok(status["instances"][0].clone())
    }

    fn facts(&self) -> [String; 2] {
        let version = self.host.run("systemctl --version").output;
        let version = version.split_whitespace().nth(1).unwrap_or("unknown").to_owned();
        let unit = self.instance().unwrap_or_default()["unit"].as_str().unwrap_or_default().to_owned();
        let said = self.host.run(&format!("systemd-analyze security --no-pager {unit}")).output;
        let exposure = said.lines().last().and_then(|line| line.split(": ").nth(1)?.split_whitespace().next());
        [version, exposure.unwrap_or("unknown").to_owned()]
    }
}

async fn ask_through_a_shutdown(report: &Path, begun: mpsc::Sender<()>) -> Result<(), String> {
    let open = || async { Connection::open(address()).await.map_err(|error| format!("cannot connect: {error}")) };
    let (mut busy, mut idle) = (open().await?, open().await?);
    let before = idle.get("/version").await.outcome;
    let later = async {
        let _ = begun.send(());
        timeout(PATIENCE, is_retiring(report)).await.map_err(|_| "it does not retire".to_owned())?;
        Ok::<_, String>(idle.get("/version").await.outcome)
    };
    let (in_flight, later) = tokio::join!(busy.get(IN_FLIGHT), later);
    let outcomes = [before, in_flight.outcome, later?];
    let told = || format!("before: {}, in flight: {}, idle: {}", outcomes[0], outcomes[1], outcomes[2]);
    if outcomes.iter().all(|outcome| outcome.is_answered()) { Ok(()) } else { Err(told()) }
}

async fn is_retiring(report: &Path) {
    while !fs::read_to_string(report).is_ok_and(|text| text.contains("\"state\":\"retiring\"")) {
        sleep(POLL).await;
    }
}

fn address() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 80).into()
}
