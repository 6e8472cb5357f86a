//! The machine: room, systemd, the agent, and who else is at the port.

use super::Finding;
use crate::{Error, Result, Store, host::Host, listener::Listener, probe::Address, systemd};

const AGENT: &str = "codedeploy-agent.service";
/// The first with all that the units say.
const SYSTEMD: u32 = 247;
/// So many releases must fit beside those that are there: the next, and the one after a failed one.
const MORE: u64 = 2;

pub(super) fn look(store: &Store) -> Result<Vec<Finding>> {
    let agent = agent(store.host())?;
    let mut findings = vec![room(store)?, version(store.host())?];
    if agent.is_installed {
        findings.push(unzip());
    }
    findings.push(agent.finding);
    findings.extend(port(store)?);
    Ok(findings)
}

fn room(store: &Store) -> Result<Finding> {
    let (check, base) = ("room", store.path(""));
    let Ok(release) = store.current().and_then(|id| store.release(&id)) else {
        return Ok(Finding::sound(check, "no release is current, so none is measured"));
    };
    let disk = rustix::fs::statvfs(&base).map_err(|error| Error::disk("examine", &base)(error.into()))?;
    let size: u64 = release.manifest.files.iter().map(|file| file.size).sum();
    // Each file, its folder, and as many again for what is small.
    let (bytes, inodes) = (MORE * (size + (1 << 20)), MORE * (2 * release.manifest.files.len() as u64 + 8));
    let free = disk.f_bavail * disk.f_frsize;
    let advice = "`releasectl prune --keep 1`, or a larger disk";
    Ok(if free < bytes {
        let text = format!("{} MiB are free at {}: no room for {MORE} more releases", free >> 20, base.display());
        Finding::warning(check, text, advice)
    } else if disk.f_files > 0 && disk.f_favail < inodes {
        let text =
            format!("{} inodes are free at {}: not enough for {MORE} more releases", disk.f_favail, base.display());
        Finding::warning(check, text, advice)
    } else {
        Finding::sound(check, format!("{} MiB are free", free >> 20))
    })
}

fn version(host: &Host) -> Result<Finding> {
    let check = "systemd";
    let said = host.run("systemctl", &["--version"])?;
    // `systemd 258~rc1 (258~rc1-1)`
    let word = said.split_whitespace().nth(1).unwrap_or_default();
    let version: u32 = word.split(|c: char| !c.is_ascii_digit()).next().and_then(|word| word.parse().ok()).unwrap_or(0);
    Ok(if version < SYSTEMD {
        let text = format!("systemd is {version}, and the units need {SYSTEMD}");
        Finding::broken(check, text, "use a later release of this system")
    } else {
        Finding::sound(check, version.to_string())
    })
}

struct Agent {
    is_installed: bool,
    finding: Finding,
}

fn agent(host: &Host) -> Result<Agent> {
    let check = "agent";
    let shown = host.run("systemctl", &["show", "-p", "LoadState,ActiveState", AGENT])?;
    let is_installed = shown.contains("LoadState=loaded");
    let finding = if !is_installed {
        Finding::sound(check, "CodeDeploy's is not installed: deployments come by hand")
    } else if shown.contains("ActiveState=active") {
        Finding::sound(check, "CodeDeploy's runs")
    } else {
        Finding::warning(
            check,
            "CodeDeploy's agent is installed and does not run: no deployment arrives",
            format!("`systemctl enable --now {AGENT}`"),
        )
    };
    Ok(Agent { is_installed, finding })
}

/// Without it the agent unpacks zip files by itself, and drops their modes.
fn unzip() -> Finding {
    let check = "unzip";
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join("unzip").exists()) {
        Finding::sound(check, "it is there")
    } else {
        Finding::warning(
            check,
            "there is no unzip: CodeDeploy's agent would unpack a zip without its modes",
            "ship a tgz, as `just bundle` makes it, or install unzip",
        )
    }
}

/// Whoever else listens where our socket should.
fn port(store: &Store) -> Result<Option<Finding>> {
    let check = "port";
    let host = store.host();
    if systemd::property(host, systemd::SOCKET, "ActiveState")? == "active" {
        return Ok(Some(Finding::sound(check, "app.socket has it")));
    }
    let listens = systemd::property(host, systemd::SOCKET, "Listen")?;
    let Some(Address::Tcp(address)) = Address::parse(&listens) else { return Ok(None) };
    let port = address.port();
    let Some(listener) = Listener::at(host, port) else {
        return Ok(Some(Finding::sound(check, format!("nobody else listens at {port}"))));
    };
    let holder = listener.holder(host).unwrap_or_else(|| "somebody".to_owned());
    Ok(Some(Finding::broken(
        check,
        format!("{holder} listens at port {port}, where app.socket should"),
        "stop it, or give app.socket another port; then `systemctl start app.socket`",
    )))
}
