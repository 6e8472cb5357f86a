//! An activation closes no connection, and whatever happens to a host while instances retire, what has arrived is answered.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rig::{Agent, Host, Mode, lossless::Stage};

use crate::{
    bundles::{contents, good, unit},
    deploy::{assert_converged, status},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn connect() -> TcpStream {
    let stream = TcpStream::connect("127.0.0.1:80").unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn send(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
}

/// One whole response with a Content-Length.
#[track_caller]
fn receive(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                return text;
            }
        }
        let mut byte = [0; 512];
        let read = stream.read(&mut byte).unwrap();
        assert!(read > 0, "it ended after {text:?}");
        bytes.extend_from_slice(&byte[..read]);
    }
}

/// The connection is open, says nothing of an end, and that release answers.
#[track_caller]
fn assert_kept(stream: &mut TcpStream, release: &str) {
    send(stream, "/version");
    let response = receive(stream);
    assert!(response.contains(release) && !response.contains("connection: close"), "{response}");
}

fn units(host: &Host) -> Vec<String> {
    let status = status(host);
    let instances = status["instances"].as_array().unwrap().iter();
    instances.map(|instance| instance["unit"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_kind_of_client_keeps_its_connections_over_activations() {
    let mut stage = Stage::set_with([good("one"), good("two")]);
    let clients = [(Mode::C2, 1), (Mode::C3, 20), (Mode::C3b, 10), (Mode::C4, 1), (Mode::C5, 10), (Mode::C6, 12)];
    let others = [(Mode::C7, 12), (Mode::C8, 10), (Mode::C9, 200), (Mode::C10, 10), (Mode::C1, 2)];
    let (rows, _) = stage.measure(&[&clients[..], &others[..]].concat(), 20, "");
    for row in rows {
        assert_eq!(row.fault(), None);
    }
}

#[test]
fn two_thousand_idle_connections_go_to_the_next_release_and_the_old_instance_is_gone() {
    let (one, two) = (good("one"), good("two"));
    let (first, second) = (one.id.to_string(), two.id.to_string());
    let mut stage = Stage::set_with([one, two]);
    let mut idle: Vec<TcpStream> = stage.host.in_network(|| (0..2_000).map(|_| connect()).collect());
    idle.iter_mut().for_each(|stream| assert_kept(stream, &second));
    let old = units(&stage.host).remove(0);
    let began = Instant::now();
    stage.activate();
    let activated = began.elapsed();
    let state = |host: &Host| host.run(&format!("systemctl is-active {old}")).output.trim().to_owned();
    stage.host.wait_until("it has ended", |host| state(host) == "inactive");
    println!("activated after {activated:?}, the old instance gone after {:?}", began.elapsed());
    idle.iter_mut().for_each(|stream| assert_kept(stream, &first));
    stage.host.wait_until("it says what it has taken", |host| status(host)["instances"][0]["taken"] == 2_000);
    let left = stage.host.succeed("cd /run/app && ls");
    assert!(left.contains("3.sock") && !left.contains("2.sock") && left.contains("handover"), "{left}");
    let text = stage.host.succeed("releasectl status");
    assert!(text.contains("TAKEN") && text.contains("2000"), "{text}");
    assert_converged(&stage.host, &first);
}

#[test]
fn a_candidate_that_is_ready_and_rejected_hands_its_connections_back() {
    let (one, two) = (good("one"), good("two"));
    let (first, second) = (one.id.to_string(), two.id.to_string());
    let stage = Stage::set_with([one, two]);
    let candidate = format!("app-{first}@1000000.service");
    let old = units(&stage.host).remove(0);
    stage.host.succeed(&format!("systemctl start {candidate}"));
    // Both accept now, and the kernel may favour one of them: what arrives while the old one is stopped is the candidate's.
    stage.host.succeed(&format!("systemctl kill -s STOP {old}"));
    // Each of its threads stops for itself, and one that has yet to could accept.
    let states = format!("cat /proc/$(systemctl show -P MainPID {old})/task/*/stat | cut -d' ' -f3 | sort -u");
    stage.host.wait_until("it stands still", |host| host.run(&states).output.trim() == "T");
    let mut clients: Vec<TcpStream> = stage.host.in_network(|| (0..50).map(|_| connect()).collect());
    clients.iter_mut().for_each(|stream| assert_kept(stream, &first));
    stage.host.succeed(&format!("systemctl kill -s CONT {old}"));
    clients.extend(stage.host.in_network(|| (0..50).map(|_| connect()).collect::<Vec<_>>()));
    stage.host.succeed(&format!("systemctl stop {candidate}"));
    clients.iter_mut().for_each(|stream| assert_kept(stream, &second));
    assert_converged(&stage.host, &second);

    // What one leaves that is killed is removed by the next verb, and what the others have is not.
    let killed = candidate.replace("1000000", "1000001");
    stage.host.succeed(&format!("systemctl start {killed}; systemctl kill -s KILL {killed}; ls /run/app/1000001.sock"));
    stage.host.succeed("releasectl restart");
    let left = stage.host.succeed("ls /run/app");
    assert!(!left.contains("1000001") && left.matches(".sock").count() == 1, "{left}");
}

#[test]
fn who_retires_and_what_it_waits_for_is_told() {
    let (one, two) = (good("one"), good("two"));
    let mut stage = Stage::set_with([one, two]);
    let mut slow = stage.host.in_network(connect);
    send(&mut slow, "/stream?secs=9");
    let mut first = [0; 16];
    slow.read_exact(&mut first).unwrap();
    stage.activate();
    stage.host.wait_until("it is told", |host| {
        let text = host.succeed("releasectl status");
        text.contains("waits for: response /stream for ")
    });
    let waits = &status(&stage.host)["instances"][0]["waits"];
    assert!(waits[0]["age_ms"].as_u64().is_some_and(|age| age < 60_000), "{waits}");
    stage.host.wait_until("it has ended", |host| units(host).len() == 1);
    let journal = stage.host.succeed("journalctl --sync; journalctl -b -o cat -u 'app-*'");
    assert!(journal.contains("ended: 1 connections handed over, 0 drained, 0 cut"), "{journal}");
}

/// Only the service's own user hands in or takes out: no other unit can even enter the folder, and root is not heard.
#[test]
fn another_unit_cannot_reach_the_handover_and_root_is_refused() {
    let stage = Stage::set_with([good("one"), good("two")]);
    let n = status(&stage.host)["instances"][0]["n"].as_u64().unwrap();
    let script = format!(
        "import socket\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\ns.connect('/run/app/{n}.sock')\n\
         s.send(bytes([1, 0, 9, 0, 0, 0, 0, 0, 0, 0]))\nprint('heard', s.recv(100))\n"
    );
    fs::write(stage.host.path("/opt/reach.py"), script).unwrap();
    let other = stage.host.run("systemd-run -q --wait --pipe -p DynamicUser=yes python3 /opt/reach.py");
    assert!(other.code != 0 && other.output.contains("PermissionError"), "{}", other.output);
    let root = stage.host.run("python3 /opt/reach.py");
    assert!(!root.output.contains("heard b'\\x01"), "{}", root.output);
    let journal = stage.host.succeed("journalctl --sync; journalctl -b -o cat -u 'app-*'");
    assert!(journal.contains("another user's"), "{journal}");
}

/// A reboot sends no second SIGTERM to who retires already: it learns from the end of its successor.
#[test]
fn a_reboot_waits_for_a_long_request_no_longer_than_the_short_deadline() {
    let mut stage = Stage::set_with([good("one"), good("two")]);
    let mut slow = stage.host.in_network(connect);
    send(&mut slow, "/stream?secs=300");
    let mut first = [0; 16];
    slow.read_exact(&mut first).unwrap();
    stage.activate();
    assert_eq!(units(&stage.host).len(), 2, "the old one waits for it");
    let began = Instant::now();
    stage.host.reboot();
    let took = began.elapsed();
    println!("gone and back after {took:?}");
    assert!(took > Duration::from_secs(25), "the request had its time");
    assert!(took < Duration::from_secs(40), "{took:?}");
}

#[test]
fn a_shutdown_answers_what_is_in_flight_idle_and_in_the_queue() {
    let mut stage = Stage::set_with([good("one"), good("two")]);
    let n = status(&stage.host)["instances"][0]["n"].as_u64().unwrap();
    let report = stage.host.path(&format!("/run/app/{n}.json"));
    let is_retiring = move || fs::read_to_string(&report).is_ok_and(|text| text.contains("\"state\":\"retiring\""));
    let (mut in_flight, mut idle) = stage.host.in_network(|| (connect(), connect()));
    send(&mut idle, "/version");
    receive(&mut idle);
    send(&mut in_flight, "/slow?ms=3000");
    let leader = stage.host.leader();
    let clients = thread::spawn(move || {
        while !is_retiring() {
            thread::yield_now();
        }
        let began = Instant::now();
        send(&mut idle, "/version");
        assert!(receive(&mut idle).contains("connection: close"));
        assert!(receive(&mut in_flight).ends_with("after 3000 ms\n"));
        began
    });
    let fresh = thread::spawn(move || {
        rig::host::enter_network(leader);
        let (mut answered, began) = (0, Instant::now());
        // Until well within the grace of 5 s, whenever that began.
        while began.elapsed() < Duration::from_secs(4) {
            let mut stream = connect();
            send(&mut stream, "/version");
            receive(&mut stream);
            answered += 1;
            thread::sleep(Duration::from_millis(5));
        }
        answered
    });
    stage.host.reboot();
    clients.join().unwrap();
    assert!(fresh.join().unwrap() > 100);
}

/// As many connections are open as may be, so the others stand in the queue when the host goes down.
#[test]
fn a_shutdown_answers_who_is_seen_to_wait_in_the_queue() {
    let mut stage = Stage::set_with([good("one"), good("two")]);
    stage.host.succeed("mkdir -p /etc/app; echo APP_CONNECTIONS=20 >/etc/app/env; releasectl restart");
    stage.host.wait_until("the one before has ended", |host| units(host).len() == 1);
    let n = status(&stage.host)["instances"][0]["n"].as_u64().unwrap();
    let report = stage.host.path(&format!("/run/app/{n}.json"));
    let is_retiring = move || fs::read_to_string(&report).is_ok_and(|text| text.contains("\"state\":\"retiring\""));
    let ask = |stream: &mut TcpStream| send(stream, "/version");
    let mut open: Vec<TcpStream> = stage.host.in_network(|| (0..20).map(|_| connect()).collect());
    for stream in &mut open {
        ask(stream);
        receive(stream);
    }
    let mut waiting: Vec<TcpStream> = stage.host.in_network(|| (0..30).map(|_| connect()).collect());
    waiting.iter_mut().for_each(ask);
    stage.host.wait_until("they wait", |host| status(host)["waiting"] == 30);
    let clients = thread::spawn(move || {
        while !is_retiring() {
            thread::yield_now();
        }
        for stream in &mut open {
            ask(stream);
            assert!(receive(stream).contains("connection: close"));
        }
        waiting.iter_mut().for_each(|stream| drop(receive(stream)));
    });
    stage.host.reboot();
    clients.join().unwrap();
}

#[test]
fn connections_that_have_sent_nothing_or_half_a_head_go_on_after_a_deployment() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    let (mut fresh, mut half) = host.in_network(|| (connect(), connect()));
    half.write_all(b"GET /version HTTP/1.1\r\nHo").unwrap();
    agent.deploy(&two.archive).expect_success();
    half.write_all(b"st: h\r\n\r\n").unwrap();
    assert!(receive(&mut half).contains(two.id.as_str()));
    for stream in [&mut half, &mut fresh] {
        assert_kept(stream, two.id.as_str());
    }
    assert_converged(&host, two.id.as_str());
}

/// sd_notify(3), EXTEND_TIMEOUT_USEC: the service's own deadline counts, not the unit's.
#[test]
fn a_drain_that_is_longer_than_the_units_stop_timeout_is_not_cut() {
    let mut contents = contents();
    unit(&mut contents, "TimeoutStopSec=45", "TimeoutStopSec=2");
    let mut stage = Stage::set_with([good("one"), contents.pack("two").unwrap()]);
    let mut slow = stage.host.in_network(connect);
    send(&mut slow, "/slow?ms=25000");
    // Accepted in order: once a later one is answered, this one has been accepted.
    let mut later = stage.host.in_network(connect);
    send(&mut later, "/version");
    receive(&mut later);
    stage.activate();
    slow.set_read_timeout(Some(2 * PATIENCE)).unwrap();
    assert!(receive(&mut slow).ends_with("after 25000 ms\n"));
}

/// Off until a drop-in asks for it, never on the public port, and it costs nothing of the hardening.
#[test]
fn metrics_are_on_a_socket_of_their_own_once_a_drop_in_asks_for_them() {
    let mut stage = Stage::set_with([good("one"), good("two")]);
    let host = &stage.host;
    host.fail("curl -s --max-time 2 127.0.0.1:9464/metrics");
    host.succeed(
        "mkdir -p /etc/systemd/system/app-@.service.d && cd /etc/systemd/system/app-@.service.d && \
         printf '[Service]\\nSockets=app-metrics.socket\\n' >metrics.conf && systemctl daemon-reload && \
         systemctl enable -q --now app-metrics.socket && releasectl restart",
    );
    let metrics = || host.succeed("curl -sf --max-time 5 127.0.0.1:9464/metrics");
    assert!(metrics().contains("serve_connections{"), "{}", metrics());
    assert!(!host.succeed("curl -s localhost/metrics").contains("serve_connections"));
    let unit = units(host).pop().unwrap();
    let exposure = host.succeed(&format!("systemd-analyze security --no-pager {unit} | tail -1"));
    assert!(exposure.split_whitespace().find_map(|word| word.parse::<f64>().ok()).unwrap() <= 0.3, "{exposure}");
    let before = metrics();
    stage.activate();
    let after = stage.host.succeed("curl -sf --max-time 5 127.0.0.1:9464/metrics");
    let label = |text: &str| text.split("instance=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_ne!(label(&before), label(&after), "the next instance answers");
}
