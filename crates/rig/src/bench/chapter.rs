//! What belongs together in the report.

use std::fmt;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::figure::{Figure, short};

/// What belongs together in the report.
#[derive(Debug, Serialize)]
pub(super) struct Chapter {
    pub title: &'static str,
    /// How it was measured, and what is to be read from it.
    pub about: String,
    /// Those with the same `what` stand beside each other, and are drawn together.
    pub figures: Vec<Figure>,
    pub curves: Vec<Curve>,
    pub goals: Vec<Goal>,
    /// What was seen beside the figures; which peer could not be had, and why.
    pub notes: Vec<String>,
}

/// How something grows.
#[derive(Debug, Serialize)]
pub(super) struct Curve {
    pub what: String,
    /// What is on the x axis, such as `connections`.
    pub over: &'static str,
    /// For each of these counts the figure of one program; those of one program make a line.
    pub points: Vec<(usize, Figure)>,
}

/// What was to be reached.
#[derive(Debug, Serialize)]
pub(super) struct Goal {
    pub what: String,
    pub bound: Bound,
    /// What it is, its median where it was measured several times.
    pub is: f64,
    pub unit: &'static str,
}

/// From which side.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    /// Of what was measured.
    pub fn of(what: impl Into<String>, bound: Bound, figure: &Figure) -> Self {
        Self { what: what.into(), bound, is: figure.median(), unit: figure.unit }
    }

    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.is <= most,
            Bound::AtLeast(least) => self.is >= least,
        }
    }
}

/// `met: bundle at most 6 MB: 4.31 MB`; `missed by 10 %: …`
impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (side, bound) = match self.bound {
            Bound::AtMost(most) => ("at most", most),
            Bound::AtLeast(least) => ("at least", least),
        };
        let verdict = match (self.is_met(), bound) {
            (true, _) => "met".to_owned(),
            (false, 0.0) => "missed".to_owned(),
            (false, _) => format!("missed by {} %", short((self.is / bound - 1.0).abs() * 100.0)),
        };
        let with_unit = |value| format!("{} {}", short(value), self.unit).trim_end().to_owned();
        write!(f, "{verdict}: {} {side} {}: {}", self.what, with_unit(bound), with_unit(self.is))
    }
}

/// For the terminal: a line for each figure, each point of a curve, each goal and each note.
impl fmt::Display for Chapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([self.title, "", "MEDIAN (LEAST-MOST)"]);
        let mut before = "";
        for figure in &self.figures {
            let what = if figure.what == before { "" } else { &figure.what };
            table.add_row([what, &figure.whose, &figure.to_string()]);
            before = &figure.what;
        }
        for Curve { what, over, points } in &self.curves {
            for (count, figure) in points {
                let at = format!("{what}, {} {over}", short(*count as f64));
                table.add_row([&at, &figure.whose, &figure.to_string()]);
            }
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        f.write_str(&lines.join("\n"))?;
        self.goals.iter().try_for_each(|goal| write!(f, "\n{goal}"))?;
        self.notes.iter().try_for_each(|note| write!(f, "\n{note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_says_whether_it_is_met_and_by_what() {
        let goal = |bound, is| Goal { what: "a bundle".to_owned(), bound, is, unit: "MB" }.to_string();
        assert_eq!(goal(Bound::AtMost(6.0), 4.313), "met: a bundle at most 6 MB: 4.31 MB");
        assert_eq!(goal(Bound::AtLeast(6.0), 4.313), "missed by 28.1 %: a bundle at least 6 MB: 4.31 MB");
        assert_eq!(goal(Bound::AtMost(0.0), 7.0), "missed: a bundle at most 0 MB: 7 MB");
        let ratio = Goal { what: "ours".to_owned(), bound: Bound::AtLeast(1.05), is: 1.051, unit: "" };
        assert_eq!(ratio.to_string(), "met: ours at least 1.05: 1.05");
    }
}
