//! The host's socket: the one thing that a deployment never replaces.

use std::time::Instant;

use crate::{
    Error, Result, Store, boot,
    screen::say,
    store::Link,
    switch,
    systemd::{self, Units},
    units,
};

/// Replaces the host's `app.socket` by the current release's, and says for how long connections were refused.
///
/// systemd cannot listen again while an instance holds the old socket, so all of them retire: alone, they accept for some
/// seconds yet, then connections are refused until the new socket listens, and wait in its queue until an instance is READY.
/// What is in flight drains as always.
///
/// # Errors
/// [`Error::NothingCurrent`]; [`Error::Command`] where systemd refuses the new socket.
pub fn apply(store: &Store) -> Result<()> {
    if !store.host().is_live() {
        return Err(Error::Offline("socket apply"));
    }
    let locked = store.lock("socket apply")?;
    let id = locked.named_by(Link::Current).ok_or(Error::NothingCurrent)?;
    if locked.named_by(Link::Validated).as_ref() != Some(&id) {
        // The boot that follows would take it for one that has died.
        return Err(Error::Provisional(id));
    }
    let release = store.release(&id)?;
    let is_active = systemd::property(store.host(), systemd::SOCKET, "ActiveState")? == "active";
    if is_active && !units::socket_differs(store, &release) {
        say("the host's app.socket is the current release's already");
        return Ok(());
    }
    say("every instance retires: for a grace of seconds they go on to answer, then connections are refused");
    let began = Instant::now();
    systemd::stop(store.host(), systemd::SOCKET)?;
    switch::retire(&locked, &Units::list(store.host())?, None)?;
    // After the stop: killed before, the socket differs still; killed after, it is not active.
    let old = units::put_socket(&locked, &release)?;
    if let Err(error) = systemd::start_unit(store.host(), systemd::SOCKET) {
        say("the new socket cannot listen: the old one comes back");
        units::restore_socket(&locked, &old)?;
        systemd::start_unit(store.host(), systemd::SOCKET)?;
        drop(locked);
        boot::boot(store)?;
        return Err(error);
    }
    say(&format!("the socket listens again after {} ms", began.elapsed().as_millis()));
    drop(locked);
    boot::boot(store)
}
