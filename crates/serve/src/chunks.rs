//! Where a chunked body ends.

/// Scans a body in chunks (RFC 9112, 7.1) as it arrives, so that a connection never reads past it.
///
/// It takes what hyper takes, byte by byte: one of them that found an end where the other does not would take a body for a
/// request, or a request for a body. What hyper refuses has no end here: hyper is given all of it, and ends the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Chunks {
    #[default]
    Before,
    /// Within the digits of a size.
    Size(u64),
    Space(u64),
    Extension(u64),
    SizeReturn(u64),
    Data(u64),
    DataEnd,
    DataReturn,
    /// After the last chunk: an empty line ends the body, any other is a trailer.
    Line,
    Trailer,
    TrailerReturn,
    EndReturn,
    Refused,
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
        let digit = char::from(byte).to_digit(16).map(u64::from);
        match (self, byte) {
            (Self::Before, _) => digit.map_or(Self::Refused, Self::Size),
            (Self::Size(size) | Self::Space(size) | Self::Extension(size), b'\r') => Self::SizeReturn(size),
            (Self::Size(size) | Self::Space(size), b'\t' | b' ') => Self::Space(size),
            (Self::Size(size) | Self::Space(size), b';') => Self::Extension(size),
            (Self::Size(size), _) => match (digit, size.checked_mul(16)) {
                (Some(digit), Some(size)) => Self::Size(size + digit),
                _ => Self::Refused,
            },
            (Self::Extension(_), b'\n') => Self::Refused,
            (Self::Extension(size), _) => Self::Extension(size),
            (Self::SizeReturn(0), b'\n') => Self::Line,
            (Self::SizeReturn(size), b'\n') => Self::Data(size),
            (Self::DataEnd, b'\r') => Self::DataReturn,
            (Self::DataReturn, b'\n') => Self::Before,
            (Self::Line, b'\r') => Self::EndReturn,
            (Self::Trailer, b'\r') => Self::TrailerReturn,
            (Self::Line | Self::Trailer, _) => Self::Trailer,
            (Self::TrailerReturn, b'\n') => Self::Line,
            (Self::Data(left), _) => Self::Data(left),
            _ => Self::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{pending, poll_fn},
        pin::Pin,
        sync::mpsc,
        task::Poll,
    };

    use axum::body::Body;
    use http_body::Body as _;
    use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

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

    #[test]
    fn a_lone_line_feed_ends_no_trailer_and_a_request_is_no_size() {
        let ends = |body: &[u8]| Chunks::default().end(body);
        assert_eq!(ends(b"0\r\nX: a\n\r\n"), None);
        assert_eq!(ends(b"0\r\nX: a\n\r\n\r\n"), Some(12));
        assert_eq!(ends(b"DELETE /x HTTP/1.1\r\n\r\n"), None);
    }

    #[derive(Debug, PartialEq)]
    enum Found {
        End(usize),
        Refused,
        Waits,
    }

    /// What hyper makes of a body.
    #[tokio::main(flavor = "current_thread")]
    async fn by_hyper(body: &[u8]) -> Found {
        let (mut client, server) = tokio::io::duplex(4096);
        let head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(&[head.as_slice(), body].concat()).await.unwrap();
        let (ended, is_ended) = mpsc::channel();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let ended = ended.clone();
            Box::pin(async move {
                while let Some(frame) = poll_fn(|context| Pin::new(request.body_mut()).poll_frame(context)).await {
                    if frame.is_err() {
                        ended.send(false).unwrap();
                        return pending().await;
                    }
                }
                ended.send(true).unwrap();
                // With a response, hyper would go on to what follows.
                pending::<Result<Response<Body>, Infallible>>().await
            })
        });
        let mut connection = http1::Builder::new().serve_connection(TokioIo::new(server), service);
        // Everything has arrived: a few turns bring it to rest.
        for _ in 0..body.len() + 4 {
            let ends = poll_fn(|context| Poll::Ready(connection.poll_without_shutdown(context).is_ready())).await;
            match is_ended.try_recv() {
                Ok(true) => return Found::End(body.len() - connection.into_parts().read_buf.len()),
                Ok(false) => return Found::Refused,
                Err(_) if ends => return Found::Refused,
                Err(_) => {}
            }
        }
        Found::Waits
    }

    proptest! {
        #[test]
        fn an_end_is_where_hyper_finds_it(
            parts in proptest::collection::vec(
                prop::sample::select(vec![
                    "0", "1", "a", "F", " ", "\t", ";", "x", ":", "\r", "\n", "\r\n", "0\r\n", "1\r\nx\r\n", "X: y\r\n", "\r\n\r\n",
                ]),
                0..12,
            ),
        ) {
            let body = parts.concat();
            match (Chunks::default().end(body.as_bytes()), by_hyper(body.as_bytes())) {
                (Some(ours), Found::End(its)) => prop_assert_eq!(ours, its),
                // hyper reads the trailers once it has found their end.
                (Some(_), Found::Refused) | (None, Found::Refused | Found::Waits) => {}
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
