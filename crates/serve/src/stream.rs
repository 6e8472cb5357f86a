//! An accepted socket, and who is at its other end.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll, ready},
};

use axum::extract::ConnectInfo;
use hyper::http::Extensions;
use rustix::net::{RecvFlags, recv};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};

/// A socket that was accepted.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
        }
    }

    fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(context),
            Self::Unix(stream) => stream.poll_write_ready(context),
        }
    }

    /// Looks at the next byte without taking it.
    fn try_peek(&self) -> io::Result<usize> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || Ok(recv(stream, &mut [0], flags)?.1)),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || Ok(recv(stream, &mut [0], flags)?.1)),
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    fn try_write(&self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(buffers),
            Self::Unix(stream) => stream.try_write_vectored(buffers),
        }
    }

    /// No more will be sent (shutdown(2)).
    pub(crate) fn half_close(&self) -> io::Result<()> {
        let how = rustix::net::Shutdown::Write;
        match self {
            Self::Tcp(stream) => Ok(rustix::net::shutdown(stream, how)?),
            Self::Unix(stream) => Ok(rustix::net::shutdown(stream, how)?),
        }
    }

    /// Bytes in the socket's receive queue, whatever the reactor knows of them.
    pub(crate) fn unread(&self) -> u64 {
        match self {
            Self::Tcp(stream) => rustix::io::ioctl_fionread(stream).unwrap_or(0),
            Self::Unix(stream) => rustix::io::ioctl_fionread(stream).unwrap_or(0),
        }
    }

    /// Returns what `buffer` took; 0 is the client's end.
    pub(crate) fn poll_read(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(context))?;
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Takes nothing: returns 0 at the client's end, 1 where bytes wait.
    pub(crate) fn poll_peek(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(context))?;
            match self.try_peek() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    pub(crate) fn poll_write(&self, context: &mut Context<'_>, buffers: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(context))?;
            match self.try_write(buffers) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    Unix(UnixPeer),
}

/// Who is at the other end of a Unix socket, as the kernel says (unix(7), SO_PEERCRED).
/// Handlers get it as [`ConnectInfo<UnixPeer>`], as they get a `ConnectInfo<SocketAddr>` over TCP.
#[derive(Clone, Debug)]
pub struct UnixPeer {
    /// Its user, where the kernel tells.
    pub uid: Option<u32>,
    /// Its process, where the kernel tells.
    pub pid: Option<i32>,
}

impl Peer {
    pub(crate) fn of_unix(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        Self::Unix(UnixPeer { uid: credentials.map(|peer| peer.uid()), pid: credentials.and_then(|peer| peer.pid()) })
    }

    /// Tells a request's handlers.
    pub(crate) fn tell(&self, extensions: &mut Extensions) {
        match self {
            Self::Tcp(address) => drop(extensions.insert(ConnectInfo(*address))),
            Self::Unix(peer) => drop(extensions.insert(ConnectInfo(peer.clone()))),
        }
    }
}
