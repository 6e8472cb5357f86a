//! `releasectl doctor`: each finding appears with what is wrong, and goes away with it.

use std::fs;

use rig::{Agent, Host};
use serde_json::Value;

use crate::{bundles::good, deploy::assert_converged};

const DROP_IN: &str = "/etc/systemd/system/app-@.service.d/test.conf";

/// What is looked at, how bad it is, words of the finding, what does it, and what undoes that. `ID` is the current release.
const FINDINGS: [(&str, &str, &str, &str, &str); 26] = [
    ("socket", "warning", "not enabled", "systemctl disable -q app.socket", "systemctl enable -q app.socket"),
    (
        "socket",
        "broken",
        "TriggerLimitIntervalSec",
        "mkdir /etc/systemd/system/app.socket.d; cd /etc/systemd/system/app.socket.d; \
         printf '[Socket]\\nTriggerLimitIntervalSec=5\\n' >x.conf; systemctl daemon-reload",
        "rm -r /etc/systemd/system/app.socket.d; systemctl daemon-reload",
    ),
    (
        "definition",
        "warning",
        "not the current release's",
        "cd /etc/systemd/system; cp app.socket /root/; echo '# mine' >>app.socket",
        "cp /root/app.socket /etc/systemd/system/; systemctl daemon-reload",
    ),
    (
        "instances",
        "warning",
        "has failed",
        "systemctl start app-ID@1000000; systemctl kill -s KILL app-ID@1000000; \
         until systemctl is-failed -q app-ID@1000000; do sleep 0.01; done",
        "systemctl reset-failed app-ID@1000000",
    ),
    ("instances", "broken", "accept, and one", "systemctl start app-ID@1000001", "systemctl stop app-ID@1000001"),
    ("instances", "broken", "nobody serves", "systemctl stop 'app-ID@*'", "releasectl boot"),
    ("app.service", "warning", "disabled", "systemctl disable -q app.service", "systemctl enable -q app.service"),
    (
        "app.service",
        "warning",
        "not the validated release's",
        "echo '# mine' >>/etc/systemd/system/app.service; systemctl daemon-reload",
        "releasectl validate --bake 0",
    ),
    (
        "units",
        "warning",
        "app-ID@.service is not as its release",
        "echo '# mine' >>/etc/systemd/system/app-ID@.service",
        "releasectl restart",
    ),
    (
        "drop-ins",
        "broken",
        "NonBlocking is no",
        "mkdir -p ${DROP_IN%/*}; printf '[Service]\\nNonBlocking=no\\n' >$DROP_IN; systemctl daemon-reload",
        "rm $DROP_IN; systemctl daemon-reload",
    ),
    (
        "drop-ins",
        "warning",
        "ProtectSystem is no",
        "printf '[Service]\\nProtectSystem=no\\n' >$DROP_IN; systemctl daemon-reload",
        "rm $DROP_IN; systemctl daemon-reload",
    ),
    (
        "descriptors",
        "warning",
        "cannot hold as many",
        "mkdir -p /etc/app; echo APP_CONNECTIONS=1000000 >/etc/app/env; chmod 600 /etc/app/env",
        "rm /etc/app/env",
    ),
    ("links", "broken", "current is lost", "rm /opt/app/current", "releasectl boot"),
    (
        "links",
        "broken",
        "validated is lost",
        "rm /opt/app/validated",
        "/opt/app/current/bin/releasectl validate --bake 0",
    ),
    (
        "links",
        "warning",
        "is provisional",
        "releasectl activate OTHER",
        "releasectl validate --bake 0; releasectl rollback",
    ),
    (
        "digests",
        "broken",
        "bin/app",
        "cd /opt/app/current/bin; mv app /root/; cp -p /root/app .; printf x | dd of=app seek=9000 bs=1 conv=notrunc \
         status=none; ! cmp -s /root/app app",
        "cp -p /root/app /opt/app/current/bin/app.x; mv /opt/app/current/bin/app.x /opt/app/current/bin/app",
    ),
    ("owners", "broken", "by others than root", "chmod o+w /opt/app/releases", "chmod o-w /opt/app/releases"),
    (
        "owners",
        "broken",
        "by others than root",
        "chown nobody /opt/app/current/hooks/after-install",
        "chown root /opt/app/current/hooks/after-install",
    ),
    ("secrets", "warning", "can be read", "echo SECRET=1 >/etc/app/env; chmod 644 /etc/app/env", "rm /etc/app/env"),
    (
        "notify",
        "warning",
        "is not run",
        "cp /bin/true /etc/app/notify; chmod 777 /etc/app/notify",
        "rm /etc/app/notify",
    ),
    (
        "leftovers",
        "warning",
        ".0123456789abcdef.new",
        "mkdir /opt/app/releases/.0123456789abcdef.new",
        "releasectl prune --keep 9",
    ),
    (
        "clock",
        "warning",
        "behind the last line",
        "cp /opt/app/activations.jsonl /root/; echo '{\"pinned\":\"ID\",\"time\":9999999999}' >>/opt/app/activations.jsonl",
        "cp /root/activations.jsonl /opt/app/",
    ),
    (
        "room",
        "warning",
        "MiB are free",
        "head -c 1G /dev/zero >/opt/app/.filler 2>/dev/null; true",
        "rm /opt/app/.filler",
    ),
    (
        "room",
        "warning",
        "inodes are free",
        "mkdir /opt/app/.many; cd /opt/app/.many; ( n=0; while : >$n; do n=$((n+1)); done ) 2>/dev/null; true",
        "rm -r /opt/app/.many",
    ),
    (
        "systemd",
        "broken",
        "systemd is 246",
        "printf '#!/bin/sh\\n[ \"$1\" = --version ] && echo systemd 246 && exit\\nexec /usr/bin/systemctl \"$@\"\\n' \
         >/usr/local/sbin/systemctl; chmod +x /usr/local/sbin/systemctl",
        "rm /usr/local/sbin/systemctl",
    ),
    (
        "port",
        "broken",
        "python3 (pid ",
        "systemctl stop app.socket 'app-*@*'; systemd-run -q --unit=squatter python3 -m http.server 80; \
         until curl -s -o /dev/null localhost; do sleep 0.01; done",
        "systemctl stop squatter; systemctl start app.socket; releasectl boot",
    ),
];

