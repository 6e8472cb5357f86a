//! A bundle that goes over ssh, by the program that `just ship` runs.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use releases::bundle::Bundle;
use rig::{Agent, Host, Load, Mode, host::Ran, sshd::Client};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::{
    bundles::{bake, contents, damaged, good, script},
    deploy::{assert_converged, status},
    programs::program,
};

/// What a ship has on a host while it is under way.
const UNDER_WAY: &str = "ls /opt/app-ship; systemctl list-units --all --plain --no-legend 'ship-*'";

/// A bundle in a file, and who ships it.
struct Shipper {
    client: Client,
    folder: TempDir,
}

impl Shipper {
    fn to(hosts: &[(&str, &Host)]) -> Self {
        Self { client: Client::of(hosts), folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, archive: &[u8], name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, archive).unwrap();
        path
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program("ship"));
        command.arg("--ssh-config").arg(self.client.config()).args(words).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        self.command(words).output().unwrap().into()
    }

    fn ship(&self, bundle: &Bundle, hosts: &[&str]) -> Ran {
        let file = self.file(&bundle.archive, &format!("{}.tgz", bundle.id));
        self.run(&[&["--bundle", file.to_str().unwrap()], hosts].concat())
    }

    #[track_caller]
    fn ships(&self, bundle: &Bundle, hosts: &[&str]) -> String {
        let ran = self.ship(bundle, hosts);
        assert_eq!(ran.code, 0, "{}", ran.output);
        ran.output
    }
}

#[track_caller]
fn assert_nothing_left(host: &Host) {
    assert_eq!(host.run(UNDER_WAY).output.trim(), "");
}

