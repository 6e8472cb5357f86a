//! What releases.md tells an operator to do.

use rig::{Agent, Host, Load, Mode};

use crate::{
    bundles::{contents, good},
    deploy::assert_converged,
};

#[test]
fn a_changed_configuration_is_taken_by_a_restart_and_a_wrong_one_is_not() {
    let (host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    let load = Load::start(&host, Mode::C3, 10);
    host.succeed("mkdir -p /etc/app; echo APP_CONNECTIONS=77 >/etc/app/env; releasectl restart");
    assert_converged(&host, bundle.id.as_str());
    let pid = || host.succeed("systemctl show -P MainPID --state=active 'app-*'").trim().to_owned();
    let serving = pid();
    assert!(host.succeed(&format!("cat /proc/{serving}/environ")).contains("APP_CONNECTIONS=77"));
    host.succeed("echo APP_CONNECTIONS=many >/etc/app/env");
    let said = host.fail("releasectl restart");
    assert!(said.contains("APP_CONNECTIONS=\"many\"") && said.contains("serving"), "{said}");
    assert_eq!(pid(), serving);
    let report = load.stop();
    assert_eq!(report.losses(), "none");
}

#[test]
fn a_service_that_is_taken_down_stays_down_until_it_is_enabled() {
    let (mut host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    host.succeed("systemctl disable --now app.socket app.service; systemctl stop 'app-*'");
    let is_down = |host: &Host| {
        host.fail("curl -s localhost/");
        host.fail("systemctl is-active 'app-*'");
    };
    is_down(&host);
    host.reboot();
    is_down(&host);
    host.succeed("systemctl enable --now app.socket app.service");
    assert!(host.succeed("curl -s localhost/").contains("Hello"));
    assert_converged(&host, bundle.id.as_str());
    host.succeed("systemctl disable --now app.socket app.service; systemctl stop 'app-*'");
    is_down(&host);
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    assert_converged(&host, bundle.id.as_str());
    host.succeed("systemctl is-enabled app.socket app.service");
}

/// "Who is trusted with what".
#[test]
fn the_store_is_roots_and_the_service_writes_to_its_own_folders_alone() {
    let (host, bundle) = (Host::boot(), good("one"));
    // Whoever's shell it is deployed from.
    host.succeed("mkdir /root/bundle");
    std::fs::write(host.path("/root/bundle.tgz"), &bundle.archive).unwrap();
    host.succeed(
        "umask 077; tar -xzpf /root/bundle.tgz -C /root/bundle; cd /root/bundle/hooks && \
         ./after-install && ./application-start && ./validate-service",
    );
    let store = "/opt/app /usr/local/bin/releasectl /etc/systemd/system/app*";
    let others = host.succeed(&format!("find {store} ! -user root -o ! -type l -perm /022"));
    assert_eq!(others, "", "somebody else's, or writable for somebody else");
    let hidden = host.succeed("find /opt/app ! -type l ! -perm -444 ! -name lock");
    assert_eq!(hidden, "", "the service must read it");
    for user in ["app", "nobody"] {
        let as_user = format!("setpriv --reuid={user} --regid={user} --clear-groups");
        let as_user = as_user.replace("--regid=nobody", "--regid=nogroup");
        for command in [
            "touch /opt/app/x",
            "ln -sfn /tmp /opt/app/current",
            "sh -c 'echo {} >>/opt/app/activations.jsonl'",
            "flock -n /opt/app/lock true",
            "touch /etc/systemd/system/x",
            "touch /etc/app",
            "touch /run/releasectl.json",
            "releasectl rollback",
            "systemctl restart app.socket",
        ] {
            host.fail(&format!("{as_user} {command}"));
        }
        host.succeed(&format!("{as_user} cat /opt/app/current/manifest.json"));
    }
    host.fail("setpriv --reuid=nobody --regid=nogroup --clear-groups ls /run/app /var/lib/app");
    assert_converged(&host, bundle.id.as_str());
}

/// The folder is the service's own: what a release puts there must not reach root's terminal, nor stop a verb.
#[test]
fn what_a_service_leaves_in_its_runtime_folder_stops_nobody() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    host.succeed(
        "cd /run/app && mkdir 900.json \"901.$(printf '\\033[2J')\" && ln -s /etc/passwd 902.json && mkfifo 903.json",
    );
    for event in agent.deploy(&two.archive).expect_success().events {
        assert!(!event.output.contains('\u{1b}'), "{:?}", event.output);
    }
    let said = host.succeed("releasectl rollback; releasectl restart; releasectl status");
    assert!(!said.contains('\u{1b}'), "{said:?}");
    host.succeed("test -s /etc/passwd");
    assert_converged(&host, one.id.as_str());
}

#[test]
fn a_socket_that_cannot_listen_is_not_kept_and_applying_it_again_goes_on_where_it_was_killed() {
    let host = Host::boot();
    let mut elsewhere = contents();
    let socket = String::from_utf8(elsewhere.get("units/app.socket").unwrap().to_vec()).unwrap();
    elsewhere.put("units/app.socket", 0o644, socket.replace("ListenStream=80", "ListenStream=192.0.2.1:80").as_bytes());
    let elsewhere = elsewhere.pack("an address that the host has not").unwrap();
    let mut agent = Agent::new(&host);
    agent.deploy(&good("one").archive).expect_success();
    agent.deploy(&elsewhere.archive).expect_success();
    host.fail("releasectl socket apply");
    assert_converged(&host, elsewhere.id.as_str());
    // As a kill between the new file and the start leaves it; and now the address is there.
    host.succeed(
        "ip link set lo up; ip addr add 192.0.2.1/32 dev lo; systemctl stop app.socket; systemctl stop 'app-*'",
    );
    host.succeed(&format!("cp /opt/app/releases/{}/units/app.socket /etc/systemd/system/", elsewhere.id));
    host.succeed("systemctl daemon-reload; releasectl socket apply");
    assert!(host.succeed("curl -s 192.0.2.1").contains("Hello"));
}
