//! Load generators that take less than the servers: wrk for HTTP/1.1, h2load for HTTP/2, and for HTTP/1.1 to check wrk.

use std::{fmt, io, time::Duration};

use crate::bench::peers::Cell;

/// Streams at once on each HTTP/2 connection.
const STREAMS: &str = "10";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generator {
    pub tool: Tool,
    pub connections: usize,
}

/// A program, and what it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// HTTP/1.1.
    Wrk,
    /// HTTP/1.1, one request at a time on each connection, as wrk.
    H2loadHttp1,
    /// HTTP/2 with prior knowledge.
    H2load,
}

impl Generator {
    /// How many requests were answered, every one with 200.
    ///
    /// # Errors
    /// Where one was not.
    pub fn run(self, cell: &Cell, path: &str, busy: Duration) -> io::Result<u64> {
        // Both count in whole seconds.
        let (seconds, connections) = (busy.as_secs().max(1).to_string(), self.connections.to_string());
        let url = format!("http://127.0.0.1{path}");
        let (mut command, answered): (_, fn(&str) -> Option<u64>) = match self.tool {
            Tool::Wrk => (cell.command("wrk"), answered_by_wrk),
            Tool::H2loadHttp1 | Tool::H2load => (cell.command("h2load"), answered_by_h2load),
        };
        command.args(["-t", "1", "-c", &connections]);
        match self.tool {
            Tool::Wrk => command.args(["-d", &seconds, "--timeout", "20", &url]),
            Tool::H2loadHttp1 => command.args(["-D", &seconds, "--h1", &url]),
            Tool::H2load => command.args(["-D", &seconds, "-m", STREAMS, &url]),
        };
        let output = command.output()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let wrong = || io::Error::other(format!("{url}, {self}: not each request was answered:\n{said}"));
        answered(&said).filter(|answered| *answered > 0 && output.status.success()).ok_or_else(wrong)
    }
}

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, by) = match self.tool {
            Tool::Wrk => ("HTTP/1.1", ""),
            Tool::H2loadHttp1 => ("HTTP/1.1", ", by h2load"),
            Tool::H2load => ("HTTP/2", ""),
        };
        let (count, plural) = (self.connections, if self.connections == 1 { "" } else { "s" });
        write!(f, "{version}, {count} connection{plural}{by}")
    }
}

/// It has a line more where a response was not 2xx or 3xx, and one where a socket failed.
fn answered_by_wrk(said: &str) -> Option<u64> {
    let has_failed = said.contains("Non-2xx") || said.contains("Socket errors");
    let line = said.lines().find(|line| line.contains(" requests in ")).filter(|_| !has_failed)?;
    line.split_whitespace().next()?.parse().ok()
}

/// A request that was on its way at the end has begun, may have a status, and is not done.
fn answered_by_h2load(said: &str) -> Option<u64> {
    let numbers = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name))?;
        line.split(", ").map(|word| word.split_whitespace().next()?.parse::<u64>().ok()).collect::<Option<Vec<_>>>()
    };
    let [_, _, done, succeeded, failed, errored, timed_out] = numbers("requests: ")?.try_into().ok()?;
    let [_, elsewhere, refused, broken] = numbers("status codes: ")?.try_into().ok()?;
    let bad = failed + errored + timed_out + elsewhere + refused + broken;
    (bad == 0 && done == succeeded).then_some(succeeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "  1 threads and 64 connections\n  Thread Stats   Avg\n  123456 requests in 3.00s, 15.77MB read\nRequests/sec: 1\n";

    #[test]
    fn what_wrk_counted_is_the_answer_unless_something_failed() {
        assert_eq!(answered_by_wrk(WRK), Some(123_456));
        assert_eq!(answered_by_wrk(&format!("{WRK}  Non-2xx or 3xx responses: 1\n")), None);
        assert_eq!(answered_by_wrk(&format!("{WRK}  Socket errors: connect 0, read 1, write 0, timeout 0\n")), None);
        assert_eq!(answered_by_wrk("unable to connect to 127.0.0.1:80 Connection refused\n"), None);
    }

    #[test]
    fn what_h2load_counted_is_the_answer_unless_something_failed() {
        let said = |failed: u64, broken: u64| {
            format!(
                "finished in 1.00s, 90.00 req/s, 1KB/s\n\
                 requests: 90 total, 100 started, 90 done, {} succeeded, {failed} failed, 0 errored, 0 timeout\n\
                 status codes: 91 2xx, 0 3xx, 0 4xx, {broken} 5xx\n",
                90 - failed
            )
        };
        assert_eq!(answered_by_h2load(&said(0, 0)), Some(90));
        assert_eq!(answered_by_h2load(&said(1, 0)), None);
        assert_eq!(answered_by_h2load(&said(0, 1)), None);
        assert_eq!(answered_by_h2load("connection refused\n"), None);
    }
}
