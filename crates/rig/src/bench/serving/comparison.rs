//! Servers under the same load, in turn.

use std::{io, time::Duration};

use super::{
    answer::Answer,
    generator::Generator,
    subject::{Role, Seen, Subject},
};
use crate::bench::{Effort, figure::Figure};

/// Of the round that comes first and is not counted: what is made once is made then. No generator takes less.
const WARM_UP: Duration = Duration::from_secs(1);

/// What one load was to all of them.
pub(super) struct Comparison {
    /// Requests a second of processor time.
    pub rates: Vec<Figure>,
    /// Seconds of processor time a second.
    pub busy: Vec<Figure>,
    /// Who is not in it, and why.
    pub lacks: Vec<String>,
}

impl Comparison {
    /// One that does not answer as it must is not measured at all.
    ///
    /// # Errors
    /// Where one that is needed fails.
    pub fn of(subjects: &[Subject], answer: Answer, generator: Generator, effort: Effort) -> io::Result<Self> {
        let title = title(answer, generator);
        let mut entrants: Vec<Entrant> =
            subjects.iter().map(|Subject { whose, role, .. }| Entrant::new(whose, *role)).collect();
        for round in 0..=effort.rounds {
            eprintln!("{title}, {round} of {}", effort.rounds);
            for n in order(round, subjects.len()) {
                let subject = &subjects[n];
                entrants[n].take_turn(|| match round {
                    0 => {
                        subject.wait_for(answer)?;
                        subject.under(generator, answer, WARM_UP)
                    }
                    _ => subject.under(generator, answer, effort.busy),
                })?;
            }
        }
        Ok(Self::told(&title, entrants))
    }

    fn told(title: &str, entrants: Vec<Entrant>) -> Self {
        let mut all = Self { rates: Vec::new(), busy: Vec::new(), lacks: Vec::new() };
        for Entrant { whose, seen, .. } in entrants {
            match seen.as_deref() {
                Ok([_, counted @ ..]) => {
                    let (rates, busy) = counted.iter().map(|seen| (seen.rate, seen.busy)).unzip();
                    all.rates.push(Figure::new(title, whose, "a second of processor time", rates));
                    all.busy.push(Figure::new(format!("busy: {title}"), whose, "processors", busy));
                }
                Ok([]) => {}
                Err(error) => all.lacks.push(format!("{whose} could not be had for {title}: {error}")),
            }
        }
        all
    }
}

pub(super) fn title(answer: Answer, generator: Generator) -> String {
    format!("{answer}, {generator}")
}

/// Whoever is first in a round is last in the next, so that what comes after the pause between two is nobody's alone.
fn order(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |n| (round + n) % count)
}

/// One that takes part, until it fails.
struct Entrant<'a> {
    whose: &'a str,
    role: Role,
    seen: io::Result<Vec<Seen>>,
}

impl<'a> Entrant<'a> {
    fn new(whose: &'a str, role: Role) -> Self {
        Self { whose, role, seen: Ok(Vec::new()) }
    }

    fn take_turn(&mut self, turn: impl FnOnce() -> io::Result<Seen>) -> io::Result<()> {
        let Ok(seen) = &mut self.seen else { return Ok(()) };
        match turn() {
            Ok(one) => seen.push(one),
            Err(error) if self.role == Role::Needed => return Err(error),
            Err(error) => self.seen = Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(rate: f64) -> io::Result<Seen> {
        Ok(Seen { rate, busy: 1.0 })
    }

    fn fails() -> io::Result<Seen> {
        Err(io::Error::other("a socket failed"))
    }

    #[test]
    fn the_first_of_a_round_is_the_last_of_the_next() {
        let orders: Vec<Vec<usize>> = (0..4).map(|round| order(round, 3).collect()).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }

    #[test]
    fn the_round_that_comes_first_is_not_counted() {
        let mut entrant = Entrant::new("ours", Role::Needed);
        [1.0, 20.0, 30.0].into_iter().try_for_each(|rate| entrant.take_turn(|| seen(rate))).unwrap();
        let told = Comparison::told("it", vec![entrant]);
        assert_eq!((told.rates[0].least(), told.rates[0].most()), (20.0, 30.0));
    }

    #[test]
    fn a_peer_that_fails_once_is_named_and_left_out() {
        let mut entrant = Entrant::new("Caddy", Role::Peer);
        entrant.take_turn(|| seen(1.0)).unwrap();
        entrant.take_turn(fails).unwrap();
        entrant.take_turn(|| panic!("it is out")).unwrap();
        let told = Comparison::told("it", vec![entrant]);
        assert_eq!(told.lacks, ["Caddy could not be had for it: a socket failed"]);
        assert!(told.rates.is_empty() && told.busy.is_empty());
    }

    #[test]
    fn one_that_is_needed_and_fails_ends_the_run() {
        assert!(Entrant::new("ours", Role::Needed).take_turn(fails).is_err());
    }
}
