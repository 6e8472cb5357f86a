//! What a deployment takes: each hook, and the way back, beside what systemd needs to start the same unit, and beside a shell
//! script that copies and restarts.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use releases::{
    ReleaseId,
    probe::{self, Address},
};
use serde_json::Value;

use super::{
    Effort,
    chapter::{Bound, Chapter, Goal},
    figure::Figure,
    old_way::{self, OldWay},
    stage::{SOCKET, Stage, ms, timed},
    steps::Steps,
    syncs::Syncs,
};
use crate::Host;

const ABOUT: &str = "On a real systemd host, the unit hardened as it is shipped, the store on ext4 in a file on this machine's \
    disk. Each verb was timed from outside of the host, entering it included, which takes some 5 ms of each; `systemctl start` \
    of the same unit likewise, in turn with them, and nobody asks anything meanwhile. The first answer is of deployments and \
    rollbacks of their own: that of /version on a fresh connection, asked for each millisecond. A validation asks for ten answers \
    in a row and is told to watch no longer; a rollback is validated within. The script copies by rsync, flips by `ln -sfn` and \
    restarts a unit without hardening, on the same disk: nothing of it is verified or synced. Where the time goes is what the \
    receipts say.";
const NOTE: &str = "Beyond the start, an activation compares every digest of the release (verify), writes what must outlive a power \
    cut (prepare, flip: each fsync(2) is counted below), and, once the new instance is READY, tells systemd and asks it once, \
    each by a process of its own (retire): one that does nothing takes 5 ms already. Whom to tell was asked while the disk was \
    waited for. A rollback validates as well: ten fresh connections are asked (answer), and whether the instance is up still, the \
    boot's unit and what has become too much are looked after at once (settle). Tried: systemd was asked six times after READY, \
    and for a rollback ten processes were started where seven are, three of them beside something else; a rollback read \
    its release twice; one `systemctl show` in place of three questions takes longer than any of them. Asking over D-Bus without a \
    process would be cheaper, and one more protocol to be right about.";
/// Between two questions for the new release.
const PAUSE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);
/// Beyond `systemctl start` of the same unit, in milliseconds.
const BEYOND: Bound = Bound::AtMost(60.0);
const ACTIVATE: &str = "releasectl activate";
const ROLLBACK: &str = "releasectl rollback";

/// # Panics
/// Where a host does not boot, or a deployment fails.
pub(super) fn run(effort: Effort) -> io::Result<Chapter> {
    let mut stage = Stage::on_a_disk()?;
    let mut old_way = OldWay::set_up(stage.host());
    let (mut took, mut steps) = (Took::default(), [Steps::of("activate"), Steps::of("rollback")]);
    for n in 1..=effort.times {
        eprintln!("deployments and rollbacks, {n} of {}", effort.times);
        took.deploy(&mut stage, &mut steps[0]);
        took.roll_back(&mut stage, &mut steps[1]);
        took.start.push(stage.start(&stage.extra(n)));
        old_way = old_way.and_then(|way| {
            took.old_way.push(way.deploy(stage.host(), n)?);
            Ok(way)
        });
        took.answer(&mut stage);
    }
    let syncs = Syncs::of_each_verb(&mut stage);
    let (goals, mut figures) = took.told();
    figures.extend(steps.into_iter().flat_map(Steps::figures));
    figures.extend(syncs.iter().flat_map(Syncs::figures));
    let told = old_way.map_or_else(|error| format!("{} could not be had: {error}", old_way::NAME), |way| way.tell());
    let notes = vec![NOTE.to_owned(), told];
    Ok(Chapter { title: "Deploying", about: ABOUT.to_owned(), figures, curves: Vec::new(), goals, notes })
}

/// In milliseconds.
#[derive(Default)]
struct Took {
    install: Vec<f64>,
    activate: Vec<f64>,
    first_answer: Vec<f64>,
    validate: Vec<f64>,
    sum: Vec<f64>,
    rollback: Vec<f64>,
    back_again: Vec<f64>,
    start: Vec<f64>,
    old_way: Vec<f64>,
}

