//! A host before the first bundle, and after the last.

use std::{collections::BTreeSet, fs, process::Stdio};

use releases::bundle::Bundle;
use rig::{
    Agent, Host,
    host::Ran,
    subject::{self, STEPS},
};

use crate::{
    bundles::good,
    deploy::{assert_converged, status},
};

const DROP_IN: &str = "/etc/systemd/system/app-@.service.d/host.conf";
/// Every file of the host but what the system itself writes to and the agent's, and who has an account.
const PATHS: &str = "find / -xdev \\( -path /var/log -o -path /var/lib/systemd -o -path /root -o -path /var/cache \
     -o -path /opt/codedeploy-agent -o -path /etc/.pwd.lock -o -path '/etc/*-' \\) -prune -o ! -type d -print | sort; \
     ls -d /opt/app* /run/app* /run/releasectl* /var/lib/app /etc/app 2>/dev/null; getent passwd; getent group";
/// What a host has of the product.
const OURS: &str = "ls -d /opt/app* /run/app /run/releasectl.json /usr/local/bin/releasectl \
     /usr/local/share/man/man8/releasectl.8 /etc/systemd/system/app* /etc/systemd/system/*.wants/app* 2>/dev/null; \
     systemctl list-units --all --plain --no-legend 'app*.service' 'app*.socket'";

fn deploy(host: &Host, bundle: &Bundle) {
    Agent::new(host).deploy(&bundle.archive).expect_success();
    assert_converged(host, bundle.id.as_str());
}

/// The unpacked bundle, whose tool outlives the host's own.
fn unpack(host: &Host, bundle: &Bundle) {
    fs::write(host.path("/root/bundle.tgz"), &bundle.archive).unwrap();
    host.succeed("mkdir -p /root/bundle && tar -xzf /root/bundle.tgz -C /root/bundle");
}

/// Debian's essential packages and systemd; every other program is taken away.
#[test]
fn a_fresh_host_needs_nothing_but_systemd() {
    let (host, bundle) = (Host::boot(), good("one"));
    host.succeed(
        "dpkg-query -W -f='${Essential} ${Package}\\n' | sed -n 's/^yes //p' >/root/kept; \
         dpkg -L $(cat /root/kept) systemd systemd-sysv dbus dbus-bin | xargs -d '\\n' -n 1 basename | sort -u >/root/names; \
         for program in /usr/bin/* /usr/sbin/* /usr/local/bin/*; do \
           grep -qxF \"${program##*/}\" /root/names || echo \"$program\"; done >/root/others; xargs -a /root/others rm -f",
    );
    host.fail("command -v curl || command -v python3 || command -v strace");
    deploy(&host, &bundle);
}

#[test]
fn what_is_in_flight_is_answered_and_the_next_deployment_finds_a_fresh_host() {
    let (host, [one, two]) = (Host::boot(), ["one", "two"].map(good));
    deploy(&host, &one);
    deploy(&host, &two);
    host.succeed(&format!("mkdir -p /etc/app $(dirname {DROP_IN}); echo A=1 >/etc/app/env; echo [Service] >{DROP_IN}"));
    host.succeed("systemctl daemon-reload; touch /var/lib/app/kept");
    let slow = host.command("curl").args(["-s", "localhost/slow?ms=4000"]).stdout(Stdio::piped()).spawn().unwrap();
    host.wait_until("the request is in flight", |host| {
        host.run("ss -Htn state established '( sport = :80 )' | grep .").code == 0
    });
    let said = host.succeed("releasectl uninstall --yes");
    assert!(said.contains("leaves /etc/systemd/system/app-@.service.d"), "{said}");
    let answer = slow.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "after 4000 ms\n");
    host.fail("curl -s localhost/");
    let left = host.run(OURS).output;
    assert_eq!(left.trim(), "/etc/systemd/system/app-@.service.d");
    host.succeed(&format!("test -f /var/lib/app/kept -a -f /etc/app/env -a -f {DROP_IN}; id app"));
    assert_eq!(host.run("systemctl is-system-running").output.trim(), "running");

    deploy(&host, &one);
    assert_eq!(status(&host)["instances"][0]["n"], 1, "a fresh store counts from the beginning");
}

