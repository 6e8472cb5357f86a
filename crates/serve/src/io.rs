//! What a connection reads and writes: never past the message that is under way, and with an end that loses nothing.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep, timeout},
};

use crate::{
    drain::{Open, Watch},
    exchange::{Exchange, Wants},
    frames::{Frames, Next, PREFACE},
    head::Head,
    stream::Stream,
};

/// How long a request's head may take from its first byte on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the end of the client's bytes is waited for after ours.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// How long a PONG is kept from hyper once the instance retires.
const PONG_HOLD: Duration = Duration::from_millis(100);
/// What is read at once where hyper does not say how much it takes.
const CHUNK: usize = 16 * 1024;

/// What hyper reads and writes.
///
/// Its shutdown is a half-close that then reads to the client's end: closing with unread bytes would send a reset, and a
/// reset can take the response with it that the client has not read yet.
#[derive(Debug)]
pub(crate) struct Io {
    /// Read from the socket, and not yet by hyper.
    ahead: BytesMut,
    reading: Reading,
    stream: Arc<Stream>,
    exchange: Arc<Exchange>,
    watch: Watch,
    closing: Option<Closing>,
    /// The connection counts as open, and the drain waits for it, as long as this lives; after an upgrade too.
    _open: Open,
}

/// What the bytes are.
#[derive(Debug)]
enum Reading {
    /// A head is given to hyper to its end and no further, a body to its end, and what follows when its turn has come.
    Http1 { head: Head, until: Option<Pin<Box<Sleep>>> },
    /// hyper ends a connection when the PONG for its GOAWAY arrives, and refuses the streams after it. A client's PONG goes
    /// before the streams that it has queued (drain.md), so while the instance retires PONGs are put behind them.
    Http2 { frames: Frames, passed: BytesMut, pongs: BytesMut, until: Option<Pin<Box<Sleep>>> },
}

impl Reading {
    fn http1() -> Self {
        Self::Http1 { head: Head::default(), until: None }
    }

    fn http2() -> Self {
        Self::Http2 { frames: Frames::default(), passed: BytesMut::new(), pongs: BytesMut::new(), until: None }
    }
}

#[derive(Debug)]
struct Closing {
    until: Pin<Box<Sleep>>,
    late_bytes: u64,
}

