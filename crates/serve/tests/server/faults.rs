//! Whatever dies, hangs or refuses during a handover: a request is lost only if it had reached the process that was killed.

use std::{
    io::Read,
    iter,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::{
    handover::{Host, assert_served_by},
    hostile::as_nobody,
    peer::{self, CONNECTION, FULL, TOOK},
    served::{Served, ask, ask_until, assert_is_the_last, receive, says_close, send},
};

/// So many are handed over to a successor that the test plays, and acknowledges so many of them before it dies. Whatever it
/// had acknowledged dies with it; all the others are answered by the old one.
#[track_caller]
fn assert_only_what_was_acknowledged_dies(acknowledged: usize, read: usize) {
    let host = Host::new();
    let old = host.start(1);
    // More than are on their way at once: some wait for their turn.
    let mut idle = host.idle(20);
    let listening = peer::listen(host.path(), 2);
    old.signal();
    let successor = peer::welcome(&listening, 2, 1);
    drop(listening);
    let mut owned = Vec::new();
    for _ in 0..read {
        let (message, descriptor) = successor.receive();
        assert_eq!(message[1], CONNECTION);
        owned.push(TcpStream::from(descriptor.unwrap()));
    }
    let ports: Vec<_> = owned[..acknowledged].iter().map(|stream| stream.peer_addr().unwrap()).collect();
    (0..acknowledged).for_each(|_| successor.send(&TOOK));
    drop((owned, successor));
    for mut stream in idle.drain(..) {
        if ports.contains(&stream.local_addr().unwrap()) {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "it died with its owner");
        } else {
            assert_served_to_its_end(stream);
        }
    }
    assert_eq!(old.ended().report()["handed_over"], acknowledged);
}

