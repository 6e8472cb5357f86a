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
    time::{Instant, Sleep, sleep, sleep_until, timeout_at},
};

use crate::{
    chunks::Chunks,
    drain::{Open, Watch},
    exchange::{Exchange, Wants},
    frames::{Frames, Next, PREFACE},
    head::Head,
    parked::{Parked, Received},
    stream::{Peer, Stream},
};

/// How long an idle connection is kept: longer than the 60 s for which balancers keep theirs, so that it is they who close.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
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
    /// Its protocol is not known yet.
    fresh: bool,
    reading: Reading,
    stream: Arc<Stream>,
    peer: Peer,
    exchange: Arc<Exchange>,
    watch: Watch,
    closing: Option<Closing>,
    /// The connection counts as open, and the drain waits for it, as long as this lives; after an upgrade too.
    open: Open,
}

/// What the bytes are.
#[derive(Debug)]
enum Reading {
    Http1(Http1),
    /// hyper ends a connection when the PONG for its GOAWAY arrives, and refuses the streams after it. A client's PONG goes
    /// before the streams that it has queued (drain.md), so while the instance retires PONGs are put behind them.
    Http2 {
        frames: Frames,
        passed: BytesMut,
        pongs: BytesMut,
        until: Option<Pin<Box<Sleep>>>,
    },
}

impl Reading {
    fn http2() -> Self {
        Self::Http2 { frames: Frames::default(), passed: BytesMut::new(), pongs: BytesMut::new(), until: None }
    }
}

/// A head is given to hyper to its end and no further, a body to its end, and what follows when its turn has come.
#[derive(Debug, Default)]
struct Http1 {
    head: Head,
    chunks: Chunks,
    /// When the first byte of a head arrived that is not whole.
    head_since: Option<Instant>,
    /// For the head, or for a connection that is idle. It may ring early: to set it at each request would cost more.
    clock: Option<Pin<Box<Sleep>>>,
}

