//! What the scripts of an event print: into a file on the host, and its end into the report.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

/// What is reported is shorter than this, in characters.
const ROOM: usize = 2048;

/// The output of one event.
#[derive(Debug, Default)]
pub(super) struct Output {
    entries: Vec<String>,
    file: Option<fs::File>,
}

impl Output {
    /// From here on, everything also goes to the end of this file.
    pub fn log_to(&mut self, path: PathBuf) -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        self.file = Some(fs::OpenOptions::new().append(true).create(true).open(path)?);
        Ok(())
    }

    /// A line, which only the file has the time of, in UTC. A disk that does not take it fails the event.
    pub fn add(&mut self, line: &str) -> io::Result<()> {
        self.entries.push(line.to_owned());
        let timed = format!("{} {line}", Timestamp::now().strftime("%F %T"));
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(timed.as_bytes()))
    }

    /// All of it.
    pub fn whole(&self) -> String {
        self.entries.concat()
    }

    /// The last lines that fit, each as a whole or not at all: a last line that is too long leaves nothing.
    pub fn tail(&self) -> String {
        let (mut room, mut from) = (ROOM, self.entries.len());
        while from > 0 && self.entries[from - 1].chars().count() < room {
            from -= 1;
            room -= self.entries[from].chars().count();
        }
        self.entries[from..].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(lines: &[&str]) -> String {
        Output { entries: lines.iter().map(|line| (*line).to_owned()).collect(), file: None }.tail()
    }

    #[test]
    fn the_last_2047_characters_are_reported_and_only_whole_lines_of_them() {
        let line = format!("{}\n", "é".repeat(99));
        let lines = vec![line.as_str(); 30];
        assert_eq!(tail(&lines), line.repeat(20));
        let exactly = "x".repeat(2047);
        assert_eq!(tail(&["before\n", &exactly]), exactly);
    }

    #[test]
    fn a_single_last_line_that_is_longer_empties_the_report() {
        assert_eq!(tail(&["why it failed\n", &"x".repeat(2048)]), "");
    }
}