#[test]
fn a_fresh_host_is_prepared_upgraded_under_load_and_gone_back_on() {
    let (host, [one, two]) = (Host::boot(), ["one", "two"].map(good));
    let shipper = Shipper::to(&[("host", &host)]);
    let said = shipper.ships(&one, &["host"]);
    for words in
        ["copied", "AfterInstall", "ApplicationStart", "ValidateService", "is current and validated", "done: host"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_converged(&host, one.id.as_str());
    let load = Load::start(&host, Mode::C3, 10);
    shipper.ships(&two, &["host"]);
    assert_converged(&host, two.id.as_str());
    let said = shipper.run(&["--rollback", "host"]);
    assert!(said.code == 0 && said.output.contains("Rollback"), "{}", said.output);
    assert_converged(&host, one.id.as_str());
    assert_eq!(load.stop().losses(), "none");
    assert_nothing_left(&host);
    let history = host.succeed("releasectl history --json");
    assert_eq!(history.matches("\"deployment\": \"ship-20").count(), 3, "{history}");
    // A rollback with nothing to go back to.
    let said = shipper.run(&["--rollback", "host"]);
    assert!(said.code == 1 && said.output.contains("no validated release was activated before"), "{}", said.output);
}

/// codedeploy.md, "Hooks": what the agent gives them.
#[test]
fn hooks_run_in_the_order_of_the_appspec_and_as_an_agent_runs_them() {
    let host = Host::boot();
    let shipper = Shipper::to(&[("host", &host)]);
    let mut contents = contents();
    let appspec = String::from_utf8(contents.get("appspec.yml").unwrap().to_vec()).unwrap();
    let (before, after) = appspec.split_once("  ApplicationStart:").unwrap();
    let more = format!(
        "{before}    - location: hooks/migrate\n  BeforeInstall:\n    - location: hooks/look\n  ApplicationStart:{after}"
    );
    contents.put("appspec.yml", 0o644, more.as_bytes());
    let look = "#!/bin/sh\n(echo $LIFECYCLE_EVENT $PWD $(umask) $# ${HOME-none}; env; cat; id -u) >/root/look\n";
    contents.put("hooks/look", 0o755, look.as_bytes());
    contents.put(
        "hooks/migrate",
        0o755,
        b"#!/bin/sh\nls /opt/app/releases >/root/migrated\nprintf 'the last line of it'",
    );
    let bundle = contents.pack("more").unwrap();
    let said = shipper.ships(&bundle, &["host"]);
    let at = |word: &str| said.find(word).unwrap_or_else(|| panic!("{word}: {said}"));
    assert!(at("BeforeInstall") < at("AfterInstall") && at("the last line of it") < at("ApplicationStart"), "{said}");
    let look = host.succeed("cat /root/look");
    assert!(look.starts_with("BeforeInstall / 0022 0 none\n") && look.ends_with("\n0\n"), "{look}");
    assert!(look.contains("\nDEPLOYMENT_ID=ship-") && !look.contains("SSH_"), "{look}");
    assert_eq!(host.succeed("cat /root/migrated").trim(), bundle.id.as_str());
}

#[test]
fn a_release_that_fails_shows_its_last_lines_and_the_one_before_serves() {
    let (host, good) = (Host::boot(), good("good"));
    let shipper = Shipper::to(&[("host", &host)]);
    shipper.ships(&good, &["host"]);
    let ran = shipper.ship(&script("bad", "#!/bin/sh\necho no database; exit 3\n"), &["host"]);
    assert_eq!(ran.code, 1, "{}", ran.output);
    for words in ["ApplicationStart", "exit status 1", "| its last lines", "no database", "serving now", "failed: host"]
    {
        assert!(ran.output.contains(words), "{words}: {}", ran.output);
    }
    assert_converged(&host, good.id.as_str());
    let mut hangs = contents();
    let appspec = String::from_utf8(hangs.get("appspec.yml").unwrap().to_vec()).unwrap();
    hangs.put("appspec.yml", 0o644, appspec.replacen("timeout: 300", "timeout: 1", 1).as_bytes());
    hangs.put("hooks/after-install", 0o755, b"#!/bin/sh\nsleep 1000 & wait\n");
    let ran = shipper.ship(&hangs.pack("hangs").unwrap(), &["host"]);
    assert!(ran.code == 1 && ran.output.contains("was ended after 1 s"), "{}", ran.output);
    host.fail("pgrep -x sleep");
    assert_nothing_left(&host);
    assert_converged(&host, good.id.as_str());
}

#[test]
fn the_first_host_that_fails_is_the_last() {
    let (one, two, good) = (Host::boot(), Host::boot(), good("good"));
    let shipper = Shipper::to(&[("one", &one), ("two", &two)]);
    one.succeed("mkdir -p /opt; touch /opt/app");
    let ran = shipper.ship(&good, &["one", "two"]);
    assert!(ran.code == 1 && ran.output.ends_with("failed: one; not tried: two\n"), "{}", ran.output);
    two.fail("ls -d /opt/app /opt/app-ship");
    one.succeed("rm /opt/app");
    shipper.ships(&good, &["one", "two"]);
    for host in [&one, &two] {
        assert_converged(host, good.id.as_str());
    }
}

#[test]
fn a_host_whose_key_is_not_known_is_not_spoken_to() {
    let (host, good) = (Host::boot(), good("good"));
    let shipper = Shipper::to(&[("host", &host)]);
    shipper.client.forget_hosts();
    let ran = shipper.ship(&good, &["host"]);
    assert_eq!(ran.code, 1);
    for words in ["Host key verification failed", "compare its key", "failed: host"] {
        assert!(ran.output.contains(words), "{words}: {}", ran.output);
    }
    host.fail("ls -d /opt/app /opt/app-ship");
}

#[test]
fn what_was_changed_on_its_way_or_before_is_not_unpacked() {
    let (host, good) = (Host::boot(), good("good"));
    let shipper = Shipper::to(&[("host", &host)]);
    // In the place of whoever could: between the wire and the disk.
    let cat = "#!/bin/sh\n/usr/bin/head -c 100000; /usr/bin/head -c 1 >/dev/null; printf x; exec /usr/bin/cat\n";
    fs::write(host.path("/usr/local/bin/cat"), cat).unwrap();
    host.succeed("chmod +x /usr/local/bin/cat");
    let ran = shipper.ship(&good, &["host"]);
    assert!(ran.code == 1 && ran.output.contains("not what was sent"), "{}", ran.output);
    host.fail("ls -d /opt/app || ls /opt/app-ship | grep .");
    let file = shipper.file(&damaged(&good), "damaged.tgz");
    let ran = shipper.run(&["--bundle", file.to_str().unwrap(), "host"]);
    assert!(ran.code == 2 && ran.output.lines().count() == 1 && ran.output.contains("bin/app"), "{}", ran.output);
}

#[test]
fn bad_input_is_one_line_and_no_host_is_asked() {
    let (host, good) = (Host::boot(), good("good"));
    let shipper = Shipper::to(&[("host", &host)]);
    let file = shipper.file(&good.archive, "good.tgz");
    let mut foreign = contents();
    foreign.put(
        "appspec.yml",
        0o644,
        b"version: 0.0\nos: linux\nhooks:\n  ApplicationStop:\n    - location: hooks/x\n",
    );
    let foreign = shipper.file(&foreign.pack("foreign").unwrap().archive, "foreign.tgz");
    let (file, foreign) = (file.to_str().unwrap(), foreign.to_str().unwrap());
    for (words, told) in [
        (&["--bundle", file, "host", "a b"][..], "is no host"),
        (&["--bundle", "/nowhere.tgz", "host"], "/nowhere.tgz"),
        (&["--bundle", "/tmp", "host"], "/tmp: is a folder"),
        (&["--bundle", foreign, "host"], "hooks for ApplicationStop"),
    ] {
        let ran = shipper.run(words);
        assert!(ran.code == 2 && ran.output.contains(told) && ran.output.lines().count() == 1, "{}", ran.output);
    }
    host.fail("ls -d /opt/app /opt/app-ship");
}

#[test]
fn a_user_who_is_not_root_needs_sudo_without_a_password() {
    let (host, good) = (Host::boot(), good("good"));
    let shipper = Shipper::to(&[("host", &host)]);
    let ran = shipper.ship(&good, &["other@host"]);
    assert!(ran.code == 1 && ran.output.contains("sudo without a password"), "{}", ran.output);
    host.fail("ls -d /opt/app /opt/app-ship");
    shipper.ships(&good, &["deploy@host"]);
    assert_converged(&host, good.id.as_str());
}

#[test]
fn two_at_once_take_turns_and_whoever_was_superseded_is_told() {
    let host = Host::boot();
    let mut first = contents();
    bake(&mut first, 20);
    let (first, second) = (first.pack("first").unwrap(), good("second"));
    let shipper = Shipper::to(&[("host", &host)]);
    shipper.ships(&good("before"), &["host"]);
    let (told, second_told) = std::thread::scope(|scope| {
        let slow = scope.spawn(|| shipper.ships(&first, &["host"]));
        host.wait_until("it bakes", |host| host.run("pgrep -f '[r]eleasectl validate'").code == 0);
        (shipper.ships(&second, &["host"]), slow.join().unwrap())
    });
    assert!(second_told.contains(&format!("superseded by {}", second.id)), "{second_told}");
    assert!(told.contains("is current and validated"), "{told}");
    assert_converged(&host, second.id.as_str());
    assert_nothing_left(&host);
}

/// The ssh client below a process.
fn ssh_below(pid: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let mut children = children.split_whitespace().filter_map(|child| child.parse::<u32>().ok());
    children
        .find(|child| fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim() == "ssh"))
        .and_then(|child| Pid::from_raw(child as i32))
}

