//! What a deployment leaves to be read: a receipt that agrees with its clients, and what an operator makes of it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rig::{Agent, Host, Load, Mode};
use serde_json::Value;

use crate::{
    bundles::{bake, contents, good, never_ready_again, script},
    deploy::assert_converged,
};

/// Everything of the end of a script's output that CodeDeploy's console shows.
const TAIL: usize = 2047;

fn history(host: &Host) -> Vec<Value> {
    let all: Value = serde_json::from_str(&host.succeed("releasectl history --json")).unwrap();
    all.as_array().unwrap().clone()
}

/// What each receipt says was done, and how it ended.
pub fn told(host: &Host) -> Vec<(String, String)> {
    let word = |receipt: &Value, name: &str| receipt[name].as_str().unwrap().to_owned();
    history(host).iter().map(|receipt| (word(receipt, "verb"), word(receipt, "outcome"))).collect()
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect("127.0.0.1:80").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn ask(stream: &mut TcpStream, path: &str, header: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{header}\r\n").as_bytes()).unwrap();
}

/// Reads to the end of a response whose body ends with `last`.
fn answered(stream: &mut TcpStream, last: &str) {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).ends_with(last) {
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "it ended after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&chunk[..read]);
    }
}

/// One deployment, seen from both sides: connections that go over, that end, that are cut; then the new release dies while
/// it bakes, under load.
#[test]
fn a_receipt_and_its_clients_agree() {
    let (host, good) = (Host::boot(), good("good"));
    host.succeed("mkdir -p /etc/app; echo APP_DRAIN_SUCCESSOR_SECONDS=2 >/etc/app/env");
    Agent::new(&host).deploy(&good.archive).expect_success();
    let mut bad = contents();
    bake(&mut bad, 60);
    let bad = bad.pack("bad").unwrap();
    let open = |count, path: &'static str, header: &'static str| -> Vec<TcpStream> {
        let mut streams = host.in_network(|| (0..count).map(|_| connect()).collect::<Vec<_>>());
        streams.iter_mut().for_each(|stream| ask(stream, path, header));
        streams
    };
    let mut idle = open(30, "/slow?ms=0", "");
    idle.iter_mut().for_each(|stream| answered(stream, "after 0 ms\n"));
    let mut busy = open(5, "/slow?ms=5000", "");
    let mut closing = open(4, "/slow?ms=5000", "Connection: close\r\n");
    let mut endless = open(3, "/stream?secs=300", "");
    endless.iter_mut().for_each(|stream| stream.read_exact(&mut [0; 64]).unwrap());

    let (report, deployment) = thread::scope(|scope| {
        let deployment = scope.spawn(|| Agent::new(&host).deploy(&bad.archive));
        busy.iter_mut().chain(&mut closing).for_each(|stream| answered(stream, "after 5000 ms\n"));
        // Cut at the deadline, in the midst of a body.
        endless.iter_mut().for_each(|stream| drop(stream.read_to_end(&mut Vec::new())));
        assert!(closing.iter_mut().all(|stream| matches!(stream.read(&mut [0; 1]), Ok(0))), "they said close");
        for stream in idle.iter_mut().chain(&mut busy) {
            ask(stream, "/slow?ms=0", "");
            answered(stream, "after 0 ms\n");
        }
        host.settle();
        let load = Load::start(&host, Mode::C1, 24);
        thread::sleep(Duration::from_millis(700));
        host.succeed(&format!("systemctl kill -s KILL 'app-{}@*'", bad.id));
        let deployment = deployment.join().unwrap().expect_failure("ValidateService");
        (load.stop(), deployment)
    });
    assert_converged(&host, good.id.as_str());

    let receipts = history(&host);
    let receipt = receipts.iter().find(|receipt| receipt["to"] == bad.id.as_str()).unwrap();
    let validation = &receipt["validation"];
    assert_eq!(receipt["outcome"], "failed", "{receipt:#}");
    assert!(receipt["reason"].as_str().unwrap().contains("its instance ended"), "{receipt:#}");
    assert_eq!((&receipt["deployment"], &receipt["group"]), (&deployment.id.as_str().into(), &"rig".into()));
    let retired = &validation["retired"][0];
    let counts = ["handed_over", "drained", "cut", "open"].map(|name| retired[name].as_u64().unwrap());
    assert_eq!(counts, [35, 4, 3, 0], "{receipt:#}");

    let probe = &validation["probe"];
    let (failed, gap) = (probe["failed"].as_u64().unwrap(), probe["gap_ms"].as_u64().unwrap());
    let longest = report.longest().as_millis() as u64;
    println!("the prober: {failed} failed, gap {gap} ms; the clients: {} lost, longest {longest} ms", report.losses());
    assert!(failed <= report.lost(), "{failed} of the prober, {}", report.losses());
    // It asks every 100 ms, so it may come as much later; and as much is for two cores.
    assert!(gap <= longest + 100 && longest <= gap + 200, "gap {gap} ms, longest {longest} ms");
    let steps: Vec<&str> =
        receipt["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(steps, ["lock", "verify", "prepare", "start", "flip", "retire"]);
    assert!(receipt["ready_ms"].as_u64().is_some() && validation["uncovered_ms"].as_u64().is_some(), "{receipt:#}");
    let journal = host.succeed("journalctl --sync; journalctl -o cat -t releasectl");
    assert!(journal.contains("35 handed over, 4 drained, 3 cut") && journal.contains("failed"), "{journal}");
}

#[test]
fn every_way_to_another_release_leaves_one_receipt() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    let word = |verb: &str, outcome: &str| (verb.to_owned(), outcome.to_owned());
    agent.deploy(&one.archive).expect_success();
    agent.deploy(&two.archive).expect_success();
    host.succeed("releasectl restart; releasectl rollback");
    let mut wanted = vec![word("activate", "validated"), word("activate", "validated"), word("restart", "done")];
    wanted.push(word("rollback", "validated"));
    assert_eq!(told(&host), wanted);

    // Nobody validates it, and it dies: a boot goes back.
    host.succeed(&format!("releasectl activate {}", two.id));
    host.succeed(&format!("systemctl kill -s KILL 'app-{}@*'", two.id));
    host.succeed("curl -s --max-time 5 localhost");
    host.wait_until("the boot has its receipt", |host| told(host).last() == Some(&word("boot", "done")));
    wanted.extend([word("activate", "failed"), word("boot", "done")]);
    assert_eq!(told(&host), wanted);
    let reason = history(&host)[5]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(two.id.as_str()) && reason.contains("signal"), "{reason}");

    // One that is not ready never became current; one that is ready and dies goes back by itself.
    agent.deploy(&script("broken", "#!/bin/sh\nexit 3\n").archive).expect_failure("ApplicationStart");
    wanted.push(word("activate", "failed"));
    assert_eq!(told(&host), wanted);
    // Overtaken before it was validated.
    host.succeed(&format!("releasectl activate {}; releasectl activate {}", two.id, one.id));
    host.succeed(&format!("releasectl validate {}", two.id));
    wanted.extend([word("activate", "superseded"), word("activate", "activated")]);
    assert_eq!(told(&host), wanted);
    host.succeed("releasectl validate --bake 0");
    wanted.last_mut().unwrap().1 = "validated".to_owned();
    // Its receipt is lost with a disk that was full.
    host.succeed("head -n -3 /opt/app/receipts.jsonl >/root/receipts; cp /root/receipts /opt/app/receipts.jsonl");
    wanted.last_mut().unwrap().1 = "missing".to_owned();
    assert_eq!(told(&host), wanted);
    let shown = host
        .succeed("releasectl history; releasectl show 1; releasectl show $(releasectl history | tail -1 | cut -c1-3)");
    assert!(shown.contains("no receipt") && shown.contains("validated"), "{shown}");
    assert_converged(&host, one.id.as_str());
}

