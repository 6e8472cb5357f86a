//! The balancer: Debian's HAProxy on a host of its own, watched over its stats socket and its log.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
};

use crate::Host;

/// Not installed on this machine, where it would listen at its next boot.
const PACKAGES: [&str; 4] = ["haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"];
const CONFIGURATION: &str = include_str!("haproxy.cfg");
/// The package's own unit needs a syslog; a file takes every line.
const DROP_IN: &str = "[Service]\nBindReadOnlyPaths=\nStandardOutput=append:/var/log/haproxy.log\n";
const SOCKET: &str = "/run/haproxy.sock";
const LOG: &str = "/var/log/haproxy.log";

/// A running balancer.
#[derive(Debug)]
pub(super) struct Balancer {
    host: Host,
}

/// What it says of a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    /// `UP`, `DOWN`, `DRAIN`, and what it is on its way to.
    pub status: String,
    /// Requests that it has in flight.
    pub in_flight: u64,
    /// Requests that it has been sent.
    pub requests: u64,
    /// Those of them that it has begun to answer, with 200. The log lacks what failed on a connection that had been
    /// used before: there HAProxy closes without a word, for the client to try again.
    pub answered: u64,
    /// Those that it was sent on a connection that had been used before.
    pub reused: u64,
    /// Those that were tried once more, there or elsewhere.
    pub again: u64,
    /// Health checks that failed while it was up.
    pub failed_checks: u64,
    /// How often it was marked down.
    pub downs: u64,
}

/// A request that did not go as it should.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// The server that it was sent to.
    pub server: String,
    /// The status that the client saw, and how the session ended, in HAProxy's letters.
    pub ended: String,
}

impl Balancer {
    /// Puts it on a fresh host. It does not run yet.
    pub fn install() -> Self {
        let host = Host::boot();
        host.unpack(&PACKAGES).unwrap_or_else(|error| panic!("{error}"));
        fs::create_dir_all(host.path("/run/systemd/system/haproxy.service.d")).expect("the host takes it");
        let drop_in = host.path("/run/systemd/system/haproxy.service.d/rig.conf");
        fs::write(drop_in, DROP_IN).expect("the host takes it");
        host.succeed("systemd-sysusers --inline 'u haproxy - - /var/lib/haproxy'; mkdir -p /var/lib/haproxy; ldconfig");
        Self { host }
    }

    /// The process that has its network.
    pub fn leader(&self) -> u32 {
        self.host.leader()
    }

    /// Starts it, and waits until every server is up.
    pub fn start(&self, servers: &[(String, SocketAddr)]) {
        let lines: String = servers.iter().map(|(name, address)| format!("    server {name} {address}\n")).collect();
        let path = self.host.path("/etc/haproxy/haproxy.cfg");
        fs::write(path, format!("{CONFIGURATION}{lines}")).expect("the host takes it");
        self.host
            .succeed("haproxy -c -f /etc/haproxy/haproxy.cfg && systemctl daemon-reload && systemctl start haproxy");
        servers.iter().for_each(|(name, _)| self.wait_until_up(name));
    }

    /// Waits until a server's health checks say that it is up.
    pub fn wait_until_up(&self, server: &str) {
        self.wait(server, "it is up", |server| server.status == "UP");
    }

    /// Waits until they say that it is not.
    pub fn wait_until_down(&self, server: &str) {
        self.wait(server, "it is down", |server| server.status == "DOWN");
    }

    /// Takes a server out of the rotation, and waits until it has nothing in flight.
    pub fn deregister(&self, server: &str) {
        self.tell(&format!("set server app/{server} state drain"));
        self.wait(server, "it has nothing in flight", |server| server.status == "DRAIN" && server.in_flight == 0);
    }

    /// Takes it in again, and waits until it is up.
    pub fn register(&self, server: &str) {
        self.tell(&format!("set server app/{server} state ready"));
        self.wait_until_up(server);
    }

    /// Each server by its name.
    pub fn servers(&self) -> BTreeMap<String, Server> {
        parse(&self.ask("show stat").expect("the balancer runs"))
    }

    /// One of them.
    pub fn server(&self, name: &str) -> Server {
        self.servers().remove(name).unwrap_or_default()
    }

    /// Every request that did not go as it should, since it runs.
    pub fn failures(&self) -> Vec<Failure> {
        let log = fs::read_to_string(self.host.path(LOG)).unwrap_or_default();
        let failure = |line: &str| {
            let (server, ended) = line.strip_prefix("failed ")?.split_once(' ')?;
            Some(Failure { server: server.to_owned(), ended: ended.to_owned() })
        };
        log.lines().filter_map(failure).collect()
    }

    fn wait(&self, name: &str, what: &str, holds: impl Fn(&Server) -> bool) {
        self.host.wait_until(&format!("the balancer says of {name} that {what}"), |_| {
            self.ask("show stat").is_ok_and(|stat| parse(&stat).get(name).is_some_and(&holds))
        });
    }

    fn tell(&self, command: &str) {
        let said = self.ask(command).expect("the balancer runs");
        assert!(said.trim().is_empty(), "{command}: {said}");
    }

    fn ask(&self, command: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect(self.host.path(SOCKET))?;
        writeln!(stream, "{command}")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    }
}

/// The servers of `show stat`: a line of names, and then one of values for each.
fn parse(stat: &str) -> BTreeMap<String, Server> {
    let mut lines = stat.trim_start_matches("# ").lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let server = |line: &str| {
        let values: BTreeMap<&str, &str> = names.iter().copied().zip(line.split(',')).collect();
        let text = |name: &str| values.get(name).copied().unwrap_or_default();
        let number = |name: &str| text(name).parse().unwrap_or(0);
        let is_server = text("pxname") == "app" && text("svname") != "BACKEND";
        is_server.then(|| {
            let server = Server {
                status: text("status").to_owned(),
                in_flight: number("scur"),
                requests: number("stot"),
                answered: number("hrsp_2xx"),
                reused: number("reuse"),
                again: number("wretr") + number("wredis"),
                failed_checks: number("chkfail"),
                downs: number("chkdown"),
            };
            (text("svname").to_owned(), server)
        })
    };
    lines.filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_read_by_the_names_of_its_columns() {
        let stat = "# pxname,svname,scur,stot,wretr,wredis,status,chkfail,chkdown,hrsp_2xx,reuse,\n\
                    public,FRONTEND,9,9,,,OPEN,,,9,,\napp,host1,3,1200,4,1,UP 1/3,2,1,1197,900,\n\
                    app,BACKEND,3,1200,4,1,UP,,1,1197,900,\n\n";
        let servers = parse(stat);
        assert_eq!(servers.keys().collect::<Vec<_>>(), ["host1"]);
        let server = &servers["host1"];
        assert_eq!((server.status.as_str(), server.in_flight, server.requests), ("UP 1/3", 3, 1200));
        assert_eq!((server.answered, server.failed_checks, server.downs), (1197, 2, 1));
        assert_eq!((server.reused, server.again), (900, 5));
    }
}
