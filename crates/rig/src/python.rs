//! Programs of Python's package index, each list of them in a virtual environment of its own below `target/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::machine;

/// What is in an environment, written last: without it, it was not made to its end.
const STAMP: &str = "requirements.txt";

/// The folder of its programs. `name` is its folder below `target/`, and `requirements` what pip takes, pinned by version; it is
/// made once, and made anew where they have changed.
///
/// # Panics
/// In one line, where pip does not bring them: a test without its tools has shown nothing.
pub fn environment(name: &str, requirements: &[&str]) -> PathBuf {
    let target = crate::workspace().join("target");
    let folder = target.join(name);
    let lock = target.join(format!("{name}.lock"));
    // Tests, and processes of tests, ask for it at the same time.
    let _held = machine::lock(&lock.to_string_lossy()).unwrap_or_else(|error| panic!("{error}"));
    let wanted = requirements.join("\n") + "\n";
    if fs::read_to_string(folder.join(STAMP)).is_ok_and(|made| made == wanted) {
        return folder.join("bin");
    }
    make(&folder, requirements).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    fs::write(folder.join(STAMP), wanted).expect("the target folder is ours");
    folder.join("bin")
}

fn make(folder: &Path, requirements: &[&str]) -> Result<(), String> {
    let _ = fs::remove_dir_all(folder);
    let venv = || run(Command::new("python3").args(["-m", "venv"]).arg(folder));
    // Debian's Python has what it needs for that in a package of its own.
    venv().or_else(|_| machine::install(&["python3-venv"]).and_then(|()| venv()))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-input"]).args(requirements);
    run(&mut pip)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}: {}", output.status, said.trim())) }
}
