//! Bad input to `releasectl` on a real host: one clear line, an exit code, nothing changed.

use rig::{Agent, Host};

use crate::{bundles::good, deploy::assert_converged};

#[test]
fn bad_input_is_one_clear_line_and_changes_nothing() {
    let (host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    host.succeed("mkdir /tmp/none /tmp/future; echo '[]' >/tmp/none/manifest.json");
    host.succeed(r#"echo '{"format":2}' >/tmp/future/manifest.json"#);
    let picture = "find /opt/app /etc/systemd /run/app -not -name lock -printf '%p %i %m %s %T@\\n' | sort | sha256sum";
    // The instance writes it anew until the deployment's own connections have gone.
    host.wait_until("nothing is open", |host| host.run("grep -q '\"connections\":0' /run/app/*.json").code == 0);
    let before = host.succeed(picture);
    for (arguments, words) in [
        ("activate ../x", "not a release"),
        ("activate 0123456789abcdef", "not installed"),
        ("rollback ../../etc", "not a release"),
        ("validate zzz", "not a release"),
        ("install /nowhere", "cannot read it"),
        ("install /tmp/none", "not a manifest"),
        ("install /tmp/future", "format 2"),
        ("status --root /nowhere", "/nowhere"),
    ] {
        let said = host.fail(&format!("releasectl {arguments}"));
        assert!(said.contains(words) && said.lines().count() == 1, "{arguments}: {said}");
    }
    assert_eq!(host.succeed(picture), before);
    assert_converged(&host, bundle.id.as_str());
}

#[test]
fn without_root_or_without_systemd_nothing_is_tried() {
    let (host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    let said = host.fail(&format!("setpriv --reuid=nobody --clear-groups releasectl activate {}", bundle.id));
    assert!(said.contains("run it as root") && said.lines().count() == 1, "{said}");
    let without = "unshare --mount sh -c 'mount -t tmpfs tmpfs /run/systemd && exec releasectl boot'";
    let said = host.fail(without);
    assert!(said.contains("systemd does not run this host") && said.lines().count() == 1, "{said}");
    assert_converged(&host, bundle.id.as_str());
}
