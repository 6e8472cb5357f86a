//! A folder for a while: dropping it, or the end of this process, however it ends, takes it away.

use std::{
    env,
    io::{self, BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// $1 is where it is made; standard input is the life line. What writes there and is killed with us may end a moment later:
/// what it made meanwhile goes the second time.
const KEEPER: &str = "mkdir -p \"$1\" && folder=$(mktemp -d -p \"$1\") || exit
    echo \"$folder\" && cat >/dev/null
    rm -rf \"$folder\" || { sleep 1 && rm -rf \"$folder\"; }";

#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    keeper: Child,
}

impl Scratch {
    /// Where the system has its own: names of sockets there are short enough (unix(7), 107 bytes).
    ///
    /// # Errors
    /// Where the system has no place for it.
    pub fn make() -> io::Result<Self> {
        Self::within(&env::temp_dir())
    }

    /// On the disk that this workspace is on: for what is large, or must not be in memory, where a system may have its own.
    ///
    /// # Errors
    /// Where that disk has no place for it.
    pub fn on_disk() -> io::Result<Self> {
        Self::within(&crate::workspace().join("target/tmp"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn within(place: &Path) -> io::Result<Self> {
        let mut command = Command::new("sh");
        // Its own process group: an interrupt from the terminal is for us, and the keeper must live to clean up.
        command.args(["-c", KEEPER, "keeper"]).arg(place).process_group(0);
        let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut path = String::new();
        BufReader::new(keeper.stdout.take().expect("its output is piped")).read_line(&mut path)?;
        let scratch = Self { path: PathBuf::from(path.trim_end()), keeper };
        let none = || io::Error::other(format!("mktemp -d made no folder in {}: is there room?", place.display()));
        scratch.path.is_dir().then_some(scratch).ok_or_else(none)
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
    use std::{
        fs, thread,
        time::{Duration, Instant},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    /// Set for the process that is killed.
    const IS_KILLED: &str = "RIG_SCRATCH_IS_KILLED";

    #[test]
    fn it_goes_with_what_is_in_it() {
        for scratch in [Scratch::make().unwrap(), Scratch::on_disk().unwrap()] {
            let folder = scratch.path().to_owned();
            fs::write(folder.join("a"), "a").unwrap();
            drop(scratch);
            assert!(!folder.exists());
        }
    }

    #[test]
    fn it_goes_when_its_process_is_killed() {
        if env::var_os(IS_KILLED).is_some() {
            hold_one();
        }
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "scratch::tests::it_goes_when_its_process_is_killed", "--nocapture"]);
        let mut holder = command.env(IS_KILLED, "1").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(holder.stdout.take().unwrap()).lines().map(Result::unwrap);
        let folder = lines.map(PathBuf::from).find(|line| line.is_absolute()).unwrap();
        assert!(folder.join("a").exists());
        holder.kill().unwrap();
        holder.wait().unwrap();
        let began = Instant::now();
        while folder.exists() {
            assert!(began.elapsed() < PATIENCE, "{} is left", folder.display());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Says where it is, in a line of its own.
    fn hold_one() -> ! {
        let scratch = Scratch::make().unwrap();
        fs::write(scratch.path().join("a"), "a").unwrap();
        println!("\n{}", scratch.path().display());
        loop {
            thread::park();
        }
    }
}
