//! The listening socket: systemd's, or one of our own.

use std::{
    env, fs, io,
    net::{TcpListener, ToSocketAddrs},
    os::{fd::AsFd, unix::net::UnixListener},
    time::Duration,
};

use listenfd::ListenFd;
use rustix::{
    io::Errno,
    net::{SocketFlags, sockopt},
};

use crate::{
    Error,
    parked::{Received, Unfit},
    stream::{Peer, Stream},
};

/// The names that `FileDescriptorName=` gives them.
const NAME: &str = "http";
const METRICS: &str = "metrics";

/// When to accept again after an error that may last, such as a full descriptor table.
pub(crate) const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Taken, not yet part of a runtime.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Part of a runtime, and accepting.
#[derive(Debug)]
pub(crate) enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// Whose the socket is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Owner {
    /// systemd's, or another parent's: clients go on to wait in its queue when this process has ended.
    Parent,
    /// This process's: its queue ends with it.
    Process,
}

/// The sockets that a parent passes, by name.
pub(crate) struct Passed {
    names: Vec<String>,
    sockets: ListenFd,
}

impl Passed {
    /// Takes them from the environment. Before any thread exists: it takes the variables away.
    pub(crate) fn from_env() -> Self {
        // The names first: `from_env` may take the variables away.
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self { names, sockets: ListenFd::from_env() }
    }

    /// The socket named `http`, or a single one without a name; where none is passed, one that is bound to `address`.
    pub(crate) fn http(&mut self, address: &str) -> Result<(Listener, Owner), Error> {
        if self.sockets.len() == 0 {
            return Ok((bind(address)?, Owner::Process));
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let index = index_of_ours(&names, self.sockets.len())?;
        Ok((self.take(index, NAME)?, Owner::Parent))
    }

    /// The socket named `metrics`, where one is passed.
    pub(crate) fn metrics(&mut self) -> Result<Option<Listener>, Error> {
        let index = self.names.iter().position(|name| name == METRICS).filter(|index| *index < self.sockets.len());
        index.map(|index| self.take(index, METRICS)).transpose()
    }

    fn take(&mut self, index: usize, name: &str) -> Result<Listener, Error> {
        let tcp = self.sockets.take_tcp_listener(index).ok().flatten().map(Listener::Tcp);
        let listener = tcp.or_else(|| self.sockets.take_unix_listener(index).ok().flatten().map(Listener::Unix));
        let listener = listener.ok_or_else(|| refuse(index, name, "is no TCP or Unix stream socket"))?;
        listener.check(index, name)?;
        Ok(listener)
    }
}

impl Listener {
    /// What was passed must listen, and not block: O_NONBLOCK belongs to the socket and not to the descriptor, so setting
    /// it here would set it for every process that holds the socket (systemd.service(5), NonBlocking=).
    fn check(&self, index: usize, name: &str) -> Result<(), Error> {
        let fd = match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        };
        if !sockopt::socket_acceptconn(fd).unwrap_or(false) {
            return Err(refuse(index, name, "does not listen; pass the socket of a .socket unit with Accept=no"));
        }
        let flags = rustix::fs::fcntl_getfl(fd).unwrap_or(rustix::fs::OFlags::empty());
        if !flags.contains(rustix::fs::OFlags::NONBLOCK) {
            return Err(refuse(index, name, "blocks; set NonBlocking=yes in every service on the socket"));
        }
        Ok(())
    }

    /// Registers it with the current runtime.
    pub(crate) fn accepting(self) -> io::Result<Accepting> {
        Ok(match self {
            Self::Tcp(listener) => Accepting::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Self::Unix(listener) => Accepting::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    /// Where it listens, for people.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or("?".to_owned(), |address| address.to_string()),
            Self::Unix(listener) => match listener.local_addr() {
                Ok(address) => {
                    address.as_pathname().map_or("unix:?".to_owned(), |path| format!("unix:{}", path.display()))
                }
                Err(_) => "unix:?".to_owned(),
            },
        }
    }
}

impl Accepting {
    /// The next connection that waits in the queue; `None` where none does, whatever the reactor knows.
    pub(crate) fn accept_now(&self) -> Result<Option<Received>, Unfit> {
        let fd = match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        };
        let socket = match rustix::net::accept_with(fd, SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(Errno::WOULDBLOCK) => return Ok(None),
            // An error of the network that came with the connection (accept(2)).
            Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => return Err(Unfit::Gone),
            Err(_) => return Err(Unfit::Room),
        };
        // Where it is no TCP socket there is no such option.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        Received::new(socket).map(Some)
    }

    /// The next connection of the queue. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = Peer::of_unix(&stream);
                Ok((Stream::Unix(stream), peer))
            }
        }
    }
}

fn index_of_ours(names: &[&str], passed: usize) -> Result<usize, Error> {
    let is_unnamed = names.iter().all(|name| *name == "unknown");
    match names.iter().position(|name| *name == NAME) {
        Some(index) if index < passed => Ok(index),
        _ if passed == 1 && is_unnamed => Ok(0),
        _ => {
            let names = names.join(", ");
            Err(Error::Socket(format!(
                "{passed} sockets were passed, named [{names}], and none {NAME:?}: set FileDescriptorName={NAME} in its .socket unit"
            )))
        }
    }
}

fn refuse(index: usize, name: &str, what: &str) -> Error {
    Error::Socket(format!("the socket {name:?} that was passed as descriptor {} {what}", 3 + index))
}

fn bind(address: &str) -> Result<Listener, Error> {
    let failed = |source| Error::Listen { address: address.to_owned(), source };
    match address.strip_prefix("unix:") {
        Some(path) => bind_unix(path).map(Listener::Unix).map_err(failed),
        None => bind_tcp(address).map(Listener::Tcp).map_err(failed),
    }
}

fn bind_tcp(address: &str) -> io::Result<TcpListener> {
    let addresses: Vec<_> = address.to_socket_addrs()?.collect();
    let listener = TcpListener::bind(addresses.as_slice())?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn bind_unix(path: &str) -> io::Result<UnixListener> {
    // A socket file outlives its process; one that nobody listens on is in the way and nothing more.
    let is_stale = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if std::os::unix::net::UnixStream::connect(path).is_err_and(is_stale) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_the_one_named_http_wherever_it_stands() {
        assert_eq!(index_of_ours(&["metrics", "http"], 2).unwrap(), 1);
        assert_eq!(index_of_ours(&["http", "metrics"], 2).unwrap(), 0);
    }

    #[test]
    fn a_single_socket_needs_no_name() {
        assert_eq!(index_of_ours(&[], 1).unwrap(), 0);
        assert_eq!(index_of_ours(&["unknown"], 1).unwrap(), 0);
    }

    #[test]
    fn sockets_of_other_names_are_refused() {
        assert!(index_of_ours(&["metrics"], 1).unwrap_err().to_string().contains("FileDescriptorName=http"));
        assert!(index_of_ours(&[], 2).is_err());
    }
}
