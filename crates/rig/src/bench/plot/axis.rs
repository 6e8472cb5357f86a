//! From one power of ten to another.

/// From one power of ten to another; what is 0 has a place of its own before them.
pub(super) struct Axis {
    from: f64,
    until: f64,
    has_zero: bool,
}

impl Axis {
    /// Wide enough for these.
    pub fn over(values: impl Iterator<Item = f64>) -> Self {
        let (above, zero): (Vec<f64>, Vec<f64>) = values.partition(|value| *value > 0.0);
        let logs = || above.iter().map(|value| value.log10());
        let (least, most) = (logs().fold(f64::INFINITY, f64::min), logs().fold(f64::NEG_INFINITY, f64::max));
        let (from, until) =
            if above.is_empty() { (0.0, 1.0) } else { (least.floor(), most.ceil().max(least.floor() + 1.0)) };
        Self { from, until, has_zero: !zero.is_empty() }
    }

    /// Where on it a value is, 0 to 1.
    pub fn share(&self, value: f64) -> f64 {
        let first = if self.has_zero { self.from - 1.0 } else { self.from };
        let log = if value > 0.0 { value.log10() } else { first };
        (log - first) / (self.until - first)
    }

    /// What is marked.
    pub fn marks(&self) -> impl Iterator<Item = f64> + use<> {
        let powers = (self.from as i32..=self.until as i32).map(|power| 10_f64.powi(power));
        self.has_zero.then_some(0.0).into_iter().chain(powers)
    }
}