/// What the first bytes of a connection tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Io {
    pub(crate) fn new(stream: Stream, watch: Watch, open: Open) -> Self {
        let (stream, exchange) = (Arc::new(stream), open.exchange());
        Self { ahead: BytesMut::new(), reading: Reading::http1(), stream, exchange, watch, closing: None, _open: open }
    }

    /// The socket itself, to look at.
    pub(crate) fn stream(&self) -> Arc<Stream> {
        self.stream.clone()
    }

    /// Where the connection is in its exchange of messages.
    pub(crate) fn exchange(&self) -> Arc<Exchange> {
        self.exchange.clone()
    }

    /// Tells the protocol by the first bytes, which hyper reads again; `None` if the client ends first, or sends nothing for
    /// as long as `idle`. Cancel safe.
    pub(crate) async fn sniff(&mut self, idle: Duration) -> Option<Protocol> {
        let mut limit = idle;
        loop {
            let (stream, ahead) = (&self.stream, &mut self.ahead);
            let read = poll_fn(|context| {
                stream.poll_read(context, CHUNK, |bytes| {
                    ahead.extend_from_slice(bytes);
                    bytes.len()
                })
            });
            let read = timeout(limit, read).await.ok()?.ok()?;
            self.exchange.set_partial(!self.ahead.is_empty());
            match protocol_of(&self.ahead) {
                Some(Protocol::Http2) => {
                    self.reading = Reading::http2();
                    self.exchange.set_partial(false);
                    return Some(Protocol::Http2);
                }
                None if read == 0 => return None,
                None => limit = HEAD_TIMEOUT,
                http1 => return http1,
            }
        }
    }

    fn poll_http1(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Reading::Http1 { head, until } = &mut self.reading else { return Poll::Ready(Ok(())) };
        let wants = self.exchange.wants();
        let most = match wants {
            Wants::Head | Wants::Raw => buffer.remaining(),
            Wants::Body(left) => buffer.remaining().min(usize::try_from(left).unwrap_or(usize::MAX)),
            // What belongs to the next message waits where it is; hyper asks again when this one has ended.
            Wants::Nothing if !self.ahead.is_empty() => return Poll::Pending,
            Wants::Nothing => {
                return match ready!(self.stream.poll_peek(context))? {
                    0 => Poll::Ready(Ok(())),
                    _ => Poll::Pending,
                };
            }
        };
        // What belongs to a next message comes back as the rest.
        let mut give = |bytes: &[u8]| {
            let end = if wants == Wants::Head { head.end(bytes) } else { None };
            let (given, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            buffer.put_slice(given);
            (given.len(), end.is_some(), BytesMut::from(rest))
        };
        let (given, ended) = if self.ahead.is_empty() {
            let read = self.stream.poll_read(context, most, give);
            if read.is_pending() && until.as_mut().is_some_and(|until| until.as_mut().poll(context).is_ready()) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the head took too long")));
            }
            let (given, ended, rest) = ready!(read)?;
            self.ahead = rest;
            (given, ended)
        } else {
            let mut bytes = self.ahead.split_to(most.min(self.ahead.len()));
            let (given, ended, _) = give(&bytes);
            bytes.advance(given);
            bytes.unsplit(std::mem::take(&mut self.ahead));
            self.ahead = bytes;
            (given, ended)
        };
        match wants {
            Wants::Head => {
                self.exchange.set_partial(ended || head.has_begun());
                if !head.has_begun() {
                    *until = None;
                } else if until.is_none() {
                    *until = Some(Box::pin(sleep(HEAD_TIMEOUT)));
                }
            }
            _ => self.exchange.took(given),
        }
        self.exchange.set_ahead(!self.ahead.is_empty());
        Poll::Ready(Ok(()))
    }

    fn poll_http2(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Reading::Http2 { frames, passed, pongs, until } = &mut self.reading else { return Poll::Ready(Ok(())) };
        loop {
            if !passed.is_empty() {
                let length = passed.len().min(buffer.remaining());
                buffer.put_slice(&passed.split_to(length));
                return Poll::Ready(Ok(()));
            }
            let due = until.as_mut().is_some_and(|until| until.as_mut().poll(context).is_ready());
            if due && frames.at_boundary() {
                (*passed, *until) = (std::mem::take(pongs), None);
                continue;
            }
            match frames.next(&self.ahead) {
                Next::Pass(length) => *passed = self.ahead.split_to(length),
                Next::Pong(length) if self.watch.is_retiring() => {
                    pongs.extend_from_slice(&self.ahead.split_to(length));
                    until.get_or_insert_with(|| Box::pin(sleep(PONG_HOLD)));
                }
                Next::Pong(length) => *passed = self.ahead.split_to(length),
                Next::Wait => {
                    let before = self.ahead.len();
                    ready!(self.stream.poll_read(context, CHUNK, |bytes| self.ahead.extend_from_slice(bytes)))?;
                    if self.ahead.len() == before {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closing = match &mut self.closing {
            Some(closing) => closing,
            none => {
                self.stream.half_close()?;
                none.insert(Closing { until: Box::pin(sleep(LINGER)), late_bytes: 0 })
            }
        };
        loop {
            match self.stream.poll_read(context, CHUNK, <[u8]>::len) {
                Poll::Ready(Ok(read)) if read > 0 => closing.late_bytes += read as u64,
                Poll::Ready(_) => break,
                Poll::Pending if closing.until.as_mut().poll(context).is_pending() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        // HTTP/2 goes on to speak of windows and settings; what it had to say was refused by GOAWAY, and is safe to repeat.
        if closing.late_bytes > 0 && matches!(self.reading, Reading::Http1 { .. }) {
            self.watch.count_late_bytes(closing.late_bytes);
        }
        Poll::Ready(Ok(()))
    }
}

fn protocol_of(bytes: &[u8]) -> Option<Protocol> {
    let compared = bytes.len().min(PREFACE.len());
    if bytes[..compared] != PREFACE[..compared] {
        return Some(Protocol::Http1);
    }
    (compared == PREFACE.len()).then_some(Protocol::Http2)
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.reading {
            Reading::Http1 { .. } => self.poll_http1(context, buffer),
            Reading::Http2 { .. } => self.poll_http2(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_write(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_told_as_soon_as_it_can_be() {
        assert_eq!(protocol_of(b"G"), Some(Protocol::Http1));
        assert_eq!(protocol_of(b"P"), None, "POST or the preface");
        assert_eq!(protocol_of(b"PO"), Some(Protocol::Http1));
        assert_eq!(protocol_of(PREFACE), Some(Protocol::Http2));
        assert_eq!(protocol_of(&PREFACE[..23]), None);
    }
}
