//! A fleet behind a balancer: real hosts on a network of their own, deployed to as CodeDeploy goes over a fleet, and clients
//! of the balancer that notice everything.

mod balancer;
mod bundles;
mod controls;
mod lost;
mod network;
mod plays;
mod row;
mod run;
mod seen;

use std::{fs, io, path::Path, sync::Arc, thread};

use releases::{
    ReleaseId,
    bundle::{Bundle, Contents},
    probe::{self, Address},
};
use serde_json::json;

use crate::{Agent, Host, chart, demo, readme};
use balancer::Balancer;
use bundles::Bundles;
use network::Network;

pub use row::Row;

/// Half of them is no whole number.
const HOSTS: u8 = 5;

/// Hosts, numbered from 1 on, and what is around them. Dropping it takes everything away; so does the end of this process.
#[derive(Debug)]
pub struct Fleet {
    hosts: Vec<Host>,
    network: Network,
    balancer: Balancer,
    bundles: Bundles,
    /// What every host serves, and a rollback brings back.
    last_good: Arc<Bundle>,
}

impl Fleet {
    /// Boots so many hosts and a balancer, deploys a first release to each, and waits until the balancer finds all of them up.
    ///
    /// # Errors
    /// Where the bundles do not build.
    ///
    /// # Panics
    /// Where a host does not boot, or the first deployment fails.
    pub fn boot(hosts: u8, contents: &Contents) -> io::Result<Self> {
        let bundles = Bundles::of(contents)?;
        let last_good = Arc::new(bundles.next()?);
        let balancer = Balancer::install();
        let hosts = (0..hosts).map(|_| Host::boot()).collect();
        let fleet = Self { hosts, network: Network::within(balancer.leader()), balancer, bundles, last_good };
        for n in fleet.numbers() {
            fleet.network.connect(n, fleet.host(n).leader());
        }
        fleet.for_each(|host| drop(Agent::new(host).deploy(&fleet.last_good.archive).expect_success()));
        let servers: Vec<_> = fleet.numbers().into_iter().map(|n| (name(n), fleet.network.host(n))).collect();
        fleet.balancer.start(&servers);
        Ok(fleet)
    }

    /// The three configurations, a release that does not become ready and one that fails while it bakes, a host that is lost,
    /// and then what it is to be held against: one row for each.
    ///
    /// # Errors
    /// Where a bundle cannot be packed.
    pub fn all(&mut self, tell: impl Fn(&Row)) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for play in plays::ALL {
            rows.push(play(self)?);
            rows.last().into_iter().for_each(&tell);
        }
        controls::compare(&mut rows);
        Ok(rows)
    }

    /// One host at a time, a release that does not become ready, and what must lose.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn few(&mut self) -> io::Result<Vec<Row>> {
        plays::FEW.iter().map(|play| play(self)).collect()
    }

    fn numbers(&self) -> Vec<u8> {
        (1..=u8::MAX).take(self.hosts.len()).collect()
    }

    fn host(&self, n: u8) -> &Host {
        &self.hosts[usize::from(n) - 1]
    }

    /// In all hosts at once.
    fn for_each(&self, job: impl Fn(&Host) + Sync) {
        thread::scope(|scope| self.hosts.iter().for_each(|host| drop(scope.spawn(|| job(host)))));
    }

    /// As CodeDeploy's agent does it on one host.
    fn deploy(&self, n: u8, archive: &[u8]) -> Result<(), String> {
        Agent::new(self.host(n)).deploy(archive).outcome()
    }

    /// What each host, asked on the fleet's network, does not serve as it should.
    fn not_serving(&self, release: &ReleaseId) -> Vec<String> {
        let wrong = |n| {
            let address = Address::Tcp(self.network.host(n));
            match self.network.as_a_client(|| probe::ask(&address)) {
                Ok(answer) if answer == release.as_str() => None,
                Ok(answer) => Some(format!("{} serves {answer}, and not {release}", name(n))),
                Err(error) => Some(format!("{}: {error}", name(n))),
            }
        };
        self.numbers().into_iter().filter_map(wrong).collect()
    }

    /// Whether a host has ever been brought this release.
    fn has_seen(&self, n: u8, release: &ReleaseId) -> bool {
        self.host(n).path(&format!("/opt/app/releases/{release}")).exists()
    }

    /// Whether it is what the host would start.
    fn is_current(&self, n: u8, release: &ReleaseId) -> bool {
        fs::read_link(self.host(n).path("/opt/app/current")).is_ok_and(|target| target.ends_with(release.as_str()))
    }
}

/// Runs everything, prints the table, writes `target/fleet/` and, where all is well, the README; returns whether it is.
///
/// # Errors
/// Where a bundle cannot be made, or the README not be written.
///
/// # Panics
/// Where a host does not boot.
pub fn run() -> io::Result<bool> {
    eprintln!("building the bundles");
    let contents = Contents::build(crate::workspace()).map_err(io::Error::other)?;
    eprintln!("booting {HOSTS} hosts and a balancer");
    let mut fleet = Fleet::boot(HOSTS, &contents)?;
    let rows = fleet.all(|row| eprintln!("{row}"))?;
    let table = row::markdown(&rows);
    println!("{table}");
    tell(&rows, &crate::workspace().join("target/fleet"));
    let is_good = rows.iter().all(Row::is_good);
    if is_good {
        readme::put("fleet", &table)?;
    }
    Ok(is_good)
}

fn tell(rows: &[Row], folder: &Path) {
    for row in rows {
        row.faults.iter().for_each(|fault| println!("{}: {fault}", row.name));
    }
    let report = json!({ "format": 1, "runs": rows.iter().map(Row::to_json).collect::<Vec<_>>() });
    demo::write(folder, "report.json", &format!("{report:#}\n"));
    let chapters: Vec<_> = rows.iter().map(Row::chapter).collect();
    demo::write(folder, "report.html", &chart::chapters("A fleet behind a balancer", &chapters));
    println!("target/fleet/report.html shows latency over time, each host's deployment marked");
}

/// What the balancer calls a host.
fn name(n: u8) -> String {
    format!("host{n}")
}
