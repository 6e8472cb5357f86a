//! Instances of one server, each taking over from the one before, on one socket and without systemd: activations many
//! times faster than a host makes them, for any server that takes a socket and says READY=1.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    report::{self, Span},
    scratch::Scratch,
};

/// Beyond any drain.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where instances could find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// They share a directory, and hand their connections over.
    Shared,
    /// Each has none, and closes its connections.
    Separate,
}

/// The instances, of which one serves. They end with this process, or rather with the thread that started them.
#[derive(Debug)]
pub struct Succession {
    listener: TcpListener,
    program: PathBuf,
    runtime: Runtime,
    folder: Scratch,
    serving: Child,
    retiring: Vec<Child>,
    count: u64,
}

impl Succession {
    /// Starts the first instance of `program`, and waits until it is ready.
    ///
    /// # Errors
    /// Where it does not start, or does not become ready.
    pub fn start(program: &Path, runtime: Runtime) -> io::Result<Self> {
        report::start_clock();
        let (listener, folder) = (listen("127.0.0.1:0")?, Scratch::make()?);
        let serving = ready(program, &listener, &folder, runtime, 0)?;
        Ok(Self { listener, program: program.to_owned(), runtime, folder, serving, retiring: Vec::new(), count: 0 })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Starts the next instance; when it is ready, tells the one before to stop. Says when.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn activate(&mut self) -> io::Result<Span> {
        let began = Instant::now();
        self.count += 1;
        let next = ready(&self.program, &self.listener, &self.folder, self.runtime, self.count)?;
        let old = Pid::from_child(&self.serving);
        self.retiring.push(std::mem::replace(&mut self.serving, next));
        kill_process(old, Signal::TERM)?;
        self.retiring.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        Ok(Span::since(began))
    }

    /// The old way: ends what serves, and starts the next one when it has ended. Meanwhile clients wait in the socket's queue.
    /// Says when.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> io::Result<Span> {
        let began = Instant::now();
        self.count += 1;
        kill_process(Pid::from_child(&self.serving), Signal::TERM)?;
        if !have_ended(vec![&mut self.serving]) {
            // As systemd does after TimeoutStopSec=.
            self.serving.kill()?;
            self.serving.wait()?;
        }
        self.serving = ready(&self.program, &self.listener, &self.folder, self.runtime, self.count)?;
        Ok(Span::since(began))
    }

    /// The process that serves.
    pub fn pid(&self) -> u32 {
        self.serving.id()
    }

    /// Whether the last instances end by themselves when they are told to.
    pub fn end(mut self) -> bool {
        // It may have ended already, which the wait below tells.
        let _ = kill_process(Pid::from_child(&self.serving), Signal::TERM);
        have_ended(self.retiring.iter_mut().chain([&mut self.serving]).collect())
    }
}

/// Whether they do before the patience does.
fn have_ended(mut children: Vec<&mut Child>) -> bool {
    let until = Instant::now() + PATIENCE;
    while !children.is_empty() {
        if Instant::now() > until {
            return false;
        }
        children.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

impl Drop for Succession {
    fn drop(&mut self) {
        for child in self.retiring.iter_mut().chain([&mut self.serving]) {
            // One that has ended cannot be killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A socket as app.socket makes it.
pub(crate) fn listen(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // listen(2) again only changes the backlog.
    rustix::net::listen(&listener, 4096)?;
    // What is accepted inherits it: no server answers later than another because it did not ask for it.
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn ready(program: &Path, listener: &TcpListener, folder: &Scratch, runtime: Runtime, n: u64) -> io::Result<Child> {
    let path = folder.path().join(format!("{n}.notify"));
    let notify = UnixDatagram::bind(&path)?;
    notify.set_read_timeout(Some(PATIENCE))?;
    let mut command = Command::new("setpriv");
    // The shell puts the socket where systemd would.
    command.args(["--pdeathsig", "KILL", "sh", "-c", "exec \"$0\" 3<&0 </dev/null"]).arg(program);
    command.stdin(Stdio::from(OwnedFd::from(listener.try_clone()?))).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "http").env("NOTIFY_SOCKET", &path);
    if let Runtime::Shared = runtime {
        command.env("RUNTIME_DIRECTORY", folder.path());
    }
    command.env("APP_INSTANCE", n.to_string());
    command.env("APP_RELEASE", format!("{n:016x}")).env("APP_LOG", "warn");
    let child = command.spawn()?;
    let mut buffer = [0; 4096];
    loop {
        let length = notify.recv(&mut buffer)?;
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == "READY=1") {
            // What it says from now on, nobody reads: sending to a socket that is gone fails at once.
            std::fs::remove_file(&path)?;
            return Ok(child);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn what_is_accepted_sends_at_once() {
        let listener = listen("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // The handshake is done, so it is there.
        assert!(listener.accept().unwrap().0.nodelay().unwrap());
    }
}
