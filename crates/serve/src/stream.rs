//! An accepted socket, and who is at its other end.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
};

use axum::extract::ConnectInfo;
use hyper::http::Extensions;
use rustix::net::{RecvFlags, recv};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};

thread_local! {
    /// Where a thread receives: a buffer that hyper lends would have to be cleared each time, which took 40 of 100
    /// instructions of a small request; copying what has come takes two.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// Up to here bytes are put together before they are sent: from several buffers (writev(2)) the kernel takes a twentieth
/// longer for a small response, and copying it costs a tenth of that.
const SMALL: usize = 2048;

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

    /// Takes what is there, or only looks at it.
    ///
    /// Fewer bytes than asked for were all that was there (epoll(7), edge-triggered): the reactor then tells of the next
    /// ones, and nobody need ask the kernel in between.
    fn try_receive(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let mut received = 0;
        let mut receive = |socket: BorrowedFd<'_>| {
            received = recv(socket, &mut *buffer, flags | RecvFlags::DONTWAIT)?.1;
            let was_all = 0 < received && received < buffer.len();
            if was_all { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        };
        let result = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || receive(stream.as_fd())),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || receive(stream.as_fd())),
        };
        match result {
            Err(error) if received == 0 => Err(error),
            _ => Ok(received),
        }
    }

    fn try_write(&self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match buffers {
            [bytes] => self.try_send(bytes),
            _ if buffers.iter().map(|bytes| bytes.len()).sum::<usize>() <= SMALL => {
                SCRATCH.with_borrow_mut(|scratch| {
                    let mut length = 0;
                    for bytes in buffers {
                        scratch[length..length + bytes.len()].copy_from_slice(bytes);
                        length += bytes.len();
                    }
                    self.try_send(&scratch[..length])
                })
            }
            _ => match self {
                Self::Tcp(stream) => stream.try_write_vectored(buffers),
                Self::Unix(stream) => stream.try_write_vectored(buffers),
            },
        }
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Registers again what [`Stream::park`] took out.
    pub(crate) fn unpark(socket: OwnedFd, peer: &Peer) -> io::Result<Self> {
        match peer {
            Peer::Tcp(_) => TcpStream::from_std(socket.into()).map(Self::Tcp),
            Peer::Unix(_) => UnixStream::from_std(socket.into()).map(Self::Unix),
        }
    }

    /// Takes it out of the runtime. A descriptor that was sent elsewhere would go on to wake this one (epoll(7): what is
    /// registered is the open file, not the descriptor).
    pub(crate) fn park(self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(OwnedFd::from),
            Self::Unix(stream) => stream.into_std().map(OwnedFd::from),
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

    /// Gives `take` up to `most` bytes; none are the client's end.
    pub(crate) fn poll_read<T>(
        &self,
        context: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let most = most.min(scratch.len());
            let received = ready!(self.poll_receive(context, &mut scratch[..most], RecvFlags::empty()))?;
            Poll::Ready(Ok(take(&scratch[..received])))
        })
    }

    /// Takes nothing: returns 0 at the client's end, 1 where bytes wait.
    pub(crate) fn poll_peek(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_receive(context, &mut [0], RecvFlags::PEEK)
    }

    fn poll_receive(&self, context: &mut Context<'_>, buffer: &mut [u8], flags: RecvFlags) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(context))?;
            match self.try_receive(buffer, flags) {
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
    /// Who connected: the kernel keeps it with the socket, wherever that goes.
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
