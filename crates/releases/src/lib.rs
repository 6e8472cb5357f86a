//! The release store of a host, and the verbs that change what it serves.
//!
//! Guaranteed, and numbered in `releases.md`:
//!
//! - A release under `/opt/app/releases/<id>` is complete, verified and never changed, or it is not there.
//! - `current` changes only after an instance of the new release has said that it is ready.
//! - Whatever was stopped in the middle, running the same verb again, or a boot, converges.
//!
//! The verbs are functions of this library ([`install`], [`activate`], [`validate`], [`rollback`], [`boot`], [`prune`],
//! [`uninstall`]);
//! `releasectl` only parses its arguments and calls them.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod activate;
#[cfg(feature = "bundle")]
pub mod appspec;
pub mod boot;
#[cfg(feature = "bundle")]
pub mod bundle;
pub mod cli;
mod closing;
#[cfg(feature = "bundle")]
pub mod codedeploy;
pub mod doctor;
mod draft;
pub mod effect;
pub mod error;
#[cfg(feature = "faults")]
mod fault;
pub mod history;
pub mod host;
pub mod id;
pub mod install;
pub mod instance;
#[cfg(feature = "bundle")]
pub mod interrupt;
mod ledger;
mod listener;
pub mod manifest;
#[cfg(feature = "bundle")]
mod manual;
mod notify;
mod pace;
pub mod probe;
mod prober;
mod progress;
pub mod prune;
pub mod receipt;
pub mod rollback;
pub mod screen;
#[cfg(feature = "bundle")]
pub mod ship;
pub mod socket;
pub mod source;
pub mod status;
pub mod store;
mod switch;
pub mod systemd;
pub mod trail;
pub mod tree;
pub mod uninstall;
pub mod units;
pub mod validate;
mod verified;

pub use error::{Error, Result};
pub use id::ReleaseId;
pub use manifest::Manifest;
pub use store::Store;
