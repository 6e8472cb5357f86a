//! How CodeDeploy goes over a fleet, as its user guide has it.
//!
//! - The predefined configurations, what each takes at a time and what it calls a success:
//!   <https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-configurations.html>
//! - Minimum healthy hosts, and that at least one host must succeed whatever the minimum:
//!   <https://docs.aws.amazon.com/codedeploy/latest/userguide/instances-health.html>
//!
//! It says of no configuration whether the next host comes when the first of a batch has ended, or all of it: here, all of it.
//! Each host counts as healthy at the beginning, also one that the deployment before has failed on: it went back by itself, and
//! serves.

use std::{fmt, str::FromStr, thread};

/// One of CodeDeploy's own deployment configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// As many as there are; one must succeed.
    AllAtOnce,
    /// Up to half of them, rounded down; half of them, rounded up, must succeed.
    HalfAtATime,
    /// One; all must succeed but the last one, which may fail where there are several.
    OneAtATime,
}

/// What became of one deployment to a fleet.
#[derive(Debug)]
pub struct Rollout<H> {
    /// Hosts, and why each failed, if it did: in the order of the batches.
    pub batches: Vec<Vec<(H, Result<(), String>)>>,
    /// Whether it was to go on, and did not.
    pub is_stopped: bool,
    /// How many must have succeeded.
    minimum: usize,
}

impl Configuration {
    /// How many of so many hosts must stay healthy. What is beyond it may be deployed to at a time, and no host more once so
    /// many have failed.
    fn minimum_healthy(self, fleet: usize) -> usize {
        match self {
            Self::AllAtOnce => 0,
            Self::HalfAtATime => fleet.div_ceil(2),
            Self::OneAtATime => fleet.saturating_sub(1),
        }
    }

    /// Deploys to hosts in this order, batch by batch, the hosts of a batch at the same time; `goes_on` is asked before each.
    ///
    /// # Panics
    /// Where `deploy` does.
    pub fn roll_out<H: Copy + Send>(
        self,
        hosts: &[H],
        goes_on: impl Fn() -> bool,
        deploy: impl Fn(H) -> Result<(), String> + Sync,
    ) -> Rollout<H> {
        let minimum = self.minimum_healthy(hosts.len());
        let mut rollout = Rollout { batches: Vec::new(), is_stopped: false, minimum: minimum.max(1) };
        let (mut healthy, mut waiting) = (hosts.len(), hosts);
        while !waiting.is_empty() && healthy > minimum {
            if !goes_on() {
                rollout.is_stopped = true;
                break;
            }
            let (batch, rest) = waiting.split_at(waiting.len().min(healthy - minimum));
            let ended = at_once(batch, &deploy);
            healthy -= ended.iter().filter(|(_, ended)| ended.is_err()).count();
            rollout.batches.push(ended);
            waiting = rest;
        }
        rollout
    }
}

impl<H: Copy> Rollout<H> {
    /// What CodeDeploy calls one that was not stopped.
    pub fn succeeded(&self) -> bool {
        self.all().filter(|(_, ended)| ended.is_ok()).count() >= self.minimum
    }

    /// The hosts that it failed on, and why.
    pub fn failures(&self) -> Vec<(H, &str)> {
        self.all().filter_map(|(host, ended)| Some((*host, ended.as_ref().err()?.as_str()))).collect()
    }

    /// How many hosts there were in each batch: `2 + 2 + 1`.
    pub fn sizes(&self) -> String {
        self.batches.iter().map(|batch| batch.len().to_string()).collect::<Vec<_>>().join(" + ")
    }

    fn all(&self) -> impl Iterator<Item = &(H, Result<(), String>)> {
        self.batches.iter().flatten()
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AllAtOnce => "AllAtOnce",
            Self::HalfAtATime => "HalfAtATime",
            Self::OneAtATime => "OneAtATime",
        })
    }
}

