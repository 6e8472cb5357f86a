//! The whole story on real hosts: systemd, sockets, signals and kills as they are.

mod agent;
mod bake;
mod boot;
mod bundles;
mod candidates;
mod clients;
mod codedeploy;
mod deploy;
mod doctor;
mod handover;
mod input;
mod programs;
mod prune;
mod receipts;
mod rigging;
mod runbook;
mod ship;
mod together;
mod tools;
mod uninstall;
mod user_data;
mod way_back;
