//! What people run on their own machine, as it was built with these tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// A program of `releases`, built once.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "-q", "-p", "releases", "--features", "bundle", "--bin", "ship", "--bin", "codedeploy"]);
        assert!(build.current_dir(rig::workspace()).status().unwrap().success());
        // Beside the folder that this test is in.
        std::env::current_exe().unwrap().ancestors().nth(2).map(Path::to_owned).unwrap()
    });
    folder.join(name)
}
