//! A connection's bytes: what was read ahead, the socket, and an end that loses nothing.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::extract::ConnectInfo;
use bytes::{Buf, Bytes, BytesMut};
use hyper::http::Extensions;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Sleep, sleep},
};

use crate::{drain::Open, exchange::Exchange};

/// How long the end of the client's bytes is waited for after ours.
const LINGER: Duration = Duration::from_secs(1);

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

    fn half_close(&self) -> io::Result<()> {
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

    fn poll_read(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(context))?;
            match self.try_read(buffer) {
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

/// What hyper reads and writes.
///
/// Its shutdown is a half-close that then reads to the client's end: closing with unread bytes would send a reset, and a
/// reset can take the response with it that the client has not read yet.
#[derive(Debug)]
pub(crate) struct Io {
    /// Read by the sniffer, and not yet by hyper.
    ahead: Bytes,
    stream: Arc<Stream>,
    exchange: Arc<Exchange>,
    closing: Option<Closing>,
    /// The connection counts as open, and the drain waits for it, as long as this lives; after an upgrade too.
    _open: Open,
}

#[derive(Debug)]
struct Closing {
    until: Pin<Box<Sleep>>,
    late_bytes: usize,
}

impl Io {
    pub(crate) fn new(stream: Stream, open: Open) -> Self {
        let exchange = Arc::default();
        Self { ahead: Bytes::new(), stream: Arc::new(stream), exchange, closing: None, _open: open }
    }

    /// The socket itself, to look at.
    pub(crate) fn stream(&self) -> Arc<Stream> {
        self.stream.clone()
    }

    /// Where the connection is in its exchange of messages.
    pub(crate) fn exchange(&self) -> Arc<Exchange> {
        self.exchange.clone()
    }

    /// Reads some bytes into `buffer`; 0 is the client's end. Cancel safe.
    pub(crate) async fn read_some(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let mut bytes = [0; 1024];
        let read = std::future::poll_fn(|context| self.stream.poll_read(context, &mut bytes)).await?;
        self.exchange.has_read(read);
        buffer.extend_from_slice(&bytes[..read]);
        Ok(read)
    }

    /// Gives bytes back, to be read again.
    pub(crate) fn unread(&mut self, bytes: BytesMut) {
        self.ahead = bytes.freeze();
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            self.stream.half_close()?;
            self.closing = Some(Closing { until: Box::pin(sleep(LINGER)), late_bytes: 0 });
        }
        let Some(closing) = self.closing.as_mut() else { return Poll::Ready(Ok(())) };
        let mut bytes = [0; 4096];
        loop {
            match self.stream.poll_read(context, &mut bytes) {
                Poll::Ready(Ok(read)) if read > 0 => closing.late_bytes += read,
                Poll::Ready(_) => break,
                Poll::Pending if closing.until.as_mut().poll(context).is_pending() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if closing.late_bytes > 0 {
            tracing::debug!(late_bytes = closing.late_bytes, "bytes came after the connection had been closed");
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..length]);
            self.ahead.advance(length);
            return Poll::Ready(Ok(()));
        }
        let read = ready!(self.stream.poll_read(context, buffer.initialize_unfilled()))?;
        self.exchange.has_read(read);
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write(buffers) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(context)
    }
}
