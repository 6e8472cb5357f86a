//! What people would check it with: `ab` and `wrk`, whose word is not ours.

use std::process::{Child, Command, Stdio};

use rig::{Agent, Host};
use rustix::process::{Pid, Signal, kill_process};

use crate::{bundles::good, deploy::assert_converged};

/// A tool at work in the host's network.
struct Tool(Child);

impl Tool {
    fn start(host: &Host, words: &str) -> Self {
        let mut command = Command::new("nsenter");
        command.args(["-t", &host.leader().to_string(), "-n", "--"]).args(words.split(' '));
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// What it says when it is interrupted: it has lasted as long as what it was to see.
    #[track_caller]
    fn says_so_far(self) -> String {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::INT).unwrap();
        self.says()
    }

    /// What it says at its end, which must be later than now.
    #[track_caller]
    fn says(mut self) -> String {
        assert!(matches!(self.0.try_wait(), Ok(None)), "it ended before the change did: it has shown nothing");
        let output = self.0.wait_with_output().unwrap();
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
    }
}

#[track_caller]
fn assert_none_failed(ab: &str) {
    let value = |name: &str| ab.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!((value("Failed requests:"), value("Non-2xx responses:")), (Some("0"), None), "{ab}");
    assert!(value("Complete requests:").is_some_and(|count| count.parse::<u64>().unwrap() >= 30_000), "{ab}");
}

#[test]
fn ab_fails_no_request_across_ten_deployments_and_ten_rollbacks() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    let ab = || Tool::start(&host, "ab -q -c 10 -n 30000 http://127.0.0.1/lambros");
    for _ in 0..10 {
        let clients = ab();
        agent.deploy(&two.archive).expect_success();
        assert_none_failed(&clients.says());
        host.assert_serving(two.id.as_str());

        let clients = ab();
        host.succeed("releasectl rollback");
        assert_none_failed(&clients.says());
        host.assert_serving(one.id.as_str());
    }
    assert_converged(&host, one.id.as_str());
}

#[test]
fn ab_with_kept_connections_and_wrk_see_no_error_across_twenty_activations() {
    let host = Host::boot();
    let (one, two) = (good("one"), good("two"));
    let mut agent = Agent::new(&host);
    agent.deploy(&one.archive).expect_success();
    let mut activate_twenty_times = || {
        for _ in 0..10 {
            agent.deploy(&two.archive).expect_success();
            host.succeed("releasectl rollback");
        }
    };
    let ab = Tool::start(&host, "ab -q -k -c 50 -t 300 -n 100000000 http://127.0.0.1/lambros");
    activate_twenty_times();
    assert_none_failed(&ab.says_so_far());
    let wrk = Tool::start(&host, "wrk -t 1 -c 100 -d 300 http://127.0.0.1/lambros");
    activate_twenty_times();
    let said = wrk.says_so_far();
    assert!(said.contains("Requests/sec:"), "{said}");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    assert_converged(&host, one.id.as_str());
}
