//! The rig itself: what it promises to those who test with it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rig::Host;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn two_hosts_do_not_see_each_other() {
    let (one, two) = (Host::boot(), Host::boot());
    one.succeed("touch /root/mine; systemd-run -q --unit=listener nc -lk 127.0.0.1 81 || true");
    two.fail("test -e /root/mine");
    two.fail("curl -s --max-time 1 127.0.0.1:81");
    assert_ne!(one.succeed("cat /etc/machine-id"), two.succeed("cat /etc/machine-id"));
}

#[test]
fn a_reboot_keeps_the_files_and_changes_the_boot_id() {
    let mut host = Host::boot();
    host.succeed("echo kept >/root/file");
    let boot_id = "cat /proc/sys/kernel/random/boot_id";
    let before = host.succeed(boot_id);
    host.reboot();
    assert_eq!(host.succeed("cat /root/file").trim(), "kept");
    assert_ne!(host.succeed(boot_id), before);
}

#[test]
fn a_host_that_is_dropped_leaves_nothing() {
    let host = Host::boot();
    let name = host.name().to_owned();
    assert!(!leftovers(&name).is_empty(), "the test must see a host that is there");
    drop(host);
    assert_eq!(leftovers(&name), Vec::<String>::new());
}

#[test]
fn a_test_that_panics_leaves_nothing() {
    let name = thread::spawn(|| {
        let host = Host::boot();
        let name = host.name().to_owned();
        std::panic::resume_unwind(Box::new(name));
    })
    .join()
    .unwrap_err();
    assert_eq!(leftovers(name.downcast_ref::<String>().unwrap()), Vec::<String>::new());
}

#[test]
fn a_rig_that_is_interrupted_or_killed_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let (mut rig, name) = rig_with_a_host();
        assert!(!leftovers(&name).is_empty(), "the test must see a host that is there");
        kill_process(Pid::from_child(&rig), signal).unwrap();
        rig.wait().unwrap();
        let began = Instant::now();
        while !leftovers(&name).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20), "after {signal:?}: {:?}", leftovers(&name));
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A rig in a process of its own, whose host waits for ever.
fn rig_with_a_host() -> (Child, String) {
    // A shell's background job inherits an interrupt that is ignored.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_rig")]);
    command.args(["host", "--", "sh", "-c", "hostname; exec sleep infinity"]).stdout(Stdio::piped());
    let mut rig = command.spawn().unwrap();
    let mut name = String::new();
    BufReader::new(rig.stdout.take().unwrap()).read_line(&mut name).unwrap();
    (rig, name.trim().to_owned())
}

/// Processes, control groups and mounts of a host.
fn leftovers(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if line.split('\0').any(|word| word == name) {
            found.push(line.replace('\0', " "));
        }
    }
    for hierarchy in ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"] {
        let group = Path::new(hierarchy).join(name);
        found.extend(group.exists().then(|| group.display().to_string()));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
    found
}
