//! What a person types: the verbs of `releasectl`, and the text of its help, manual page and completions.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::prune;

/// Installs releases of the service, switches between them without losing a request, and goes back.
#[derive(Parser)]
#[command(name = "releasectl", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Work on the files of another host below DIR (an image): links are flipped, nothing is started
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// How long to wait for another releasectl that changes this host
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60)]
    pub lock_wait: u64,
}

const AFTER_HELP: &str = "\
A deployment is three verbs: install BUNDLE, activate BUNDLE, validate BUNDLE.

Going back is one: rollback.

Exit codes: 0 done; 1 it failed, and the last lines say what is serving; 2 bad input, nothing was changed.
doctor: 0 sound, 3 warnings, 4 broken.";

/// A verb; each one's help ends with an example.
#[derive(Subcommand)]
pub enum Verb {
    /// Verify a bundle and copy it into the store; nothing is started
    #[command(after_help = "Example: releasectl install app-3f2a4b5c6d7e8f90.tgz")]
    Install {
        /// The archive, or the folder that it was unpacked to
        bundle: PathBuf,
    },
    /// Start an instance of a release, make it current once it is ready, retire the one before
    #[command(after_help = "Example: releasectl activate 3f2a4b5c6d7e8f90")]
    Activate(Named),
    /// Ask through the public socket until the current release answers; bring the last good one back if it does not
    #[command(after_help = "Example: releasectl validate --bake 30")]
    Validate {
        /// A release id, or its bundle, as an archive or unpacked; the current release where it is left out
        #[arg(value_name = "RELEASE")]
        release: Option<String>,
        /// The time limit.
        #[command(flatten)]
        within: Within,
        /// How long the release has to go on answering, its instance alive
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        bake: u64,
        /// What the prune after it leaves.
        #[command(flatten)]
        keep: Keep,
    },
    /// Go back to the newest validated release that was activated before the current one, or to RELEASE
    #[command(after_help = "Example: releasectl rollback")]
    Rollback {
        /// A release id; `releasectl list` shows them
        #[arg(value_name = "RELEASE")]
        release: Option<String>,
        /// The time limit.
        #[command(flatten)]
        within: Within,
    },
    /// Put a fresh instance of the current release in the place of the one that serves: a changed /etc/app/env takes effect
    #[command(after_help = "Example: editor /etc/app/env; releasectl restart")]
    Restart,
    /// Start the current release where nobody serves (app.service runs this)
    #[command(after_help = "Example: systemctl start app.service")]
    Boot,
    /// Remove releases that nobody needs any more; a good validate does the same
    #[command(after_help = "Example: releasectl prune --keep 2")]
    Prune(Keep),
    /// Keep a release whatever is pruned
    #[command(after_help = "Example: releasectl pin 3f2a4b5c6d7e8f90")]
    Pin(Named),
    /// Let a pinned release be pruned again
    #[command(after_help = "Example: releasectl unpin 3f2a4b5c6d7e8f90")]
    Unpin(Named),
    /// Show what is current, the instances, and what they still drain
    #[command(after_help = "Example: watch -n 1 releasectl status")]
    Status(Shape),
    /// Show the releases in the store
    #[command(after_help = "Example: releasectl list --json | jq '.[] | select(.bad)'")]
    List(Shape),
    /// Show what was activated when, and how it ended
    #[command(after_help = "Example: releasectl history --last 5")]
    History {
        /// How many of the last ones
        #[arg(long, value_name = "N", default_value_t = 20)]
        last: usize,
        /// How it is printed.
        #[command(flatten)]
        shape: Shape,
    },
    /// Show one activation: its steps, its connections, what clients felt, and how it ended
    #[command(after_help = "Example: releasectl show 12")]
    Show {
        /// Its number, as `releasectl history` has it
        receipt: u64,
        /// How it is printed.
        #[command(flatten)]
        shape: Shape,
    },
    /// Look at everything on this host that the service needs, and say what is wrong and what to do
    #[command(after_help = "Example: releasectl doctor || mail -s 'app needs a look' root")]
    Doctor(Shape),
    /// Take the product off this host: the service ends politely; units, releases and releasectl go
    #[command(after_help = "Example: releasectl uninstall --purge")]
    Uninstall {
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Remove /etc/app, /var/lib/app and the user app as well
        #[arg(long)]
        purge: bool,
    },
    /// The listening socket, which deployments never touch
    #[command(after_help = "Example: releasectl socket apply")]
    #[command(subcommand)]
    Socket(SocketVerb),
}

impl Verb {
    /// Whether a deployment, or the way back from one, calls it.
    pub fn is_of_a_deployment(&self) -> bool {
        use Verb::{Activate, Install, Restart, Rollback, Validate};
        matches!(self, Install { .. } | Activate(_) | Validate { .. } | Rollback { .. } | Restart)
    }
}

/// Of the socket.
#[derive(Subcommand)]
pub enum SocketVerb {
    /// Replace the host's app.socket by the current release's; connections are refused meanwhile
    #[command(after_help = "Example: releasectl socket apply")]
    Apply,
}

/// A release.
#[derive(Args)]
pub struct Named {
    /// A release id, or its bundle, as an archive or unpacked
    pub release: String,
}

/// The time limit of asking.
#[derive(Args)]
pub struct Within {
    /// How long the release may take to answer ten fresh connections in a row
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub within: u64,
}

/// How much a prune leaves.
#[derive(Args)]
pub struct Keep {
    /// How many validated releases are kept, beside the current one, what a rollback needs, pinned ones, and those in use
    #[arg(long, value_name = "N", default_value_t = prune::KEEP)]
    pub keep: usize,
}

/// How it is printed.
#[derive(Args)]
pub struct Shape {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