impl Took {
    fn deploy(&mut self, stage: &mut Stage, steps: &mut Steps) {
        let id = stage.subject.next_revision();
        let install = timed(|| stage.hook("after-install"));
        let activate = timed(|| stage.hook("application-start"));
        steps.add(stage.host());
        let validate = timed(|| stage.hook("validate-service"));
        self.install.push(install);
        self.activate.push(activate);
        self.validate.push(validate);
        self.sum.push(install + activate + validate);
        stage.subject.reported = Some(id);
        stage.settle();
    }

    fn roll_back(&mut self, stage: &mut Stage, steps: &mut Steps) {
        let to = previous(stage.host());
        self.rollback.push(timed(|| drop(stage.host().succeed("releasectl rollback"))));
        steps.add(stage.host());
        stage.subject.reported = Some(to);
        stage.settle();
    }

    /// A deployment and a rollback while clients ask for each millisecond.
    fn answer(&mut self, stage: &mut Stage) {
        let id = stage.subject.next_revision();
        stage.hook("after-install");
        self.first_answer.push(until_answered(stage.host(), &id, || stage.hook("application-start")));
        stage.hook("validate-service");
        stage.settle();
        let to = previous(stage.host());
        let back = || drop(stage.host().succeed("releasectl rollback"));
        self.back_again.push(until_answered(stage.host(), &to, back));
        stage.subject.reported = Some(to);
        stage.settle();
    }

    fn told(self) -> (Vec<Goal>, Vec<Figure>) {
        let ours = |what: &str, values: Vec<f64>| Figure::new(what, "ours", "ms", values);
        let beyond = |values: &[f64]| values.iter().zip(&self.start).map(|(verb, start)| verb - start).collect();
        let (activate, rollback) = (beyond(&self.activate), beyond(&self.rollback));
        let activate = ours("activate, beyond systemctl start of the same unit", activate);
        let rollback = ours("rollback, validation included, beyond systemctl start of the same unit", rollback);
        let goals = [(ACTIVATE, &activate), (ROLLBACK, &rollback)];
        let goals = goals.map(|(verb, figure)| Goal::of(format!("{verb}, beyond systemctl start"), BEYOND, figure));
        let until = "from nothing copied to serving";
        let serving = self.install.iter().zip(&self.activate).map(|(install, activate)| install + activate).collect();
        let mut figures = vec![
            ours("hook after-install (install)", self.install),
            ours("hook application-start (activate)", self.activate),
            ours("from its beginning to the first answer of the new release", self.first_answer),
            ours("hook validate-service (validate)", self.validate),
            ours("all three hooks", self.sum),
            ours("releasectl rollback, validation included", self.rollback),
            ours("from its beginning to the first answer of the old release", self.back_again),
            ours("systemctl start of the same unit", self.start),
            activate,
            rollback,
            ours(until, serving),
        ];
        if !self.old_way.is_empty() {
            figures.push(Figure::new(until, old_way::NAME, "ms", self.old_way));
        }
        (goals.into(), figures)
    }
}

/// What a bare rollback goes back to.
fn previous(host: &Host) -> ReleaseId {
    let status = host.succeed("releasectl status --json");
    let status: Value = serde_json::from_str(&status).expect("it is JSON");
    status["previous"].as_str().and_then(|id| id.parse().ok()).expect("there is a way back")
}

/// After how many milliseconds of `act` a fresh connection is first answered by this release.
fn until_answered(host: &Host, release: &ReleaseId, act: impl FnOnce()) -> f64 {
    let address = Address::Tcp(SOCKET.parse().expect("an address"));
    let began = Instant::now();
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            host.in_network(|| {
                while probe::ask(&address).as_deref() != Ok(release.as_str()) {
                    assert!(began.elapsed() < PATIENCE, "{}: {release} never answered", host.name());
                    thread::sleep(PAUSE);
                }
                ms(began.elapsed())
            })
        });
        act();
        asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