impl Http1 {
    /// Ready once a head, or the silence before it, has lasted too long.
    fn poll_late(&mut self, context: &mut Context<'_>, idle_since: Instant) -> Poll<()> {
        let due = self.due(idle_since);
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < clock.deadline() {
            clock.as_mut().reset(due);
        }
        while clock.as_mut().poll(context).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            clock.as_mut().reset(due);
        }
        Poll::Pending
    }

    fn due(&self, idle_since: Instant) -> Instant {
        self.head_since.map_or_else(|| idle_since + IDLE_TIMEOUT, |since| since + HEAD_TIMEOUT)
    }

    /// Notes whether a part of a head is there.
    fn set_begun(&mut self, begun: bool) {
        self.head_since = begun.then(|| self.head_since.unwrap_or_else(Instant::now));
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
    /// What was accepted.
    pub(crate) fn new(stream: Stream, peer: Peer, watch: Watch, open: Open) -> Self {
        Self::whole(stream, peer, BytesMut::new(), true, None, watch, open)
    }

    /// Goes on with what another process sent.
    pub(crate) fn received(
        received: Received,
        fresh: bool,
        head_since: Option<Instant>,
        ahead: &[u8],
        watch: Watch,
        open: Open,
    ) -> Self {
        let Received { stream, peer } = received;
        Self::whole(stream, peer, ahead.into(), fresh, head_since, watch, open)
    }

    /// Goes on with what was parked.
    ///
    /// # Errors
    /// Where it cannot be registered with the runtime; then the connection is closed.
    pub(crate) fn resume(parked: Parked, watch: Watch) -> io::Result<Self> {
        let Parked { socket, peer, ahead, fresh, head_since, open } = parked;
        let stream = Stream::unpark(socket, &peer)?;
        Ok(Self::whole(stream, peer, ahead, fresh, head_since, watch, open))
    }

    fn whole(
        stream: Stream,
        peer: Peer,
        ahead: BytesMut,
        fresh: bool,
        head_since: Option<Instant>,
        watch: Watch,
        open: Open,
    ) -> Self {
        let (stream, exchange) = (Arc::new(stream), open.exchange());
        exchange.hold(false);
        exchange.set_partial(head_since.is_some());
        exchange.set_ahead(!ahead.is_empty());
        let reading = Reading::Http1(Http1 { head_since, ..Http1::default() });
        Self { ahead, fresh, reading, stream, peer, exchange, watch, closing: None, open }
    }

    /// Takes the connection out of the runtime, with what `read` has been read of its next head. At a boundary of messages,
    /// and when nobody else holds the stream any more; else there is nothing to park.
    pub(crate) fn park(self, read: &[u8]) -> Option<Parked> {
        let Reading::Http1(Http1 { head_since, .. }) = self.reading else { return None };
        let mut ahead = BytesMut::from(read);
        ahead.unsplit(self.ahead);
        let socket = Arc::into_inner(self.stream)?.park().ok()?;
        Some(Parked { socket, peer: self.peer, ahead, fresh: self.fresh, head_since, open: self.open })
    }

    /// Which of the instance's connections it is.
    pub(crate) fn id(&self) -> u64 {
        self.open.id()
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(crate) fn peer(&self) -> Peer {
        self.peer.clone()
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
    /// too long. Cancel safe.
    pub(crate) async fn sniff(&mut self) -> Option<Protocol> {
        loop {
            if let Some(protocol) = protocol_of(&self.ahead) {
                self.fresh = false;
                if protocol == Protocol::Http2 {
                    self.reading = Reading::http2();
                    self.exchange.set_partial(false);
                }
                return Some(protocol);
            }
            let Reading::Http1(http1) = &mut self.reading else { return Some(Protocol::Http2) };
            let (stream, ahead) = (&self.stream, &mut self.ahead);
            let read = poll_fn(|context| {
                stream.poll_read(context, CHUNK, |bytes| {
                    ahead.extend_from_slice(bytes);
                    bytes.len()
                })
            });
            let read = timeout_at(http1.due(self.exchange.idle_since()), read).await.ok()?.ok()?;
            http1.set_begun(!self.ahead.is_empty());
            self.exchange.set_partial(!self.ahead.is_empty());
            if read == 0 {
                return None;
            }
        }
    }

    fn poll_http1(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Reading::Http1(http1) = &mut self.reading else { return Poll::Ready(Ok(())) };
        let wants = self.exchange.wants();
        let most = match wants {
            Wants::Head | Wants::Chunks | Wants::Raw => buffer.remaining(),
            Wants::Body(left) => buffer.remaining().min(usize::try_from(left).unwrap_or(usize::MAX)),
            // What belongs to the next message waits where it is, until this one has ended; but a client that has gone is told.
            Wants::Nothing => {
                if self.ahead.is_empty() && ready!(self.stream.poll_peek(context))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                self.exchange.wake_reader(context);
                return Poll::Pending;
            }
        };
        let Http1 { head, chunks, .. } = http1;
        // What belongs to a next message comes back as the rest.
        let mut give = |bytes: &[u8]| {
            let end = match wants {
                Wants::Head => head.end(bytes),
                Wants::Chunks => chunks.end(bytes),
                _ => None,
            };
            let (given, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            buffer.put_slice(given);
            (given.len(), end.is_some(), BytesMut::from(rest))
        };
        let (given, ended) = if self.ahead.is_empty() {
            let read = self.stream.poll_read(context, most, give);
            if read.is_pending() && wants == Wants::Head {
                ready!(http1.poll_late(context, self.exchange.idle_since()));
                // A client that has sent nothing is told so by the end, as any other idle one.
                let late = io::Error::new(io::ErrorKind::TimedOut, "the head took too long");
                return Poll::Ready(if http1.head_since.is_some() { Err(late) } else { Ok(()) });
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
            Wants::Head if ended => {
                http1.set_begun(false);
                self.exchange.head_ended();
            }
            Wants::Head => {
                let begun = http1.head.has_begun();
                http1.set_begun(begun);
                self.exchange.set_partial(begun);
            }
            Wants::Chunks if ended => self.exchange.body_ended(),
            Wants::Chunks => {}
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
                Next::Pong(length) if self.watch.stage().is_retiring() => {
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
        if closing.late_bytes > 0 && matches!(self.reading, Reading::Http1(_)) {
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
            Reading::Http1(_) => self.poll_http1(context, buffer),
            Reading::Http2 { .. } => self.poll_http2(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.exchange.set_writing(true);
        self.stream.poll_write(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.exchange.set_writing(true);
        self.stream.poll_write(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls it when it has written all that it had.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.exchange.set_writing(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.exchange.set_closing();
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
