//! From one serving instance to another: start, wait until it is READY, and only then retire the others.

use std::{
    process::Output,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Error, Result, Store, boot,
    draft::Draft,
    host::Host,
    instance::{Instance, RUNTIME},
    pace,
    receipt::Retired,
    screen::say,
    store::{Link, Locked, Release},
    systemd::{self, Units},
    trail::{By, Marks},
    units,
    verified::Verified,
};

/// How long a retiring instance may take to say that it accepts no more.
const RETIRE_LIMIT: Duration = Duration::from_secs(10);
/// How often, while a candidate starts, somebody is checked to be serving.
const WATCH: Duration = Duration::from_millis(250);
/// How often an instance that was told to retire is looked at: each look reads a small file, and a deployment waits for it.
const POLL: Duration = Duration::from_millis(1);
const LOG_LINES: u32 = 8;
/// How the names of an instance's files go on, after its number.
const OF_INSTANCES: [&str; 4] = ["json", "json.new", "sock", "handover"];

/// Starts an instance of `release`; once it is READY, makes it current and retires all others. Returns it, and what
/// systemd knows of the service after that; the draft learns how it went.
///
/// # Errors
/// [`Error::Release`] where it did not become READY. Then whatever served before is serving as it was.
pub fn switch(store: &Locked, release: &Verified, by: By, draft: &mut Draft) -> Result<(Instance, Units)> {
    draft.step("prepare");
    // Answered while the disk and the candidate are waited for.
    let known = Units::ask(store.host())?;
    units::put_own(store, release)?;
    let instance = store.new_instance(&release.id)?;
    draft.instance = Some(instance.clone());
    pace::note(store.host(), &release.id);
    draft.step("start");
    let ready_ms = start(store, &instance).inspect_err(|error| mark_bad(store, release, error))?;
    draft.ready_ms = Some(ready_ms);
    draft.step("flip");
    // Another than before where who served has died meanwhile.
    draft.from = store.named_by(Link::Current);
    if let Err(error) = adopt(store, &instance, by) {
        // An error of the last sync comes after the flip; then the instance stays.
        let is_flipped = draft.from != store.named_by(Link::Current);
        return Err(if is_flipped {
            error
        } else {
            reject(store, &instance, &format!("cannot become current: {error}"))
        });
    }
    draft.step("retire");
    let held = draft.hold_prober();
    // What was not answered then is asked again.
    let (units, retired) = retire(store, &known.answer().unwrap_or_default(), Some(&instance))?;
    drop(held);
    draft.retired = retired;
    Ok((instance, units))
}

/// What failed was the release. One that has passed before, or is current, has been ready: what is wrong now is its
/// configuration, or what it depends on, and it stays a way back.
fn mark_bad(store: &Locked, release: &Release, error: &Error) {
    let has_passed = store.records().is_ok_and(|records| Marks::of(&release.id, &records).passed);
    let is_current = store.named_by(Link::Current).as_ref() == Some(&release.id);
    if matches!(error, Error::Release(_)) && !has_passed && !is_current {
        store.record_failure(&release.id, &error.to_string());
    }
}

/// Makes the release of an instance the current one; where something runs, the instance is READY.
pub fn adopt(store: &Locked, instance: &Instance, by: By) -> Result<()> {
    store.record_activation(instance, by)?;
    // Lost by the host: install points it at the first release.
    if store.named_by(Link::Validated).is_none() {
        store.point(Link::Validated, &instance.release)?;
    }
    store.point(Link::Current, &instance.release)
}

/// Starts an instance and returns when it is READY, after how many milliseconds, or with the reason why not, everything as
/// before.
pub fn start(store: &Locked, instance: &Instance) -> Result<u64> {
    say(&format!("starting {}", instance.unit()));
    let began = Instant::now();
    let waited = wait_for_start(store, instance);
    let output = waited.inspect_err(|_| {
        // Whoever could not wait for it does not know whether it accepts.
        let _ = systemd::stop(store.host(), &instance.unit());
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = said.lines().next().unwrap_or("systemctl did not say why");
        return Err(reject(store, instance, &format!("did not become ready: {reason}")));
    }
    Ok(began.elapsed().as_millis() as u64)
}

/// Waits for READY. While a candidate of ours starts, systemd triggers `app.service` for nobody, and a `boot` would wait
/// for our lock: so if the serving instance dies meanwhile, replacing it falls to us.
fn wait_for_start(store: &Locked, instance: &Instance) -> Result<Output> {
    let started = systemd::start(store.host(), instance)?;
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(started.wait()));
    let mut told = false;
    loop {
        match wait.recv_timeout(WATCH) {
            Ok(output) => {
                let failed = |error: std::io::Error| Error::Command {
                    command: format!("systemctl start {}", instance.unit()),
                    output: error.to_string(),
                };
                return output.map_err(failed);
            }
            Err(_) => {
                // The candidate's own end must not be missed for an error here.
                if let Err(error) = revive(store, instance)
                    && !std::mem::replace(&mut told, true)
                {
                    say(&error.to_string());
                }
            }
        }
    }
}

