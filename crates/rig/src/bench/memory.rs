//! Resident memory, as proc_pid_status(5) has it.

use std::{
    fs, io,
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use crate::Host;

const LOOK: Duration = Duration::from_millis(2);

/// KiB of one process of this machine.
///
/// # Errors
/// Where it has ended.
pub(super) fn of_process(pid: u32) -> io::Result<f64> {
    let path = format!("/proc/{pid}/status");
    resident(&fs::read_to_string(&path)?).ok_or_else(|| io::Error::other(format!("{path}: the process has ended")))
}

/// KiB of all processes of a host that have this name.
pub(super) fn of_all(host: &Host, name: &str) -> f64 {
    statuses(&host.path("/proc"), name).filter_map(|status| resident(&status)).sum()
}

/// How many processes of a host have this name.
pub(super) fn count(host: &Host, name: &str) -> usize {
    statuses(&host.path("/proc"), name).count()
}

/// What `act` returns, and the most KiB that processes of these names had together meanwhile.
pub(super) fn most_while<T>(host: &Host, names: &[&str], act: impl FnOnce() -> T) -> (T, f64) {
    thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        let watch = scope.spawn(move || {
            let mut most: f64 = 0.0;
            while is_done.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                most = most.max(names.iter().map(|name| of_all(host, name)).sum());
            }
            most
        });
        let result = act();
        drop(done);
        (result, watch.join().expect("it does not panic"))
    })
}

/// None of a process that has ended and is not waited for yet.
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// What /proc/PID/status says of each.
fn statuses(proc: &Path, name: &str) -> impl Iterator<Item = String> {
    let first = format!("Name:\t{name}\n");
    let folders = fs::read_dir(proc).into_iter().flatten().flatten();
    let statuses = folders.filter_map(|folder| fs::read_to_string(folder.path().join("status")).ok());
    statuses.filter(move |status| status.starts_with(&first))
}
