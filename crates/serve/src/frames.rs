//! Where HTTP/2 frames begin, and which of them are PONGs.

/// What a connection begins with (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame's header: length, type, flags, stream (RFC 9113, 4.1).
const HEADER: usize = 9;
/// A PING frame with the ACK flag, and its eight bytes (RFC 9113, 6.7).
const PONG: usize = HEADER + 8;
/// RFC 9113, 6.2 and 6.10.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the frames of a connection, from its preface on.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Of the frame that has begun.
    left: usize,
    /// Its header block goes on in the next frame, and nothing may come between (RFC 9113, 4.3).
    in_headers: bool,
}

/// What to do with the bytes that have arrived.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// So many are of a frame that may go on.
    Pass(usize),
    /// So many are a whole PONG.
    Pong(usize),
    /// The next frame cannot be told yet.
    Wait,
}

impl Default for Frames {
    fn default() -> Self {
        Self { left: PREFACE.len(), in_headers: false }
    }
}

impl Frames {
    /// Looks at what comes next; it counts as taken.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Next {
        if self.left == 0 {
            let [a, b, c, kind, flags, ..] = *bytes else { return Next::Wait };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if (kind, flags & 1, length) == (6, 1, 8) {
                return if bytes.len() < PONG { Next::Wait } else { Next::Pong(PONG) };
            }
            self.left = HEADER + length;
            if matches!(kind, HEADERS | CONTINUATION) {
                self.in_headers = flags & END_HEADERS == 0;
            }
        }
        let taken = self.left.min(bytes.len());
        self.left -= taken;
        if taken == 0 { Next::Wait } else { Next::Pass(taken) }
    }

    /// Whether a frame could be put in here.
    pub(crate) fn at_boundary(&self) -> bool {
        self.left == 0 && !self.in_headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_put_into_a_header_block() {
        let mut frames = Frames::default();
        assert_eq!(frames.next(PREFACE), Next::Pass(PREFACE.len()));
        let frame = |kind, flags| [0, 0, 1, kind, flags, 0, 0, 0, 1, 0];
        for (frame, at_boundary) in
            [(frame(1, 1), false), (frame(9, 0), false), (frame(9, 4), true), (frame(0, 0), true)]
        {
            assert_eq!(frames.next(&frame), Next::Pass(frame.len()));
            assert_eq!(frames.at_boundary(), at_boundary, "{frame:?}");
        }
    }

    #[test]
    fn a_pong_is_found_between_frames_however_they_are_cut() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        // A DATA frame whose payload looks like a PONG's header.
        let data = [0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 0, 8, 6, 1, 0, 0, 0, 0];
        let pong = [0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let bytes = [PREFACE, &settings, &data, &pong, &settings].concat();
        for cut in 0..=bytes.len() {
            let (mut frames, mut waiting, mut passed, mut pongs) = (Frames::default(), Vec::new(), Vec::new(), 0);
            for part in [&bytes[..cut], &bytes[cut..]] {
                waiting.extend_from_slice(part);
                loop {
                    match frames.next(&waiting) {
                        Next::Pass(length) => passed.extend(waiting.drain(..length)),
                        Next::Pong(length) => {
                            assert!(frames.at_boundary());
                            assert_eq!(waiting.drain(..length).collect::<Vec<_>>(), pong);
                            pongs += 1;
                        }
                        Next::Wait => break,
                    }
                }
            }
            assert_eq!((pongs, passed), (1, [PREFACE, &settings, &data, &settings].concat()), "cut at {cut}");
        }
    }
}
