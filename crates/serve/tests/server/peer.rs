//! The other end of a handover, played by the test: it speaks, or misspeaks, the protocol byte by byte.

use std::{
    fs,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    cmsg_space,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
    },
    time::{ClockId, clock_gettime},
};

pub const HELLO: u8 = 0;
pub const WELCOME: u8 = 1;
pub const CONNECTION: u8 = 2;
pub const TOOK: [u8; 2] = [1, 3];
pub const FULL: [u8; 3] = [1, 4, 0];
pub const UNFIT: [u8; 3] = [1, 4, 2];

/// A connected channel.
pub struct Peer(OwnedFd);

/// This process's alone: what other tests start meanwhile would keep its end from being seen.
fn socket() -> OwnedFd {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    for side in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&socket, side, Some(crate::served::PATIENCE)).unwrap();
    }
    socket
}

/// So many descriptors on their way to nobody, which count as the caller's as long as what is returned lives.
pub fn send_descriptors(count: usize) -> (OwnedFd, OwnedFd) {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let ours = Peer(ours);
    (0..count).for_each(|_| ours.send_with(b"x", &[theirs.as_fd()]));
    (ours.0, theirs)
}

/// Stands where instance `n` would, as the newest.
pub fn listen(folder: &Path, n: u64) -> OwnedFd {
    let (socket, name) = (socket(), format!("{n}.sock"));
    rustix::net::bind(&socket, &SocketAddrUnix::new(folder.join(&name)).unwrap()).unwrap();
    rustix::net::listen(&socket, 16).unwrap();
    let _ = fs::remove_file(folder.join("handover"));
    std::os::unix::fs::symlink(name, folder.join("handover")).unwrap();
    socket
}

/// The next who calls, greeted as an instance of that version would.
pub fn welcome(listening: &OwnedFd, n: u64, version: u8) -> Peer {
    let peer = accept(listening);
    assert_eq!(peer.receive().0[..2], [1, HELLO]);
    peer.send(&greeting(version, WELCOME, n));
    peer
}

/// The next who calls, and hears nothing.
pub fn accept(listening: &OwnedFd) -> Peer {
    Peer(rustix::net::accept_with(listening, SocketFlags::CLOEXEC).unwrap())
}

/// Calls an instance and is welcome.
pub fn call(folder: &Path, n: u64) -> Peer {
    let peer = greet(folder, n);
    peer.assert_welcome(n);
    peer
}

/// Calls an instance.
pub fn greet(folder: &Path, n: u64) -> Peer {
    let peer = connect(folder, n);
    peer.send(&greeting(1, HELLO, 99));
    peer
}

pub fn connect(folder: &Path, n: u64) -> Peer {
    let socket = socket();
    rustix::net::connect(&socket, &SocketAddrUnix::new(folder.join(format!("{n}.sock"))).unwrap()).unwrap();
    Peer(socket)
}

pub fn greeting(version: u8, kind: u8, n: u64) -> Vec<u8> {
    [&[version, kind][..], &n.to_le_bytes()].concat()
}

/// A connection that has been idle for 3 ms, valid for another `valid_ms`, with these bytes.
pub fn connection(fresh: bool, valid_ms: u64, ahead: &[u8]) -> Vec<u8> {
    idle_for(3, fresh, valid_ms, ahead)
}

/// The same, idle for so long.
pub fn idle_for(idle_ms: u32, fresh: bool, valid_ms: u64, ahead: &[u8]) -> Vec<u8> {
    let valid_until = now_ns() + valid_ms * 1_000_000;
    let (idle, head) = (idle_ms.to_le_bytes(), u32::MAX.to_le_bytes());
    [&[1, CONNECTION, fresh.into()][..], &idle, &head, &valid_until.to_le_bytes(), ahead].concat()
}

/// Whether the sender of that connection may not take it back yet.
pub fn is_valid(connection: &[u8]) -> bool {
    u64::from_le_bytes(connection[11..19].try_into().unwrap()) > now_ns()
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Peer {
    pub fn send(&self, bytes: &[u8]) {
        self.send_with(bytes, &[]);
    }

    pub fn send_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        self.try_send_with(bytes, descriptors).unwrap();
    }

    pub fn try_send_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    }

    /// The next message and its descriptor; an empty one is the end.
    pub fn receive(&self) -> (Vec<u8>, Option<OwnedFd>) {
        self.try_receive().unwrap()
    }

    pub fn try_receive(&self) -> rustix::io::Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut buffer = vec![0; 200_000];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let length = rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
        let mut descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let descriptor = descriptors.next();
        buffer.truncate(length);
        Ok((buffer, descriptor))
    }

    #[track_caller]
    pub fn assert_welcome(&self, n: u64) {
        assert_eq!(self.receive().0, greeting(1, WELCOME, n));
    }

    /// The other end has ended the channel; what it had said before is passed over.
    #[track_caller]
    pub fn assert_ended(&self) {
        let end = loop {
            match self.try_receive() {
                Ok((bytes, _)) if !bytes.is_empty() => {}
                end => break end,
            }
        };
        // Where something of ours was never read, the kernel says so first.
        assert!(matches!(end, Ok(_) | Err(rustix::io::Errno::CONNRESET)), "{end:?}");
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
