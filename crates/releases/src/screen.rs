//! What a person sees: lines, tables, and in a terminal a last line that tells what is being done.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    sync::LazyLock,
    time::Duration,
};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Where it is no terminal, nothing is cut.
const WIDE: usize = 200;
/// Of a line of somebody else's making, in columns.
const LONGEST: usize = 300;
/// How often a line that turns does so.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The terminal's last line. There is one terminal, so there is one of it; where there is none it is not seen.
static LAST: LazyLock<ProgressBar> = LazyLock::new(|| {
    let last = spinner();
    // Until something is being done, there is nothing to show.
    last.finish_and_clear();
    last
});

/// A line that turns, and counts.
pub(crate) fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}").unwrap_or(ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

/// Prints lines. A reader that has gone away must not stop a deployment in the middle.
pub fn say(lines: &str) {
    LAST.suspend(|| {
        let _ = writeln!(io::stdout(), "{}", without_controls(lines));
    });
}

/// What is being done from now on, where a person watches.
pub(crate) fn show_doing(what: &str) {
    if !LAST.is_hidden() {
        LAST.reset();
        LAST.set_message(what.to_owned());
        LAST.enable_steady_tick(TICK);
    }
}

/// A thing that was done, and how long it took.
#[cfg(feature = "bundle")]
pub(crate) fn step(name: &str, took: Duration, what: &str) -> String {
    cut(&format!("  {name:<19} {:>6.1} s  {what}", took.as_secs_f64()), columns()).trim_end().to_owned()
}

/// Nothing more is being done.
pub(crate) fn show_done() {
    if !LAST.is_hidden() {
        LAST.finish_and_clear();
    }
}

/// Lines for a terminal: names of files, and what others have said, may hold what steers it.
pub fn without_controls(lines: &str) -> String {
    lines.chars().map(|c| if steers(c) && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// JSON for a terminal, the same value: what could steer it is spelled as an escape (RFC 8259, 7).
pub fn json_for_terminal(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if steers(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// A line of somebody else's making, without what could steer a terminal, and not too long.
pub fn printable(line: &str) -> String {
    // What has no width has bytes.
    cut_bytes(&cut(line, LONGEST), 4 * LONGEST)
}

/// Controls, and what turns the direction of a text, joins, hides or ends it (Unicode's categories C and Z, as std prints
/// text for people who debug); a mark that combines with the letter before it does none of that.
fn steers(c: char) -> bool {
    let mut pair = [b'a'; 5];
    let length = 1 + c.encode_utf8(&mut pair[1..]).len();
    let pair = std::str::from_utf8(&pair[..length]).unwrap_or("\0");
    !matches!(c, '\\' | '"' | '\'') && pair.escape_debug().nth(1) == Some('\\')
}

/// How wide the standard output is, in columns: the terminal's width, or what `COLUMNS` says.
pub fn columns() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let stdout = io::stdout();
    let terminal = || stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten();
    asked.or_else(|| terminal().map(|size| size.ws_col.into())).filter(|columns| *columns > 0).unwrap_or(WIDE)
}

/// An empty table without rules.
pub fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// A table of which one column is cut to what the others leave of the screen.
pub fn fitted(header: &[&str], mut rows: Vec<Vec<String>>, flexible: usize, columns: usize) -> String {
    let widest = |at: usize| rows.iter().map(|row| row[at].width()).chain([header[at].width()]).max().unwrap_or(0) + 2;
    let others: usize = (0..header.len()).filter(|at| *at != flexible).map(widest).sum();
    let left = columns.saturating_sub(others + 2).max(8);
    let mut table = table(header.iter().copied());
    for row in &mut rows {
        row[flexible] = cut(&row[flexible], left);
    }
    table.add_rows(rows);
    lines(&table)
}

/// Its lines, without what pads them to the right.
pub fn lines(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A text that may be too long for so many columns, or steer a terminal.
pub fn cut(text: &str, columns: usize) -> String {
    let text = without_controls(&text.replace('\n', " "));
    if text.width() <= columns {
        return text;
    }
    let mut width = 1;
    let fits = |c: &char| {
        width += c.width().unwrap_or(0);
        width <= columns
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// The beginning of a text, at most so many bytes of it.
pub fn cut_bytes(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = (0..=bytes.saturating_sub('…'.len_utf8())).rev().find(|at| text.is_char_boundary(*at));
    format!("{}…", &text[..end.unwrap_or(0)])
}

/// Breaks a line between words, and indents what follows.
pub fn wrap(line: &str, columns: usize, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut length = 0;
    let new_line = format!("\n{}", " ".repeat(indent));
    for (at, word) in line.split(' ').enumerate() {
        if at > 0 && length + 1 + word.width() > columns && length > indent {
            wrapped.push_str(&new_line);
            length = indent;
        } else if at > 0 {
            wrapped.push(' ');
            length += 1;
        }
        for c in word.chars() {
            // A word may be longer than a line.
            let width = c.width().unwrap_or(0);
            if length + width > columns && columns > indent + 1 {
                wrapped.push_str(&new_line);
                length = indent;
            }
            length += width;
            wrapped.push(c);
        }
    }
    wrapped
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Letters of all widths and directions, and what would steer a terminal.
    pub(crate) fn odd(length: usize) -> String {
        "v1 漢字 🎉 نسخة e\u{301}\u{202e}\u{1b}[31m\u{200b}".chars().cycle().take(length).collect()
    }

    pub(crate) fn screens(render: impl Fn(usize) -> String) -> String {
        let screen = |columns| format!("{columns} columns\n\n{}\n", render(columns));
        let text = screen(80) + "\n" + &screen(200);
        for (columns, part) in [(80, text.split("\n200 columns").next().unwrap()), (200, &text)] {
            let widest = part.lines().map(UnicodeWidthStr::width).max().unwrap();
            assert!(widest <= columns, "{widest} of {columns}:\n{part}");
        }
        text
    }

    const ODD: &str = "a\u{1b}[2J\u{7}\u{202e}b\u{200b}\u{2028}\u{e0041}c\u{85}";

    #[test]
    fn nothing_that_steers_a_terminal_or_turns_a_text_is_printed() {
        assert_eq!(without_controls(ODD), "a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}\u{fffd}\u{fffd}c\u{fffd}");
        let text = "e\u{301}t \"é\" 'ß' \\ 漢字 नमस्ते 🎉\nnext";
        assert_eq!(without_controls(text), text);
    }

    #[test]
    fn json_for_a_terminal_has_the_same_value() {
        let json = serde_json::to_string_pretty(&[ODD]).unwrap();
        let shown = json_for_terminal(&json);
        assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [ODD]);
        assert!(shown.chars().all(|c| c == '\n' || !steers(c)), "{shown}");
    }

    #[test]
    fn a_text_is_cut_and_wrapped_by_its_width() {
        assert_eq!(cut("漢字漢字", 5), "漢字…");
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut_bytes("漢字漢字", 10), "漢字…");
        for columns in [20, 21, 80] {
            let wrapped = wrap(&format!("name {} and more words", "漢".repeat(60)), columns, 4);
            assert!(wrapped.lines().all(|line| line.width() <= columns), "{wrapped}");
            assert_eq!(wrapped.matches('漢').count(), 60);
        }
    }
}
