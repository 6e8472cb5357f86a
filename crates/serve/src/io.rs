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
    time::{Instant, Sleep, sleep},
};

use crate::{
    chunks::Chunks,
    counts::{Alive, Open},
    drain::Watch,
    exchange::{Exchange, Wants},
    frames::{Frames, Next, PREFACE},
    head::Head,
    parked::Parked,
    stream::{Peer, Stream},
};

/// How long the client may be silent after our end, and not end itself.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// How long it may take to its end.
const LINGER_MOST: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what is sent to it.
const STUCK: Duration = Duration::from_secs(60);
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
    /// When a client that takes nothing is given up.
    stuck: Option<Pin<Box<Sleep>>>,
    /// Its end, and whether what comes then may be lost.
    closing: Option<(Closing, bool)>,
    /// The connection counts as open, and the drain waits for it, as long as this lives; after an upgrade too.
    open: Open,
}

/// What the bytes are.
#[derive(Debug)]
enum Reading {
    /// A head is given to hyper to its end and no further, a body to its end, and what follows when its turn has come.
    Http1 { head: Head, chunks: Chunks },
    /// hyper ends a connection when the PONG for its GOAWAY arrives, and refuses the streams after it. A client's PONG goes
    /// before the streams that it has queued, so while the instance retires PONGs are put behind them.
    Http2 { frames: Frames, passed: BytesMut, pongs: BytesMut, until: Option<Pin<Box<Sleep>>> },
}

impl Reading {
    fn http1() -> Self {
        Self::Http1 { head: Head::default(), chunks: Chunks::default() }
    }

