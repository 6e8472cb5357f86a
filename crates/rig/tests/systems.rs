//! `just systems`, with a bundle that bakes for no time.

use releases::bundle::Contents;
use rig::{
    matrix::{Bundles, Row},
    system::System,
};

#[test]
fn the_same_bundle_tells_its_whole_story_on_each_system() {
    let mut contents = Contents::build(rig::workspace()).unwrap();
    let validate = "#!/bin/sh\ncd \"${0%/*}/..\" || exit 1\nexec bin/releasectl validate . --bake 0\n";
    contents.put("hooks/validate-service", 0o755, validate.as_bytes());
    let bundles = Bundles::pack(&contents).unwrap();
    let faults: Vec<_> = System::ALL.iter().flat_map(|system| Row::of(*system, &bundles).unwrap().faults()).collect();
    assert_eq!(faults, Vec::<String>::new());
}

/// The run puts it there.
#[test]
fn the_readme_has_each_systems_row() {
    let text = std::fs::read_to_string(rig::workspace().join("README.md")).unwrap();
    for system in System::ALL {
        let row = text.lines().find(|line| line.starts_with(&format!("| {system} |")));
        assert!(row.is_some_and(|row| row.ends_with("| 0 |") && !row.contains("failed")), "{system}: {row:?}");
    }
}
