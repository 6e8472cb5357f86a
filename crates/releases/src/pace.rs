//! How fast a release that keeps dying is started again.
//!
//! systemd's own limit would close the socket for everybody, so it is off, and this takes its place: a start that is
//! asked for within 10 s of the last one of the same release waits 1, 2, 4 … 30 s.

use std::{fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{ReleaseId, host::Host, screen::say};

/// Gone at a reboot, as it should be.
pub(crate) const FILE: &str = "/run/releasectl.json";
const WINDOW: Duration = Duration::from_secs(10);
const LONGEST: u64 = 30;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Last {
    release: Option<ReleaseId>,
    /// Milliseconds of CLOCK_BOOTTIME.
    at: u64,
    /// How many starts in a row came too soon.
    streak: u32,
}

/// When a start may be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Turn {
    /// How long to wait before it.
    pub delay: Duration,
    streak: u32,
}

/// When the next start of `release` may be made, if it is asked for now. A host without a release paces itself too.
pub fn turn(host: &Host, release: Option<&ReleaseId>) -> Turn {
    let last = fs::read(host.path(FILE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    turn_after(last.unwrap_or_default(), release, now())
}

/// What was started last since the host booted.
pub fn last(host: &Host) -> Option<ReleaseId> {
    let last: Last = serde_json::from_slice(&fs::read(host.path(FILE)).ok()?).ok()?;
    last.release
}

fn turn_after(last: Last, release: Option<&ReleaseId>, now: u64) -> Turn {
    let too_soon = last.at > 0 && last.release.as_ref() == release && now < last.at + WINDOW.as_millis() as u64;
    if !too_soon {
        return Turn { delay: Duration::ZERO, streak: 0 };
    }
    let seconds = 1_u64.checked_shl(last.streak).map_or(LONGEST, |seconds| seconds.min(LONGEST));
    Turn { delay: Duration::from_secs(seconds), streak: last.streak.saturating_add(1).min(31) }
}

/// Notes a start that a deployment asked for: the next one is the first that can come too soon.
pub fn note(host: &Host, release: &ReleaseId) {
    note_turn(host, Some(release), &Turn { delay: Duration::ZERO, streak: 0 });
}

/// Notes a start, or a try where there was nothing to start, made when its turn had come.
///
/// Without the lock; where two meet, one note is as good as the other, and none costs a start too soon.
pub fn note_turn(host: &Host, release: Option<&ReleaseId>, turn: &Turn) {
    let last = Last { release: release.cloned(), at: now(), streak: turn.streak };
    if let Err(error) = host.write(&host.path(FILE), serde_json::to_string(&last).unwrap_or_default().as_bytes()) {
        say(&error.to_string());
    }
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    (now.tv_sec as u64) * 1000 + (now.tv_nsec as u64) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_that_keeps_dying_is_started_at_most_ten_times_in_thirty_seconds() {
        let id: ReleaseId = "0123456789abcdef".parse().unwrap();
        let (mut last, mut now, mut starts, mut delays) = (Last::default(), 1, 0, Vec::new());
        while now < 30_000 {
            let turn = turn_after(last, Some(&id), now);
            now += turn.delay.as_millis() as u64;
            delays.push(turn.delay.as_secs());
            last = Last { release: Some(id.clone()), at: now, streak: turn.streak };
            starts += 1;
        }
        assert!(starts <= 10, "{starts}");
        assert_eq!(delays, [0, 1, 2, 4, 8, 16]);
    }

    #[test]
    fn another_release_and_a_late_start_wait_for_nothing() {
        let (id, other): (ReleaseId, ReleaseId) =
            ("0123456789abcdef".parse().unwrap(), "fedcba9876543210".parse().unwrap());
        let last = || Last { release: Some(id.clone()), at: 1, streak: 9 };
        assert_eq!(turn_after(last(), Some(&other), 2).delay, Duration::ZERO);
        assert_eq!(turn_after(last(), Some(&id), 10_001).delay, Duration::ZERO);
        assert_eq!(turn_after(last(), Some(&id), 2).delay, Duration::from_secs(30));
    }
}
