//! Deployments in a row under load: at the end a host holds what it held after the tenth.

use std::{io, time::Instant};

use comfy_table::{Table, presets};

use crate::{
    Host, Load, Report,
    lossless::{self, Held},
    report,
    subject::{self, Subject},
};

/// As in the demo, and as many connections that are idle as that leaves of so many.
const CLIENTS: usize = 300;

/// What of a host may grow with each deployment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holdings {
    instance: Held,
    counts: [usize; 9],
    /// Of process 1 and of the journal, without what they map of files.
    system_kib: [u64; 2],
}

/// How each is counted. The logs grow, by some 400 bytes for each deployment; their files do not.
const COUNTED: [(&str, &str); 9] = [
    ("units", "systemctl list-units --all --plain --no-legend 'app*'"),
    ("units of systemd", "systemctl list-units --all --plain --no-legend"),
    ("unit files", "ls /etc/systemd/system"),
    ("folders", "find /opt/app /run/app /var/lib/app -type d"),
    ("inodes", "find /opt/app /run/app /var/lib/app /etc /run/systemd/system"),
    ("control groups", "find /sys/fs/cgroup -type d"),
    ("processes", "ls -d /proc/[0-9]*"),
    ("descriptors of systemd", "ls /proc/1/fd"),
    ("descriptors of the journal", "ls /proc/$(pidof systemd-journald)/fd"),
];
const SYSTEM: [(&str, &str); 2] =
    [("memory of systemd, KiB", "1"), ("memory of the journal, KiB", "$(pidof systemd-journald)")];
/// For both together: two for each of a thousand deployments.
const SYSTEM_KIB: u64 = 2048;

impl Holdings {
    /// Once all but one instance have ended.
    pub(crate) fn of(host: &Host) -> Self {
        let instance = Held::by_the_last(host);
        // As the validation would have, had those that ended since not had their releases and files in use.
        host.succeed("releasectl prune --keep 2");
        let count = |(_, command): (&str, &str)| host.succeed(command).lines().count();
        let kib = |(_, pid): (&str, &str)| {
            let said = host.succeed(&format!("awk '/^RssAnon:/ {{ print $2 }}' /proc/{pid}/status"));
            said.trim().parse().expect("a number")
        };
        Self { instance, counts: COUNTED.map(count), system_kib: SYSTEM.map(kib) }
    }

    /// What is counted, and of what memory, by their names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let counts = COUNTED.iter().zip(self.counts).map(|((name, _), count)| (*name, count as f64));
        counts.chain(SYSTEM.iter().zip(self.system_kib).map(|((name, _), kib)| (*name, kib as f64)))
    }

    /// What a deployment would leave, many would leave many times.
    fn is_no_more_than(&self, other: &Self) -> bool {
        let few = |(count, other): (&usize, &usize)| *count <= other + 3;
        self.instance.is_no_more_than(other.instance)
            && self.counts.iter().zip(&other.counts).all(few)
            && self.system_kib.iter().sum::<u64>() <= other.system_kib.iter().sum::<u64>() + SYSTEM_KIB
    }
}

/// Deploys so many times; returns whether nothing was lost and the host holds no more than after the tenth.
///
/// # Errors
/// Where the bundle does not build, or a deployment fails.
///
/// # Panics
/// Where the host does not boot.
pub fn run(deployments: usize) -> io::Result<bool> {
    let mut subject = Subject::boot(&subject::contents()?, |_| {})?;
    let loads: Vec<Load> =
        lossless::mixed(CLIENTS).into_iter().map(|(mode, count)| Load::start(&subject.host, mode, count)).collect();
    let (began, mut tenth) = (Instant::now(), None);
    for count in 1..=deployments {
        subject.deploy().map_err(io::Error::other)?;
        if count == 10 {
            tenth = Some(Holdings::of(&subject.host));
        }
    }
    let took = began.elapsed();
    let last = Holdings::of(&subject.host);
    let broken = [subject.check(), subject.check_converged()].concat();
    loads.iter().for_each(Load::halt);
    let reports: Vec<Report> = loads.into_iter().map(Load::stop).collect();
    println!("{}\n", report::table(&reports));
    let tenth = tenth.ok_or_else(|| io::Error::other("fewer than ten deployments show nothing"))?;
    println!("{}\n", compare(&tenth, &last));
    let lost: u64 = reports.iter().map(Report::lost).sum();
    println!("{deployments} deployments in {} s, {lost} lost", took.as_secs());
    broken.iter().for_each(|fault| println!("{fault}"));
    Ok(lost == 0 && broken.is_empty() && last.is_no_more_than(&tenth))
}

fn compare(tenth: &Holdings, last: &Holdings) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["", "AFTER TEN", "AT THE END"]);
    for ((name, _), (tenth, last)) in COUNTED.iter().zip(tenth.counts.iter().zip(last.counts)) {
        table.add_row([(*name).to_owned(), tenth.to_string(), last.to_string()]);
    }
    for ((name, _), (tenth, last)) in SYSTEM.iter().zip(tenth.system_kib.iter().zip(last.system_kib)) {
        table.add_row([(*name).to_owned(), tenth.to_string(), last.to_string()]);
    }
    table.add_row(["instance".to_owned(), format!("{:?}", tenth.instance), format!("{:?}", last.instance)]);
    table
}
