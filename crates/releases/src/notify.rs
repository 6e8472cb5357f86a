//! Telling others: `/etc/app/notify`, if it is there, gets each finished receipt.

use std::os::unix::fs::MetadataExt;

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::{Error, Result, host::Host, receipt::Receipt, screen::say};

/// Root's own, executable, and writable for nobody else.
pub(crate) const PATH: &str = "/etc/app/notify";
const SECONDS: u32 = 10;

/// Starts it with the receipt on its standard input, and does not wait: systemd runs it as a unit of its own, ends it after
/// ten seconds, and has its output in the journal. That it fails fails nothing.
pub fn notify(host: &Host, receipt: &Receipt) {
    if let Err(error) = start(host, receipt) {
        say(&format!("nobody is notified: {error}"));
    }
}

fn start(host: &Host, receipt: &Receipt) -> Result<()> {
    let path = host.path(PATH);
    let Ok(metadata) = std::fs::symlink_metadata(&path) else { return Ok(()) };
    if let Some(fault) = fault(&metadata) {
        return Err(Error::Notify { path, fault });
    }
    let text = serde_json::to_string(receipt).unwrap_or_default() + "\n";
    // As data: of a text, systemd-run sends a property that systemd does not take.
    let input = format!("StandardInputData={}", BASE64_STANDARD.encode(text));
    let unit = format!("--unit=app-notify-{}", receipt.receipt);
    let limit = format!("RuntimeMaxSec={SECONDS}");
    let mut arguments = vec!["--quiet", "--no-block", "--collect", &unit, "--description=app: /etc/app/notify"];
    // At boot, not before there is a network.
    for property in ["StandardInput=data", &input, &limit, "TimeoutStopSec=2", "After=network-online.target"] {
        arguments.extend(["-p", property]);
    }
    arguments.push(PATH);
    host.run("systemd-run", &arguments).map(drop)
}

/// Why it is not run; whoever may write it would be root.
pub(crate) fn fault(metadata: &std::fs::Metadata) -> Option<&'static str> {
    match metadata.mode() {
        _ if !metadata.is_file() => Some("is no file"),
        _ if metadata.uid() != 0 => Some("is not root's; chown root it"),
        mode if mode & 0o022 != 0 => Some("is writable for others than root; chmod go-w it"),
        mode if mode & 0o100 == 0 => Some("is not executable; chmod +x it"),
        _ => None,
    }
}
