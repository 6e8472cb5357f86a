//! nginx, as Debian packages it, unpacked and not installed: an installed one may listen on this machine.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::machine;

const CONFIGURATION: &str = include_str!("peers/small_nginx.conf");
const PATIENCE: Duration = Duration::from_secs(10);

/// An nginx that keeps idle connections.
pub(super) struct Nginx {
    master: Child,
    pub address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// `nginx 1.22.1`
    ///
    /// # Errors
    /// Where it does not run on this machine.
    pub fn version() -> io::Result<String> {
        let output = Command::new(program()?).arg("-v").output()?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match said.split_once("nginx/") {
            Some((_, version)) => Ok(format!("nginx {version}")),
            None => Err(io::Error::other(said)),
        }
    }

    /// # Errors
    /// Where it does not answer.
    pub fn start() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let file = folder.path().join("nginx.conf");
        fs::write(&file, CONFIGURATION.replace("ADDRESS", &address.to_string()))?;
        let mut command = Command::new(program()?);
        command.arg("-p").arg(folder.path()).arg("-c").arg(file).stdin(Stdio::null()).stderr(Stdio::null());
        let this = Self { master: command.spawn()?, address, _folder: folder };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other("nginx does not listen"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(this)
    }

    /// The master and its workers.
    pub fn processes(&self) -> Vec<u32> {
        let master = self.master.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([master]).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it, where it is not killed.
        let _ = kill_process(Pid::from_child(&self.master), Signal::TERM);
        let _ = self.master.wait();
    }
}

/// What the package brings.
fn program() -> io::Result<PathBuf> {
    let folder = crate::workspace().join("target/packages/nginx");
    let program = folder.join("usr/sbin/nginx");
    if !program.exists() {
        for archive in machine::downloaded(&["nginx"]).map_err(io::Error::other)? {
            let status = Command::new("dpkg-deb").arg("-x").arg(archive).arg(&folder).status()?;
            if !status.success() {
                return Err(io::Error::other("dpkg-deb does not unpack what apt-get brought"));
            }
        }
    }
    Ok(program)
}