#[test]
fn what_is_to_be_notified_gets_each_finished_receipt_and_holds_nobody_up() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    let notify = |script: &str| {
        let command = "mkdir -p /etc/app; cat >/etc/app/notify; chmod 755 /etc/app/notify";
        host.succeed(&format!("printf '%s' '{script}' | ( {command} )"));
    };
    notify("#!/bin/sh\ncat >>/root/notified\n");
    agent.deploy(&one.archive).expect_success();
    let lines = |host: &Host| host.succeed("touch /root/notified; cat /root/notified").lines().count();
    host.wait_until("it is notified", |host| lines(host) == 1);
    let receipt: Value = serde_json::from_str(&host.succeed("cat /root/notified")).unwrap();
    assert_eq!((&receipt["outcome"], &receipt["label"]), (&"validated".into(), &"one".into()));

    notify("#!/bin/sh\ntrap \"\" TERM\necho begun >/root/begun\nsleep 100\necho slept >>/root/notified\n");
    let began = Instant::now();
    agent.deploy(&two.archive).expect_success();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    host.wait_until("it is begun", |host| host.run("cat /root/begun").code == 0);
    host.wait_until("it is ended", |host| {
        host.run("systemctl list-units --plain --no-legend 'app-notify-*'").output.is_empty()
    });
    assert_eq!(lines(&host), 1);

    notify("#!/bin/sh\nexit 7\n");
    host.succeed("releasectl restart");
    host.succeed("chown nobody /etc/app/notify");
    let said = host.succeed("releasectl restart");
    assert!(said.contains("nobody is notified: /etc/app/notify is not root's"), "{said}");
    assert_converged(&host, two.id.as_str());
}

