//! What a deployment takes: the verbs, beside what systemd needs for the same unit, and the memory.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use releases::bundle::Contents;

use super::{Effort, chapter::Chapter, figure::Figure};
use crate::{Agent, Host};

/// Idle connections, where there are many.
const IDLE: usize = 2_000;

/// # Panics
/// Where a host does not boot, or a deployment fails.
pub(super) fn run(effort: Effort) -> io::Result<Chapter> {
    Ok(Chapter {
        title: "Deploying",
        about: "On a real systemd host, the unit hardened as it is shipped.".to_owned(),
        figures: on_a_host(effort.times),
        curves: Vec::new(),
        goals: Vec::new(),
        notes: Vec::new(),
    })
}

fn on_a_host(times: usize) -> Vec<Figure> {
    let contents = Contents::build(crate::workspace()).unwrap_or_else(|error| panic!("{error}"));
    let pack = |label: &str| contents.pack(label).unwrap_or_else(|error| panic!("{error}"));
    let (host, first) = (Host::boot(), pack("bench"));
    Agent::new(&host).deploy(&first.archive).expect_success();
    let unit = format!("app-{}", first.id);
    let [mut start, mut install, mut activate, mut validate, mut rollback, mut idle, mut during] =
        [const { Vec::new() }; 7];
    for n in 1..=times {
        eprintln!("a deployment and a rollback, {n} of {times}");
        let bundle = pack(&format!("bench {n}"));
        fs::write(host.path("/root/bundle.tgz"), &bundle.archive).expect("the host's disk can be written");
        host.succeed("mkdir -p /root/bundle && tar -xzf /root/bundle.tgz -C /root/bundle --overwrite");
        install.push(time(|| drop(host.succeed("/root/bundle/bin/releasectl install /root/bundle"))));
        let (milliseconds, most) =
            watching_memory(&host, || time(|| drop(host.succeed("/root/bundle/bin/releasectl activate /root/bundle"))));
        activate.push(milliseconds);
        during.push(most);
        validate.push(time(|| drop(host.succeed("/root/bundle/bin/releasectl validate /root/bundle"))));
        rollback.push(time(|| drop(host.succeed("releasectl rollback"))));
        host.wait_until("the old instances have ended", |host| processes(host, "app").count() == 1);
        idle.push(memory(&host, "app"));
        // With a number that no activation has: nothing else knows of it.
        let extra = format!("{unit}@{}.service", 1_000_000 + n);
        start.push(time(|| drop(host.succeed(&format!("systemctl start {extra}")))));
        host.succeed(&format!("systemctl stop {extra}; rm -rf /root/bundle"));
    }
    let [crowded, gone, beside] = crowded(&host, &first.id, times);
    vec![
        Figure::new("releasectl activate with 2,000 idle connections", "ours", "ms", crowded),
        Figure::new("SIGTERM to the end of the one that had them", "ours", "ms", gone),
        Figure::new("systemctl start of the same unit beside them", "ours", "ms", beside),
        Figure::new("releasectl install", "ours", "ms", install),
        Figure::new("releasectl activate", "ours", "ms", activate),
        Figure::new("systemctl start of the same unit", "ours", "ms", start),
        Figure::new("releasectl validate", "ours", "ms", validate),
        Figure::new("releasectl rollback, validation included", "ours", "ms", rollback),
        Figure::new("resident memory, idle", "ours", "MiB", idle),
        Figure::new("at most during an activation, all processes", "ours", "MiB", during),
    ]
}

/// With idle connections that every activation hands over: an activation, the end of who had them by its unit's own
/// times, and a start of the same unit.
fn crowded(host: &Host, id: &releases::ReleaseId, times: usize) -> [Vec<f64>; 3] {
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").expect("it is open");
        assert!(stream.read(&mut [0; 1024]).expect("it is answered") > 0, "it was closed");
    };
    let connect = || TcpStream::connect("127.0.0.1:80").expect("the host listens");
    let mut idle: Vec<TcpStream> = host.in_network(|| (0..IDLE).map(|_| connect()).collect());
    let [mut crowded, mut gone, mut beside] = [const { Vec::new() }; 3];
    for n in 1..=times {
        eprintln!("an activation with {IDLE} idle connections, {n} of {times}");
        idle.iter_mut().for_each(ask);
        let extra = format!("app-{id}@{}.service", 2_000_000 + n);
        beside.push(time(|| drop(host.succeed(&format!("systemctl start {extra}")))));
        host.succeed(&format!("systemctl stop {extra}"));
        crowded.push(time(|| drop(host.succeed("releasectl restart"))));
        host.wait_until("the old instance has ended", |host| processes(host, "app").count() == 1);
        // By hand, so that the end is waited for.
        let next = format!("app-{id}@{}.service", 3_000_000 + n);
        host.succeed(&format!("systemctl start {next}"));
        let serving = host
            .succeed("systemctl list-units --plain --no-legend 'app-*@*' | cut -d' ' -f1 | sort -t@ -k2 -n | head -1");
        gone.push(time(|| drop(host.succeed(&format!("systemctl stop {}", serving.trim())))));
        host.succeed("releasectl restart");
        host.wait_until("the old instances have ended", |host| processes(host, "app").count() == 1);
    }
    [crowded, gone, beside]
}

fn time(act: impl FnOnce()) -> f64 {
    let began = Instant::now();
    act();
    began.elapsed().as_secs_f64() * 1e3
}

/// What `act` returns, and the most memory of the service and its tool meanwhile.
fn watching_memory<T>(host: &Host, act: impl FnOnce() -> T) -> (T, f64) {
    thread::scope(|scope| {
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let watch = scope.spawn(move || {
            let mut most: f64 = 0.0;
            while is_done.recv_timeout(Duration::from_millis(2)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                most = most.max(memory(host, "app") + memory(host, "releasectl"));
            }
            most
        });
        let result = act();
        drop(done);
        (result, watch.join().expect("it does not panic"))
    })
}

/// MiB of all processes of this name in the host.
fn memory(host: &Host, name: &str) -> f64 {
    let resident = |status: String| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.to_owned();
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    processes(host, name).filter_map(resident).sum::<f64>() / 1024.0
}

/// What /proc/PID/status says of each.
fn processes(host: &Host, name: &str) -> impl Iterator<Item = String> {
    let first = format!("Name:\t{name}\n");
    let folders = fs::read_dir(host.path("/proc")).into_iter().flatten().flatten();
    let statuses = folders.filter_map(|folder| fs::read_to_string(folder.path().join("status")).ok());
    statuses.filter(move |status| status.starts_with(&first))
}
