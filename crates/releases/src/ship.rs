//! Ship: a bundle goes to hosts over ssh and is deployed there, one host after the other.
//!
//! - Nothing runs on a host as root but what is in an archive that was held against its manifest here, and whose SHA-256 the
//!   host has found to be the same.
//! - A connection that is lost stops nothing that has begun: systemd runs it. Shipping again converges, as after any
//!   deployment that was killed. ^C ends a connection like that, and the last lines say so.
//! - The first host that fails is the last.
#![expect(
    clippy::disallowed_methods,
    reason = "it runs where bundles are made, and changes hosts through their own tools"
)]

mod remote;
mod shipment;
mod voyage;

pub use remote::Ssh;
pub use shipment::Shipment;

use crate::{
    Error, Result,
    screen::{printable, say},
};

/// Ships to one host after the other, and stops at the first that fails.
///
/// # Errors
/// [`Error::Host`] where a name is none; [`Error::Release`] names the host that failed, why, and how far it came.
pub fn ship(shipment: &Shipment, ssh: &Ssh, hosts: &[String]) -> Result<()> {
    if let Some(host) = hosts.iter().find(|host| !is_name(host)) {
        return Err(Error::Host(printable(host)));
    }
    let id = voyage::id();
    say(&format!("{shipment}, as {id}"));
    for (at, host) in hosts.iter().enumerate() {
        say(host);
        if let Err(error) = voyage::sail(shipment, ssh, host, &id) {
            let (done, left) = (hosts[..at].join(" "), hosts[at + 1..].join(" "));
            let told = [("done", done), ("failed", host.clone()), ("not tried", left)];
            let told =
                told.iter().filter(|(_, hosts)| !hosts.is_empty()).map(|(what, hosts)| format!("{what}: {hosts}"));
            return Err(Error::Release(format!("{error}\n{}", told.collect::<Vec<_>>().join("; "))));
        }
    }
    say(&format!("done: {}", hosts.join(" ")));
    Ok(())
}

/// ssh would take what begins with a dash for an option.
fn is_name(host: &str) -> bool {
    !host.is_empty() && !host.starts_with('-') && !host.contains(|c: char| c.is_whitespace() || c.is_control())
}