/// What the ship says until a line of it has `word`.
fn read_until(ship: &mut Child, word: &str) -> String {
    let mut said = String::new();
    let mut lines = BufReader::new(ship.stdout.as_mut().unwrap());
    while !said.contains(word) {
        assert!(lines.read_line(&mut said).unwrap() > 0, "{word}: {said}");
    }
    said
}

/// Cuts the connection once a line of it has `word`, and returns what the ship said.
fn cut_at(mut ship: Child, word: &str) -> String {
    let said = read_until(&mut ship, word);
    kill_process(ssh_below(ship.id()).expect("ssh runs"), Signal::KILL).unwrap();
    let output = Ran::from(ship.wait_with_output().unwrap());
    assert_eq!(output.code, 1, "{said}{}", output.output);
    said + &output.output
}

#[test]
fn a_connection_that_is_lost_leaves_a_host_that_the_next_ship_finds_whole() {
    let host = Host::boot();
    let shipper = Shipper::to(&[("host", &host)]);
    let mut slow = contents();
    bake(&mut slow, 3);
    let bundles = ["one", "two", "three"].map(|label| slow.pack(label).unwrap());
    shipper.ships(&good("before"), &["host"]);
    let load = Load::start(&host, Mode::C3, 10);
    // As soon as the archive is there, after a hook, and while it bakes.
    for (bundle, word) in bundles.iter().zip(["copied", "AfterInstall", "ApplicationStart"]) {
        let file = shipper.file(&bundle.archive, "bundle.tgz");
        let ship = shipper.command(&["--bundle", file.to_str().unwrap(), "host"]).spawn().unwrap();
        let said = cut_at(ship, word);
        assert!(said.contains("what has begun there goes on"), "{said}");
        // What had begun ends by itself, with nobody there.
        host.wait_until("it is validated", |_| status(&host)["validated"] == bundle.id.as_str());
        assert_converged(&host, bundle.id.as_str());
        has_ended_there(&host);
        shipper.ships(bundle, &["host"]);
        assert_converged(&host, bundle.id.as_str());
        assert_nothing_left(&host);
    }
    assert_eq!(load.stop().losses(), "none");
}

