//! What releases.md tells an operator to do.

use rig::{Agent, Host, Load, Mode};

use crate::{bundles::good, deploy::assert_converged};

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
fn a_service_that_is_taken_down_stays_down_until_its_socket_is_started() {
    let (host, bundle) = (Host::boot(), good("one"));
    Agent::new(&host).deploy(&bundle.archive).expect_success();
    host.succeed("systemctl stop app.socket; systemctl stop 'app-*'");
    host.fail("curl -s localhost/");
    host.fail("systemctl is-active 'app-*'");
    host.succeed("systemctl start app.socket");
    assert!(host.succeed("curl -s localhost/").contains("Hello"));
    assert_converged(&host, bundle.id.as_str());
}