fn revive(store: &Locked, candidate: &Instance) -> Result<()> {
    let units = Units::list(store.host())?;
    let wanted = if store.named_by(Link::Current).is_some() { boot::wanted(store, &units)? } else { None };
    let someone_is_up = units.up().any(|instance| instance != candidate);
    if someone_is_up || wanted.is_none() || !pace::turn(store.host(), wanted.as_ref()).delay.is_zero() {
        return Ok(());
    }
    let choice = boot::choose(store, &units, true)?;
    let mut draft = Draft::begin("boot", "start");
    draft.from.clone_from(&choice.from);
    let instance = choice.instance(store, &mut draft)?;
    say(&format!("nobody serves while the candidate starts: starting {}", instance.unit()));
    pace::note(store.host(), &choice.release.id);
    let started = systemd::start(store.host(), &instance).map(drop);
    if choice.is_another() { draft.end(store, &choice.release.id, started) } else { started }
}

/// Ends a candidate and says why; its result is read before it is forgotten.
pub fn reject(store: &Locked, instance: &Instance, what: &str) -> Error {
    let host = store.host();
    let shown = systemd::show(host, instance).unwrap_or_default();
    let log = systemd::last_lines(host, &instance.unit(), LOG_LINES);
    // Its unit may say Restart=, so it is stopped even where it has failed.
    let stopped = systemd::stop(host, &instance.unit()).and_then(|()| tidy(store, &Units::list(host)?));
    if let Err(error) = stopped {
        say(&error.to_string());
    }
    if store.named_by(Link::Current).is_none() {
        // A host without a release refuses connections rather than let them wait for nobody.
        let _ = systemd::stop(host, systemd::SOCKET);
    }
    let how = format!("systemd says {}, exit status {}", shown.result, shown.status);
    Error::Release(format!("release {} {what} ({how})\nits last lines:\n{log}{}", instance.release, serving(store)))
}

/// Tells all instances but one to retire, and returns when each has said that it accepts no more, which means that it holds
/// the socket no more. `known` may be old: who has come up since is told as well.
pub fn retire(store: &Locked, known: &Units, kept: Option<&Instance>) -> Result<(Units, Vec<Retired>)> {
    let host = store.host();
    let (told, units) = tell_to_retire(host, known, kept)?;
    forget_failed(store, &units)?;
    // Those that systemd says have ended have said their last, and their files are there still. One that died before it could
    // retire says that it accepts.
    let is_there = |other: &Instance| units.instances.iter().any(|(one, active)| one == other && active != "failed");
    let reports = told.into_iter().map(|other| (other.report(host), other));
    let reports: Vec<_> = reports
        .filter(|(report, other)| is_there(other) || report.as_ref().is_none_or(|report| !report.accepting))
        .collect();
    for (report, other) in reports.iter().filter_map(|(report, other)| Some((report.as_ref()?, other))) {
        say(&format!("{}: {}", other.unit(), report.retirement()));
    }
    let retired = reports.iter().map(|(report, other)| Retired::of(other, report.as_ref())).collect();
    clear(store, &units);
    Ok((units, retired))
}

/// Returns whom it told, and what systemd knows after the last of them: nobody is up then who was not told.
fn tell_to_retire(host: &Host, known: &Units, kept: Option<&Instance>) -> Result<(Vec<Instance>, Units)> {
    let untold = |units: &Units, told: &[Instance]| -> Vec<Instance> {
        units.up().filter(|other| Some(*other) != kept && !told.contains(other)).cloned().collect()
    };
    let (mut told, mut others) = (Vec::new(), untold(known, &[]));
    loop {
        systemd::retire(host, &others)?;
        for other in &others {
            wait_until_it_accepts_no_more(host, other)?;
        }
        told.append(&mut others);
        let units = Units::list(host)?;
        others = untold(&units, &told);
        if others.is_empty() {
            return Ok((told, units));
        }
    }
}

