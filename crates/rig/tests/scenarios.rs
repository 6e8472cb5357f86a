//! A part of `just scenarios`.

use rig::scenarios::{self, Pass};

#[test]
fn whatever_the_agent_does_to_our_bundle_nothing_is_lost_and_the_next_deployment_succeeds() {
    assert!(scenarios::run(Pass::Short, &[]).unwrap());
}