#[track_caller]
fn assert_served_to_its_end(mut stream: TcpStream) {
    assert_eq!(settled(&mut stream), 0);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// Asks until the connection has come to where it ends: 0 where that is instance 1, which says close, 1 where it is 2.
#[track_caller]
fn settled(stream: &mut TcpStream) -> usize {
    let by_new = |response: &str| response.ends_with("\r\n\r\n2");
    let response = ask_until(stream, "/instance", |response| says_close(response) || by_new(response));
    assert!(by_new(&response) || response.ends_with("\r\n\r\n1"), "{response}");
    assert!(!(by_new(&response) && says_close(&response)), "{response}");
    usize::from(by_new(&response))
}

#[test]
fn a_successor_that_dies_before_it_acknowledges_costs_nothing() {
    assert_only_what_was_acknowledged_dies(0, 0);
    assert_only_what_was_acknowledged_dies(0, 8);
}

#[test]
fn a_successor_that_dies_between_two_acknowledgements_costs_what_it_had_acknowledged() {
    // With messages that it never read, the kernel reports its end before what it had said.
    assert_only_what_was_acknowledged_dies(4, 4);
    assert_only_what_was_acknowledged_dies(4, 8);
}

#[test]
fn a_successor_that_dies_after_it_acknowledged_all_costs_what_its_own_crash_costs() {
    assert_only_what_was_acknowledged_dies(8, 8);
}

#[test]
fn a_successor_that_takes_no_more_is_heard_to_its_last_answer() {
    let host = Host::new();
    let old = host.start(1);
    let mut idle = host.idle(20);
    let listening = peer::listen(host.path(), 2);
    old.signal();
    let successor = peer::welcome(&listening, 2, 1);
    drop(listening);
    // As many as are on their way at once: the next is sent when one of them is answered.
    let owned: Vec<_> = (0..16).map(|_| TcpStream::from(successor.receive().1.unwrap())).collect();
    // As one does that retires: what was sent it reads, and no more can be.
    rustix::net::shutdown(&successor, rustix::net::Shutdown::Read).unwrap();
    for _ in &owned {
        assert_eq!(successor.try_send_with(&TOOK, &[]), Ok(TOOK.len()), "it is heard");
        // Another has its turn, and cannot be sent.
        old.wait_until_asleep();
    }
    assert!(successor.receive().0.is_empty(), "the next was not sent");
    let ports: Vec<_> = owned.iter().map(|stream| stream.peer_addr().unwrap()).collect();
    drop((owned, successor));
    // The one that could not be sent as well.
    idle.retain(|stream| !ports.contains(&stream.local_addr().unwrap()));
    idle.into_iter().for_each(assert_served_to_its_end);
    assert_eq!(old.ended().report()["handed_over"], ports.len());
}

#[test]
fn what_is_no_acknowledgement_takes_nothing_and_what_follows_it_is_heard() {
    let host = Host::new();
    let old = host.start(1);
    let mut idle = host.idle(2);
    let listening = peer::listen(host.path(), 2);
    old.signal();
    let successor = peer::welcome(&listening, 2, 1);
    drop(listening);
    let [first, second] = [0, 1].map(|_| TcpStream::from(successor.receive().1.unwrap()));
    idle.sort_by_key(|stream| stream.local_addr().unwrap() != first.peer_addr().unwrap());
    // Both before the old one hears any.
    old.stop();
    successor.send(&[1, 200]);
    successor.send(&TOOK);
    old.kill(Signal::CONT);
    old.wait_for("STATUS=retiring, alone");
    drop((first, second, successor));
    let mut owned = idle.pop().unwrap();
    assert_eq!(owned.read(&mut [0]).unwrap_or(0), 0, "it died with its owner");
    assert_served_to_its_end(idle.pop().unwrap());
    assert_eq!(old.ended().report()["handed_over"], 1);
}

#[test]
fn a_successor_that_hangs_is_taken_back_from_and_cannot_take_later() {
    let host = Host::new();
    let old = host.start(1);
    let mut idle = host.idle(5);
    let listening = peer::listen(host.path(), 2);
    old.signal();
    let successor = peer::welcome(&listening, 2, 1);
    drop(listening);
    let _descriptors: Vec<_> = (0..5).map(|_| successor.receive().1.unwrap()).collect();
    // It says no more. The answers come from the old one, which is alone now.
    for mut stream in idle.drain(..) {
        let response = ask(&mut stream, "/instance");
        assert_is_the_last(stream, &response, "1");
    }
    let late = successor.try_send_with(&TOOK, &[]);
    assert_eq!(late.unwrap_err(), rustix::io::Errno::PIPE, "what comes late never arrives");
    assert_eq!(old.ended().report()["handed_over"], 0);
}

#[test]
fn one_that_is_stopped_is_passed_over_and_serves_nothing_when_it_goes_on() {
    let host = Host::new();
    let old = host.start(1);
    let mut idle = host.idle(20);
    let (good, stopped) = (host.start(2), host.start(3));
    let before = [&good, &stopped].map(Served::descriptors);
    stopped.stop();
    old.signal();
    good.wait_for_report("taken", 20);
    old.ends_well();
    stopped.kill(Signal::CONT);
    for stream in &mut idle {
        assert_served_by(stream, 2);
    }
    drop(idle);
    good.assert_leaks_nothing(before[0]);
    stopped.assert_leaks_nothing(before[1]);
    stopped.signal();
    assert_eq!(stopped.ended().report()["taken"], 0);
}

#[test]
fn one_that_comes_while_another_hangs_is_found_before_anything_is_closed() {
    let host = Host::new();
    let old = host.start(1);
    let mut idle = host.idle(1);
    let listening = peer::listen(host.path(), 2);
    old.signal();
    let _asked = peer::accept(&listening);
    let _new = host.start(3);
    let response = ask_until(&mut idle[0], "/instance", |response| {
        assert!(!says_close(response), "{response}");
        response.ends_with("\r\n\r\n3")
    });
    assert!(response.ends_with('3'));
    old.ends_well();
}

#[test]
fn one_that_is_killed_amid_a_handover_harms_only_what_it_owned() {
    for delay in [0, 200, 400, 800, 1600, 3200] {
        let host = Host::new();
        let old = host.start(1);
        let mut idle = host.idle(200);
        let (mut killed, last) = (host.start(2), host.start(3));
        let before = last.descriptors();
        // The one that is to be killed is the newest.
        std::fs::remove_file(host.path().join("handover")).unwrap();
        std::os::unix::fs::symlink("2.sock", host.path().join("handover")).unwrap();
        old.signal();
        spin(Duration::from_micros(delay));
        killed.kill(Signal::KILL);
        killed.child.wait().unwrap();
        let mut dead = 0;
        for stream in &mut idle {
            send(stream, "/instance");
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) => drop(receive(stream)),
                _ => dead += 1,
            }
        }
        // The others go on, whoever has answered them.
        let handed_over = old.ended().report()["handed_over"].as_u64().unwrap();
        // Those that did not die with their owner are the last one's.
        last.wait_for_report("taken", handed_over - dead);
        drop(idle);
        last.assert_leaks_nothing(before);
    }
}

