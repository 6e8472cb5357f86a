//! `ship HOST...`: deploys a bundle, or goes back, on hosts that ssh reaches.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use releases::{
    Result, bundle,
    interrupt::Interrupt,
    screen::without_controls,
    ship::{self, Shipment, Ssh},
};

/// Copies a bundle to hosts over ssh and deploys it there, one host after the other; the first that fails is the last
#[derive(Parser)]
#[command(bin_name = "cargo ship", max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    /// The bundle; without it, one is made of this commit
    #[arg(long, value_name = "FILE", conflicts_with = "rollback")]
    bundle: Option<PathBuf>,
    /// Go back on each host instead, by its own `releasectl rollback`
    #[arg(long)]
    rollback: bool,
    /// ssh's configuration in the place of yours, as `ssh -F`
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
    /// What ssh takes: user@host, or a name of your ssh configuration. A user that is not root needs sudo without a password
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
}

const AFTER_HELP: &str = "\
Example: cargo ship deploy@one.example deploy@two.example

Interrupted (^C), it says how far it came: what has begun on a host goes on there, by systemd; ship again, and it converges.

Exit codes: 0 done on all hosts; 1 it failed on one, which the last lines name; 2 bad input, and no host was asked.";

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ship: {}", without_controls(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let shipment =
        if cli.rollback { Shipment::rollback() } else { Shipment::read(&bundle::given_or_made(cli.bundle)?)? };
    let interrupt = Interrupt::heed()?;
    ship::ship(&shipment, &Ssh { config: cli.ssh_config, interrupt }, &cli.hosts)
}
