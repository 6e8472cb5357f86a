//! The table of the README: each kind of client over many activations, one kind at a time.

use std::{
    io,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use releases::bundle;

use crate::{
    Load, Mode, Report, report,
    succession::{Runtime, Succession},
};

/// The servers that can be compared, with the same router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Server {
    /// The product
    App,
    /// `axum::serve` with its graceful shutdown
    Stock,
}

impl Server {
    /// Builds it as a bundle's programs are.
    ///
    /// # Errors
    /// Where cargo does not start, or fails.
    pub fn build(self) -> io::Result<PathBuf> {
        match self {
            Self::App => {
                let built = bundle::programs(crate::workspace());
                built.map(|folder| folder.join("app")).map_err(io::Error::other)
            }
            Self::Stock => example("stock"),
        }
    }
}

/// An example of the product's package, built as a bundle's programs are. All of them are built at once: their dependencies
/// have features that no bundle's have, and are built once for all.
///
/// # Errors
/// Where cargo does not start, or fails.
pub(crate) fn example(name: &str) -> io::Result<PathBuf> {
    let built = bundle::build(crate::workspace(), &["--package", "app", "--examples"]);
    built.map(|folder| folder.join("examples").join(name)).map_err(io::Error::other)
}

/// Runs it, telling what happens; returns whether nothing was lost, and every run had what it must have.
///
/// # Errors
/// Where the server does not start, or an instance does not become ready.
pub fn run(server: Server, modes: &[Mode], activations: u32, every: Option<Duration>) -> io::Result<bool> {
    let program = server.build()?;
    let (mut reports, mut is_good) = (Vec::new(), true);
    for mode in modes {
        let (report, lacks) = one(&program, Runtime::Shared, *mode, activations, activations, every)?;
        eprintln!("{mode}: {} sent, lost: {}", report.sent(), report.losses());
        if let Some(lack) = lacks {
            eprintln!("{mode}: the run shows nothing: {lack}");
        }
        is_good &= lacks.is_none() && report.lost() == 0;
        reports.push(report);
    }
    println!("{}", report::table(&reports));
    Ok(is_good)
}

/// One kind of client over some activations, and as long as if there were `rounds` of them.
pub(crate) fn one(
    program: &std::path::Path,
    runtime: Runtime,
    mode: Mode,
    activations: u32,
    rounds: u32,
    every: Option<Duration>,
) -> io::Result<(Report, Option<&'static str>)> {
    let mut succession = Succession::start(program, runtime)?;
    let load = Load::start_at(succession.address()?, mode, mode.clients());
    let mut spans = Vec::new();
    // Until every client is in the midst of it.
    let mut next = Instant::now() + Duration::from_secs(2);
    for n in 0..rounds {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        if n < activations {
            spans.push(succession.activate()?);
        }
        next += every.unwrap_or(mode.between_activations());
    }
    thread::sleep(next.saturating_duration_since(Instant::now()));
    let report = load.stop();
    let lacks = spans.iter().find_map(|span| report.lacks(*span));
    let lacks = lacks.or((!succession.end()).then_some("an instance did not end"));
    Ok((report, lacks))
}
