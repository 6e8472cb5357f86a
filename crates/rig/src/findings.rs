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
    /// It leaves out what it takes to be good: something must be found.
    pub is_control: bool,
}

impl Finding {
    /// Whether it is as it should be.
    pub fn is_good(&self) -> bool {
        let is_clean = self.broken.is_empty() && self.lost.unwrap_or(0) == 0;
        is_clean != self.is_control && self.tried > 0 && self.reached == self.tried
    }
}

/// Prints them as a table, and below it what was broken; returns whether all are good.
pub fn print(findings: &[Finding]) -> bool {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["", "POINTS", "TRIED", "REACHED", "BROKEN", "LOST"]);
    for finding in findings {
        let Finding { name, points, tried, reached, lost, broken, is_control } = finding;
        let told = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        let broken = if *is_control { format!("{} (must be)", broken.len()) } else { broken.len().to_string() };
        let [tried, reached] = [tried, reached].map(usize::to_string);
        table.add_row([name.clone(), told(points.map(|points| points as u64)), tried, reached, broken, told(*lost)]);
    }
    println!("{table}");
    for finding in findings.iter().filter(|finding| !finding.is_good()) {
        finding.broken.iter().for_each(|fault| println!("{}: {fault}", finding.name));
    }
    findings.iter().all(Finding::is_good)
}
