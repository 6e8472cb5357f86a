//! A part of `just fleet`.

use releases::bundle::Contents;
use rig::fleet::Fleet;

/// No whole half, and one host more than a batch.
const HOSTS: u8 = 3;

#[test]
fn a_fleet_is_deployed_to_and_rolled_back_behind_a_balancer_and_stopping_and_starting_loses() {
    let contents = Contents::build(rig::workspace()).unwrap();
    let rows = Fleet::boot(HOSTS, &contents).unwrap().few().unwrap();
    let faults: Vec<_> = rows.iter().flat_map(|row| row.faults.iter().map(move |fault| (&row.name, fault))).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let lost: Vec<bool> = rows.iter().map(|row| row.lost() > 0).collect();
    assert_eq!(lost, [false, false, true]);
    assert!(rows.iter().all(|row| row.sent() > 0));
}