#[test]
fn an_old_one_that_is_killed_amid_its_handover_costs_what_it_had_and_nothing_that_it_had_sent() {
    let mut amid = 0;
    for taken in [1, 100, 200, 300, 400] {
        let host = Host::new();
        let mut old = host.start(1);
        let mut idle = host.idle(600);
        let new = host.start(2);
        let before = new.descriptors();
        old.signal();
        while new.descriptors() < before + taken {
            std::hint::spin_loop();
        }
        old.kill(Signal::KILL);
        old.child.wait().unwrap();
        let mut answered = 0;
        for stream in &mut idle {
            send(stream, "/instance");
            match stream.read(&mut [0]) {
                Ok(1) => {
                    assert!(receive(stream).ends_with("\r\n\r\n2"));
                    answered += 1;
                }
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it died with its owner"),
            }
        }
        // None is held by nobody, and none by both.
        new.wait_for_report("taken", answered);
        amid += u32::from((1..600).contains(&answered));
        drop(idle);
        new.assert_leaks_nothing(before);
    }
    assert!(amid > 0, "never amid a handover");
}

#[test]
fn one_that_dies_with_its_connection_on_the_way_has_handed_it_over() {
    let host = Host::new();
    let new = host.start(1);
    let before = new.descriptors();
    let (mut client, ours) = pair();
    let old = peer::call(host.path(), 1);
    new.stop();
    old.send_with(&peer::connection(false, 10_000, b"GET /insta"), &[ours.as_fd()]);
    drop((old, ours));
    new.kill(Signal::CONT);
    std::io::Write::write_all(&mut client, b"nce HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert!(receive(&mut client).ends_with("\r\n\r\n1"));
    drop(client);
    new.assert_leaks_nothing(before);
}

/// Nobody takes back what a dead one had sent.
#[test]
fn one_that_retires_has_what_the_dead_had_sent_to_it() {
    let host = Host::new();
    let (new, _next) = (host.start(1), host.start(2));
    let senders: Vec<_> = (0..6).map(|_| peer::call(host.path(), 1)).collect();
    new.stop();
    let mut clients = Vec::new();
    for sender in &senders {
        for (client, ours) in iter::repeat_with(pair).take(100) {
            sender.send_with(&peer::connection(false, 10_000, b""), &[ours.as_fd()]);
            clients.push(client);
        }
    }
    drop(senders);
    new.signal();
    new.kill(Signal::CONT);
    for client in &mut clients {
        let response = ask(client, "/instance");
        assert!(response.starts_with("HTTP/1.1 200") && !says_close(&response), "{response}");
    }
    new.ends_well();
}

#[test]
fn one_that_dies_and_has_not_read_what_it_was_told_has_handed_over_what_follows_too() {
    let host = Host::new();
    let new = host.start(1);
    let before = new.descriptors();
    let old = peer::call(host.path(), 1);
    let pairs: Vec<_> = (0..4).map(|_| pair()).collect();
    old.send_with(&peer::connection(false, 10_000, b""), &[pairs[0].1.as_fd()]);
    new.wait_for_report("taken", 1);
    new.stop();
    for (_, ours) in &pairs[1..] {
        old.send_with(&peer::connection(false, 10_000, b""), &[ours.as_fd()]);
    }
    // With an acknowledgement that it has not read: the kernel tells of that before what it had sent.
    drop(old);
    let clients: Vec<_> = pairs.into_iter().map(|(client, _)| client).collect();
    new.kill(Signal::CONT);
    for mut client in clients {
        assert_served_by(&mut client, 1);
    }
    new.assert_leaks_nothing(before);
}

/// Each with one long request left: they keep their channels, and when their successor retires they call the next together.
#[test]
fn a_hundred_that_retire_at_once_are_all_heard() {
    let host = Host::new();
    let new = host.start(1);
    let before = new.descriptors();
    new.stop();
    let callers: Vec<_> = (0..100).map(|_| peer::greet(host.path(), 1)).collect();
    new.kill(Signal::CONT);
    callers.iter().for_each(|caller| caller.assert_welcome(1));
    for caller in &callers {
        let (mut client, ours) = pair();
        caller.send_with(&peer::connection(false, 10_000, b""), &[ours.as_fd()]);
        assert_eq!(caller.receive().0, TOOK);
        assert_served_by(&mut client, 1);
    }
    drop(callers);
    new.assert_leaks_nothing(before);
}

/// Else the successor would drop what came from a sender that has died, and that had arrived.
#[test]
fn however_long_a_handover_goes_on_a_connection_on_its_way_is_the_successors() {
    let host = Host::new();
    let old = host.start(1);
    let idle = host.idle(200);
    let listening = peer::listen(host.path(), 2);
    old.signal();
    let successor = peer::welcome(&listening, 2, 1);
    let (mut owned, began) = (vec![successor.receive()], Instant::now());
    // Sixteen are on their way at any time, and each is answered well within a second.
    while began.elapsed() < Duration::from_millis(1500) {
        spin(Duration::from_millis(10));
        successor.send(&TOOK);
        owned.push(successor.receive());
        let (message, _) = owned.last().unwrap();
        assert!(peer::is_valid(message), "after {:?}", began.elapsed());
    }
    assert!(owned.len() < idle.len(), "it goes on");
}

#[test]
fn what_was_taken_back_is_not_served_twice() {
    let host = Host::new();
    let new = host.start(1);
    let before = new.descriptors();
    let (mut client, ours) = pair();
    let old = peer::call(host.path(), 1);
    new.stop();
    old.send_with(&peer::connection(false, 10, b""), &[ours.as_fd()]);
    spin(Duration::from_millis(20));
    // The cut.
    rustix::net::shutdown(&old, rustix::net::Shutdown::Read).unwrap();
    new.kill(Signal::CONT);
    send(&mut client, "/instance");
    // Its answer on another channel comes after it has read that one.
    let (mut other, theirs) = pair();
    let second = peer::call(host.path(), 1);
    second.send_with(&peer::connection(false, 10_000, b""), &[theirs.as_fd()]);
    assert_eq!(second.receive().0, TOOK);
    assert_served_by(&mut other, 1);
    new.wait_for_report("taken", 1);
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "neither answered nor closed: it is ours");
    assert!(receive_from(ours).starts_with("GET /instance"));
    drop((old, second, other, theirs));
    new.assert_leaks_nothing(before);
}

