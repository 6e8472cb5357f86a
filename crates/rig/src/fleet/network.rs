//! The fleet's own network: a bridge in the balancer's network namespace, and a cable to each host and to the clients. All of
//! it ends with the namespaces, and these with their processes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
};

use crate::host::enter_network;

/// Of RFC 1918, and of no network but this one.
const SUBNET: [u8; 3] = [10, 99, 0];
const BALANCER: u8 = 1;
const CLIENTS: u8 = 2;
/// The first host is the one after.
const BEFORE_THE_HOSTS: u8 = 10;

/// A bridge with cables.
#[derive(Debug)]
pub(super) struct Network {
    /// The process that has the bridge.
    home: u32,
    clients: Room,
}

/// A namespace with nothing but its end of a cable. It is held by a process that ends with our end of its standard input.
#[derive(Debug)]
struct Room(Child);

impl Network {
    /// Makes it in the network namespace of a process, and the clients' room beside it.
    ///
    /// # Panics
    /// Where the kernel has no bridges, or no veth.
    pub fn within(home: u32) -> Self {
        let network = Self { home, clients: Room::open() };
        run(
            home,
            &format!("ip link add fleet type bridge; ip addr add {} dev fleet; ip link set fleet up", at(BALANCER)),
        );
        network.plug_in("clients", network.clients.pid(), CLIENTS);
        network
    }

    /// The balancer's public address.
    pub fn balancer(&self) -> SocketAddr {
        port_80(BALANCER)
    }

    /// The address of the host that is number `n`, from 1 on.
    pub fn host(&self, n: u8) -> SocketAddr {
        port_80(BEFORE_THE_HOSTS + n)
    }

    /// A process in the clients' network.
    pub fn clients(&self) -> u32 {
        self.clients.pid()
    }

    /// Gives a host its cable, after each boot: the end that it has goes with its namespace.
    pub fn connect(&self, n: u8, leader: u32) {
        self.plug_in(&cable(n), leader, BEFORE_THE_HOSTS + n);
    }

    /// Nothing passes a host's cable any more, either way; nobody is told.
    pub fn cut(&self, n: u8) {
        run(self.home, &format!("ip link set {} down", cable(n)));
    }

    /// Runs `job` as a client would.
    pub fn as_a_client<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        let clients = self.clients();
        let enter = move || {
            enter_network(clients);
            job()
        };
        std::thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn plug_in(&self, cable: &str, other: u32, address: u8) {
        // As a machine, it has the same one after a boot: others need not learn it anew.
        let hardware = format!("02:00:00:00:00:{address:02x}");
        // The kernel may not yet have taken away what a namespace left that has ended.
        run(
            self.home,
            &format!(
                "ip link del {cable} 2>/dev/null || :; ip link add {cable} type veth peer name eth0 address {hardware} netns {other}; \
             ip link set {cable} master fleet up"
            ),
        );
        run(other, &format!("ip addr add {} dev eth0; ip link set eth0 up", at(address)));
    }
}

impl Room {
    fn open() -> Self {
        let mut command = Command::new("unshare");
        // It says when it is there: until then its process is still in our own network.
        command.args(["--net", "sh", "-c", "echo; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("unshare starts");
        let said = child.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(said, &mut [0]).expect("root may have a network of its own");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn cable(n: u8) -> String {
    format!("host{n}")
}

fn at(last: u8) -> String {
    let [a, b, c] = SUBNET;
    format!("{a}.{b}.{c}.{last}/24")
}

fn port_80(last: u8) -> SocketAddr {
    let [a, b, c] = SUBNET;
    (Ipv4Addr::new(a, b, c, last), 80).into()
}

fn run(network: u32, script: &str) {
    let ran = shell(network, script).status();
    assert!(ran.as_ref().is_ok_and(std::process::ExitStatus::success), "{script}: {ran:?}");
}

/// Of the machine's own tools, in the network of a process.
fn shell(network: u32, script: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &network.to_string(), "-n", "sh", "-ec", script]).stdin(Stdio::null());
    command
}
