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
        let kib = field(read("/proc/meminfo"), "MemTotal", ':');
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            processor: field(read("/proc/cpuinfo"), "model name", ':'),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: field(read("/etc/os-release"), "PRETTY_NAME", '='),
            versions: peers::versions().into_iter().chain(tools()).collect(),
        }
    }
}

/// What it is built by, runs under, and is measured by; and the revision that is measured.
fn tools() -> Vec<(String, String)> {
    let root = crate::workspace().to_string_lossy().into_owned();
    let told = |program: &str, arguments: &[&str]| first_line(program, arguments);
    let mut tools = vec![("this project".to_owned(), told("git", &["-C", &root, "describe", "--always", "--dirty"]))];
    let named = [
        ("rustc", "--version"),
        ("systemctl", "--version"),
        ("wrk", "-v"),
        ("h2load", "--version"),
        ("valgrind", "--version"),
    ];
    tools.extend(named.map(|(program, argument)| {
        let name = if program == "systemctl" { "systemd" } else { program };
        (name.to_owned(), version(&told(program, &[argument])).to_owned())
    }));
    tools
}

/// The first word of a line that is a version, alone or behind a name: `1.2`, `name/1.2`, `name-1.2`.
pub(super) fn version(line: &str) -> &str {
    let is_digit = |c: char| c.is_ascii_digit();
    let behind = |word: &str| word.starts_with(is_digit) || word.contains(['/', '-']) && word.contains(is_digit);
    let word = line.split_whitespace().find(|word| behind(word)).unwrap_or("unknown");
    word.rsplit('/').next().unwrap_or(word).trim_start_matches(|c| !is_digit(c))
}

/// What a program prints first, such as its version; also on standard error, as some do.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_each_program_says_of_itself() {
        for (line, is) in [
            ("rustc 1.97.0 (5980 2026-07-01)", "1.97.0"),
            ("systemd 252 (252.39-1~deb12u1)", "252"),
            ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer", "4.1.0-3+b2"),
            ("h2load nghttp2/1.52.0", "1.52.0"),
            ("valgrind-3.19.0", "3.19.0"),
            ("rsync  version 3.2.7  protocol version 31", "3.2.7"),
        ] {
            assert_eq!(version(line), is);
        }
    }
}
