//! What the hardening costs at a start: the unit as it is shipped, without one part of it at a time, and without any.

use std::{fs, io};

use super::{
    Effort,
    chapter::Chapter,
    figure::{Figure, in_turn},
    stage::Stage,
};

const ABOUT: &str = "`systemctl start` of the same release by copies of its unit, in turn: as shipped, with one part of the \
    hardening left out at a time, and with all of them left out; the difference to the first is what the part costs where all \
    others are there. Exposure is what `systemd-analyze security` says of each copy, 0 to 10.";
const UNITS: &str = "/etc/systemd/system";
const WHAT: &str = "systemctl start";

/// The directives that belong together, and are left out together. Those of one mount namespace are told apart by what they
/// mount; what is left of it when one is gone is set up all the same.
const PARTS: [(&str, &[&str]); 10] = [
    ("network", &["PrivateNetwork"]),
    ("IP filter", &["IPAddressDeny"]),
    ("system call filter", &["SystemCallFilter", "SystemCallErrorNumber", "SystemCallArchitectures"]),
    (
        "other seccomp",
        &[
            "RestrictAddressFamilies",
            "RestrictNamespaces",
            "RestrictRealtime",
            "RestrictSUIDSGID",
            "LockPersonality",
            "MemoryDenyWriteExecute",
        ],
    ),
    ("users", &["PrivateUsers"]),
    ("devices", &["PrivateDevices", "DevicePolicy", "ProtectClock"]),
    ("file system", &["ProtectSystem", "ProtectHome", "PrivateTmp"]),
    (
        "kernel",
        &[
            "ProtectKernelTunables",
            "ProtectKernelModules",
            "ProtectKernelLogs",
            "ProtectControlGroups",
            "ProtectHostname",
        ],
    ),
    ("proc", &["ProtectProc", "ProcSubset"]),
    ("privileges", &["CapabilityBoundingSet", "AmbientCapabilities", "NoNewPrivileges", "RemoveIPC", "UMask"]),
];

/// The one cheaper way that was found: systemd reads the list of all mounts anew for each that it changes, and there are fewer.
const ROOT: &str = "RootDirectory=/run/bench-root\nBindReadOnlyPaths=/opt/app/releases/ID\n";
const MAKE_ROOT: &str = "mkdir -p /run/bench-root/opt/app";
const NOTE: &str = "Where the time goes: the mount namespace. Its 90 calls of mount(2) and mount_setattr(2) take some 25 µs each \
    (strace -T); the rest is systemd reading /proc/self/mountinfo anew for each of them. In a root of its own, where there is less \
    to mount over, a start is cheaper and no more exposed; but there the journal's socket, and whatever a drop-in allows the \
    service, has to be bound into it, so the unit is shipped without.";

/// # Panics
/// Where a host does not boot, or a copy of the unit does not start.
pub(super) fn run(effort: Effort) -> io::Result<Chapter> {
    let stage = Stage::in_memory()?;
    let copies = Copy::put_all(&stage)?;
    let n = std::cell::Cell::new(0);
    let start = |copy: &Copy| {
        n.set(n.get() + 1);
        stage.start(&copy.instance(n.get()))
    };
    let mut ways: Vec<_> = copies.iter().map(|copy| (copy, || Ok(start(copy)))).collect();
    let mut ways: Vec<(&str, &mut (dyn FnMut() -> io::Result<f64> + '_))> =
        ways.iter_mut().map(|(copy, way)| (copy.whose.as_str(), way as _)).collect();
    let mut figures = in_turn(WHAT, "ms", effort.times, &mut ways)?;
    let shipped = figures[0].clone();
    figures.extend(
        figures[1..].to_vec().iter().map(|figure| shipped.beyond(figure, "what the part costs", &figure.whose)),
    );
    figures.extend(copies.iter().map(|copy| copy.exposure(&stage)));
    Ok(Chapter {
        title: "Hardening",
        about: ABOUT.to_owned(),
        figures,
        curves: Vec::new(),
        goals: Vec::new(),
        notes: vec![NOTE.to_owned()],
    })
}

/// A copy of the unit with something left out.
struct Copy {
    whose: String,
    /// As far as the number of the instance.
    unit: String,
}

impl Copy {
    fn put_all(stage: &Stage) -> io::Result<Vec<Self>> {
        let all: Vec<&str> = PARTS.iter().flat_map(|(_, directives)| directives.iter().copied()).collect();
        let parts = PARTS.iter().map(|(part, directives)| (format!("without: {part}"), directives.to_vec()));
        let copies = [("ours, as shipped".to_owned(), Vec::new())].into_iter().chain(parts);
        let copies = copies.chain([("without any of it".to_owned(), all)]).enumerate();
        let copies = copies.map(|(n, (whose, left_out))| Self::put(stage, n, whose, &left_out, ""));
        let mut copies = copies.collect::<io::Result<Vec<_>>>()?;
        let root = ROOT.replace("ID", stage.current().as_str());
        copies.push(Self::put(stage, copies.len(), "as shipped, in a root of its own".to_owned(), &[], &root)?);
        stage.host().succeed(MAKE_ROOT);
        stage.host().succeed("systemctl daemon-reload");
        Ok(copies)
    }

    /// Its name ends as that of the release's own unit, from which that learns which release it is (`%j`).
    fn put(stage: &Stage, n: usize, whose: String, left_out: &[&str], more: &str) -> io::Result<Self> {
        let (id, folder) = (stage.current(), stage.host().path(UNITS));
        let shipped = fs::read_to_string(folder.join(format!("app-{id}@.service")))?;
        let is_kept = |line: &&str| !line.split_once('=').is_some_and(|(name, _)| left_out.contains(&name));
        let lines: Vec<&str> = shipped.lines().filter(is_kept).collect();
        let unit = format!("bench{n}-{id}@");
        fs::write(folder.join(format!("{unit}.service")), lines.join("\n") + "\n" + more)?;
        Ok(Self { whose, unit })
    }

    fn instance(&self, n: usize) -> String {
        format!("{}{}.service", self.unit, 1_000_000 + n)
    }

    fn exposure(&self, stage: &Stage) -> Figure {
        let said = stage.host().succeed(&format!("systemd-analyze security --no-pager {}", self.instance(0)));
        let level =
            said.lines().last().and_then(|line| line.split(": ").nth(1)?.split_whitespace().next()?.parse().ok());
        Figure::new("exposure", &self.whose, "", vec![level.expect("systemd-analyze says how exposed it is")])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What is in neither is set up in each copy, and its cost is nobody's.
    #[test]
    fn every_part_is_in_the_shipped_unit_and_every_sandboxing_directive_in_a_part() {
        let shipped = fs::read_to_string(crate::workspace().join("units/app@.service")).unwrap();
        let since = shipped.split_once("# The inherited socket").unwrap().1;
        let names = since.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        let mut names: BTreeSet<&str> = names.map(|(name, _)| name).collect();
        names.insert("UMask");
        assert_eq!(PARTS.iter().flat_map(|(_, names)| names.iter().copied()).collect::<BTreeSet<_>>(), names);
    }
}
