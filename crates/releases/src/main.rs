//! `releasectl`: the release store of this host.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use releases::{
    Error, Result, Store, activate, boot,
    cli::{Cli, Keep, Named, Shape, SocketVerb, Verb},
    doctor, history, install, prune, rollback,
    screen::{self, json_for_terminal, say, without_controls},
    socket, status,
    uninstall::{self, Consent, Extent},
    validate::{self, Trial},
};

fn main() -> ExitCode {
    // Releases are readable by the service, whoever's shell this is run from.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let cli = Cli::parse();
    let store = match absolute(&cli.root) {
        Ok(root) => Store::open(&root, Duration::from_secs(cli.lock_wait)),
        Err(error) => return fail(&error, None),
    };
    let is_of_a_deployment = cli.verb.is_of_a_deployment();
    match run(&store, cli.verb) {
        Ok(code) => code,
        Err(error) => fail(&error, is_of_a_deployment.then(|| status::serving(&store)).flatten()),
    }
}

/// Says what went wrong, and, of a deployment, what is serving all the same.
fn fail(error: &Error, serving: Option<String>) -> ExitCode {
    let code = error.exit_code();
    let text = match serving {
        Some(serving) if code == 2 => format!("{error}; nothing was changed; {serving}"),
        Some(serving) if !matches!(error, Error::Release(_)) => {
            format!("{error}\nwhen that is mended, run the deployment again\n{serving}")
        }
        _ => error.to_string(),
    };
    eprintln!("releasectl: {}", without_controls(&text));
    ExitCode::from(code)
}

fn run(store: &Store, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Install { bundle } => install::install(store, &bundle).map(drop),
        Verb::Activate(Named { release }) => activate::activate(store, &activate::resolve(&release)?),
        Verb::Validate { release, within, bake, keep } => {
            let id = release.as_deref().map(activate::resolve).transpose()?;
            let (within, bake) = (Duration::from_secs(within.within), Duration::from_secs(bake));
            validate::validate(store, id, Trial { within, bake, keep: Some(keep.keep) })
        }
        Verb::Rollback { release, within } => {
            let id = release.as_deref().map(activate::resolve).transpose()?;
            let (within, bake) = (Duration::from_secs(within.within), Duration::ZERO);
            rollback::rollback(store, id, Trial { within, bake, keep: None })
        }
        Verb::Restart => activate::restart(store),
        Verb::Boot => boot::boot(store),
        Verb::Prune(Keep { keep }) => prune::prune(store, keep),
        Verb::Pin(Named { release }) => prune::pin(store, &activate::resolve(&release)?, true),
        Verb::Unpin(Named { release }) => prune::pin(store, &activate::resolve(&release)?, false),
        Verb::Status(shape) => {
            let status = status::status(store)?;
            print(&shape, &status, || status::render_status(store, &status, screen::columns()))
        }
        Verb::List(shape) => {
            let listed = status::list(store)?;
            print(&shape, &listed, || status::render_list(&listed, screen::columns()))
        }
        Verb::History { last, shape } => {
            let receipts = history::history(store, last)?;
            print(&shape, &receipts, || history::render_history(&receipts, screen::columns()))
        }
        Verb::Show { receipt, shape } => {
            let receipt = history::find(store, receipt)?;
            print(&shape, &receipt, || history::render_receipt(&receipt, screen::columns()))
        }
        Verb::Doctor(shape) => {
            let findings = doctor::doctor(store)?;
            print(&shape, &findings, || doctor::render(&findings))?;
            return Ok(doctor::exit_code(&findings));
        }
        Verb::Uninstall { yes, purge } => {
            let extent = if purge { Extent::Everything } else { Extent::Product };
            uninstall::uninstall(store, extent, if yes { Consent::Given } else { Consent::Asked })
        }
        Verb::Socket(SocketVerb::Apply) => socket::apply(store),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn absolute(root: &Path) -> Result<PathBuf> {
    root.canonicalize().map_err(|source| Error::Root { path: root.to_owned(), source })
}

fn print(shape: &Shape, value: &impl serde::Serialize, text: impl FnOnce() -> String) -> Result<()> {
    let json = || json_for_terminal(&serde_json::to_string_pretty(value).unwrap_or_default());
    say(&if shape.json { json() } else { text() });
    Ok(())
}
