//! What a campaign has come to: how often it tried what, and what it found.

use comfy_table::{Table, presets};

/// One thing that was tried, at many points.
#[derive(Debug, Default)]
pub struct Finding {
    /// What.
    pub name: String,
    /// How many points there are, where that is a number.
    pub points: Option<usize>,
    /// At how many it was tried.
    pub tried: usize,
    /// At how many of these it happened.
    pub reached: usize,
    /// Requests that were lost, where there were clients whose every request had to be answered.
    pub lost: Option<u64>,
    /// What did not hold.
    pub broken: Vec<String>,
    /// It leaves out what it takes to be good, so that this must be found.
    pub control: Option<Control>,
}

/// What a control must find, in its own way; whatever else is broken does not count.
#[derive(Debug)]
pub struct Control {
    /// What.
    pub fault: &'static str,
    /// How often it was found.
    pub found: usize,
}

impl Finding {
    /// Whether it is as it should be.
    pub fn is_good(&self) -> bool {
        let is_clean = self.broken.is_empty() && self.lost.unwrap_or(0) == 0;
        let is_found = self.control.as_ref().is_none_or(|control| control.found > 0);
        is_clean && is_found && self.tried > 0 && self.reached == self.tried
    }
}

/// Prints them as a table, and below it what was broken; returns whether all are good.
pub fn print(findings: &[Finding]) -> bool {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["", "POINTS", "TRIED", "REACHED", "BROKEN", "LOST"]);
    for finding in findings {
        let Finding { name, points, tried, reached, lost, broken, control } = finding;
        let told = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        let broken = match control {
            Some(Control { found, .. }) => format!("{} ({found} must be)", broken.len()),
            None => broken.len().to_string(),
        };
        let [tried, reached] = [tried, reached].map(usize::to_string);
        table.add_row([name.clone(), told(points.map(|points| points as u64)), tried, reached, broken, told(*lost)]);
    }
    println!("{table}");
    for finding in findings.iter().filter(|finding| !finding.is_good()) {
        finding.broken.iter().for_each(|fault| println!("{}: {fault}", finding.name));
        if let Some(Control { fault, found: 0 }) = finding.control {
            println!("{}: it must be found that {fault}, and was not", finding.name);
        }
    }
    findings.iter().all(Finding::is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(found: usize, broken: &[&str]) -> Finding {
        let broken = broken.iter().map(|fault| (*fault).to_owned()).collect();
        let control = Some(Control { fault: "it is gone", found });
        Finding { tried: 1, reached: 1, broken, control, ..Finding::default() }
    }

    #[test]
    fn a_control_is_good_once_it_has_found_what_it_is_for_and_nothing_else_does() {
        assert!(control(1, &[]).is_good());
        assert!(!control(0, &[]).is_good());
        assert!(!control(0, &["a hook failed"]).is_good());
        assert!(!control(1, &["a hook failed"]).is_good());
    }
}