/// Whatever the release itself has to say.
#[test]
fn the_end_of_a_failing_hooks_output_says_what_failed_why_what_serves_and_what_to_type() {
    let (host, good) = (Host::boot(), good("good"));
    let mut agent = Agent::new(&host);
    agent.deploy(&good.archive).expect_success();
    let loud = "for n in range(20): print('漢' * 900, flush=True)\n";
    let python = "#!/usr/bin/python3\n";
    let not_ready = script("not ready", &format!("{python}{loud}raise SystemExit(3)\n"));
    let mut unready = contents();
    let text = never_ready_again().replace("notify.send(b\"READY=1\")", &format!("{loud}notify.send(b\"READY=1\")"));
    unready.put("bin/app", 0o755, text.as_bytes());
    let validate = String::from_utf8(unready.get("hooks/validate-service").unwrap().to_vec()).unwrap();
    unready.put("hooks/validate-service", 0o755, (validate.trim().to_owned() + " --within 1\n").as_bytes());
    let unready = unready.pack("unready").unwrap();
    for (bundle, event, words) in [
        (&not_ready, "ApplicationStart", "did not become ready"),
        (&unready, "ValidateService", "is not validated: /readyz answered 503"),
    ] {
        let deployment = agent.deploy(&bundle.archive).expect_failure(event);
        let tail = deployment.last().tail();
        assert!(tail.len() <= TAIL, "{}", tail.len());
        let number =
            history(&host).iter().rev().find(|receipt| receipt["to"] == bundle.id.as_str()).unwrap()["receipt"].clone();
        let next = format!("releasectl show {number}");
        for words in [words, &format!("serving now: release {}", good.id), &next] {
            assert!(tail.contains(words), "wanted {words:?} in:\n{tail}");
        }
        let shown = host.succeed(&next);
        assert!(shown.contains("failed") && shown.contains("reason"), "{shown}");
        assert_converged(&host, good.id.as_str());
    }
    let deployment = agent.deploy(&crate::bundles::damaged(&good)).expect_failure("AfterInstall");
    let tail = deployment.last().tail();
    for words in ["bin/app", "nothing was changed; serving now: release", "build the bundle again"] {
        assert!(tail.contains(words), "wanted {words:?} in:\n{tail}");
    }
}

#[test]
fn without_root_status_says_what_it_may_and_what_it_leaves_out() {
    let (host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    let nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups";
    let text = host.succeed(&format!("{nobody} releasectl status"));
    assert!(text.contains("only root may see what the instances say"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("serving now: release"), "{text}");
    let status: Value = serde_json::from_str(&host.succeed(&format!("{nobody} releasectl status --json"))).unwrap();
    assert_eq!(status["current"], bundle.id.as_str());
    assert!(status["left_out"].is_string() && status["instances"][0]["accepting"].is_null(), "{status:#}");
    assert_eq!(status["waiting"], 0, "{status:#}");
    host.succeed(&format!("{nobody} releasectl history; {nobody} releasectl show 1"));
}

/// In a terminal a line tells what is under way, and nothing of it is left.
#[test]
fn a_terminal_shows_what_is_under_way_and_keeps_nothing_of_it() {
    let (host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    let typed = |command: &str| host.succeed(&format!("TERM=xterm script -qec '{command}' /dev/null"));
    let status = typed("releasectl status");
    assert!(status.trim_end().ends_with(".service"), "{status:?}");
    let restarted = typed("releasectl restart");
    assert!(restarted.contains("start, "), "the line: {restarted:?}");
    assert!(restarted.trim_end().ends_with("is current and validated"), "{restarted:?}");
}
