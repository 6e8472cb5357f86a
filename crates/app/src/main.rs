//! The example product: replace the router by your own.

mod config;
mod line;
mod requests;
mod router;
mod samples;

use std::process::ExitCode;

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, registry, util::SubscriberInitExt};

use crate::{
    config::Config,
    line::{Begin, End},
};

/// h2 warns of frames that a client may send without end, and whoever logs waits for the journal. APP_LOG may say otherwise.
const QUIET: &str = "h2=error";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the journal's under systemd, and may come before the log is set up.
            eprintln!("app: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_env()?;
    log(&config)?;
    let server = serve::Server::from_env()?;
    Ok(server.run(async { Ok::<_, serve::Error>(router::router(config)) })?)
}

/// To journald in its own fields where standard error is the journal (systemd.exec(5), JOURNAL_STREAM), else for people.
fn log(config: &Config) -> Result<(), Box<dyn std::error::Error>> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.log))
        .map_err(|error| format!("APP_LOG={:?}: {error}", config.log))?;
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let person = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal);
    match journal {
        Some(journal) => registry().with(filter).with(Begin).with(journal).with(End).init(),
        None => registry().with(filter).with(Begin).with(person).with(End).init(),
    }
    Ok(())
}
