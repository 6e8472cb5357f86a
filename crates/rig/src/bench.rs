//! What it costs, in one table: times, memory, and requests per second of the server's processor time.
//!
//! Nothing here passes or fails. Machines are noisy: two ways are measured in turn, and their ratio is what to read.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets};
use releases::bundle::Contents;

use crate::{
    Agent, Host, Load, Mode,
    report::{Request, Span},
    succession::{Runtime, Succession},
    table::{self, Server},
};

/// How often each time is taken.
const TIMES: usize = 11;
/// How often two ways are compared.
const PAIRS: usize = 5;
/// Clients that keep a server busy.
const BUSY: usize = 16;
/// Idle connections, where there are many.
const IDLE: usize = 2_000;
const SECONDS: Duration = Duration::from_secs(3);

/// Runs it, telling what happens.
///
/// # Errors
/// Where a server does not build or start.
///
/// # Panics
/// Where a host does not boot, or a deployment fails.
pub fn run() -> io::Result<()> {
    eprintln!("building");
    let (app, stock) = (Server::App.build()?, Server::Stock.build()?);
    let mut rows = on_a_host();
    eprintln!("exec to READY");
    let mut succession = Succession::start(&app, Runtime::Shared)?;
    let ready: Vec<f64> =
        (0..TIMES).map(|_| Ok(succession.activate()?.length().as_secs_f64() * 1e3)).collect::<io::Result<_>>()?;
    drop(succession);
    rows.push(Row::of("exec to READY", "ms", ready));

    rows.extend(compare(
        ["requests per second of processor time", "  the same of axum::serve"],
        "",
        || requests_per_second(&app),
        || requests_per_second(&stock),
    )?);
    let p999 = |activations| Ok(table::one(&app, Runtime::Shared, Mode::C3, activations, 50, None)?.0.quantile(0.999));
    rows.extend(compare(
        ["p99.9 of c3, five activations a second", "  the same without activations"],
        "ms",
        || p999(50),
        || p999(0),
    )?);
    println!("{}", render(&rows));
    Ok(())
}

/// Two ways in turn, and their ratio pair by pair.
fn compare(
    names: [&'static str; 2],
    unit: &'static str,
    one: impl Fn() -> io::Result<f64>,
    other: impl Fn() -> io::Result<f64>,
) -> io::Result<[Row; 3]> {
    let [mut ones, mut others, mut ratios] = [const { Vec::new() }; 3];
    for pair in 1..=PAIRS {
        eprintln!("{}, pair {pair} of {PAIRS}", names[0]);
        let (a, b) = (one()?, other()?);
        ones.push(a);
        others.push(b);
        ratios.push(a / b);
    }
    Ok([Row::of(names[0], unit, ones), Row::of(names[1], unit, others), Row::of("  ratio", "", ratios)])
}

/// The verbs, beside what systemd needs for the same unit, and the memory.
fn on_a_host() -> Vec<Row> {
    let contents = Contents::build(crate::workspace()).unwrap_or_else(|error| panic!("{error}"));
    let pack = |label: &str| contents.pack(label).unwrap_or_else(|error| panic!("{error}"));
    let (host, first) = (Host::boot(), pack("bench"));
    Agent::new(&host).deploy(&first.archive).expect_success();
    let unit = format!("app-{}", first.id);
    let [mut start, mut install, mut activate, mut validate, mut rollback, mut idle, mut during] =
        [const { Vec::new() }; 7];
    for n in 1..=TIMES {
        eprintln!("a deployment and a rollback, {n} of {TIMES}");
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
    let [crowded, gone, beside] = crowded(&host, &first.id);
    vec![
        Row::of("releasectl activate with 2,000 idle connections", "ms", crowded),
        Row::of("  SIGTERM to the end of the one that had them", "ms", gone),
        Row::of("  systemctl start of the same unit beside them", "ms", beside),
        Row::of("releasectl install", "ms", install),
        Row::of("releasectl activate", "ms", activate),
        Row::of("  systemctl start of the same unit", "ms", start),
        Row::of("releasectl validate", "ms", validate),
        Row::of("releasectl rollback, validation included", "ms", rollback),
        Row::of("resident memory, idle", "MiB", idle),
        Row::of("  at most during an activation, all processes", "MiB", during),
    ]
}

/// With idle connections that every activation hands over: an activation, the end of who had them by its unit's own
/// times, and a start of the same unit.
fn crowded(host: &Host, id: &releases::ReleaseId) -> [Vec<f64>; 3] {
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").expect("it is open");
        assert!(stream.read(&mut [0; 1024]).expect("it is answered") > 0, "it was closed");
    };
    let connect = || TcpStream::connect("127.0.0.1:80").expect("the host listens");
    let mut idle: Vec<TcpStream> = host.in_network(|| (0..IDLE).map(|_| connect()).collect());
    let [mut crowded, mut gone, mut beside] = [const { Vec::new() }; 3];
    for n in 1..=TIMES {
        eprintln!("an activation with {IDLE} idle connections, {n} of {TIMES}");
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

fn requests_per_second(program: &Path) -> io::Result<f64> {
    let succession = Succession::start(program, Runtime::Shared)?;
    let load = Load::start_at(succession.address()?, Mode::C2, BUSY);
    thread::sleep(Duration::from_millis(500));
    let before = processor_time(succession.pid())?;
    let busy = Span::from_now(SECONDS);
    thread::sleep(SECONDS);
    let spent = processor_time(succession.pid())? - before;
    let ended_within = |request: &&Request| busy.contains(request.span.until);
    Ok(load.stop().requests.iter().filter(ended_within).count() as f64 / spent)
}

/// Seconds of user and system time (proc_pid_stat(5), fields 14 and 15).
fn processor_time(pid: u32) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// One figure, measured several times.
#[derive(Debug)]
struct Row {
    what: &'static str,
    unit: &'static str,
    sorted: Vec<f64>,
}

impl Row {
    fn of(what: &'static str, unit: &'static str, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { what, unit, sorted: values }
    }
}

fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "MEDIAN", "LEAST", "MOST", ""]);
    for Row { what, unit, sorted } in rows {
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        let figure = |value: f64| if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        table.add_row([
            (*what).to_owned(),
            figure(sorted[sorted.len() / 2]),
            figure(least),
            figure(most),
            (*unit).to_owned(),
        ]);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
