//! Each kind of client over many activations of a real host, beside the same time without any, and beside servers that
//! must lose or close.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets};
use releases::bundle::{Bundle, Contents};

use crate::{
    Agent, Host, Load, Mode, Report, chart,
    demo::{self, write},
    report::{self, Activation, Span},
    succession::Runtime,
    table::{self, Server},
};

/// Between the beginnings of two activations, where an activation is not longer.
const EVERY: Duration = Duration::from_millis(300);
const SOAK_EVERY: Duration = Duration::from_millis(400);
/// Activations a second of the soak.
const LEAST_RATE: f64 = 2.0;
/// Until every client is in the midst of it.
const SETTLE: Duration = Duration::from_secs(2);
/// Connections of the mixed load; those that the other kinds do not have are c9's.
const MIXED: usize = 2_000;

/// What to run.
#[derive(Debug)]
pub struct Plan {
    /// The kinds of clients that are measured by themselves.
    pub modes: Vec<Mode>,
    /// Whether all kinds are measured together, too.
    pub mixed: Option<usize>,
    /// How many activations each sees.
    pub activations: usize,
    /// Whether servers that must lose or close are measured as well.
    pub controls: bool,
}

impl Plan {
    /// All of it.
    pub fn whole(activations: usize) -> Self {
        Self { modes: Mode::ALL.to_vec(), mixed: Some(MIXED), activations, controls: true }
    }
}

/// Runs it, telling what happens; returns whether nothing was lost, no HTTP/1.1 connection was closed, no run shows
/// nothing, and the controls lost or closed. The report goes to `target/lossless/`.
///
/// # Errors
/// Where a control does not build or start.
///
/// # Panics
/// Where the host does not boot, or an activation fails.
pub fn run(plan: &Plan) -> io::Result<bool> {
    let mut rows = if plan.controls { controls(plan.activations)? } else { Vec::new() };
    let mut stage = Stage::set();
    for mode in &plan.modes {
        rows.extend(stage.measure(&[(*mode, mode.clients())], plan.activations, "").0);
    }
    if let Some(clients) = plan.mixed {
        let (mixed, activations) = stage.measure(&mixed(clients), plan.activations, "mixed: ");
        let reports: Vec<Report> = mixed.iter().map(|row| row.with.clone()).collect();
        write(&folder(), "report.html", &chart::page(&activations, &reports));
        rows.extend(mixed);
    }
    let rows_json: Vec<_> = rows.iter().map(Row::to_json).collect();
    write(&folder(), "report.json", &format!("{:#}\n", serde_json::json!({ "format": 1, "rows": rows_json })));
    println!("{}\n", render(&rows));
    rows.iter().filter_map(Row::ratios).for_each(|line| println!("{line}"));
    let (sent, closed) = (rows.iter().filter(|row| !row.is_control), rows.iter().filter_map(Row::closed).sum::<u64>());
    let (sent, lost) = sent.fold((0, 0), |(sent, lost), row| (sent + row.with.sent(), lost + row.with.lost()));
    println!(
        "{sent} requests over {} activations of each kind, {lost} lost, {closed} connections closed",
        plan.activations
    );
    let faults: Vec<String> = rows.iter().filter_map(Row::fault).collect();
    faults.iter().for_each(|fault| println!("{fault}"));
    Ok(faults.is_empty())
}

fn folder() -> std::path::PathBuf {
    crate::workspace().join("target/lossless")
}

/// Activations at two a second or more, under all kinds of clients at once, for so many minutes; returns whether it came to
/// that, each met clients of each kind, nothing was lost, and the last instance has no more descriptors, memory and threads
/// than the tenth.
///
/// # Panics
/// Where the host does not boot, or an activation fails.
pub fn soak(minutes: u64) -> bool {
    let mut stage = Stage::set();
    let loads: Vec<Load> =
        mixed(MIXED).into_iter().map(|(mode, count)| Load::start(&stage.host, mode, count)).collect();
    thread::sleep(SETTLE);
    let (began, mut tenth, mut done) = (Instant::now(), None, Vec::new());
    while began.elapsed() < Duration::from_secs(60 * minutes) {
        let next = Instant::now() + SOAK_EVERY;
        done.push(stage.activate());
        thread::sleep(next.saturating_duration_since(Instant::now()));
        if done.len() == 10 {
            tenth = Some(Held::by_the_last(&stage.host));
        }
    }
    let rate = done.len() as f64 / began.elapsed().as_secs_f64();
    let last = Held::by_the_last(&stage.host);
    let reports = stop(loads);
    println!("{}\n", report::table(&reports));
    let lost: u64 = reports.iter().map(Report::lost).sum();
    println!("{} activations, {rate:.1} a second; {lost} lost", done.len());
    println!("the tenth instance {tenth:?}\nthe last one       {:?}", Some(last));
    let mut is_good = rate >= LEAST_RATE && tenth.is_some_and(|tenth| last.is_no_more_than(tenth));
    for report in &reports {
        if let Some(lack) = done.iter().find_map(|activation| report.lacks(activation.span)) {
            println!("{}: the run shows nothing: {lack}", report.mode);
            is_good = false;
        }
    }
    let closed = |report: &Report| if report.mode.is_handed_over() { report.connections_closed } else { 0 };
    is_good && lost + reports.iter().map(closed).sum::<u64>() == 0
}

