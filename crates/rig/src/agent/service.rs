//! The agent's process on the host: a service that starts a worker for each script, as the real one does.

use std::{fs, io::Write};

use crate::Host;

/// The worker folders' parent.
pub(super) const RUN: &str = "/run/codedeploy-agent";
/// Its control group is what ends with it.
pub(super) const UNIT: &str = "codedeploy-agent.service";

const START: &str = "set -e
mkdir -p /run/codedeploy-agent
cd /run/codedeploy-agent
[ -p work ] || mkfifo work || [ -p work ]
unit=/run/systemd/system/codedeploy-agent.service
if ! [ -e $unit ]; then
  mkdir -p ${unit%/*}
  cat >unit.$$ <<'END'
[Unit]
Description=The stand-in for CodeDeploy's agent
[Service]
# Opened for both, so that it never comes to an end. A worker outlives nobody: it belongs to the service's control group.
ExecStart=/bin/sh -c 'while read -r worker; do (\"$worker\" &); done <>/run/codedeploy-agent/work'
KillMode=control-group
# systemd has its services ignore it; Ruby gives it back to what it starts, so that a script dies of it.
IgnoreSIGPIPE=no
Restart=on-failure
END
  mv unit.$$ $unit
fi
systemctl start codedeploy-agent.service";

/// Sees that it runs.
///
/// # Panics
/// Where it does not start.
pub(super) fn start(host: &Host) {
    host.succeed(START);
}

/// Has it start a worker. Less than a pipe takes at once, so that two such lines never mix.
///
/// # Panics
/// Where the host is gone.
pub(super) fn hand_over(host: &Host, worker: &str) {
    let work = fs::OpenOptions::new().write(true).open(host.path(&format!("{RUN}/work")));
    work.and_then(|mut work| writeln!(work, "{worker}")).expect("the agent's service takes work");
}
