//! A connection between two messages, apart from any reactor: what one process gives to the next.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use bytes::BytesMut;
use rustix::{
    fs::OFlags,
    net::{AddressFamily, SocketType, sockopt},
};
use tokio::time::Instant;

use crate::{counts::Open, stream::Peer};

/// Whoever holds it owns the connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Parked {
    pub socket: OwnedFd,
    pub peer: Peer,
    /// Read from the socket, and of the next message.
    pub ahead: BytesMut,
    /// Its protocol is not known yet.
    pub fresh: bool,
    /// When the first byte of a head arrived that is not whole.
    pub head_since: Option<Instant>,
    pub open: Open,
}

/// A descriptor that another process sent, found to be a client's connection. It is no reactor's yet.
#[derive(Debug)]
pub(crate) struct Received {
    pub socket: OwnedFd,
    pub peer: Peer,
}

/// Why a descriptor is not served.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// It is no connected TCP or Unix stream socket.
    Kind,
    /// Its client has gone; there is nobody to lose.
    Gone,
    /// There is no room for it.
    Room,
}

impl Received {
    /// Takes what was sent, if it is what an instance accepts.
    pub(crate) fn new(socket: OwnedFd) -> Result<Self, Unfit> {
        let is_stream = sockopt::socket_type(&socket).is_ok_and(|kind| kind == SocketType::STREAM);
        let listens = sockopt::socket_acceptconn(&socket).unwrap_or(true);
        let domain = sockopt::socket_domain(&socket).map_err(|_| Unfit::Kind)?;
        if !is_stream || listens {
            return Err(Unfit::Kind);
        }
        // A reset client has no name any more (getpeername(2), ENOTCONN); a socket that was never connected neither.
        let name = rustix::net::getpeername(&socket).map_err(|_| Unfit::Gone)?;
        set_nonblocking(&socket).map_err(room)?;
        match domain {
            AddressFamily::INET | AddressFamily::INET6 => {
                let address = name.and_then(|name| SocketAddr::try_from(name).ok()).ok_or(Unfit::Gone)?;
                Ok(Self { socket, peer: Peer::Tcp(address) })
            }
            AddressFamily::UNIX => {
                let stream = tokio::net::UnixStream::from_std(socket.into()).map_err(room)?;
                let peer = Peer::of_unix(&stream);
                Ok(Self { socket: stream.into_std().map_err(room)?.into(), peer })
            }
            _ => Err(Unfit::Kind),
        }
    }
}

fn room(_: io::Error) -> Unfit {
    Unfit::Room
}

/// It is so already for every connection that an instance accepted; whoever sends another must not block a thread.
pub(crate) fn set_nonblocking(socket: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&socket)?;
    if !flags.contains(OFlags::NONBLOCK) {
        rustix::fs::fcntl_setfl(socket, flags | OFlags::NONBLOCK)?;
    }
    Ok(())
}
