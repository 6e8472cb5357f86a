//! `rig`: real hosts for people who want to look.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use rig::{
    Agent, Host, Mode, agent,
    bench::{self, Effort},
    demo, findings, fleet,
    lossless::{self, Plan},
    machine, matrix, powercut,
    scenarios::{self, Pass},
    soak, steps,
    table::{self, Server},
    torture,
};

/// Boots real systemd hosts on this machine, and deploys to them.
#[derive(Parser)]
#[command(name = "rig", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Deploy, replace and roll back on a real host, under load; exits with 1 if a request was lost
    Demo,
    /// Load a server with each kind of client in turn, over many activations; exits with 1 if a request was lost
    Table {
        /// What serves
        #[arg(long, default_value = "app")]
        server: Server,
        /// How many activations each kind of client sees
        #[arg(long, default_value_t = 110)]
        activations: u32,
        /// How far apart they are [default: 200, and more where clients need it to come to rest]
        #[arg(long, value_name = "MILLISECONDS")]
        every: Option<u64>,
        /// The kinds of clients [default: all]
        modes: Vec<Mode>,
    },
    /// Load a real host with each kind of client over many activations; exits with 1 if a request was lost, or an HTTP/1.1
    /// connection closed
    Lossless {
        /// How many activations each kind of client sees
        #[arg(long, default_value_t = 110)]
        activations: usize,
        /// Instead: all kinds at once for so long, and see that the last instance holds no more than the tenth
        #[arg(long, value_name = "MINUTES")]
        soak: Option<u64>,
        /// The kinds of clients [default: all, all at once with 2000 connections, and servers that must lose or close]
        modes: Vec<Mode>,
    },
    /// Everything that may happen to a host: verbs killed and failing at each step, power cuts, bad disks, bundles and
    /// releases, many at once; exits with 1 if anything was broken or lost
    Torture {
        /// Of each kind, only every so manieth step
        #[arg(long, default_value_t = 1)]
        every: usize,
        /// Only these verbs, interrupted at their steps [default: all, and all the rest]
        verbs: Vec<steps::Verb>,
    },
    /// Cut the power at so many moments of deployments and rollbacks; exits with 1 if anything reported as done was lost, or
    /// anything was torn
    Powercut {
        /// How often, and as often without the syncs, which must be found out
        #[arg(default_value_t = 200)]
        cuts: usize,
    },
    /// Deploy so many times in a row under load; exits with 1 if a request was lost, or the host holds more than after ten
    Soak {
        /// How often
        #[arg(default_value_t = 1000)]
        deployments: usize,
    },
    /// Deploy BUNDLE to a fresh host as CodeDeploy's agent does, and show it as its console would; exits with 1 if it failed
    Agent {
        /// A bundle as `just bundle` makes it, or another archive with an appspec
        bundle: PathBuf,
        /// Which agent
        #[arg(long, value_name = "VERSION", default_value = "v1")]
        agent: agent::Version,
    },
    /// The whole story of one bundle on each system, Debian 11 to 13; the matrix goes into the README
    Systems,
    /// Five hosts behind a balancer, deployed to as CodeDeploy goes over a fleet; exits with 1 if a request was lost that must not
    /// be, or what it is held against does no worse
    Fleet,
    /// Everything that CodeDeploy's agent may do to our bundle, under load; exits with 1 if anything was lost or unexpected
    Scenarios {
        /// One of each kind
        #[arg(long)]
        short: bool,
        /// Only those whose names contain one of these [default: all]
        names: Vec<String>,
    },
    /// Install the packages that hosts need, and build what is deployed to them: no test shares the machine with a compiler then
    Prepare,
    /// Measure what it costs beside its peers; the report goes to target/bench
    Bench {
        /// Each figure once and briefly, to see that it works
        #[arg(long)]
        short: bool,
        /// Instead: put the last whole run into crates/rig/bench and its headline into the README
        #[arg(long, conflicts_with_all = ["short", "chapters"])]
        publish: bool,
        /// Only these chapters [default: all]
        chapters: Vec<String>,
    },
    /// Boot a host, deploy BUNDLE to it if one is given, and run COMMAND in it (a shell, if none is given)
    Host {
        /// A bundle as `just bundle` makes it
        #[arg(long)]
        bundle: Option<PathBuf>,
        /// What to run; the host goes away when it ends
        #[arg(last = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    if let Verb::Table { server, activations, every, modes } = verb {
        let modes = if modes.is_empty() { Mode::ALL } else { &modes };
        return match table::run(server, modes, activations, every.map(Duration::from_millis)) {
            Ok(is_good) => ExitCode::from(u8::from(!is_good)),
            Err(error) => failed(&error),
        };
    }
    if let Verb::Bench { publish: true, .. } = verb {
        return match bench::publish() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        };
    }
    if let Err(error) = machine::prepare() {
        return failed(&error);
    }
    let is_good = match verb {
        Verb::Table { .. } => unreachable!("it needs no host"),
        Verb::Prepare => {
            let built = rig::subject::contents().and_then(|_| Server::Stock.build());
            built.and_then(|_| bench::prepare()).map(|()| true)
        }
        Verb::Bench { short, chapters, .. } => {
            bench::run(if short { Effort::SHORT } else { Effort::WHOLE }, &chapters).map(|()| true)
        }
        Verb::Lossless { soak: Some(minutes), .. } => Ok(lossless::soak(minutes)),
        Verb::Lossless { activations, modes, soak: None } => {
            let whole = Plan::whole(activations);
            lossless::run(&if modes.is_empty() { whole } else { Plan { modes, mixed: None, controls: false, ..whole } })
        }
        Verb::Torture { every, verbs } if verbs.is_empty() => torture::run(every),
        Verb::Torture { every, verbs } => steps::run(&verbs, every).map(|found| findings::print(&found)),
        Verb::Powercut { cuts } => powercut::run(cuts).map(|found| findings::print(&found)),
        Verb::Soak { deployments } => soak::run(deployments),
        Verb::Systems => matrix::run(),
        Verb::Fleet => fleet::run(),
        Verb::Demo => Ok(demo::run()),
        Verb::Scenarios { short, names } => scenarios::run(if short { Pass::Short } else { Pass::Whole }, &names),
        Verb::Agent { bundle, agent } => read(&bundle).map(|archive| deploy(&archive, agent)),
        Verb::Host { bundle, command } => return host(bundle.as_deref(), &command),
    };
    match is_good {
        Ok(is_good) => ExitCode::from(u8::from(!is_good)),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("rig: {error}");
    ExitCode::FAILURE
}

fn read(bundle: &Path) -> io::Result<Vec<u8>> {
    let why = |error| format!("cannot read {}: {error}; `just bundle` prints the path of one", bundle.display());
    fs::read(bundle).map_err(|error| io::Error::other(why(error)))
}

fn deploy(archive: &[u8], version: agent::Version) -> bool {
    let host = Host::boot();
    let deployment = Agent::new(&host).version(version).deploy(archive);
    print!("{}", agent::tell(&deployment));
    deployment.succeeded()
}

fn host(bundle: Option<&Path>, command: &[String]) -> ExitCode {
    let archive = match bundle.map(read).transpose() {
        Ok(archive) => archive,
        Err(error) => return failed(&error),
    };
    let host = Host::boot();
    if let Some(archive) = archive {
        print!("{}", agent::tell(&Agent::new(&host).deploy(&archive)));
    }
    let (program, arguments) = command.split_first().map_or(("bash", &[][..]), |(first, rest)| (first.as_str(), rest));
    let mut command = host.command(program);
    command.args(arguments).stdin(std::process::Stdio::inherit());
    let status = command.status().map(|status| status.code().unwrap_or(1));
    ExitCode::from(status.ok().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
