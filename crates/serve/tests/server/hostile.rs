//! Who may hand connections in or take them out, and what becomes of everything else.

use std::{
    fs,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    thread,
};

use rustix::thread::set_thread_res_uid;

use crate::{
    faults::pair,
    handover::{Host, assert_served_by},
    peer::{self, CONNECTION, HELLO, TOOK, UNFIT, WELCOME},
    served::{Served, ask, assert_is_the_last},
};

const NOBODY: u32 = 65_534;

const NO_MESSAGE: &str = "it says what nobody understands: it is no message";
const OUT_OF_TURN: &str = "it says what it has not been asked for";
const NO_CONNECTION: &str = "it sends what is no client's connection: one TCP or Unix stream socket that is connected";

/// An instance that is harassed: afterwards it serves as before, has no descriptor more, and has said why it refused whom.
struct Harassed {
    host: Host,
    served: Served,
    before: usize,
}

impl Harassed {
    fn new() -> Self {
        let host = Host::new();
        let served = host.instance(1).with("HELLO_LOG", 1).ready().0;
        ask(&mut host.connect(), "/");
        let before = served.descriptors();
        Self { host, served, before }
    }

    fn path(&self) -> &Path {
        self.host.path()
    }

    /// Each refusal has a line of its own, in their order.
    #[track_caller]
    fn goes_on_and_refused(self, whys: &[&str]) {
        let log = self.goes_on();
        let refusals = log.lines().filter_map(|line| line.split_once("refused an instance that wants to hand over: "));
        assert_eq!(refusals.map(|(_, why)| why).collect::<Vec<_>>(), whys, "{log}");
    }

    /// Returns all that it has logged.
    #[track_caller]
    fn goes_on(self) -> String {
        let Self { host, served, before } = self;
        // A real handover still works, and a new client is served.
        let (mut client, ours) = pair();
        let peer = peer::call(host.path(), 1);
        peer.send_with(&peer::connection(false, 10_000, b""), &[ours.as_fd()]);
        assert_eq!(peer.receive().0, TOOK);
        drop((peer, ours));
        assert_served_by(&mut client, 1);
        assert_served_by(&mut host.connect(), 1);
        drop(client);
        served.assert_leaks_nothing(before);
        served.signal();
        served.log()
    }
}

/// In a thread of its own as another user (the kernel keeps one for each thread), where this one may become another.
pub fn as_nobody<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    assert!(rustix::process::geteuid().is_root(), "this test becomes another user; run it as root");
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let nobody = rustix::process::Uid::from_raw(NOBODY);
            set_thread_res_uid(nobody, nobody, nobody).unwrap();
            act()
        });
        other.join().unwrap()
    })
}

/// As wrong as permissions can be: whoever finds the directory gets in.
fn open_to_all(folder: &Path) {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for path in entries.chain([folder.to_owned()]).filter(|path| !path.is_symlink()) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
}

#[test]
fn another_user_cannot_hand_in() {
    let harassed = Harassed::new();
    open_to_all(harassed.path());
    let folder = harassed.path();
    as_nobody(|| {
        let peer = peer::connect(folder, 1);
        // It may be refused before it has spoken.
        let _ = peer.try_send_with(&peer::greeting(1, HELLO, 9), &[]);
        peer.assert_ended();
    });
    harassed.goes_on_and_refused(&["it is another user's"]);
}

#[test]
fn another_user_cannot_take_out() {
    let harassed = Harassed::new();
    open_to_all(harassed.path());
    let mut idle = harassed.host.idle(1);
    let folder = harassed.path();
    let listening = as_nobody(|| peer::listen(folder, 2));
    harassed.served.retire_alone();
    let response = ask(&mut idle[0], "/instance");
    assert_is_the_last(idle.remove(0), &response, "1");
    drop(listening);
    let text = harassed.served.log();
    assert!(text.contains("another user's"), "{text}");
}

