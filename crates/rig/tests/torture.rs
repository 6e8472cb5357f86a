//! A part of `just torture`, other steps of each kind of trial.

use clap::ValueEnum;
use rig::{
    findings,
    steps::{self, Verb},
};

#[test]
fn a_part_of_all_steps_is_interrupted_and_nothing_is_broken_or_lost() {
    assert!(findings::print(&steps::run(Verb::value_variants(), 29).unwrap()));
}
