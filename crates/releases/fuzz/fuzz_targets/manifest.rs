//! Whatever is parsed as a manifest leads nowhere but below a release, and is one again when it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use releases::Manifest;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    for file in &manifest.files {
        assert!(!file.path.starts_with('/') && file.path.split('/').all(|part| !["", ".", ".."].contains(&part)));
        assert!(file.path.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!([0o644, 0o755].contains(&file.mode()));
    }
    assert!(!manifest.label.chars().any(char::is_control));
    Manifest::parse(&serde_json::to_vec(&manifest).unwrap()).expect("it is sound when it is written again");
});
