//! Real hosts to deploy to, the agent that deploys, and clients that notice everything.
//!
//! - [`Host`]: a systemd host of its own, booted on this machine in about a second, gone without a trace when dropped.
//! - [`Agent`]: deploys a bundle to it as CodeDeploy's agent does.
//! - [`Load`]: clients that never retry, and give every request exactly one [`Outcome`](outcome::Outcome).

pub mod agent;
pub mod bench;
mod chart;
pub mod client;
pub mod codedeploy;
pub mod crowd;
pub mod demo;
pub mod findings;
pub mod fleet;
pub mod host;
pub mod load;
pub mod lossless;
pub mod machine;
pub mod matrix;
pub mod outcome;
pub mod powercut;
pub mod python;
mod readme;
pub mod report;
pub mod rollout;
pub mod scenarios;
mod scratch;
pub mod soak;
pub mod sshd;
pub mod steps;
pub mod subject;
pub mod succession;
pub mod system;
pub mod table;
mod talk;
pub mod torture;
mod trace;

pub use agent::{Agent, Deployment};
pub use host::Host;
pub use load::{Load, Mode};
pub use report::Report;

use std::path::Path;

/// The checkout that this was built in: what the rig bundles and deploys.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