#[test]
fn a_purged_host_is_as_it_was_before_the_first_deployment() {
    let (mut host, bundle) = (Host::boot(), good("one"));
    let before = host.succeed(PATHS);
    deploy(&host, &bundle);
    host.succeed("mkdir -p /etc/app; echo A=1 >/etc/app/env; systemctl enable --now app-metrics.socket");
    host.succeed("releasectl uninstall --purge --yes");
    let (before, after) = (lines(&before), lines(&host.succeed(PATHS)));
    assert_eq!(after.symmetric_difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    host.reboot();
    host.fail("curl -s localhost/");
    deploy(&host, &bundle);
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

#[test]
fn where_nobody_can_be_asked_or_the_answer_is_no_nothing_is_changed() {
    let (host, bundle) = (Host::boot(), good("one"));
    deploy(&host, &bundle);
    let ran = host.run("releasectl uninstall --purge");
    assert!(ran.code == 2 && ran.output.contains("--yes") && ran.output.lines().count() == 1, "{ran:?}");
    let in_terminal = |answer: &str| host.run(&format!("{answer} | script -qec 'releasectl uninstall' /dev/null"));
    for answer in ["echo n", "echo", "printf '\\004'"] {
        let ran = in_terminal(answer);
        assert!(ran.code == 2 && ran.output.contains("[y/N]") && ran.output.contains("not confirmed"), "{ran:?}");
        assert_converged(&host, bundle.id.as_str());
    }
    let ran = in_terminal("echo y");
    assert_eq!((ran.code, host.run(OURS).output.trim()), (0, ""), "{}", ran.output);
}

/// A request that takes its time keeps the uninstall waiting, with the lock.
fn while_it_is_uninstalled<T>(host: &Host, act: impl FnOnce() -> T) -> T {
    let slow = host.command("curl").args(["-s", "localhost/slow?ms=8000"]).stdout(Stdio::null()).spawn().unwrap();
    host.wait_until("the request is in flight", |host| {
        host.run("ss -Htn state established '( sport = :80 )' | grep .").code == 0
    });
    let uninstall = host.command("releasectl").args(["uninstall", "--yes"]).stdout(Stdio::null()).spawn().unwrap();
    host.wait_until("it has the lock", |host| host.run("grep -q uninstall /opt/app/lock").code == 0);
    let acted = act();
    for mut child in [slow, uninstall] {
        assert!(child.wait().unwrap().success());
    }
    acted
}

/// The lock of `releases.md`, "Old and new tools".
#[test]
fn a_verb_that_waited_for_it_says_so_and_makes_no_store_and_an_install_begins_anew() {
    let (host, bundle) = (Host::boot(), good("one"));
    unpack(&host, &bundle);
    deploy(&host, &bundle);
    let id = bundle.id.as_str();
    let waited = while_it_is_uninstalled(&host, || {
        ["prune", "restart", "rollback", "socket apply", &format!("activate {id}"), &format!("pin {id}")]
            .map(|verb| {
                host.command("sh")
                    .args(["-c", &format!("exec releasectl {verb} 2>&1")])
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .map(|child| Ran::from(child.wait_with_output().unwrap()))
    });
    for ran in waited {
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(
            ["removed meanwhile", "no release is current"].iter().all(|words| ran.output.contains(words)),
            "{ran:?}"
        );
    }
    assert_eq!(host.run(OURS).output.trim(), "");
    deploy(&host, &bundle);
    let installed = while_it_is_uninstalled(&host, || host.succeed("/root/bundle/bin/releasectl install /root/bundle"));
    assert!(installed.contains("removed meanwhile"), "{installed}");
    host.succeed(&format!("test -f /opt/app/releases/{id}/manifest.json"));
    deploy(&host, &bundle);
}

/// R2, R5.
#[test]
fn killed_at_any_step_it_ends_when_it_is_run_again() {
    let host = Host::boot();
    let contents = subject::contents().unwrap();
    let [one, two] = ["one", "two"].map(|label| contents.pack(label).unwrap());
    unpack(&host, &two);
    let uninstall = "/root/bundle/bin/releasectl uninstall --yes --purge";
    let install = || [&one, &two].map(|bundle| deploy(&host, bundle));
    install();
    fs::write(host.path("/run/releasectl.fault"), "uninstall count\n").unwrap();
    host.succeed(uninstall);
    let steps = host.succeed(&format!("wc -l <{STEPS}")).trim().parse::<usize>().unwrap();
    assert!(steps > 40, "{steps}");
    for trial in 0..8 {
        install();
        // The last ones are those that are left when there is little to wait for.
        let step = 1 + trial * (steps - 4) / 7;
        fs::write(host.path("/run/releasectl.fault"), format!("uninstall kill {step}\n")).unwrap();
        let killed = host.run("releasectl uninstall --yes --purge");
        assert_eq!(killed.code, 137, "at step {step} of {steps}: {}", killed.output);
        host.succeed(uninstall);
        assert_eq!(host.run(OURS).output.trim(), "", "killed at step {step} of {steps}");
        host.fail("id app");
    }
    install();
}
