//! What it was measured on, and with what.

use std::{collections::BTreeMap, fs, process::Command};

use serde::Serialize;

use super::peers;

/// What it was measured on, and with what.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    /// Of the run, UTC.
    pub date: String,
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    pub system: String,
    /// Of each program that takes part, by its name.
    pub versions: BTreeMap<String, String>,
}

impl Machine {
    pub fn of_today() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: String, name: &str, separator: char| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(separator));
            line.unwrap_or("unknown").trim().trim_matches('"').to_owned()
        };
        let rustc = ("rustc".to_owned(), first_line("rustc", &["--version"]));
        let kib = field(read("/proc/meminfo"), "MemTotal", ':');
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            processor: field(read("/proc/cpuinfo"), "model name", ':'),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: field(read("/etc/os-release"), "PRETTY_NAME", '='),
            versions: peers::versions().into_iter().chain([rustc]).collect(),
        }
    }
}

/// What a program prints first, such as its version; also on standard error, as some do.
pub(super) fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").to_owned()
}
