//! The socket, the instances and the units.

use std::{fs, path::Path};

use super::Finding;
use crate::{
    Result, Store,
    host::Host,
    instance::Instance,
    store::Link,
    systemd::{self, Units},
    units,
};

/// What the service or its deployment does not work without.
const NEEDED: [(&str, &str); 4] =
    [("Type", "notify"), ("NonBlocking", "yes"), ("Restart", "no"), ("StartLimitIntervalUSec", "0")];
/// What keeps a stolen process where it is, and is nobody's to allow: what a service needs more is its network.
const HARDENING: [(&str, &str); 24] = [
    ("User", "app"),
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("PrivateUsers", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectClock", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("DevicePolicy", "closed"),
    ("ProcSubset", "pid"),
    ("ProtectHostname", "yes"),
    ("ProtectProc", "invisible"),
    ("RemoveIPC", "yes"),
    ("UMask", "0077"),
];
/// What the service keeps for itself beside its clients' descriptors.
const OWN_DESCRIPTORS: u64 = 1024;
/// The default of APP_CONNECTIONS.
const CONNECTIONS: u64 = 16_384;

pub(super) fn look(store: &Store) -> Result<Vec<Finding>> {
    let mut findings = vec![socket(store)?, definition(store), limits(store)?, instances(store)?, boot_unit(store)?];
    findings.push(own(store));
    findings.extend(dropins(store)?);
    Ok(findings)
}

fn socket(store: &Store) -> Result<Finding> {
    let shown = systemd::properties(
        store.host(),
        systemd::SOCKET,
        "LoadState,ActiveState,UnitFileState,TriggerLimitIntervalUSec",
    )?;
    let value = |name: &str| shown.get(name).map_or("", String::as_str);
    let check = "socket";
    Ok(match (value("LoadState"), value("ActiveState"), value("UnitFileState")) {
        ("loaded", "active", "enabled") if value("TriggerLimitIntervalUSec") != "0" => Finding::broken(
            check,
            "TriggerLimitIntervalSec is not 0: a release that keeps dying would close the socket for everybody",
            "remove the drop-in that says so, `systemctl daemon-reload`",
        ),
        ("loaded", "active", "enabled") => Finding::sound(check, "app.socket is active"),
        ("loaded", "active", _) => Finding::warning(
            check,
            "app.socket is active and not enabled: after a reboot nobody listens",
            "`systemctl enable app.socket app.service`",
        ),
        ("loaded", state, _) => Finding::broken(
            check,
            format!("app.socket is {state}: clients are refused"),
            "`systemctl enable --now app.socket app.service`, and see what `systemctl status app.socket` says",
        ),
        (state, ..) => {
            Finding::broken(check, format!("app.socket is {state}"), "deploy a release; the first brings it")
        }
    })
}

fn definition(store: &Store) -> Finding {
    let check = "definition";
    let release = store.current().and_then(|id| store.release(&id));
    match release {
        Ok(release) if units::socket_differs(store, &release) => Finding::warning(
            check,
            "app.socket is not the current release's",
            "`releasectl socket apply` replaces it, at an outage",
        ),
        Ok(_) => Finding::sound(check, "app.socket is the current release's"),
        Err(_) => Finding::sound(check, "no release is current, so app.socket is held against none"),
    }
}

fn limits(store: &Store) -> Result<Finding> {
    let check = "backlog";
    let backlog: u64 = systemd::property(store.host(), systemd::SOCKET, "Backlog")?.parse().unwrap_or(0);
    let most = fs::read_to_string(store.host().path("/proc/sys/net/core/somaxconn")).unwrap_or_default();
    let most: u64 = most.trim().parse().unwrap_or(u64::MAX);
    Ok(if most < backlog {
        Finding::warning(
            check,
            format!("net.core.somaxconn is {most}, and app.socket asks for {backlog}: clients are refused sooner"),
            format!(
                "write `net.core.somaxconn={backlog}` to /etc/sysctl.d/app.conf; it holds for sockets that are made \
                 after `sysctl --system`: at the next reboot"
            ),
        )
    } else {
        Finding::sound(check, format!("{backlog} clients may wait"))
    })
}

fn instances(store: &Store) -> Result<Finding> {
    let check = "instances";
    let units = Units::list(store.host())?;
    let Ok(current) = store.current() else {
        return Ok(Finding::sound(check, "no release is current, so none is up"));
    };
    let accepting: Vec<&Instance> =
        units.up().filter(|one| one.report(store.host()).is_none_or(|report| report.accepting)).collect();
    let failed = units.failed().next().map(Instance::unit);
    Ok(match accepting[..] {
        [one] if one.release == current && failed.is_some() => {
            let text = format!("{} serves, and {} has failed", one.unit(), failed.unwrap_or_default());
            Finding::warning(check, text, "`journalctl -u` with that name says why; the next verb forgets it")
        }
        [one] if one.release == current => Finding::sound(check, format!("{} serves", one.unit())),
        [] => Finding::broken(
            check,
            "nobody serves; the next request starts an instance",
            "`releasectl boot`, and `journalctl -u app.service` if that fails",
        ),
        _ => {
            let names: Vec<String> = accepting.iter().map(|instance| instance.unit()).collect();
            let text = format!("{} accept, and one of {current} should", names.join(" and "));
            Finding::broken(check, text, "a verb was killed, or is under way; `releasectl boot` ends what it began")
        }
    })
}

/// What starts the service at boot.
fn boot_unit(store: &Store) -> Result<Finding> {
    let check = "app.service";
    let shown = systemd::properties(store.host(), systemd::BOOT, "LoadState,UnitFileState,NeedDaemonReload")?;
    let value = |name: &str| shown.get(name).map_or("", String::as_str);
    let validated = store.named_by(Link::Validated).and_then(|id| store.release(&id).ok());
    let differs = validated.is_some_and(|release| !units::is_host_unit_of(store, systemd::BOOT, &release));
    Ok(match (value("LoadState"), value("UnitFileState"), value("NeedDaemonReload")) {
        ("loaded", _, "yes") => Finding::warning(check, "systemd knows an older one", "`systemctl daemon-reload`"),
        ("loaded", "enabled", _) if differs => Finding::warning(
            check,
            "app.service is not the validated release's",
            "`releasectl validate` puts it back; what one host needs goes into /etc/systemd/system/app.service.d",
        ),
        ("loaded", "enabled", _) => Finding::sound(check, "it starts the service at boot"),
        ("loaded", state, _) => Finding::warning(
            check,
            format!("app.service is {state}: after a reboot the first client waits for a start"),
            "`systemctl enable app.service`",
        ),
        (state, ..) => Finding::broken(check, format!("app.service is {state}"), "deploy a release again"),
    })
}

/// Each release's own unit; whatever activates a release puts its unit back.
fn own(store: &Store) -> Finding {
    let check = "units";
    let (releases, current) = (store.releases(), store.named_by(Link::Current));
    match releases.iter().find(|release| !units::has_own(store, release)) {
        None => Finding::sound(check, format!("{} releases have their units", releases.len())),
        Some(release) => Finding::warning(
            check,
            format!("app-{}@.service is not as its release has it", release.id),
            if current.as_ref() == Some(&release.id) {
                "`releasectl restart` puts it back; what one host needs goes into /etc/systemd/system/app-@.service.d"
            } else {
                "the next activation of that release puts it back; `releasectl prune` removes what is not needed"
            },
        ),
    }
}

/// What drop-ins make of the current release's unit.
fn dropins(store: &Store) -> Result<Vec<Finding>> {
    let Ok(release) = store.current().and_then(|id| store.release(&id)) else { return Ok(Vec::new()) };
    let units = Units::list(store.host())?;
    // One that runs, for what systemd made of its limits.
    let instance = units.newest(&release.id).cloned();
    let unit = instance.unwrap_or(Instance { n: 0, release: release.id.clone() }).unit();
    let names: Vec<&str> = NEEDED.iter().chain(&HARDENING).map(|(name, _)| *name).collect();
    let asked = format!("LoadState,DropInPaths,MainPID,LimitNOFILE,{}", names.join(","));
    let shown = systemd::properties(store.host(), &unit, &asked)?;
    if shown.get("LoadState").is_none_or(|state| state != "loaded") {
        let advice = "`releasectl restart` puts it back";
        return Ok(vec![Finding::broken("drop-ins", format!("systemd has no {unit}"), advice)]);
    }
    let paths = shown.get("DropInPaths").map_or("", String::as_str);
    let differs = |(name, wanted): &&(&str, &str)| shown.get(*name).is_some_and(|value| value != wanted);
    let say = |(name, wanted): &(&str, &str)| {
        let (is, should) =
            (shown.get(*name).map_or("", String::as_str), if wanted.is_empty() { "empty" } else { wanted });
        format!("{name} is {is}, and should be {should}")
    };
    let advice = format!("take that out of {paths}, `systemctl daemon-reload`, `releasectl restart`");
    let needed = NEEDED.iter().find(differs).map(|one| Finding::broken("drop-ins", say(one), advice.clone()));
    let hardening = HARDENING.iter().find(differs).map(|one| Finding::warning("drop-ins", say(one), advice.clone()));
    let none = || Finding::sound("drop-ins", if paths.is_empty() { "there are none" } else { "they undo nothing" });
    let asked_for = shown.get("LimitNOFILE").and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    // The host's own limit caps it, and nobody says so.
    let limit = shown.get("MainPID").and_then(|pid| open_files(store.host(), pid)).unwrap_or(asked_for);
    Ok(vec![needed.or(hardening).unwrap_or_else(none), descriptors(store.host(), limit)])
}

fn descriptors(host: &Host, limit: u64) -> Finding {
    let check = "descriptors";
    let connections = connections(&host.path("/etc/app/env")).unwrap_or(CONNECTIONS);
    if limit < connections + OWN_DESCRIPTORS {
        let text = format!(
            "the limit of open files is {limit}, and APP_CONNECTIONS {connections}: it cannot hold as many clients"
        );
        let advice = "raise LimitNOFILE= by a drop-in in /etc/systemd/system/app-@.service.d, or lower the other in /etc/app/env";
        return Finding::warning(check, text, advice);
    }
    Finding::sound(check, format!("{limit} for {connections} connections"))
}

/// The soft limit of a process (proc_pid_limits(5)).
fn open_files(host: &Host, pid: &str) -> Option<u64> {
    let text = fs::read_to_string(host.path(&format!("/proc/{pid}/limits"))).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

fn connections(env: &Path) -> Option<u64> {
    let text = fs::read_to_string(env).ok()?;
    text.lines().rev().find_map(|line| line.trim().strip_prefix("APP_CONNECTIONS=")?.trim_matches('"').parse().ok())
}