#[test]
fn a_successor_at_its_limit_refuses_and_the_old_one_answers() {
    let host = Host::new();
    let old = host.start(1);
    let mut idle = host.idle(10);
    // One of them is for the next in the queue.
    let new = host.instance(2).with("APP_CONNECTIONS", 4).ready().0;
    new.wait_until_asleep();
    let before = new.descriptors();
    old.retire();
    let mut answered = [0, 0];
    for stream in &mut idle {
        answered[settled(stream)] += 1;
    }
    assert_eq!(answered, [7, 3]);
    assert_eq!(old.ended().report()["handed_over"], 3);
    drop(idle);
    new.assert_leaks_nothing(before);
}

#[test]
fn a_connection_that_is_refused_is_kept_longer_than_balancers_keep_theirs() {
    let host = Host::new();
    let old = host.start(1);
    let mut idle = host.idle(1);
    let listening = peer::listen(host.path(), 2);
    old.signal();
    let successor = peer::welcome(&listening, 2, 1);
    successor.receive();
    successor.send(&FULL);
    // Beyond the grace of an instance that is alone.
    idle[0].set_read_timeout(Some(Duration::from_secs(7))).unwrap();
    assert!(idle[0].read(&mut [0]).is_err(), "it is open");
    let response = ask(&mut idle[0], "/instance");
    assert_is_the_last(idle.remove(0), &response, "1");
    old.ends_well();
}

#[test]
fn without_room_for_descriptors_a_successor_refuses_and_goes_on() {
    let host = Host::new();
    let old = host.start(1);
    let mut idle = host.idle(30);
    let new = host.start(2);
    let open = new.descriptors() as u64;
    // Its channel needs one, and some remain.
    limit(&new, open + 5);
    old.retire();
    let mut answered = [0, 0];
    for stream in &mut idle {
        answered[settled(stream)] += 1;
    }
    assert!(answered[0] > 0 && answered[1] > 0, "{answered:?}");
    old.ends_well();
    limit(&new, 4096);
    assert_served_by(&mut host.connect(), 2);
    drop(idle);
    new.assert_leaks_nothing(open as usize);
}

#[test]
fn descriptors_on_their_way_count_and_the_others_wait() {
    let host = Host::new();
    let old = host.instance(1).unprivileged().ready().0;
    let mut idle = host.idle(60);
    let new = host.instance(2).unprivileged().ready().0;
    let before = new.descriptors();
    // The kernel counts what a user has on its way against the limit of who sends (unix(7), ETOOMANYREFS). This user has
    // some already, and room for few of its connections at once.
    let process = Pid::from_child(&old.child);
    let _on_their_way = as_nobody(|| {
        limit_process(process, 20);
        peer::send_descriptors(17)
    });
    old.signal();
    new.wait_for_report("taken", 60);
    idle.iter_mut().for_each(|stream| assert_served_by(stream, 2));
    assert_eq!(old.ended().report()["handed_over"], 60);
    drop(idle);
    new.assert_leaks_nothing(before);
}

