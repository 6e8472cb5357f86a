//! Where an HTTP/1 head ends.

use memchr::memchr;

/// The largest head, in bytes; a request with a larger one is answered 431.
pub(crate) const LIMIT: usize = 64 * 1024;

/// Scans heads as they arrive, so that a connection never reads past one.
///
/// A head ends with an empty line (RFC 9112, 2.1). A lone LF ends a line too, and empty lines before the first are skipped
/// (2.2), as hyper's parser takes them.
#[derive(Debug, Default)]
pub(crate) struct Head {
    at: At,
    /// Its bytes so far.
    taken: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum At {
    #[default]
    Before,
    Line,
    LineStart,
    Return,
}

impl Head {
    /// Takes what has arrived; where the head ends within it, says after how many bytes, and begins anew.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut position = 0;
        while let Some(byte) = bytes.get(position) {
            position += 1;
            self.at = match (self.at, byte) {
                (At::Before, b'\r' | b'\n') => continue,
                (At::LineStart | At::Return, b'\n') => {
                    *self = Self::default();
                    return Some(position);
                }
                (At::LineStart, b'\r') => At::Return,
                (_, b'\n') => At::LineStart,
                // Of the rest of a line only its end matters.
                _ => {
                    let rest = memchr(b'\n', &bytes[position..]).unwrap_or(bytes.len() - position);
                    self.taken += rest;
                    position += rest;
                    At::Line
                }
            };
            self.taken += 1;
        }
        None
    }

    /// How much more of it may be read. hyper asks for more than its limit before it looks whether a head is whole; given
    /// no more than that, it refuses each head that has not ended by then.
    pub(crate) fn room(&self) -> usize {
        LIMIT.saturating_sub(self.taken)
    }

    /// Whether a part of a head has arrived.
    pub(crate) fn has_begun(&self) -> bool {
        self.at != At::Before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_where_it_ends_however_it_is_cut() {
        let (heads, second) = (b"\r\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\nHost: h\n\n", 30);
        for cut in 0..heads.len() {
            let (mut head, mut ends) = (Head::default(), Vec::new());
            for (offset, part) in [(0, &heads[..cut]), (cut, &heads[cut..])] {
                let mut from = 0;
                while let Some(end) = head.end(&part[from..]) {
                    from += end;
                    ends.push(offset + from);
                }
            }
            assert_eq!(ends, [second, heads.len()], "cut at {cut}");
            assert!(!head.has_begun());
        }
    }

    #[test]
    fn half_a_head_has_begun_and_empty_lines_have_not() {
        let mut head = Head::default();
        assert!(head.end(b"\r\n").is_none() && !head.has_begun());
        assert!(head.end(b"GET / HT").is_none() && head.has_begun());
    }
}