/// The next ship takes away what one that was cut leaves, once that has ended.
fn has_ended_there(host: &Host) {
    host.wait_until("it has ended there", |host| {
        host.run("systemctl list-units --plain --no-legend 'ship-*.service'").output.is_empty()
    });
}

/// ^C in a terminal is for ssh too; one that is sent to the program is not.
#[test]
fn an_interrupt_ends_the_connection_and_says_what_goes_on_there() {
    let host = Host::boot();
    let shipper = Shipper::to(&[("host", &host)]);
    let mut slow = contents();
    bake(&mut slow, 3);
    for (label, send) in [("terminal", kill_process_group as fn(Pid, Signal) -> _), ("program", kill_process)] {
        let bundle = slow.pack(label).unwrap();
        let file = shipper.file(&bundle.archive, "bundle.tgz");
        let mut command = shipper.command(&["--bundle", file.to_str().unwrap(), "host", "other"]);
        let mut ship = command.process_group(0).spawn().unwrap();
        let mut said = read_until(&mut ship, "AfterInstall");
        send(Pid::from_child(&ship), Signal::INT).unwrap();
        let ended = Ran::from(ship.wait_with_output().unwrap());
        said += &ended.output;
        assert_eq!(ended.code, 1, "{said}");
        for words in ["interrupted", "goes on, by systemd", "ship again", "failed: host; not tried: other"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        has_ended_there(&host);
        assert_eq!(status(&host)["validated"], bundle.id.as_str());
        shipper.ships(&bundle, &["host"]);
        assert_nothing_left(&host);
    }
}

#[test]
fn a_connection_that_is_lost_while_it_copies_leaves_nothing_to_run() {
    let (host, good) = (Host::boot(), good("good"));
    let shipper = Shipper::to(&[("host", &host)]);
    // It takes a part, and waits for ever.
    let cat = "#!/bin/sh\n/usr/bin/head -c 100000; touch /run/some; exec sleep infinity\n";
    fs::write(host.path("/usr/local/bin/cat"), cat).unwrap();
    host.succeed("chmod +x /usr/local/bin/cat");
    let file = shipper.file(&good.archive, "bundle.tgz");
    let ship = shipper.command(&["--bundle", file.to_str().unwrap(), "host"]).spawn().unwrap();
    host.wait_until("a part has arrived", |host| host.run("test -e /run/some").code == 0);
    kill_process(ssh_below(ship.id()).expect("ssh runs"), Signal::KILL).unwrap();
    assert_eq!(Ran::from(ship.wait_with_output().unwrap()).code, 1);
    host.succeed("rm /usr/local/bin/cat; pkill -x sleep");
    host.wait_until("it has ended there", |host| host.run("pgrep -f '[o]pt/app-ship'").code != 0);
    host.fail("ls -d /opt/app");
    shipper.ships(&good, &["host"]);
    assert_converged(&host, good.id.as_str());
    assert_nothing_left(&host);
    Agent::new(&host).deploy(&good.archive).expect_success();
}