#[test]
fn one_of_another_version_takes_nothing_and_is_a_successor_all_the_same() {
    let host = Host::new();
    let old = host.start(1);
    let mut idle = host.idle(2);
    let listening = peer::listen(host.path(), 2);
    old.signal();
    let successor = peer::welcome(&listening, 2, 9);
    drop(listening);
    old.wait_for("STATUS=retiring, beside a successor");
    let mut last = idle.pop().unwrap();
    let response = ask(&mut last, "/readyz");
    assert!(response.starts_with("HTTP/1.1 200"), "the host is as ready as ever");
    assert_is_the_last(last, &response, "ok");
    drop(successor);
    // Nobody answers any more.
    old.wait_for("STATUS=retiring, alone");
    let mut last = idle.pop().unwrap();
    assert!(ask(&mut last, "/readyz").starts_with("HTTP/1.1 503"));
    old.ends_well();
}

#[test]
fn the_deadline_is_long_beside_a_successor_and_short_from_its_end_on() {
    let host = Host::new();
    let old = host.instance(1).with("APP_DRAIN_SECONDS", 2).ready().0;
    let mut slow = host.connect();
    send(&mut slow, "/slow/60000");
    // Accepted in order: once this one is answered, the other has been accepted.
    let _idle = host.idle(1);
    let new = host.start(2);
    old.signal();
    // One a second: far beyond the short deadline.
    for _ in 0..6 {
        old.wait_for("STATUS=retiring");
    }
    let began = Instant::now();
    new.kill(Signal::KILL);
    let said = old.wait_for("STATUS=ended");
    assert!(said.contains("ended: 1 connections handed over, 0 drained, 1 cut; 1 connections, 1 requests"), "{said}");
    assert!(said.contains("in flight were cut at the deadline"), "{said}");
    let took = began.elapsed();
    assert!(Duration::from_secs(1) < took && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(old.ended().report()["cut"], 1);
}

#[test]
fn a_successor_that_retires_alone_shortens_the_deadline_too() {
    let host = Host::new();
    let old = host.instance(1).with("APP_DRAIN_SECONDS", 1).ready().0;
    let mut slow = host.connect();
    send(&mut slow, "/slow/60000");
    ask(&mut host.connect(), "/");
    let new = host.start(2);
    old.retire();
    new.signal();
    assert!(old.wait_for("STATUS=ended").contains("cut at the deadline"));
    old.ends_well();
}

#[test]
fn systemd_is_asked_for_a_little_at_a_time() {
    let host = Host::new();
    let old = host.start(1);
    let mut slow = host.connect();
    send(&mut slow, "/slow/2500");
    ask(&mut host.connect(), "/");
    let _new = host.start(2);
    old.signal();
    for _ in 0..2 {
        let said = old.wait_for("EXTEND_TIMEOUT_USEC=");
        assert!(said.contains("EXTEND_TIMEOUT_USEC=20000000"), "{said}");
    }
    assert!(receive(&mut slow).ends_with("slow"));
    old.ends_well();
}

#[test]
fn a_successor_that_comes_late_is_found() {
    let host = Host::new();
    let old = host.start(1);
    let mut slow = host.connect();
    send(&mut slow, "/slow/4000");
    ask(&mut host.connect(), "/");
    old.retire();
    let _new = host.start(2);
    assert!(receive(&mut slow).ends_with("slow"));
    assert_served_by(&mut slow, 2);
    old.ends_well();
}

/// A client, and the server's end of its connection.
pub fn pair() -> (TcpStream, TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = crate::served::connect(&listener.local_addr().unwrap().to_string());
    (client, listener.accept().unwrap().0)
}

fn limit(served: &Served, most: u64) {
    limit_process(Pid::from_child(&served.child), most);
}

fn limit_process(process: Pid, most: u64) {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(Some(process), Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
}

fn receive_from(mut stream: TcpStream) -> String {
    let mut bytes = [0; 64];
    stream.set_nonblocking(false).unwrap();
    let length = stream.read(&mut bytes).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Shorter than a sleep can be.
fn spin(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}
