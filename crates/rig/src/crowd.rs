//! Many deployments at once: each succeeds, whoever comes between its events, and one of them is what serves.

use std::{io, thread};

use crate::{
    Agent, Load, Mode,
    findings::Finding,
    subject::{self, Subject},
};

/// At once.
const DEPLOYMENTS: usize = 10;
const CLIENTS: usize = 4;

/// Deploys ten releases at once, so many times over, under load.
///
/// # Errors
/// Where a bundle does not build.
///
/// # Panics
/// Where the host does not boot.
pub fn run(rounds: usize) -> io::Result<Finding> {
    let contents = subject::contents()?;
    let bundles = (0..DEPLOYMENTS).map(|n| contents.pack(&n.to_string()).map(|bundle| bundle.archive));
    let bundles = bundles.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let mut subject = Subject::boot(&contents, |_| {})?;
    let loads = [Mode::C1, Mode::C3].map(|mode| Load::start(&subject.host, mode, CLIENTS));
    let name = format!("{DEPLOYMENTS} deployments at once, {rounds} times over");
    let points = rounds * DEPLOYMENTS;
    let mut finding = Finding { name, points: Some(points), ..Finding::default() };
    // Those that were there first may be pruned.
    subject.reported = None;
    for round in 1..=rounds {
        let host = &subject.host;
        thread::scope(|scope| {
            // Each of a group of its own, as a group has one deployment at a time and prunes what others of it have left.
            let deploy =
                |(group, archive): (usize, &Vec<u8>)| Agent::new(host).group(&group.to_string()).deploy(archive);
            let all: Vec<_> = bundles.iter().enumerate().map(|one| scope.spawn(move || deploy(one))).collect();
            for deployment in all {
                let deployment = deployment.join().expect("no deployment panics");
                finding.tried += 1;
                finding.reached += 1;
                if !deployment.succeeded() {
                    finding.broken.push(format!(
                        "round {round}: {}: {}",
                        deployment.last().name,
                        deployment.last().tail()
                    ));
                }
            }
        });
        let broken = [subject.check(), subject.check_converged()].concat();
        finding.broken.extend(broken.into_iter().map(|fault| format!("after round {round}: {fault}")));
    }
    for report in loads.map(Load::stop) {
        *finding.lost.get_or_insert_default() += report.lost();
        if report.lost() > 0 {
            finding.broken.push(format!("{}: {}", report.mode, report.losses()));
        }
    }
    Ok(finding)
}
