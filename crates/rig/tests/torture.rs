//! A part of `just torture`, other steps of each kind of trial.

use clap::ValueEnum;
use rig::torture::{self, Verb};

#[test]
fn a_part_of_all_steps_is_interrupted_and_nothing_is_broken_or_lost() {
    assert!(torture::run(Verb::value_variants(), 29).unwrap());
}
