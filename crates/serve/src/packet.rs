//! Sockets that carry whole messages and descriptors between two processes of one host (unix(7), SOCK_SEQPACKET).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    cmsg_space,
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt,
    },
};
use tokio::{io::Interest, net::UnixStream};

use crate::predecessor::CHANNELS;

/// Clients of a listening socket that wait to be accepted: one more, and it is as if nobody listened (EAGAIN).
const BACKLOG: i32 = CHANNELS as i32;
/// A socket waits in none of its calls; none outlives an exec.
const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// Listens at a path.
#[derive(Debug)]
pub(crate) struct Listener(UnixStream);

/// One end of a channel. Its messages come in order, and each whole or not at all.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

/// What came in one message.
#[derive(Debug)]
pub(crate) struct Packet {
    pub length: usize,
    pub descriptors: Vec<OwnedFd>,
    /// There was more than this end takes, of bytes or of descriptors; or there was no room for a descriptor.
    pub truncated: bool,
}

/// The runtime has no type of its own for these; of this one nothing but the readiness is used.
fn register(socket: OwnedFd) -> io::Result<UnixStream> {
    UnixStream::from_std(socket.into())
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?)
}

impl Listener {
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self(register(socket)?))
    }

    /// Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<Channel> {
        let accepted = self.0.async_io(Interest::READABLE, || Ok(rustix::net::accept_with(&self.0, FLAGS)?));
        Ok(Channel(register(accepted.await?)?))
    }
}

impl Channel {
    /// Fails at once where nobody listens (ECONNREFUSED), and where nobody accepts (EAGAIN).
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(register(socket)?))
    }

    /// Whether the process at the other end is this process's user, as the kernel says.
    pub(crate) fn is_ours(&self) -> bool {
        sockopt::socket_peercred(&self.0).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
    }

    /// Sends one message, with a descriptor or without. Cancel safe.
    pub(crate) async fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, || send(self.0.as_fd(), bytes, descriptor)).await
    }

    /// Sends one message, or fails with `WouldBlock`.
    pub(crate) fn try_send(&self, bytes: &[u8]) -> io::Result<()> {
        send(self.0.as_fd(), bytes, None)
    }

    /// The next message; an empty one is the end. Cancel safe.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Packet> {
        self.0.async_io(Interest::READABLE, || receive(self.0.as_fd(), &mut *buffer)).await
    }

    /// From now on whatever the other end sends fails there (EPIPE). What it sent before can still be received.
    pub(crate) fn refuse_more(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0, Shutdown::Read)?)
    }

    /// The next message that has arrived already, `None` if there is none.
    pub(crate) fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Option<Packet>> {
        match receive(self.0.as_fd(), buffer) {
            Ok(packet) if packet.length > 0 => Ok(Some(packet)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.as_slice();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    // A message goes whole or not at all.
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Packet> {
    // One is expected; what is beyond the room the kernel closes.
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let mut is_reset = false;
    let received = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) => {}
            // The other end has died and never read all: the kernel says so once, before what that had sent.
            Err(Errno::CONNRESET) if !std::mem::replace(&mut is_reset, true) => {}
            result => break result?,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    let truncated = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Packet { length: received.bytes, descriptors, truncated })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (Channel, Channel) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("7.sock");
        let listener = Listener::bind(&path).unwrap();
        let ours = Channel::connect(&path).unwrap();
        (ours, listener.accept().await.unwrap())
    }

    #[tokio::test]
    async fn what_was_sent_before_the_cut_arrives_and_what_is_sent_after_it_fails_at_its_sender() {
        let (ours, theirs) = pair().await;
        theirs.send(b"before", None).await.unwrap();
        ours.refuse_more().unwrap();
        assert_eq!(theirs.try_send(b"after").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut buffer = [0; 16];
        assert_eq!(ours.try_receive(&mut buffer).unwrap().unwrap().length, 6);
        assert!(ours.try_receive(&mut buffer).unwrap().is_none());
    }

    #[tokio::test]
    async fn what_a_dead_process_had_sent_can_still_be_received() {
        let (ours, theirs) = pair().await;
        ours.send(b"never read", None).await.unwrap();
        theirs.send(b"before", None).await.unwrap();
        drop(theirs);
        let mut buffer = [0; 16];
        assert_eq!(ours.receive(&mut buffer).await.unwrap().length, 6, "behind the error of what it never read");
        assert_eq!(ours.receive(&mut buffer).await.unwrap().length, 0);
    }

    #[tokio::test]
    async fn a_descriptor_arrives_and_too_many_are_told() {
        let (ours, theirs) = pair().await;
        let file = std::fs::File::open("/dev/null").unwrap();
        ours.send(b"one", Some(file.as_fd())).await.unwrap();
        let mut buffer = [0; 16];
        let packet = theirs.receive(&mut buffer).await.unwrap();
        assert_eq!((packet.descriptors.len(), packet.truncated), (1, false));
        let many = [file.as_fd(); 253];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        rustix::net::sendmsg(&ours.0, &[IoSlice::new(b"many")], &mut control, SendFlags::empty()).unwrap();
        let packet = theirs.receive(&mut buffer).await.unwrap();
        assert!(packet.truncated && packet.descriptors.len() < 8, "{packet:?}");
    }
}
