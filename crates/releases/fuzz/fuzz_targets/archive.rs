//! Whatever is verified as an archive gives each file of its manifest once, as the manifest says, and nothing else.
//!
//! The input is a tar archive: gzip's checksum would keep the fuzzer out.
#![no_main]

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    sync::LazyLock,
};

use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use releases::source::Source;
use tempfile::NamedTempFile;

static FILE: LazyLock<NamedTempFile> = LazyLock::new(|| NamedTempFile::new_in("/dev/shm").unwrap());

fuzz_target!(|tar: &[u8]| {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(tar).unwrap();
    fs::write(FILE.path(), gzip.finish().unwrap()).unwrap();
    let Ok(source) = Source::read(FILE.path()) else { return };
    if source.verify().is_err() {
        return;
    }
    let mut missing: BTreeSet<_> = source.manifest.files.iter().map(|file| file.path.clone()).collect();
    let copied = source.copy_each(|file, from, _| {
        assert!(missing.remove(&file.path));
        assert_eq!(io::copy(from, &mut io::sink()).unwrap(), file.size);
        Ok(())
    });
    copied.expect("what was verified can be copied");
    assert!(missing.is_empty());
});
