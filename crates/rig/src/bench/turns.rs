//! Ours and its peers, measured in turn: a peer that fails is left out from then on, and named. Only ours ends the run.

use std::io;

use super::figure::Figure;

/// Ours first, then its peers.
pub(super) struct Turns<T> {
    ways: Vec<Way<T>>,
    /// Peers that were never there.
    absent: Vec<String>,
}

struct Way<T> {
    whose: String,
    way: T,
    fault: Option<io::Error>,
}

impl<T> Turns<T> {
    pub fn of(whose: &str, ours: T) -> Self {
        Self { ways: vec![Way { whose: whose.to_owned(), way: ours, fault: None }], absent: Vec::new() }
    }

    /// And a peer, if it can be had.
    pub fn and(mut self, whose: impl Into<String>, peer: io::Result<T>) -> Self {
        let whose = whose.into();
        match peer {
            Ok(way) => self.ways.push(Way { whose, way, fault: None }),
            Err(error) => self.absent.push(format!("{whose} could not be had: {error}")),
        }
        self
    }

    /// A B C A B C, so many rounds: what each gave, but for a peer that failed.
    ///
    /// # Errors
    /// Where ours fails.
    pub fn measure<V>(
        &mut self,
        rounds: usize,
        mut measure: impl FnMut(&mut T) -> io::Result<V>,
    ) -> io::Result<Vec<(&str, Vec<V>)>> {
        let mut values: Vec<Vec<V>> = self.ways.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (n, way) in self.ways.iter_mut().enumerate().filter(|(_, way)| way.fault.is_none()) {
                match measure(&mut way.way) {
                    Ok(value) => values[n].push(value),
                    Err(error) if n == 0 => return Err(error),
                    Err(error) => way.fault = Some(error),
                }
            }
        }
        let all = self.ways.iter().zip(values).filter(|(way, _)| way.fault.is_none());
        Ok(all.map(|(way, values)| (way.whose.as_str(), values)).collect())
    }

    /// The same of one value each, as figures that stand beside each other.
    ///
    /// # Errors
    /// Where ours fails.
    pub fn figures(
        &mut self,
        what: &str,
        unit: &'static str,
        rounds: usize,
        measure: impl FnMut(&mut T) -> io::Result<f64>,
    ) -> io::Result<Vec<Figure>> {
        let all = self.measure(rounds, measure)?;
        Ok(all.into_iter().map(|(whose, values)| Figure::new(what, whose, unit, values)).collect())
    }

    /// A note for each peer that is not in it.
    pub fn lacks(self) -> impl Iterator<Item = String> {
        let tell = |way: Way<T>| way.fault.map(|error| format!("{} could not be measured: {error}", way.whose));
        self.absent.into_iter().chain(self.ways.into_iter().filter_map(tell))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail<T>(why: &str) -> io::Result<T> {
        Err(io::Error::other(why))
    }

    #[test]
    fn each_has_its_turn_and_a_peer_that_fails_is_left_out_and_named() {
        let mut turns =
            Turns::of("ours", 'a').and("one", Ok('b')).and("other", Ok('c')).and("third", fail("no network"));
        let mut order = String::new();
        let measure = |way: &mut char| {
            order.push(*way);
            if order == "abcab" { fail("it hung") } else { Ok(order.len()) }
        };
        assert_eq!(turns.measure(3, measure).unwrap(), [("ours", vec![1, 4, 7]), ("other", vec![3, 6, 8])]);
        assert_eq!(order, "abcabcac");
        let lacks: Vec<String> = turns.lacks().collect();
        assert_eq!(lacks, ["third could not be had: no network", "one could not be measured: it hung"]);
    }

    #[test]
    fn where_ours_fails_the_run_ends() {
        let error = Turns::of("ours", ()).measure(1, |()| fail::<()>("it hung")).unwrap_err();
        assert_eq!(error.to_string(), "it hung");
    }
}