/// What an instance holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    descriptors: usize,
    resident_kib: u64,
    threads: u64,
}

impl Held {
    /// Once all others have ended, so that all clients are its own.
    pub(crate) fn by_the_last(host: &Host) -> Self {
        host.settle();
        let unit = "$(systemctl list-units --plain --no-legend 'app-*@*' | cut -d' ' -f1)";
        let pid = host.succeed(&format!("systemctl show -p MainPID --value {unit}"));
        let proc = host.path(&format!("/proc/{}", pid.trim()));
        let status = fs::read_to_string(proc.join("status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("proc_pid_status(5)");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        let descriptors = fs::read_dir(proc.join("fd")).expect("it runs").count();
        Self { descriptors, resident_kib: field("VmRSS:"), threads: field("Threads:") }
    }

    /// The clients are the same ones, and their connections go along: those that were between two make the difference. What
    /// leaks comes with every activation, and there are hundreds.
    pub(crate) fn is_no_more_than(self, other: Self) -> bool {
        self.descriptors <= other.descriptors + 50
            && self.resident_kib <= other.resident_kib * 6 / 5
            && self.threads <= other.threads
    }
}

/// As the demo's, and so many connections in all.
pub fn mixed(clients: usize) -> Vec<(Mode, usize)> {
    let others = || demo::CLIENTS.into_iter().filter(|(mode, _)| *mode != Mode::C9);
    let count: usize = others().map(|(_, count)| count).sum();
    others().chain([(Mode::C9, clients.saturating_sub(count))]).collect()
}

/// What must lose, or close.
fn controls(activations: usize) -> io::Result<Vec<Row>> {
    let (app, stock) = (Server::App.build()?, Server::Stock.build()?);
    let mut rows = Vec::new();
    for (label, program, runtime) in
        [("axum::serve: ", &stock, Runtime::Shared), ("handover off: ", &app, Runtime::Separate)]
    {
        for mode in [Mode::C3, Mode::C9] {
            let one = |activated| table::one(program, runtime, mode, activated, activations as u32, None);
            let ((without, _), (with, lacks)) = (one(0)?, one(activations as u32)?);
            let row = Row { label, activations, with, without, lacks, is_control: true };
            eprintln!("{}", row.tell());
            rows.push(row);
        }
    }
    Ok(rows)
}

/// A host with two releases that are activated in turn.
#[derive(Debug)]
pub struct Stage {
    /// Where they are.
    pub host: Host,
    bundles: [Bundle; 2],
    activated: usize,
}

impl Stage {
    /// Boots the host and deploys both.
    ///
    /// # Panics
    /// Where that fails.
    pub fn set() -> Self {
        let contents = Contents::build(crate::workspace()).unwrap_or_else(|error| panic!("{error}"));
        let pack = |label| contents.pack(label).unwrap_or_else(|error| panic!("{error}"));
        Self::set_with([pack("lossless one"), pack("lossless two")])
    }

    /// The same with these bundles, of which the second serves.
    ///
    /// # Panics
    /// Where that fails.
    pub fn set_with(bundles: [Bundle; 2]) -> Self {
        let host = Host::boot();
        let mut agent = Agent::new(&host);
        for (n, bundle) in bundles.iter().enumerate() {
            agent.deploy(&bundle.archive).expect_success();
            fs::write(host.path(&format!("/root/{n}.tgz")), &bundle.archive).expect("the host's disk can be written");
            host.succeed(&format!("mkdir /root/{n} && tar -xzf /root/{n}.tgz -C /root/{n}"));
        }
        host.settle();
        Self { host, bundles, activated: 0 }
    }

    /// Activates the other release, by hand.
    ///
    /// # Panics
    /// Where that fails.
    pub fn activate(&mut self) -> Activation {
        let n = self.activated % 2;
        self.activated += 1;
        let began = Instant::now();
        self.host.succeed(&format!("/root/{n}/bin/releasectl activate /root/{n}"));
        Activation { what: "activation".to_owned(), release: self.bundles[n].id.clone(), span: Span::since(began) }
    }

    /// These clients at once, without activations and with them, a row for each kind.
    pub fn measure(
        &mut self,
        clients: &[(Mode, usize)],
        activations: usize,
        label: &'static str,
    ) -> (Vec<Row>, Vec<Activation>) {
        let (without, _) = self.load(clients, 0, activations);
        let (with, done) = self.load(clients, activations, activations);
        let row = |(with, without): (Report, Report)| {
            let lacks = done.iter().find_map(|activation| with.lacks(activation.span));
            Row { label, activations, with, without, lacks, is_control: false }
        };
        let rows: Vec<Row> = with.into_iter().zip(without).map(row).collect();
        rows.iter().for_each(|row| eprintln!("{}", row.tell()));
        (rows, done)
    }

    /// These clients at once over some activations, and as long as if there were `rounds` of them.
    fn load(&mut self, clients: &[(Mode, usize)], activations: usize, rounds: usize) -> (Vec<Report>, Vec<Activation>) {
        let loads: Vec<Load> = clients.iter().map(|(mode, count)| Load::start(&self.host, *mode, *count)).collect();
        thread::sleep(SETTLE);
        let mut done = Vec::new();
        each_round(rounds, |n| {
            if n < activations {
                done.push(self.activate());
            }
        });
        (stop(loads), done)
    }
}

/// So many rounds, as far apart as activations are.
pub(crate) fn each_round(rounds: usize, mut act: impl FnMut(usize)) {
    for n in 0..rounds {
        let next = Instant::now() + EVERY;
        act(n);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// All are told to stop before one is waited for.
pub(crate) fn stop(loads: Vec<Load>) -> Vec<Report> {
    loads.iter().for_each(Load::halt);
    loads.into_iter().map(Load::stop).collect()
}

/// One kind of client.
#[derive(Debug)]
pub struct Row {
    label: &'static str,
    activations: usize,
    /// Over activations.
    pub with: Report,
    /// As long, with none.
    pub without: Report,
    lacks: Option<&'static str>,
    is_control: bool,
}

impl Row {
    /// HTTP/1.1 connections that the activations closed; none where the client's kind ends its own.
    fn closed(&self) -> Option<u64> {
        (!self.is_control && self.with.mode.is_handed_over()).then_some(self.with.connections_closed)
    }

    /// What makes the run a failure.
    pub fn fault(&self) -> Option<String> {
        let name = format!("{}{}", self.label, self.with.mode);
        let (lost, closed) = (self.with.lost() + self.without.lost(), self.with.connections_closed);
        if self.is_control {
            // One that did has shown it, whatever was in flight.
            return (self.with.lost() + closed == 0).then(|| format!("{name}: it must lose or close, and did not"));
        }
        if let Some(lack) = self.lacks {
            return Some(format!("{name}: the run shows nothing: {lack}"));
        }
        let closed = self.closed().unwrap_or(0);
        (lost + closed > 0).then(|| format!("{name}: {} lost, {closed} connections closed", self.with.losses()))
    }

    /// What the activations cost the clients that think a little, the longest and the one in a thousand. It is told, and not
    /// judged: the machine has its share in it.
    fn ratios(&self) -> Option<String> {
        let Self { label, with, without, .. } = self;
        if self.is_control || with.mode != Mode::C3 {
            return None;
        }
        let longest = (with.longest().as_secs_f64() - without.longest().as_secs_f64()) * 1000.0;
        let ratio = with.quantile(0.999) / without.quantile(0.999);
        Some(format!("{label}c3: p99.9 is {ratio:.2} times that without activations, the longest {longest:+.1} ms"))
    }

    fn tell(&self) -> String {
        let (label, mode, sent, losses) = (self.label, self.with.mode, self.with.sent(), self.with.losses());
        format!("{label}{mode}: {sent} sent, lost: {losses}, {} closed", self.with.connections_closed)
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "server": if self.is_control { self.label } else { "app" },
            "run": if self.is_control { "" } else { self.label },
            "activations": self.activations,
            "with": self.with.to_json(),
            "without": self.without.to_json(),
        })
    }
}

fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let header =
        ["CLIENT", "SENT", "LOST", "CLOSED", "P50 MS", "P99.9 MS", "LONGEST MS", "WITHOUT: P50", "P99.9", "LONGEST"];
    table.set_header(header);
    for Row { label, with, without, .. } in rows {
        let times = |report: &Report| {
            let longest = report.longest().as_secs_f64() * 1000.0;
            [report.quantile(0.5), report.quantile(0.999), longest].map(|time| format!("{time:.1}"))
        };
        let counts = [
            format!("{label}{}", with.mode),
            with.sent().to_string(),
            with.losses(),
            with.connections_closed.to_string(),
        ];
        table.add_row(counts.into_iter().chain(times(with)).chain(times(without)));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
