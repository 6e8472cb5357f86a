//! What `aws/user-data.sh` makes of a host. Run here are its steps on a Debian host; not run is the step that needs Amazon's
//! own packages, `agent`: dnf, ruby, the instance's metadata, the installer and the agent's service.

use std::{fs, os::unix::fs::MetadataExt};

use rig::{Agent, Host};

use crate::{bundles::good, deploy::assert_converged};

const STEPS: &str = "queue files settings";
const SETTINGS: &str = "/etc/codedeploy-agent/conf/codedeployagent.yml";

/// A host with the script in /root, and what most of these tests are about: a queue that is too short.
fn host() -> Host {
    let host = Host::boot();
    let script = rig::workspace().join("crates/rig/aws/user-data.sh");
    fs::copy(script, host.path("/root/user-data.sh")).unwrap();
    host.in_network(|| fs::write("/proc/sys/net/core/somaxconn", "128").unwrap());
    host
}

fn run(host: &Host, steps: &str) -> String {
    host.succeed(&format!("/root/user-data.sh {steps}"))
}

fn queue(host: &Host) -> u64 {
    host.succeed("cat /proc/sys/net/core/somaxconn").trim().parse().unwrap()
}

/// Every file below /etc, with its inode, its time of change and its bytes.
fn files(host: &Host) -> Vec<(String, u64, i64, Vec<u8>)> {
    let paths = host.succeed("find /etc -xdev -type f");
    let file = |path: &str| {
        let metadata = fs::metadata(host.path(path)).unwrap();
        let changed = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
        (path.to_owned(), metadata.ino(), changed, fs::read(host.path(path)).unwrap())
    };
    paths.lines().map(file).collect()
}

#[test]
fn it_gives_the_queue_the_room_that_the_units_ask_for_also_after_a_boot() {
    let host = host();
    let socket = fs::read_to_string(rig::workspace().join("units/app.socket")).unwrap();
    let backlog = socket.lines().find_map(|line| line.strip_prefix("Backlog=")).unwrap().parse().unwrap();
    assert!(queue(&host) < backlog);
    run(&host, STEPS);
    assert_eq!(queue(&host), backlog);
    // What a boot runs; a container skips it.
    host.in_network(|| fs::write("/proc/sys/net/core/somaxconn", "128").unwrap());
    host.succeed("/lib/systemd/systemd-sysctl --prefix=/net/core");
    assert_eq!(queue(&host), backlog);
}

#[test]
fn it_raises_what_the_kernel_allows_of_open_files_only_where_the_unit_asks_for_more() {
    let host = host();
    let unit = fs::read_to_string(rig::workspace().join("units/app@.service")).unwrap();
    let asked = unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")).unwrap();
    run(&host, "files");
    host.fail("test -e /etc/sysctl.d/app-files.conf");
    // The kernel's own belongs to this machine, and to all its hosts.
    host.succeed("echo 20000 >/root/nr_open; mount --bind /root/nr_open /proc/sys/fs/nr_open");
    run(&host, "files");
    assert_eq!(host.succeed("cat /proc/sys/fs/nr_open").trim(), asked);
    assert_eq!(host.succeed("cat /etc/sysctl.d/app-files.conf").trim(), format!("fs.nr_open={asked}"));
}

#[test]
fn a_second_run_changes_nothing() {
    let host = host();
    let before = files(&host).len();
    run(&host, STEPS);
    let (first, room) = (files(&host), queue(&host));
    assert_eq!(first.len(), before + 2, "the queue's file and the agent's");
    run(&host, STEPS);
    assert_eq!((files(&host), queue(&host)), (first, room));
}

#[test]
fn settings_that_were_changed_are_brought_back() {
    let host = host();
    run(&host, "settings");
    let first = host.succeed(&format!("cat {SETTINGS}"));
    host.succeed(&format!("echo ':max_revisions: 1' >{SETTINGS}"));
    run(&host, "settings");
    assert_eq!(host.succeed(&format!("cat {SETTINGS}; ls {SETTINGS}*")), format!("{first}{SETTINGS}\n"));
}

/// As the agent reads it, in YAML.
#[test]
fn the_agents_settings_keep_as_many_revisions_as_the_stand_in_does_and_ask_metadata_by_token_alone() {
    let host = host();
    run(&host, STEPS);
    let text = host.succeed(&format!("cat {SETTINGS}"));
    let settings: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(settings[":max_revisions"], 5, "{settings}");
    assert_eq!(settings[":disable_imds_v1"], true, "{settings}");
    assert_eq!(settings[":root_dir"], "/opt/codedeploy-agent/deployment-root", "the stand-in's");
}

#[test]
fn a_host_that_it_prepared_takes_the_first_bundle_which_alone_brings_user_socket_and_units() {
    let (host, bundle) = (host(), good("one"));
    run(&host, STEPS);
    host.fail("getent passwd app");
    host.fail("ls /etc/systemd/system/app*");
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    assert_converged(&host, bundle.id.as_str());
    let said = host.succeed("releasectl doctor");
    assert!(said.contains("4096 clients may wait"), "{said}");
}