    fn http2() -> Self {
        Self::Http2 { frames: Frames::default(), passed: BytesMut::new(), pongs: BytesMut::new(), until: None }
    }
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
        exchange.set_head_since(head_since);
        exchange.set_ahead(!ahead.is_empty());
        Self {
            ahead,
            fresh,
            reading: Reading::http1(),
            stream,
            peer,
            exchange,
            watch,
            stuck: None,
            closing: None,
            open,
        }
    }

    /// Takes the connection out of the runtime, with what `read` has been read of its next head. At a boundary of messages,
    /// and when nobody else holds the stream any more; else there is nothing to park.
    pub(crate) fn park(self, read: &[u8]) -> Option<Parked> {
        let Reading::Http1 { .. } = self.reading else { return None };
        let head_since = self.exchange.head_since();
        let mut ahead = BytesMut::from(read);
        ahead.unsplit(self.ahead);
        let socket = Arc::into_inner(self.stream)?.park().ok()?;
        Some(Parked { socket, peer: self.peer, ahead, fresh: self.fresh, head_since, open: self.open })
    }

    /// Which of the instance's connections it is.
    pub(crate) fn id(&self) -> u64 {
        self.open.id()
    }

    /// Held until its end, it makes the drain wait, whatever becomes of this.
    pub(crate) fn alive(&self) -> Alive {
        self.open.alive()
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

    /// Returns when the client has said what hyper is to read, in which protocol; `None` if it ends first. Cancel safe.
    pub(crate) async fn spoken(&mut self) -> Option<Protocol> {
        if self.fresh { self.sniff().await } else { self.goes_on().await.then_some(Protocol::Http1) }
    }

    /// Tells the protocol by the first bytes, which hyper reads again.
    async fn sniff(&mut self) -> Option<Protocol> {
        loop {
            if let Some(protocol) = protocol_of(&self.ahead) {
                self.fresh = false;
                if protocol == Protocol::Http2 {
                    self.reading = Reading::http2();
                    self.exchange.set_partial(false);
                }
                return Some(protocol);
            }
            let (stream, ahead) = (&self.stream, &mut self.ahead);
            let read = poll_fn(|context| {
                stream.poll_read(context, CHUNK, |bytes| {
                    ahead.extend_from_slice(bytes);
                    bytes.len()
                })
            });
            let read = read.await.ok()?;
            self.exchange.set_partial(!self.ahead.is_empty());
            if read == 0 {
                return None;
            }
        }
    }

    /// Whether there is more to read, as soon as that is known. Nothing is read.
    async fn goes_on(&self) -> bool {
        !self.ahead.is_empty() || poll_fn(|context| self.stream.poll_peek(context)).await.is_ok_and(|bytes| bytes > 0)
    }

    fn poll_http1(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Reading::Http1 { head, chunks } = &mut self.reading else { return Poll::Ready(Ok(())) };
        let wants = self.exchange.wants();
        if matches!(wants, Wants::Head | Wants::Nothing) {
            self.exchange.set_caught_up();
        }
        let most = match wants {
            Wants::Head => buffer.remaining().min(head.room()),
            Wants::Chunks | Wants::Raw => buffer.remaining(),
            Wants::Body(left) => buffer.remaining().min(usize::try_from(left).unwrap_or(usize::MAX)),
            // What belongs to the next message waits where it is, until this one has ended; but a client that has gone is told.
            Wants::Nothing => {
                if self.ahead.is_empty() && ready!(self.stream.poll_peek(context))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                self.exchange.reads_later(context);
                return Poll::Pending;
            }
        };
        let mut give = |bytes: &[u8]| {
            let end = match wants {
                Wants::Head => head.end(bytes),
                Wants::Chunks => chunks.end(bytes),
                _ => None,
            };
            let given = end.unwrap_or(bytes.len());
            buffer.put_slice(&bytes[..given]);
            (given, end.is_some())
        };
        let (stream, ahead) = (&self.stream, &mut self.ahead);
        let (given, ended) = if ahead.is_empty() {
            ready!(stream.poll_read(context, most, |bytes| {
                let (given, ended) = give(bytes);
                // What belongs to a next message.
                ahead.extend_from_slice(&bytes[given..]);
                (given, ended)
            }))?
        } else {
            let (given, ended) = give(&ahead[..most.min(ahead.len())]);
            ahead.advance(given);
            if ahead.is_empty() {
                // An idle connection keeps no buffer.
                *ahead = BytesMut::new();
            }
            (given, ended)
        };
        match wants {
            Wants::Head if ended => self.exchange.head_ended(),
            Wants::Head => self.exchange.set_partial(head.has_begun()),
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

    /// HTTP/2 writes of itself, and of streams that come and go.
    fn set_writing(&self) {
        if let Reading::Http1 { .. } = self.reading {
            self.exchange.set_writing();
        }
    }

    /// One that does not take what it asked for would hold its place for ever.
    fn poll_send(&mut self, context: &mut Context<'_>, buffers: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.set_writing();
        let sent = self.stream.poll_write(context, buffers);
        if sent.is_ready() {
            self.stuck = None;
            return sent;
        }
        ready!(self.stuck.get_or_insert_with(|| Box::pin(sleep(STUCK))).as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closing = match &mut self.closing {
            Some(closing) => closing,
            none => {
                self.stream.half_close()?;
                // The rest of a message that was refused is not lost: it has had its answer. HTTP/2 goes on to speak of windows
                // and settings; what it had to say was refused by GOAWAY, and is safe to repeat.
                let is_late = matches!(self.reading, Reading::Http1 { .. }) && self.exchange.is_between_messages();
                none.insert((Closing::new(), is_late))
            }
        };
        let (closing, is_late) = closing;
        ready!(closing.poll(context, &self.stream));
        if *is_late && closing.bytes > 0 {
            self.watch.count_late_bytes(closing.bytes);
        }
        Poll::Ready(Ok(()))
    }
}

/// The end of a connection: what still comes is read, or the kernel would answer it with a reset, and the client might lose
/// what it has not read yet (RFC 9112, 9.6).
#[derive(Debug)]
struct Closing {
    until: Pin<Box<Sleep>>,
    most: Instant,
    bytes: u64,
}

impl Closing {
    fn new() -> Self {
        Self { until: Box::pin(sleep(LINGER)), most: Instant::now() + LINGER_MOST, bytes: 0 }
    }

    /// Ready when its client has ended it, too, or is silent, or time is up.
    fn poll(&mut self, context: &mut Context<'_>, stream: &Stream) -> Poll<()> {
        loop {
            match stream.poll_read(context, CHUNK, <[u8]>::len) {
                Poll::Ready(Ok(read)) if read > 0 && Instant::now() < self.most => {
                    self.bytes += read as u64;
                    self.until.as_mut().reset((Instant::now() + LINGER).min(self.most));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.until.as_mut().poll(context),
            }
        }
    }
}

/// Ends a connection that nobody else does.
pub(crate) async fn linger(stream: &Stream) -> io::Result<()> {
    stream.half_close()?;
    let mut closing = Closing::new();
    poll_fn(|context| closing.poll(context, stream)).await;
    Ok(())
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
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls it when it has written all that it had.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.exchange.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.exchange.is_upgraded() {
            // What comes is whose it is upgraded for.
            return Poll::Ready(self.stream.half_close());
        }
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
