//! A part of `just powercut`.

#[test]
fn what_was_reported_as_done_outlives_power_cuts_and_without_the_syncs_it_does_not() {
    assert!(rig::findings::print(&rig::powercut::run(20).unwrap()));
}
