//! A host that is treated badly: deployments on it whose every step can be counted, and what must hold whatever happens.

use std::{
    fmt, fs, io, mem,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use releases::{
    Manifest, ReleaseId,
    bundle::{Bundle, Contents},
    trail::{self, Record},
    tree,
};
use serde_json::Value;

use crate::Host;

/// Where the unpacked bundle of the next release is.
pub const BUNDLE: &str = "/root/bundle";
/// And of one that answers as it should, but that it says that it is another: it is never validated.
pub const LIAR: &str = "/root/liar";
const UNIT: &str = "units/app@.service";
/// What fault.rs of `releases` reads.
pub(crate) const REQUEST: &str = "/run/releasectl.fault";
/// Which boot it is, and which activation of the socket.
const SOCKET: &str = "cat /proc/sys/kernel/random/boot_id; systemctl show -p InvocationID --value app.socket";
/// What fault.rs of `releases` writes.
pub const STEPS: &str = "/run/releasectl.steps";

/// The product with a `releasectl` whose steps can be counted and fail.
pub fn contents() -> io::Result<Contents> {
    let mut contents = Contents::build(crate::workspace()).map_err(io::Error::other)?;
    contents.use_faults(crate::workspace()).map_err(io::Error::other)?;
    do_not_bake(&mut contents);
    Ok(contents)
}

/// Validation is over when the release answers: who waits for it is not who wants to know of the bake.
pub(crate) fn do_not_bake(contents: &mut Contents) {
    let validate = "#!/bin/sh\ncd \"${0%/*}/..\" || exit 1\nexec bin/releasectl validate . --bake 0 --keep 2\n";
    contents.put("hooks/validate-service", 0o755, validate.as_bytes());
}

/// The same product as a release that fails in validation at once.
fn liar(contents: &Contents) -> io::Result<Bundle> {
    let mut contents = contents.clone();
    let unit = String::from_utf8_lossy(contents.get(UNIT).unwrap_or_default()).into_owned();
    let lies = unit.replace("APP_RELEASE=%j", "APP_RELEASE=0123456789abcdef");
    if lies == unit {
        return Err(io::Error::other(format!("{UNIT} does not say which release it is")));
    }
    contents.put(UNIT, 0o644, lies.as_bytes());
    let validate =
        "#!/bin/sh\ncd \"${0%/*}/..\" || exit 1\nexec bin/releasectl validate . --within 0 --bake 0 --keep 2\n";
    contents.put("hooks/validate-service", 0o755, validate.as_bytes());
    contents.pack("liar").map_err(io::Error::other)
}

/// A host with a validated release and one before it, and the unpacked bundles of the next and of one that fails.
#[derive(Debug)]
pub struct Subject {
    /// The host.
    pub host: Host,
    manifest: Value,
    revision: AtomicU32,
    /// The release that was last reported as validated.
    pub reported: Option<ReleaseId>,
    liar: ReleaseId,
    /// The boot, and the one activation of app.socket in it.
    socket: String,
}

impl Subject {
    /// Boots it; `prepare` comes before its first deployment.
    ///
    /// # Errors
    /// Where that fails.
    pub fn boot(contents: &Contents, prepare: impl FnOnce(&Host)) -> io::Result<Self> {
        let host = Host::boot();
        prepare(&host);
        let liar = liar(contents)?;
        for (folder, archive) in [(BUNDLE, contents.pack("0").map_err(io::Error::other)?.archive), (LIAR, liar.archive)]
        {
            fs::write(host.path("/root/bundle.tgz"), archive)?;
            host.succeed(&format!("mkdir {folder} && tar -xzf /root/bundle.tgz -C {folder}"));
        }
        let manifest = serde_json::from_slice(&fs::read(host.path(&format!("{BUNDLE}/manifest.json")))?)?;
        let (revision, reported, socket) = (AtomicU32::new(0), None, String::new());
        let mut subject = Self { host, manifest, revision, reported, liar: liar.id, socket };
        for _ in 0..2 {
            subject.deploy().map_err(io::Error::other)?;
        }
        subject.socket = subject.host.succeed(SOCKET);
        Ok(subject)
    }

    /// Gives the unpacked bundle another label: another release of the same files.
    pub fn next_revision(&self) -> ReleaseId {
        let mut manifest = self.manifest.clone();
        manifest["label"] = (self.revision.fetch_add(1, Ordering::Relaxed) + 1).to_string().into();
        let bytes = serde_json::to_vec_pretty(&manifest).expect("it is JSON");
        fs::write(self.host.path(&format!("{BUNDLE}/manifest.json")), &bytes).expect("the host takes it");
        ReleaseId::of_manifest(&bytes)
    }

    /// Runs a hook in a session of its own, as an agent does.
    pub fn hook(&self, name: &str) -> Result<(), String> {
        self.hook_of(BUNDLE, name)
    }

    /// The same of this bundle.
    pub fn hook_of(&self, bundle: &str, name: &str) -> Result<(), String> {
        let ran = self.host.run(&format!("exec setsid --wait {bundle}/hooks/{name}"));
        if ran.code == 0 { Ok(()) } else { Err(format!("{name} exited with {}: {}", ran.code, ran.output.trim())) }
    }

    /// A deployment, whole; it must succeed.
    pub fn deploy(&mut self) -> Result<(), String> {
        let id = self.next_revision();
        ["after-install", "application-start", "validate-service"].into_iter().try_for_each(|name| self.hook(name))?;
        self.reported = Some(id);
        Ok(())
    }

    /// Asks fault.rs of `releases` for something, and forgets what was before.
    pub fn request(&self, line: &str) {
        let _ = fs::remove_file(self.host.path(STEPS));
        fs::write(self.host.path(REQUEST), format!("{line}\n")).expect("the host takes it");
    }

    /// Asks for nothing more.
    pub fn request_nothing(&self) {
        let _ = fs::remove_file(self.host.path(REQUEST));
    }

    /// What of releases.md's invariants does not hold at this moment.
    pub fn check(&mut self) -> Vec<String> {
        let base = self.host.path("/opt/app");
        let mut broken = Vec::new();
        for link in ["current", "validated"] {
            match fs::read_link(base.join(link)) {
                Ok(target) => broken.extend(whole(&base.join(target)).err().map(|fault| format!("{link}: {fault}"))),
                Err(error) => broken.push(format!("{link}: {error}")),
            }
        }
        for entry in fs::read_dir(base.join("releases")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().parse::<ReleaseId>().is_ok() {
                broken.extend(whole(&entry.path()).err().map(|fault| format!("R2: {fault}")));
            }
        }
        let reported = self.reported.as_ref().map(|id| base.join("releases").join(id.as_str()));
        if reported.is_some_and(|folder| !folder.is_dir()) {
            broken.push("what was reported as validated is not there".to_owned());
        }
        if fs::read_link(base.join("validated")).is_ok_and(|target| target.ends_with(self.liar.as_str())) {
            broken.push("R7: validated is a release that never passed".to_owned());
        }
        broken.extend(check_log(&base).err());
        let socket = self.host.run(SOCKET).output;
        let is_of_this_boot = socket.lines().next() == self.socket.lines().next();
        let before = mem::replace(&mut self.socket, socket);
        if is_of_this_boot && before != self.socket {
            broken.push(format!("R11: app.socket was {before:?}, and is {:?}", self.socket));
        }
        broken
    }

    /// What is not as it is on a host on which nothing ever happened.
    pub fn check_converged(&self) -> Vec<String> {
        check_converged(&self.host)
    }
}

/// What is not as it is on a host on which nothing ever happened.
pub fn check_converged(host: &Host) -> Vec<String> {
    let settled = |host: &Host| {
        let units = host.run("systemctl list-units --all --plain --no-legend 'app-*@*'").output;
        units.lines().count() == 1 && units.contains(" active ")
    };
    let mut broken = Vec::new();
    if !host.comes_true(settled) {
        broken.push(format!("not one instance: {}", host.run("systemctl list-units --all 'app*'").output));
    }
    let ran = host.run("releasectl status --json");
    let status: Value = serde_json::from_str(&ran.output).unwrap_or_default();
    let instance = &status["instances"][0];
    if instance["release"] != status["current"] || instance["accepting"] != true || status["provisional"] != false {
        broken.push(format!("it is not the instance of what is current: {status}"));
    }
    let running = host.run("systemctl is-system-running").output;
    if running.trim() != "running" {
        broken.push(format!("the host is {}: {}", running.trim(), host.run("systemctl --failed").output));
    }
    // What an instance says at its end is for whoever looks next, who removes it; one that was killed has said nothing.
    let leftovers = "cd /opt/app/releases && ls -d .[0-9a-f]* 2>/dev/null; ls /opt/app /etc/systemd/system | grep '[.]new$'; \
         for unit in /etc/systemd/system/app-*@.service; do id=${unit#*/app-}; [ -d ${id%@.service} ] || echo $unit; done; \
         for file in /run/app/[0-9]*; do n=${file#/run/app/}; systemctl list-units --plain --no-legend \"app-*@${n%%.*}.service\" | grep -q . || grep -qs '\"state\": *\"ended\"' $file || echo $file; done";
    let left = host.run(leftovers).output;
    if !left.trim().is_empty() {
        broken.push(format!("left over: {}", left.trim().replace('\n', ", ")));
    }
    broken
}

/// R4 and R8: numbers count up, and the last line that is whole tells what is current, by what it says or what it was.
fn check_log(base: &Path) -> Result<(), String> {
    let log = trail::read(&base.join("activations.jsonl")).map_err(|error| error.to_string())?;
    let activations = log.iter().filter_map(|record| match record {
        Record::Activation { n, release, from, .. } => Some((*n, release, from.as_ref())),
        _ => None,
    });
    let activations: Vec<_> = activations.collect();
    if let Some([(before, ..), (n, release, _), ..]) = activations.windows(2).find(|two| two[0].0 >= two[1].0) {
        return Err(format!("R4: {n} of {release} comes after {before}"));
    }
    let counter = fs::read_to_string(base.join("counter")).unwrap_or_default();
    let (last, release, from) = activations.last().ok_or("R8: no activation is in the log")?;
    if counter.trim().parse().is_ok_and(|counter: u64| counter < *last) {
        return Err(format!("R4: {last} of {release} was never counted: {}", counter.trim()));
    }
    let current = fs::read_link(base.join("current")).map_err(|error| format!("current: {error}"))?;
    let is_current = |id: &ReleaseId| current.ends_with(id.as_str());
    if is_current(release) || from.is_some_and(is_current) {
        return Ok(());
    }
    Err(format!("R8: current is {}, and the last activation was of {release} from {from:?}", current.display()))
}

/// What is wrong with a folder that must be a release.
#[derive(Debug)]
pub enum Flaw {
    /// It is not there, or something of it.
    IsMissing(String),
    /// What is there is not what its manifest says, or that is not the one that it is named after.
    Differs(String),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::IsMissing(text) | Self::Differs(text)) = self;
        f.write_str(text)
    }
}

/// Whether a folder is a release, complete, each byte as its name says.
pub fn whole(folder: &Path) -> Result<(), Flaw> {
    let flaw = |error: releases::Error| match &error {
        releases::Error::Disk { .. } => Flaw::IsMissing(error.to_string()),
        releases::Error::Damaged { fault, .. } if fault.contains("in the manifest") => {
            Flaw::IsMissing(error.to_string())
        }
        _ => Flaw::Differs(error.to_string()),
    };
    let (manifest, id) = Manifest::read(folder).map_err(flaw)?;
    if folder.file_name().is_none_or(|name| name != id.as_str()) {
        return Err(Flaw::Differs(format!("{} holds release {id}", folder.display())));
    }
    tree::verify(folder, &manifest).map_err(flaw)
}