fn wait_until_it_accepts_no_more(host: &Host, instance: &Instance) -> Result<()> {
    let (began, mut next_look) = (Instant::now(), WATCH);
    loop {
        if instance.report(host).is_some_and(|report| !report.accepting) {
            say(&format!("{} accepts no more", instance.unit()));
            return Ok(());
        }
        if began.elapsed() > next_look {
            next_look += WATCH;
            if matches!(systemd::show(host, instance)?.active.as_str(), "inactive" | "failed") {
                say(&format!("{} has ended", instance.unit()));
                return Ok(());
            }
        }
        if began.elapsed() > RETIRE_LIMIT {
            let limit = RETIRE_LIMIT.as_secs();
            say(&format!("{} has not said within {limit} s that it accepts no more; systemd ends it", instance.unit()));
            return Ok(());
        }
        thread::sleep(POLL);
    }
}

/// Ends the instances of a release that were told to retire and have not said that they accept no more; returns whether there
/// was one. systemd may never do so: it gives a process the time that it asks for (sd_notify(3), EXTEND_TIMEOUT_USEC).
pub fn end_who_goes_on(store: &Store, release: &str) -> bool {
    let host = store.host();
    let units = Units::list(host).unwrap_or_default();
    let accepts = |instance: &Instance| instance.report(host).is_none_or(|report| report.accepting);
    let goes_on = units.retiring().filter(|instance| instance.release.as_str() == release && accepts(instance));
    let ended = goes_on.filter(|instance| {
        say(&format!("{} was told to retire and goes on answering clients: it is killed", instance.unit()));
        systemd::kill(host, instance).inspect_err(|error| say(&error.to_string())).is_ok()
    });
    ended.count() > 0
}

/// Forgets what has failed and removes what instances that are gone have left.
pub fn tidy(store: &Locked, units: &Units) -> Result<()> {
    forget_failed(store, units)?;
    clear(store, units);
    Ok(())
}

/// Forgets what has failed, so that the host reads `running` again.
pub fn forget_failed(store: &Locked, units: &Units) -> Result<()> {
    let host = store.host();
    for instance in units.failed() {
        systemd::reset_failed(host, &instance.unit())?;
    }
    if units.boot_failed {
        systemd::reset_failed(host, systemd::BOOT)?;
    }
    Ok(())
}

/// Removes what instances that are gone have left.
pub fn clear(store: &Locked, units: &Units) {
    let host = store.host();
    let is_gone = |n: u64| !units.instances.iter().any(|(instance, active)| instance.n == n && active != "failed");
    let files = std::fs::read_dir(host.path(RUNTIME)).into_iter().flatten().flatten();
    for path in files.map(|file| file.path()) {
        // What an instance has there, and what a killed one left beside it. The folder is the service's: what else lies
        // there is its own, and what cannot be removed keeps nobody from anything.
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
        let n = name.filter(|(_, kind)| OF_INSTANCES.contains(kind)).and_then(|(n, _)| n.parse().ok());
        if n.is_some_and(is_gone)
            && !path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
            && let Err(error) = host.remove(&path)
        {
            say(&error.to_string());
        }
    }
}

/// A line that says what serves now.
pub fn serving(store: &Store) -> String {
    match Units::list(store.host()) {
        Ok(units) => serving_of(store, &units),
        Err(error) => format!("what serves now is not known: {error}"),
    }
}

/// The same of what systemd has said.
pub fn serving_of(store: &Store, units: &Units) -> String {
    let Some(current) = store.named_by(Link::Current) else {
        return "nothing is serving: no release is current".to_owned();
    };
    let mut line = match units.newest(&current) {
        Some(instance) if units.is_active(instance) => format!("serving now: release {current}, {}", instance.unit()),
        Some(instance) => format!("current is release {current}, and {} is starting", instance.unit()),
        None => format!("current is release {current}, and no instance of it is up; the next request starts one"),
    };
    if units.socket != "active" {
        line.push_str(&format!("; clients are refused: {} is {}", systemd::SOCKET, units.socket));
    }
    line
}
