//! One thing of one program, measured several times.

use std::{fmt, io};

use serde::{Serialize, Serializer, ser::SerializeStruct};

/// One thing of one program, measured several times.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    /// What was measured, such as `requests per second of processor time`.
    pub what: String,
    /// Of whom, such as `nginx 1.22.1`.
    pub whose: String,
    /// Of each value.
    pub unit: &'static str,
    /// In the order in which they were measured; never empty.
    values: Vec<f64>,
}

impl Figure {
    /// # Panics
    /// Where nothing was measured.
    pub fn new(what: impl Into<String>, whose: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "a figure has values");
        Self { what: what.into(), whose: whose.into(), unit, values }
    }

    /// Of an even number the upper one of the two in the middle: a value that was measured.
    pub fn median(&self) -> f64 {
        self.sorted()[self.values.len() / 2]
    }

    pub fn least(&self) -> f64 {
        self.sorted()[0]
    }

    pub fn most(&self) -> f64 {
        self.sorted()[self.values.len() - 1]
    }

    /// How many times `other` this is: pair by pair, since those were measured one after the other.
    pub fn ratio_to(&self, other: &Self) -> Self {
        let ratios = self.values.iter().zip(&other.values).map(|(one, other)| one / other).collect();
        Self::new(self.what.clone(), format!("{} / {}", self.whose, other.whose), "", ratios)
    }

    /// By how much it is above `other`, pair by pair, under other names.
    pub fn beyond(&self, other: &Self, what: &str, whose: &str) -> Self {
        let beyond = self.values.iter().zip(&other.values).map(|(one, other)| one - other).collect();
        Self::new(what, whose, self.unit, beyond)
    }

    /// `1.23 (1.20-1.31)`; `1.23` where it was measured once
    pub fn values(&self) -> String {
        let [median, least, most] = [self.median(), self.least(), self.most()].map(short);
        if self.values.len() == 1 { median } else { format!("{median} ({least}-{most})") }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Measures each in turn, A B C A B C, so that what the machine does meanwhile meets all of them.
///
/// # Errors
/// As those.
pub(super) fn in_turn<'a>(
    what: &str,
    unit: &'static str,
    rounds: usize,
    ways: &mut [(&str, &mut (dyn FnMut() -> io::Result<f64> + 'a))],
) -> io::Result<Vec<Figure>> {
    let mut values = vec![Vec::new(); ways.len()];
    for round in 1..=rounds {
        eprintln!("{what}, {round} of {rounds}");
        for ((_, way), values) in ways.iter_mut().zip(&mut values) {
            values.push(way()?);
        }
    }
    Ok(ways.iter().zip(values).map(|((whose, _), values)| Figure::new(what, *whose, unit, values)).collect())
}

/// `1.23 (1.20-1.31) ms`
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(format!("{} {}", self.values(), self.unit).trim_end())
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut figure = serializer.serialize_struct("Figure", 7)?;
        figure.serialize_field("what", &self.what)?;
        figure.serialize_field("whose", &self.whose)?;
        figure.serialize_field("unit", self.unit)?;
        figure.serialize_field("median", &self.median())?;
        figure.serialize_field("least", &self.least())?;
        figure.serialize_field("most", &self.most())?;
        figure.serialize_field("values", &self.values)?;
        figure.end()
    }
}

/// Three digits, for people.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == value.trunc() => group(value.round()),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `1,234,567`
fn group(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_its_median_with_the_least_and_the_most() {
        let figure = Figure::new("a verb", "ours", "ms", vec![3.0, 1.25, 1234.5, 2.0, 9.0]);
        assert_eq!(figure.to_string(), "3 (1.25-1,235) ms");
        assert_eq!(Figure::new("requests lost", "ours", "", vec![0.0]).to_string(), "0");
    }

    #[test]
    fn a_ratio_is_taken_pair_by_pair() {
        let [one, other] = [vec![10.0, 30.0, 20.0], vec![5.0, 10.0, 20.0]].map(|all| Figure::new("a", "b", "", all));
        assert_eq!(one.ratio_to(&other).values, [2.0, 3.0, 1.0]);
    }

    #[test]
    fn ways_are_measured_in_turn() {
        let order = std::cell::RefCell::new(String::new());
        let way = |name| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                Ok(1.0)
            }
        };
        let (mut a, mut b) = (way('a'), way('b'));
        in_turn("it", "", 3, &mut [("one", &mut a), ("other", &mut b)]).unwrap();
        assert_eq!(*order.borrow(), "ababab");
    }
}
