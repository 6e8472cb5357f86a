//! `codedeploy push|deploy|rollback|watch`: CodeDeploy by the AWS CLI.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, builder::NonEmptyStringValueParser};
use releases::{
    Result, bundle,
    codedeploy::{self, Bucket, Group, Id, Watcher},
    manifest::APP,
    screen::without_controls,
};

/// Pushes bundles to S3, and has CodeDeploy deploy them to a group or go back; by your AWS CLI, with its profile and region
#[derive(Parser)]
#[command(bin_name = "cargo codedeploy", max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, on each host; 1 it failed, or was not seen to its end, and the last lines say what goes on; 2 bad input, or AWS
refused, and nothing was changed.";

#[derive(Subcommand)]
enum Verb {
    /// Upload a bundle to BUCKET and register it; the last line is the revision, for `deploy --revision`
    #[command(after_help = "Example: cargo codedeploy push my-releases")]
    Push {
        /// An S3 bucket in the region of the deployment group
        bucket: Bucket,
        /// The bundle; without it, one is made of this commit
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
        /// CodeDeploy's application
        #[arg(long, value_name = "NAME", default_value = APP, value_parser = NonEmptyStringValueParser::new())]
        application: String,
    },
    /// Deploy the revision that was registered last, and watch: a line for each host, and why one failed
    #[command(after_help = "Example: cargo codedeploy deploy web")]
    Deploy {
        /// To what.
        #[command(flatten)]
        on: On,
        /// Another revision: s3://BUCKET/KEY as `push` prints it, or the key alone where it is registered
        #[arg(long, value_name = "REVISION", value_parser = NonEmptyStringValueParser::new())]
        revision: Option<String>,
    },
    /// Deploy the revision before once more; again, and it goes further back. Stops what is under way first
    #[command(after_help = "Example: cargo codedeploy rollback web")]
    Rollback(On),
    /// Watch a deployment that is under way
    #[command(after_help = "Example: cargo codedeploy watch d-ABCDEFGHI")]
    Watch {
        /// Its id
        deployment: Id,
        /// For how long.
        #[command(flatten)]
        within: Within,
    },
}

#[derive(Args)]
struct On {
    /// A deployment group
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    group: String,
    /// CodeDeploy's application
    #[arg(long, value_name = "NAME", default_value = APP, value_parser = NonEmptyStringValueParser::new())]
    application: String,
    /// For how long it is watched.
    #[command(flatten)]
    within: Within,
}

#[derive(Args)]
struct Within {
    /// Watch no longer; the deployment goes on. 0 for no limit. An hour is what CodeDeploy gives one host, as long as most logins
    /// last, and enough for 200 hosts one after the other
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    time_limit: u64,
}

impl Within {
    fn watcher(&self) -> Result<Watcher> {
        Watcher::begin((self.time_limit > 0).then(|| Duration::from_secs(self.time_limit)))
    }
}

impl On {
    fn group(&self) -> Group {
        Group { application: self.application.clone(), name: self.group.clone() }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("codedeploy: {}", without_controls(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Push { bucket, bundle, application } => {
            // Making one takes minutes, after which nobody wants to hear that they have to log in.
            if bundle.is_none() {
                codedeploy::who_asks()?;
            }
            codedeploy::push(&bundle::given_or_made(bundle)?, &bucket, &application)
        }
        Verb::Deploy { on, revision } => codedeploy::deploy(&on.group(), revision.as_deref(), &on.within.watcher()?),
        Verb::Rollback(on) => codedeploy::rollback(&on.group(), &on.within.watcher()?),
        Verb::Watch { deployment, within } => codedeploy::watch(&deployment, &within.watcher()?),
    }
}
