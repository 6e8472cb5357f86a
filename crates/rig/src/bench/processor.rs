//! Time on the processor, to the nanosecond (/proc/PID/task/TID/schedstat): proc_pid_stat(5) counts in ticks of 10 ms.

use std::{fs, time::Duration};

/// Of all threads that a process of this machine has.
pub(super) fn time_of(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let times = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    times.filter_map(|text| text.split_whitespace().next()?.parse().ok()).map(Duration::from_nanos).sum()
}
