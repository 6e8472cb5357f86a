//! The demo: a host, a first deployment, and twenty activations under every kind of load, forward and back.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use releases::bundle::{Bundle, Contents};
use serde_json::json;

use crate::{
    Agent, Host, Load, Mode, Report, chart,
    report::{self, Activation, Span},
};

const ACTIVATIONS: usize = 20;
/// Between the beginnings of two activations: the longest kind needs so long to come to rest on a connection of the new
/// release.
const EVERY: Duration = Duration::from_secs(3);

/// As many clients of each kind as two cores serve beside each other without waiting for the processor.
pub(crate) const CLIENTS: [(Mode, usize); 13] = [
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

    println!("clients of {} kinds are at work; {ACTIVATIONS} activations follow", CLIENTS.len());
    let progress = ProgressBar::new(ACTIVATIONS as u64)
        .with_style(ProgressStyle::with_template("{bar:20} {msg}").expect("a template that can be read"));
    let campaign = Campaign::run(&host, &mut agent, [&first, &second], ACTIVATIONS, |n, activation| {
        let Activation { what, release, span } = activation;
        let line = format!("{n:>2} {what} to {release}: {} ms", span.length().as_millis());
        progress.inc(1);
        if progress.is_hidden() {
            println!("{line}");
        } else {
            progress.println(line);
        }
    });
    progress.finish_and_clear();
    campaign.tell(&crate::workspace().join("target/demo"))
}

/// Activations, alternately forward and back, under every kind of load at once.
#[derive(Debug)]
pub struct Campaign {
    /// In order.
    pub activations: Vec<Activation>,
    /// One for each kind of client.
    pub reports: Vec<Report>,
}

impl Campaign {
    /// Runs it on a host that serves the first of two revisions.
    ///
    /// # Panics
    /// Where a deployment or a rollback fails.
    pub fn run(
        host: &Host,
        agent: &mut Agent,
        [first, second]: [&Bundle; 2],
        count: usize,
        each: impl Fn(usize, &Activation),
    ) -> Self {
        let loads: Vec<Load> = CLIENTS.iter().map(|(mode, count)| Load::start(host, *mode, *count)).collect();
        let mut activations = Vec::new();
        let mut next = Instant::now() + EVERY;
        for n in 1..=count {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next += EVERY;
            let began = Instant::now();
            let (what, release) = if n % 2 == 1 {
                agent.deploy(&second.archive).expect_success();
                ("deployment", &second.id)
            } else {
                host.succeed("releasectl rollback");
                ("rollback", &first.id)
            };
            let activation = Activation { what: what.to_owned(), release: release.clone(), span: Span::since(began) };
            host.assert_serving(release.as_str());
            each(n, &activation);
            activations.push(activation);
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
        loads.iter().for_each(Load::halt);
        Self { activations, reports: loads.into_iter().map(Load::stop).collect() }
    }

    /// Requests that were not answered as they should be.
    pub fn lost(&self) -> u64 {
        self.reports.iter().map(Report::lost).sum()
    }

    /// What the run must have had at each activation to have shown anything, and had not.
    pub fn lacks(&self) -> Vec<String> {
        let lack = |report: &Report, span| Some(format!("{}: {}", report.mode, report.lacks(span)?));
        let at = |activation: &Activation| -> Vec<String> {
            self.reports.iter().filter_map(|report| lack(report, activation.span)).collect()
        };
        self.activations.iter().flat_map(at).collect()
    }

    fn sent(&self) -> u64 {
        self.reports.iter().map(Report::sent).sum()
    }

    fn tell(&self, folder: &Path) -> bool {
        let (lost, lacks) = (self.lost(), self.lacks());
        println!("\n{}\n", report::table(&self.reports));
        write(folder, "report.json", &self.to_json());
        write(folder, "report.html", &chart::page(&self.activations, &self.reports));
        println!("{} requests over {} activations, {lost} lost", self.sent(), self.activations.len());
        for lack in &lacks {
            println!("the run shows nothing at one activation: {lack}");
        }
        println!("target/demo/report.html shows latency over time");
        lost == 0 && lacks.is_empty()
    }

    fn to_json(&self) -> String {
        let report = json!({
            "format": 1,
            "requests": self.sent(),
            "lost": self.lost(),
            "vacuous": self.lacks(),
            "activations": self.activations.iter().map(Activation::to_json).collect::<Vec<_>>(),
            "kinds": self.reports.iter().map(Report::to_json).collect::<Vec<_>>(),
        });
        format!("{report:#}\n")
    }
}

pub(crate) fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, text));
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}
