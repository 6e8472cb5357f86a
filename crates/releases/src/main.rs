//! `releasectl`: the release store of this host.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use releases::{
    Error, Result, Store, activate, boot,
    host::{say, without_controls},
    install, prune, rollback, socket, status,
    validate::{self, Trial},
};

/// Installs releases of the service, switches between them without losing a request, and goes back.
#[derive(Parser)]
#[command(name = "releasectl", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Work on the files of another host below DIR (an image): links are flipped, nothing is started
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// How long to wait for another releasectl that changes this host
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60)]
    lock_wait: u64,
}

const AFTER_HELP: &str = "\
A deployment is three verbs:  install BUNDLE, activate BUNDLE, validate BUNDLE
Going back is one:            rollback

Exit codes: 0 done; 1 it failed, and the last lines say what is serving; 2 bad input, nothing was changed.";

#[derive(Subcommand)]
enum Verb {
    /// Verify a bundle and copy it into the store; nothing is started
    Install {
        /// The archive, or the folder that it was unpacked to
        bundle: PathBuf,
    },
    /// Start an instance of a release, make it current once it is ready, retire the one before
    Activate(Named),
    /// Ask through the public socket until the current release answers; bring the last good one back if it does not
    Validate {
        /// A release id, or its bundle, as an archive or unpacked; the current release where it is left out
        #[arg(value_name = "RELEASE")]
        release: Option<String>,
        #[command(flatten)]
        within: Within,
        /// How long the release has to go on answering, its instance alive
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        bake: u64,
        #[command(flatten)]
        keep: Keep,
    },
    /// Go back to the newest validated release that was activated before the current one, or to RELEASE
    Rollback {
        /// A release id; `releasectl list` shows them
        #[arg(value_name = "RELEASE")]
        release: Option<String>,
        #[command(flatten)]
        within: Within,
    },
    /// Put a fresh instance of the current release in the place of the one that serves: a changed /etc/app/env takes effect
    Restart,
    /// Start the current release where nobody serves (app.service runs this)
    Boot,
    /// Remove releases that nobody needs any more; a good validate does the same
    Prune(Keep),
    /// Keep a release whatever is pruned
    Pin(Named),
    /// Let a pinned release be pruned again
    Unpin(Named),
    /// Show what is current, the instances, and what they still drain
    Status(Shape),
    /// Show the releases in the store
    List(Shape),
    /// The listening socket, which deployments never touch
    #[command(subcommand)]
    Socket(SocketVerb),
}

#[derive(Subcommand)]
enum SocketVerb {
    /// Replace the host's app.socket by the current release's; connections are refused meanwhile
    Apply,
}

#[derive(Args)]
struct Named {
    /// A release id, or its bundle, as an archive or unpacked
    release: String,
}

#[derive(Args)]
struct Within {
    /// How long the release may take to answer ten fresh connections in a row
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    within: u64,
}

#[derive(Args)]
struct Keep {
    /// How many validated releases are kept, beside the current one, what a rollback needs, pinned ones, and those in use
    #[arg(long, value_name = "N", default_value_t = prune::KEEP)]
    keep: usize,
}

#[derive(Args)]
struct Shape {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    // Releases are readable by the service, whoever's shell this is run from.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("releasectl: {}", without_controls(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let root = absolute(&cli.root)?;
    let store = Store::open(&root, Duration::from_secs(cli.lock_wait));
    match cli.verb {
        Verb::Install { bundle } => install::install(&store, &bundle).map(drop),
        Verb::Activate(Named { release }) => activate::activate(&store, &activate::resolve(&release)?),
        Verb::Validate { release, within, bake, keep } => {
            let id = release.as_deref().map(activate::resolve).transpose()?;
            let (within, bake) = (Duration::from_secs(within.within), Duration::from_secs(bake));
            validate::validate(&store, id, Trial { within, bake, keep: Some(keep.keep) })
        }
        Verb::Rollback { release, within } => {
            let id = release.as_deref().map(activate::resolve).transpose()?;
            let (within, bake) = (Duration::from_secs(within.within), Duration::ZERO);
            rollback::rollback(&store, id, Trial { within, bake, keep: None })
        }
        Verb::Restart => activate::restart(&store),
        Verb::Boot => boot::boot(&store),
        Verb::Prune(Keep { keep }) => prune::prune(&store, keep),
        Verb::Pin(Named { release }) => prune::pin(&store, &activate::resolve(&release)?, true),
        Verb::Unpin(Named { release }) => prune::pin(&store, &activate::resolve(&release)?, false),
        Verb::Status(shape) => {
            let status = status::status(&store)?;
            print(&shape, &status, || status::render_status(&store, &status))
        }
        Verb::List(shape) => {
            let listed = status::list(&store)?;
            print(&shape, &listed, || status::render_list(&listed))
        }
        Verb::Socket(SocketVerb::Apply) => socket::apply(&store),
    }
}

fn absolute(root: &Path) -> Result<PathBuf> {
    root.canonicalize().map_err(|source| Error::Root { path: root.to_owned(), source })
}

fn print(shape: &Shape, value: &impl serde::Serialize, text: impl FnOnce() -> String) -> Result<()> {
    let json = || serde_json::to_string_pretty(value).unwrap_or_default();
    say(&if shape.json { json() } else { text() });
    Ok(())
}
