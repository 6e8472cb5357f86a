//! What one way did to the clients of a scene, in all its rounds.

use super::{round::Round, scene::Scene, seen::Seen};
use crate::bench::{figure::Figure, peers::Kind};

#[derive(Clone, Debug)]
pub(super) struct Run {
    pub kind: Kind,
    pub rounds: Vec<Round>,
}

impl Run {
    pub fn of(kind: Kind) -> Self {
        Self { kind, rounds: Vec::new() }
    }

    pub fn releases(&self) -> usize {
        self.rounds.iter().map(|round| round.releases).sum()
    }

    /// Everything, with releases and without.
    pub fn total(&self, count: impl Fn(&Seen) -> u64) -> u64 {
        self.rounds.iter().map(|round| round.total(&count)).sum()
    }

    /// A value of each round that has it; no figure where none does.
    pub fn figure(&self, what: &str, unit: &'static str, value: impl Fn(&Round) -> Option<f64>) -> Option<Figure> {
        let values: Vec<f64> = self.rounds.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| Figure::new(what, self.kind.name(), unit, values))
    }

    /// How many times p99.9 is what it is without releases, for the kind of clients that suffers most.
    pub fn slower(&self, scene: &Scene) -> Option<Figure> {
        let n = self.suffers()?;
        self.figure(&format!("p99.9 times that without releases, {}", scene.name), "", |round| round.ratio(n))
    }

    /// Which kind of clients suffers most; none where no request was answered.
    pub fn suffers(&self) -> Option<usize> {
        let worst = |n: &usize| self.rounds.iter().filter_map(|round| round.ratio(*n)).reduce(f64::max);
        let all = (0..self.rounds.first()?.with.len()).filter_map(|n| Some((n, worst(&n)?)));
        all.max_by(|one, other| one.1.total_cmp(&other.1)).map(|(n, _)| n)
    }

    /// What was lost of what, by class; nothing where there is nothing to say.
    pub fn tell(&self, scene: &Scene) -> Option<String> {
        let lost = |seen: &Seen| (seen.lost() > 0).then(|| seen.tell_lost());
        let mut told: Vec<String> = self.sum(|round| &round.with).iter().filter_map(lost).collect();
        let before = self.sum(|round| &round.without);
        told.extend(before.iter().filter_map(lost).map(|lost| format!("without any release {lost}")));
        let lack = self.rounds.iter().find_map(|round| round.lacks);
        told.extend(lack.map(|lack| format!("at some release there was {lack}")));
        if scene.mode().is_none() {
            told.extend(self.suffers().map(|n| format!("of p99.9 {} suffers most", scene.clients[n].0)));
        }
        let (whose, name, releases) = (self.kind.name(), &scene.name, self.releases());
        (!told.is_empty()).then(|| format!("{whose}, {name}, {releases} releases: {}", told.join("; ")))
    }

    fn sum(&self, part: impl Fn(&Round) -> &Vec<Seen>) -> Vec<Seen> {
        let mut rounds = self.rounds.iter().map(part);
        let mut sum = rounds.next().cloned().unwrap_or_default();
        rounds.for_each(|round| sum.iter_mut().zip(round).for_each(|(sum, seen)| sum.add(seen)));
        sum
    }
}