/// What was found, but for what is sound, and the exit code.
fn doctor(host: &Host, before: &str) -> (Vec<(String, String, String)>, i32) {
    let tool = "$(command -v releasectl || echo /opt/app/current/bin/releasectl)";
    let ran = host.run(&format!("{before} {tool} doctor --json"));
    let all: Value = serde_json::from_str(&ran.output).unwrap_or_else(|error| panic!("{error}: {}", ran.output));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let all = all.as_array().unwrap().iter();
    let wrong = all.filter(|finding| finding["level"] != "sound").map(|finding| {
        assert_ne!(finding["advice"], "", "what to do: {finding}");
        (text(finding, "check"), text(finding, "level"), text(finding, "text"))
    });
    (wrong.collect(), ran.code)
}

#[track_caller]
fn assert_sound(host: &Host, after: &str) {
    assert_eq!(doctor(host, ""), (Vec::new(), 0), "after {after}");
}

#[track_caller]
fn assert_finds(host: &Host, before: &str, wanted: (&str, &str, &str)) {
    let (found, code) = doctor(host, before);
    let (check, level, words) = wanted;
    let is_it = |(this, that, text): &(String, String, String)| this == check && that == level && text.contains(words);
    assert!(found.iter().any(is_it), "wanted {wanted:?}: {found:?}");
    let worst = if found.iter().any(|(_, level, _)| level == "broken") { 4 } else { 3 };
    assert_eq!(code, worst, "{found:?}");
}

#[test]
fn each_finding_appears_with_what_is_wrong_and_goes_away_with_it() {
    let (host, other, current) = (Host::boot(), good("other"), good("current"));
    // A small disk, which can be filled.
    host.succeed("mkdir -p /opt/app /etc/app && mount -t tmpfs -o size=64m,nr_inodes=1000,mode=755 tmpfs /opt/app");
    let mut agent = Agent::new(&host);
    agent.deploy(&other.archive).expect_success();
    agent.deploy(&current.archive).expect_success();
    host.settle();
    assert_sound(&host, "two deployments");
    for (check, level, words, harm, mend) in FINDINGS {
        let named = |text: &str| {
            let text = text.replace("OTHER", other.id.as_str()).replace("ID", current.id.as_str());
            text.replace("DROP_IN", "drop_in")
        };
        let shell = |command: &str| host.succeed(&format!("drop_in={DROP_IN}; {}", named(command)));
        shell(harm);
        assert_finds(&host, "", (check, level, &named(words)));
        shell(mend);
        host.settle();
        assert_sound(&host, mend);
    }
    assert_converged(&host, current.id.as_str());
}

#[test]
fn a_queue_that_the_kernel_cuts_another_machine_and_a_stopped_agent_are_found() {
    let (host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    let most = |text: &str| host.in_network(|| fs::write("/proc/sys/net/core/somaxconn", text).unwrap());
    most("128");
    assert_finds(&host, "", ("backlog", "warning", "somaxconn is 128"));
    most("4096");
    assert_finds(&host, "setarch i686", ("digests", "broken", "this machine is i686"));
    assert_sound(&host, "a machine of another kind");

    host.succeed("systemctl stop codedeploy-agent; cp /bin/true /usr/bin/unzip");
    assert_finds(&host, "", ("agent", "warning", "does not run"));
    host.succeed("systemctl start codedeploy-agent; rm /usr/bin/unzip");
    assert_finds(&host, "", ("unzip", "warning", "without its modes"));
    host.succeed("cp /bin/true /usr/bin/unzip");
    assert_sound(&host, "an agent that runs");
    let text = host.succeed("releasectl doctor");
    assert_eq!(text.lines().last(), Some("this host is sound"), "{text}");
    let said = host.fail("setpriv --reuid=nobody --clear-groups releasectl doctor");
    assert!(said.contains("as root") && said.lines().count() == 1, "{said}");
}