#[test]
fn nothing_but_a_clients_connection_is_taken() {
    let harassed = Harassed::new();
    let refuse = |descriptors: &[BorrowedFd<'_>]| {
        let peer = peer::call(harassed.path(), 1);
        peer.send_with(&peer::connection(false, 10_000, b""), descriptors);
        assert_eq!(peer.receive().0, UNFIT, "{descriptors:?}");
        peer.assert_ended();
    };
    let (_client, stream) = pair();
    let (mut datagrams, mut packets) = (Vec::new(), Vec::new());
    for (kind, into) in
        [(rustix::net::SocketType::DGRAM, &mut datagrams), (rustix::net::SocketType::SEQPACKET, &mut packets)]
    {
        let (one, other) =
            rustix::net::socketpair(rustix::net::AddressFamily::UNIX, kind, rustix::net::SocketFlags::empty(), None)
                .unwrap();
        into.extend([one, other]);
    }
    let strange: [OwnedFd; 7] = [
        fs::File::open("/dev/null").unwrap().into(),
        fs::File::create(harassed.path().join("file")).unwrap().into(),
        TcpListener::bind("127.0.0.1:0").unwrap().into(),
        UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap(),
        datagrams.pop().unwrap(),
        packets.pop().unwrap(),
    ];
    strange.iter().for_each(|descriptor| refuse(&[descriptor.as_fd()]));
    refuse(&[]);
    refuse(&[stream.as_fd(), stream.as_fd()]);
    refuse(&[stream.as_fd(); 253]);
    harassed.goes_on_and_refused(&[NO_CONNECTION; 10]);
}

#[test]
fn what_nobody_understands_ends_its_channel() {
    let harassed = Harassed::new();
    let (_client, stream) = pair();
    let whole = peer::connection(false, 10_000, b"");
    let too_long = [&whole[..], &vec![b'x'; 165_000]].concat();
    let later = "it says what nobody understands: it is of version 2, and this instance speaks 1";
    let messages: [(&[u8], &str); 8] = [
        (&whole[..2], NO_MESSAGE),
        (&whole[..17], NO_MESSAGE),
        (&[1], NO_MESSAGE),
        (&[2, CONNECTION, 0], later),
        (&[1, 200], NO_MESSAGE),
        (&peer::greeting(1, HELLO, 9), OUT_OF_TURN),
        (&peer::greeting(1, WELCOME, 9), OUT_OF_TURN),
        (&too_long, NO_CONNECTION),
    ];
    for (message, _) in messages {
        let peer = peer::call(harassed.path(), 1);
        peer.send_with(message, &[stream.as_fd()]);
        peer.assert_ended();
    }
    harassed.goes_on_and_refused(&messages.map(|(_, why)| why));
}

#[test]
fn who_does_not_greet_is_not_heard() {
    let harassed = Harassed::new();
    let whole = peer::connection(false, 10_000, b"");
    let itself = peer::greeting(1, HELLO, 1);
    let later = "it says what nobody understands: it is of version 9, and this instance speaks 1";
    let messages: [(&[u8], &str); 5] = [
        (&whole, OUT_OF_TURN),
        (&peer::greeting(1, WELCOME, 9), OUT_OF_TURN),
        (&[9; 40], later),
        (&[], NO_MESSAGE),
        (&itself, "it is this instance itself"),
    ];
    for (message, _) in messages {
        let peer = peer::connect(harassed.path(), 1);
        peer.send(message);
        peer.assert_ended();
    }
    // And who says nothing at all.
    peer::connect(harassed.path(), 1).assert_ended();
    harassed.goes_on_and_refused(&[&messages.map(|(_, why)| why)[..], &["it says nothing"]].concat());
}

#[test]
fn a_flood_of_channels_and_messages_is_outlived() {
    let harassed = Harassed::new();
    let _silent: Vec<_> = (0..400).map(|_| peer::connect(harassed.path(), 1)).collect();
    assert_served_by(&mut harassed.host.connect(), 1);
    // The silent ones are dropped after a second; then there is room again.
    let peer = loop {
        let peer = peer::connect(harassed.path(), 1);
        if peer.try_send_with(&peer::greeting(1, HELLO, 9), &[]).is_ok()
            && peer.try_receive().is_ok_and(|(message, _)| message.starts_with(&[1, WELCOME]))
        {
            break peer;
        }
        thread::sleep(std::time::Duration::from_millis(50));
    };
    for _ in 0..2_000 {
        let (client, ours) = pair();
        peer.send_with(&peer::connection(true, 10_000, b"GET"), &[ours.as_fd()]);
        assert_eq!(peer.receive().0, TOOK);
        drop((client, ours));
    }
    drop(peer);
    let log = harassed.goes_on();
    assert_eq!(log.matches("others are refused").count(), 1, "{log}");
}

#[test]
fn a_client_that_has_gone_meanwhile_is_nobodys_loss() {
    let harassed = Harassed::new();
    let (client, ours) = pair();
    reset(client);
    let mut bytes = [0];
    let _ = std::io::Read::read(&mut &ours, &mut bytes);
    let peer = peer::call(harassed.path(), 1);
    peer.send_with(&peer::connection(false, 10_000, b""), &[ours.as_fd()]);
    assert_eq!(peer.receive().0, TOOK);
    drop((peer, ours));
    harassed.goes_on_and_refused(&[]);
}

/// Closes without a word (socket(7), SO_LINGER with no time).
fn reset(client: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
}
