//! Where a chunked body ends.

/// Scans a body in chunks (RFC 9112, 7.1) as it arrives, so that a connection never reads past it.
///
/// It finds the end of every body that hyper takes; one that hyper refuses may have none, and its connection ends anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Chunks {
    #[default]
    Before,
    /// Within the digits of a size.
    Size(u64),
    Extension(u64),
    SizeReturn(u64),
    Data(u64),
    DataEnd,
    DataReturn,
    /// After the last chunk: an empty line ends the body, any other is a trailer.
    Line,
    Trailer,
    EndReturn,
}

impl Chunks {
    /// Takes what has arrived; where the body ends within it, says after how many bytes, and begins anew.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut position = 0;
        while let Some(byte) = bytes.get(position) {
            if let Self::Data(left) = *self {
                let taken = left.min((bytes.len() - position) as u64);
                *self = if taken == left { Self::DataEnd } else { Self::Data(left - taken) };
                position += taken as usize;
                continue;
            }
            position += 1;
            if (*self, *byte) == (Self::EndReturn, b'\n') {
                *self = Self::Before;
                return Some(position);
            }
            *self = self.after(*byte);
        }
        None
    }

    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Before, _) => Self::Size(digit(byte)),
            (Self::Size(size) | Self::Extension(size), b'\r') => Self::SizeReturn(size),
            (Self::Size(size), _) if byte.is_ascii_hexdigit() => Self::Size((size << 4) | digit(byte)),
            (Self::Size(size) | Self::Extension(size), _) => Self::Extension(size),
            (Self::SizeReturn(0), _) => Self::Line,
            (Self::SizeReturn(size), _) => Self::Data(size),
            (Self::DataEnd, _) => Self::DataReturn,
            (Self::DataReturn, _) => Self::Before,
            (Self::Line, b'\r') => Self::EndReturn,
            (Self::Trailer | Self::EndReturn, b'\n') => Self::Line,
            (Self::Line | Self::Trailer | Self::EndReturn, _) => Self::Trailer,
            (Self::Data(left), _) => Self::Data(left),
        }
    }
}

fn digit(byte: u8) -> u64 {
    char::from(byte).to_digit(16).unwrap_or(0).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_where_it_ends_however_it_is_cut() {
        let body = b"4;name=\"value\"\r\nWiki\r\n0A \r\n0\r\n\r\nabcde\r\n000\r\nTrailer: x\r\nAnother: y\r\n\r\n";
        let stream = [body.as_slice(), b"1\r\nx\r\n0\r\n\r\n", b"GET /"].concat();
        let ends = [body.len(), body.len() + 11];
        for cut in 0..stream.len() {
            let (mut chunks, mut found) = (Chunks::default(), Vec::new());
            for (offset, part) in [(0, &stream[..cut]), (cut, &stream[cut..])] {
                let mut from = 0;
                while found.len() < ends.len()
                    && let Some(end) = chunks.end(&part[from..])
                {
                    from += end;
                    found.push(offset + from);
                }
            }
            assert_eq!(found, ends, "cut at {cut}");
        }
    }

    #[test]
    fn a_size_beyond_any_measure_ends_nothing() {
        assert_eq!(Chunks::default().end(b"fffffffffffffffffffffffff\r\n0\r\n\r\n"), None);
    }
}
