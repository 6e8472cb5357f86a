//! The host of one scenario, its clients, and what is told of it.

use std::{fs, io};

use releases::bundle::{Bundle, Contents};

use crate::{
    Agent, Deployment, Host, Load, Mode,
    subject::{self, STEPS},
};

/// Of each kind.
const CLIENTS: usize = 4;
/// What the disk of the store and of the agent's archives holds. In memory, so that it fills in a moment.
const DISK: &str = "mount -t tmpfs -o size=400m,mode=755 tmpfs /opt";

/// Releases of one product.
pub(super) struct Bundles {
    pub contents: Contents,
    pub one: Bundle,
    pub two: Bundle,
    pub three: Bundle,
    last: Bundle,
}

/// What a scenario has come to.
#[derive(Debug, Default)]
pub(super) struct Tale {
    pub wanted: Vec<String>,
    pub seen: Vec<String>,
    pub faults: Vec<String>,
    pub sent: u64,
    pub lost: u64,
}

/// A host on which release `one` serves and clients are at work.
pub(super) struct Stage<'a> {
    pub host: Host,
    pub bundles: &'a Bundles,
}

impl Bundles {
    pub fn pack(contents: Contents) -> io::Result<Self> {
        let pack = |label| contents.pack(label).map_err(io::Error::other);
        let (one, two, three, last) = (pack("one")?, pack("two")?, pack("three")?, pack("last")?);
        Ok(Self { contents, one, two, three, last })
    }

    /// Another release, with a file of its own.
    pub fn with(&self, path: &str, text: &str) -> Vec<u8> {
        let mut contents = self.contents.clone();
        let mode = if path.ends_with(".yml") { 0o644 } else { 0o755 };
        contents.put(path, mode, text.as_bytes());
        contents.pack("other").expect("a label that is taken").archive
    }

    /// The appspec with some of its text replaced.
    pub fn with_appspec(&self, from: &str, to: &str) -> Vec<u8> {
        self.with("appspec.yml", &self.appspec().replace(from, to))
    }

    /// Another release, with a script for an event that we have none for.
    pub fn with_hook(&self, event: &str, script: &str) -> Vec<u8> {
        let mut contents = self.contents.clone();
        let appspec = format!("{}  {event}:\n    - location: hooks/more\n", self.appspec());
        contents.put("appspec.yml", 0o644, appspec.as_bytes());
        contents.put("hooks/more", 0o755, script.as_bytes());
        contents.pack("other").expect("a label that is taken").archive
    }

    fn appspec(&self) -> String {
        String::from_utf8_lossy(self.contents.get("appspec.yml").unwrap_or_default()).into_owned()
    }
}

impl Tale {
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.lost == 0 && self.wanted == self.seen
    }

    /// Holds the end of a deployment against what is wanted: `ok`, or an event and its error code.
    pub fn tell(&mut self, wanted: &str, deployment: &Deployment) {
        let seen = deployment.ended();
        if seen != wanted {
            let why = deployment.failure().map(ToString::to_string).unwrap_or_default();
            self.faults.push(format!("wanted {wanted}, and it was {seen}: {why} {}", deployment.last().tail()));
        }
        self.wanted.push(wanted.to_owned());
        self.seen.push(seen);
    }

    pub fn must(&mut self, what: &str, holds: bool) {
        if !holds {
            self.faults.push(format!("it must be that {what}"));
        }
    }

    fn count(&mut self, loads: [Load; 2]) {
        for report in loads.map(Load::stop) {
            self.sent += report.sent();
            self.lost += report.lost();
            if report.lost() > 0 {
                self.faults.push(format!("{}: {}", report.mode, report.losses()));
            }
        }
    }
}

impl<'a> Stage<'a> {
    /// Plays a scenario from a first deployment to one that heals whatever has come of it.
    pub fn run(bundles: &'a Bundles, name: &str, play: &dyn Fn(&Self, &mut Tale)) -> Tale {
        let (stage, mut tale) = (Self { host: Host::boot(), bundles }, Tale::default());
        stage.host.succeed(DISK);
        tale.tell("ok", &Agent::new(&stage.host).deploy(&bundles.one.archive));
        if !tale.is_good() {
            return tale;
        }
        let loads = [Mode::C1, Mode::C3].map(|mode| Load::start(&stage.host, mode, CLIENTS));
        play(&stage, &mut tale);
        tale.tell("ok", &Agent::new(&stage.host).deploy(&bundles.last.archive));
        tale.must("the last release serves", stage.current() == bundles.last.id.as_str());
        tale.faults.extend(subject::check_converged(&stage.host));
        tale.count(loads);
        tale.must(&format!("{name} has clients"), tale.sent > 0);
        tale
    }

    /// A deployment by an agent like any other.
    pub fn deploy(&self, tale: &mut Tale, wanted: &str, bundle: &[u8]) {
        self.deploy_by(tale, wanted, Agent::new(&self.host), bundle);
    }

    /// A deployment by this agent. What was to happen in it must have come to pass.
    pub fn deploy_by(&self, tale: &mut Tale, wanted: &str, mut agent: Agent<'_>, bundle: &[u8]) {
        let deployment = agent.deploy(bundle);
        tale.tell(wanted, &deployment);
        tale.faults.extend(agent.missed().into_iter().map(|incident| format!("it did not happen: {incident}")));
    }

    /// The release that serves.
    pub fn current(&self) -> String {
        let current = fs::read_link(self.host.path("/opt/app/current")).unwrap_or_default();
        current.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// How many steps a verb of `releasectl` has in an undisturbed deployment.
    pub fn steps(&self, tale: &mut Tale, verb: &str) -> usize {
        self.request(&format!("{verb} count"));
        self.deploy(tale, "ok", &self.bundles.two.archive);
        let steps = fs::read_to_string(self.host.path(STEPS)).unwrap_or_default().lines().count();
        tale.must(&format!("{verb} has steps"), steps > 1);
        steps
    }

    /// Holds a verb at a step until `/run/go` is there; it says so by `/run/here`.
    pub fn hold(&self, verb: &str, step: usize) {
        self.request(&format!(
            "{verb} run {step} touch /run/here; until [ -e /run/go ]; do sleep 0.01; done; rm -f /run/here"
        ));
    }

    fn request(&self, line: &str) {
        self.host.run(&format!("rm -f {STEPS} /run/here /run/go"));
        fs::write(self.host.path(subject::REQUEST), format!("{line}\n")).expect("the host takes it");
    }
}
