//! The demo: a host, a first deployment, and twenty activations under every kind of load, forward and back.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use releases::{ReleaseId, bundle::Contents};
use serde_json::json;

use crate::{
    Agent, Host, Load, Mode, Report, chart,
    report::{self, Span},
};

const ACTIVATIONS: usize = 20;
/// Between the beginnings of two activations: the longest kind needs so long to come to rest on a connection of the new
/// release.
const EVERY: Duration = Duration::from_secs(3);

/// As many clients of each kind as two cores serve beside each other without waiting for the processor.
const CLIENTS: [(Mode, usize); 13] = [
    (Mode::C1, 2),
    (Mode::C2, 1),
    (Mode::C3, 30),
    (Mode::C3b, 30),
    (Mode::C4, 1),
    (Mode::C5, 20),
    (Mode::C6, 24),
    (Mode::C7, 24),
    (Mode::C8, 10),
    (Mode::C9, 150),
    (Mode::C10, 10),
    (Mode::Events, 12),
    (Mode::Socket, 12),
];

/// One change of the release that serves.
#[derive(Debug)]
pub(crate) struct Activation {
    pub what: &'static str,
    pub release: ReleaseId,
    pub span: Span,
}

/// Runs it, telling what happens; returns whether nothing was lost. The report goes to `target/demo/`.
///
/// # Panics
/// Where the host does not boot, a deployment fails, or the report cannot be written.
pub fn run() -> bool {
    println!("building the bundle of two revisions");
    let contents = Contents::build(crate::workspace()).unwrap_or_else(|error| panic!("{error}"));
    let pack = |label| contents.pack(label).unwrap_or_else(|error| panic!("{error}"));
    let (first, second) = (pack("demo one"), pack("demo two"));

    let began = Instant::now();
    let host = Host::boot();
    println!("a systemd host booted in {} ms", began.elapsed().as_millis());
    let mut agent = Agent::new(&host);
    let began = Instant::now();
    agent.deploy(&first.archive).expect_success();
    println!("first deployment: {} ms", began.elapsed().as_millis());
    host.assert_serving(first.id.as_str());

    let loads: Vec<Load> = CLIENTS.iter().map(|(mode, count)| Load::start(&host, *mode, *count)).collect();
    println!("clients of {} kinds are at work; {ACTIVATIONS} activations follow, one every 3 s", loads.len());
    let progress = ProgressBar::new(ACTIVATIONS as u64)
        .with_style(ProgressStyle::with_template("{bar:20} {msg}").expect("a template that can be read"));
    let mut activations = Vec::new();
    let mut next = Instant::now() + EVERY;
    for n in 0..ACTIVATIONS {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += EVERY;
        let began = Instant::now();
        let (what, release) = if n % 2 == 0 {
            agent.deploy(&second.archive).expect_success();
            ("deployment", &second.id)
        } else {
            host.succeed("releasectl rollback");
            ("rollback", &first.id)
        };
        let span = Span::since(began);
        host.assert_serving(release.as_str());
        let line = format!("{:>2} {what} to {release}: {} ms", n + 1, span.length().as_millis());
        progress.set_message(line.clone());
        progress.inc(1);
        if progress.is_hidden() {
            println!("{line}");
        } else {
            progress.println(line);
        }
        activations.push(Activation { what, release: release.clone(), span });
    }
    progress.finish_and_clear();
    thread::sleep(EVERY);
    loads.iter().for_each(Load::halt);
    let reports: Vec<Report> = loads.into_iter().map(Load::stop).collect();
    tell(&activations, &reports, &crate::workspace().join("target/demo"))
}

fn tell(activations: &[Activation], reports: &[Report], folder: &Path) -> bool {
    println!("\n{}\n", report::table(reports));
    let (sent, lost) = (reports.iter().map(Report::sent).sum::<u64>(), reports.iter().map(Report::lost).sum::<u64>());
    let lacks = |activation: &Activation| {
        let lack = |report: &Report| Some(format!("{}: {}", report.mode, report.lacks(activation.span)?));
        reports.iter().filter_map(lack).collect::<Vec<_>>()
    };
    let vacuous: Vec<String> = activations.iter().flat_map(lacks).collect();
    write(folder, "report.json", &json(activations, reports, sent, lost, &vacuous));
    write(folder, "report.html", &chart::page(activations, reports));
    println!("{sent} requests over {} activations, {lost} lost", activations.len());
    for lack in &vacuous {
        println!("the run shows nothing at one activation: {lack}");
    }
    println!("target/demo/report.html shows latency over time");
    lost == 0 && vacuous.is_empty()
}

fn json(activations: &[Activation], reports: &[Report], sent: u64, lost: u64, vacuous: &[String]) -> String {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let activation = |activation: &Activation| {
        json!({
            "what": activation.what,
            "release": activation.release.as_str(),
            "from_ms": milliseconds(activation.span.from),
            "took_ms": milliseconds(activation.span.length()),
        })
    };
    let report = json!({
        "format": 1,
        "requests": sent,
        "lost": lost,
        "vacuous": vacuous,
        "activations": activations.iter().map(activation).collect::<Vec<_>>(),
        "kinds": reports.iter().map(Report::to_json).collect::<Vec<_>>(),
    });
    format!("{report:#}\n")
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, text));
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}