/// By the name that AWS has for it.
impl FromStr for Configuration {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let is_it = |configuration: &Self| name == format!("CodeDeployDefault.{configuration}");
        let known = [Self::AllAtOnce, Self::HalfAtATime, Self::OneAtATime].into_iter().find(is_it);
        known.ok_or_else(|| format!("{name} is none of CodeDeploy's own configurations"))
    }
}

fn at_once<H: Copy + Send>(
    batch: &[H],
    deploy: &(impl Fn(H) -> Result<(), String> + Sync),
) -> Vec<(H, Result<(), String>)> {
    thread::scope(|scope| {
        let begin = |host: &H| {
            let host = *host;
            (host, scope.spawn(move || deploy(host)))
        };
        let all: Vec<_> = batch.iter().map(begin).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        all.into_iter().map(|(host, thread)| (host, join(thread))).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Configuration::*, *};

    /// The user guide's example has nine hosts.
    const NINE: [u8; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];

    fn failing_on(configuration: Configuration, hosts: &[u8], bad: &[u8]) -> Rollout<u8> {
        configuration.roll_out(hosts, || true, |host| if bad.contains(&host) { Err("bad".to_owned()) } else { Ok(()) })
    }

    #[test]
    fn each_configuration_takes_as_many_at_a_time_as_the_user_guide_says() {
        let sizes = |configuration| failing_on(configuration, &NINE, &[]).sizes();
        assert_eq!(sizes(AllAtOnce), "9");
        assert_eq!(sizes(HalfAtATime), "4 + 4 + 1");
        assert_eq!(sizes(OneAtATime), "1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1");
    }

    #[test]
    fn all_at_once_succeeds_if_one_host_does() {
        assert!(failing_on(AllAtOnce, &NINE, &NINE[1..]).succeeded());
        assert!(!failing_on(AllAtOnce, &NINE, &NINE).succeeded());
    }

    #[test]
    fn half_at_a_time_stops_when_no_more_than_half_are_healthy() {
        let stopped = failing_on(HalfAtATime, &NINE, &[1, 2, 3, 4]);
        assert_eq!((stopped.sizes().as_str(), stopped.succeeded()), ("4", false));
        let slower = failing_on(HalfAtATime, &NINE, &[1, 2, 3]);
        assert_eq!((slower.sizes().as_str(), slower.succeeded()), ("4 + 1 + 1 + 1 + 1 + 1", true));
        assert!(failing_on(HalfAtATime, &NINE, &[6, 7, 8, 9]).succeeded(), "five of nine are enough");
    }

    #[test]
    fn one_at_a_time_stops_at_the_first_failure_but_for_the_last_host() {
        let stopped = failing_on(OneAtATime, &NINE, &[2]);
        assert_eq!((stopped.sizes().as_str(), stopped.succeeded()), ("1 + 1", false));
        assert!(failing_on(OneAtATime, &NINE, &[9]).succeeded());
        assert!(!failing_on(OneAtATime, &[1], &[1]).succeeded(), "of one host, that one must");
    }

    #[test]
    fn one_that_is_to_end_ends_before_its_next_batch() {
        let begun = AtomicUsize::new(0);
        let deploy = |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let stopped = HalfAtATime.roll_out(&NINE, || begun.load(Ordering::Relaxed) < 4, deploy);
        assert_eq!((stopped.sizes().as_str(), stopped.is_stopped), ("4", true));
        assert!(!failing_on(HalfAtATime, &NINE, &NINE).is_stopped, "it failed by itself");
    }

    #[test]
    fn each_is_known_by_its_name() {
        for configuration in [AllAtOnce, HalfAtATime, OneAtATime] {
            assert_eq!(format!("CodeDeployDefault.{configuration}").parse(), Ok(configuration));
        }
        assert!("CodeDeployDefault.LambdaAllAtOnce".parse::<Configuration>().is_err());
    }

    #[test]
    fn what_failed_is_told_with_its_reason() {
        assert_eq!(failing_on(OneAtATime, &NINE, &[2]).failures(), [(2, "bad")]);
    }
}
