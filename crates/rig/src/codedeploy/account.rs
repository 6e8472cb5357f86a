//! An account of AWS, in memory: moto's server, and a user's environment to reach it.

use std::{
    io::{self, BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::OnceLock,
    thread,
};

use tempfile::TempDir;

use crate::python;

/// moto with what its server needs for S3 and CodeDeploy, and the AWS CLI.
const REQUIREMENTS: [&str; 4] = ["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5", "awscli==1.46.3"];
/// The end of its input is its end, also where this process is killed.
const SERVER: &str = "\
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(['-H', '127.0.0.1', '-p', '0'])";
const SAYS_WHERE: &str = "Running on http://";

/// One that ends with this.
#[derive(Debug)]
pub struct Account {
    server: Child,
    address: SocketAddr,
    home: TempDir,
}

impl Account {
    /// Whoever asks may do everything.
    ///
    /// # Panics
    /// Where moto cannot be had, or does not come up.
    pub fn open() -> Self {
        Self::start(&[])
    }

    /// After so many requests, only who has the right to may do anything.
    ///
    /// # Panics
    /// As [`Self::open`].
    pub fn strict_after(requests: usize) -> Self {
        Self::start(&[("INITIAL_NO_AUTH_ACTION_COUNT", requests.to_string())])
    }

    fn start(environment: &[(&str, String)]) -> Self {
        let mut command = Command::new(programs().join("python"));
        command.args(["-c", SERVER]).envs(environment.iter().map(|(name, value)| (*name, value)));
        let mut server =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("python starts");
        let address = listens_at(server.stderr.take().expect("piped"));
        Self { server, address, home: tempfile::tempdir().expect("a folder") }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A program with a user's environment, and no more: the CLI on its PATH, a home, a region and credentials.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env_clear().env("PATH", format!("{}:{path}", programs().display())).env("HOME", self.home.path());
        command.envs([
            ("AWS_ACCESS_KEY_ID", "rig"),
            ("AWS_SECRET_ACCESS_KEY", "rig"),
            ("AWS_DEFAULT_REGION", "eu-central-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            // What fails is to be seen.
            ("AWS_MAX_ATTEMPTS", "1"),
        ]);
        let url = format!("http://{}", self.address);
        command.env("AWS_ENDPOINT_URL", &url).stdin(Stdio::null());
        command
    }

    /// What the AWS CLI prints.
    ///
    /// # Panics
    /// Where it fails.
    #[track_caller]
    pub fn aws(&self, words: &[&str]) -> Vec<u8> {
        let output = self.command(&programs().join("aws")).args(words).output().expect("it is installed");
        assert!(output.status.success(), "aws {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

/// Where moto and the AWS CLI are.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| python::environment("aws", &REQUIREMENTS))
}

/// It says so when it does, and then a line for each request.
fn listens_at(says: ChildStderr) -> SocketAddr {
    let (mut says, mut said) = (BufReader::new(says), String::new());
    let address = loop {
        let before = said.len();
        assert!(says.read_line(&mut said).expect("it is readable") > 0, "moto does not come up:\n{said}");
        if let Some((_, address)) = said[before..].split_once(SAYS_WHERE) {
            break address.trim().parse().expect("an address");
        }
    };
    thread::spawn(move || io::copy(&mut says.by_ref(), &mut io::sink()));
    address
}
