//! The whole story on real hosts: systemd, sockets, signals and kills as they are.

mod boot;
mod bundles;
mod candidates;
mod deploy;
mod handover;
mod input;
mod rigging;
mod runbook;
mod tools;
