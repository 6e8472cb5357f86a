//! A folder for a while: dropping it, or the end of this process, however it ends, takes it away.

use std::{
    io::{self, BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Its standard input is the life line.
const KEEPER: &str = "folder=$(mktemp -d) && echo \"$folder\" && cat >/dev/null; rm -rf \"$folder\"";

#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    keeper: Child,
}

impl Scratch {
    /// # Errors
    /// Where the system has no place for it.
    pub fn make() -> io::Result<Self> {
        let mut command = Command::new("sh");
        // Its own process group: an interrupt from the terminal is for us, and the keeper must live to clean up.
        command.args(["-c", KEEPER]).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn()?;
        let mut path = String::new();
        BufReader::new(keeper.stdout.take().expect("its output is piped")).read_line(&mut path)?;
        let scratch = Self { path: PathBuf::from(path.trim_end()), keeper };
        if scratch.path.is_dir() { Ok(scratch) } else { Err(io::Error::other("mktemp -d made no folder")) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Waiting closes the life line first.
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_what_is_in_it() {
        let scratch = Scratch::make().unwrap();
        let folder = scratch.path().to_owned();
        std::fs::write(folder.join("a"), "a").unwrap();
        drop(scratch);
        assert!(!folder.exists());
    }
}
