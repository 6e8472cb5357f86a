//! One connection of a client that never retries: raw HTTP/1.1, so that no pool hides a loss.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::outcome::Outcome;

/// Beyond the longest request that any mode makes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that is open.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// How long a byte takes to the other end, either way.
    wire: Duration,
    /// The server's end is on the wire: the client does not know yet.
    has_ended: bool,
    /// What has come of the response.
    received: Vec<u8>,
}

/// How one request went.
#[derive(Debug)]
pub struct Answer {
    /// Its one outcome.
    pub outcome: Outcome,
    /// The body of a whole response.
    pub body: Vec<u8>,
    /// Whether the connection can take another request.
    pub is_reusable: bool,
}

impl Answer {
    /// Nothing to read, and no connection any more.
    fn ended(outcome: Outcome) -> Self {
        Self { outcome, body: Vec::new(), is_reusable: false }
    }

    /// The same, lost unless its body is `right`.
    pub fn with_body(mut self, right: impl FnOnce(&[u8]) -> bool) -> Self {
        if self.outcome.is_answered() && !right(&self.body) {
            self.outcome = Outcome::WrongBody;
        }
        self
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// As connect(2).
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, wire: Duration::ZERO, has_ended: false, received: Vec::new() })
    }

    /// The same with `wire` between the two ends, each way.
    pub fn over(self, wire: Duration) -> Self {
        Self { wire, ..self }
    }

    /// Sends one GET and reads its response.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(&[&head("GET", path, "")], Duration::ZERO).await
    }

    /// Sends one GET whose head comes in two segments, `pause` apart.
    pub async fn get_in_two(&mut self, path: &str, pause: Duration) -> Answer {
        let head = head("GET", path, "");
        let (first, second) = head.split_at(head.len() / 2);
        self.send(&[first, second], pause).await
    }

    /// Sends `pieces` as one upload, `pause` apart.
    pub async fn upload(&mut self, path: &str, pieces: &[&[u8]], pause: Duration) -> Answer {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let head = head("POST", path, &format!("Content-Length: {length}\r\n"));
        let segments: Vec<&[u8]> = std::iter::once(head.as_slice()).chain(pieces.iter().copied()).collect();
        self.send(&segments, pause).await
    }

    /// Asks for events, and goes away after `time` unless the server has ended them; then their last must say why.
    pub async fn events(&mut self, path: &str, time: Duration) -> Answer {
        match timeout(time, self.exchange(&[&head("GET", path, "")], Duration::ZERO)).await {
            Ok(answer) => answer.with_body(|body| body.ends_with(b"event: retiring\nretry: 10\ndata: come back\n\n")),
            Err(_) if self.received.starts_with(b"HTTP/1.1 200") => Answer::ended(Outcome::Answered),
            Err(_) => Answer::ended(Outcome::TimedOut),
        }
    }

    /// Waits for `time` as a client with an idle connection does; says whether it learned that the server closed it.
    pub async fn is_closed_while_idle(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut byte = [0];
        tokio::select! {
            biased;
            // Anything at all ends it: an end, a reset, or bytes that nobody asked for.
            _ = self.stream.read(&mut byte) => self.has_ended = true,
            () = sleep_until(until) => return false,
        }
        let heard = Instant::now() + self.wire;
        sleep_until(heard.min(until)).await;
        heard <= until
    }

    /// One request in segments; one outcome.
    async fn send(&mut self, segments: &[&[u8]], pause: Duration) -> Answer {
        timeout(PATIENCE, self.exchange(segments, pause)).await.unwrap_or_else(|_| Answer::ended(Outcome::TimedOut))
    }

    async fn exchange(&mut self, segments: &[&[u8]], pause: Duration) -> Answer {
        self.travel().await;
        if self.has_ended {
            return Answer::ended(Outcome::Closed);
        }
        let (mut sent, mut first) = (Ok(()), true);
        for segment in segments {
            if !first {
                sleep(pause).await;
            }
            first = false;
            sent = self.stream.write_all(segment).await;
            if sent.is_err() {
                break;
            }
        }
        let answer = self.receive(sent).await;
        self.travel().await;
        answer
    }

    async fn travel(&self) {
        // Even a sleep of nothing takes a millisecond.
        if !self.wire.is_zero() {
            sleep(self.wire).await;
        }
    }

    /// Where sending failed the server may have answered before it closed: then that is the answer.
    async fn receive(&mut self, sent: io::Result<()>) -> Answer {
        self.received.clear();
        loop {
            match parse(&self.received) {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(()) => return Answer::ended(Outcome::WrongBody),
            }
            let error = match self.stream.read_buf(&mut self.received).await {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            let began = !self.received.is_empty();
            let error = if began { error } else { sent.err().unwrap_or(error) };
            return Answer::ended(Outcome::of_error(&error, began));
        }
    }
}

fn head(method: &str, path: &str, more: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: rig\r\n{more}\r\n").into_bytes()
}

/// A whole response, if it is there.
fn parse(bytes: &[u8]) -> Result<Option<Answer>, ()> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = response.parse(bytes).map_err(drop)? else { return Ok(None) };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
    };
    let rest = &bytes[start..];
    let body = if header("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        let Some(body) = dechunk(rest)? else { return Ok(None) };
        body
    } else {
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let Some(body) = rest.get(..length) else { return Ok(None) };
        body.to_vec()
    };
    let outcome = if response.code == Some(200) { Outcome::Answered } else { Outcome::WrongStatus };
    // Of several such headers, and of several words in one, any may say it (RFC 9110, 7.6.1).
    let says_close =
        response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("connection")).any(|header| {
            String::from_utf8_lossy(header.value).split(',').any(|word| word.trim().eq_ignore_ascii_case("close"))
        });
    Ok(Some(Answer { outcome, body, is_reusable: !says_close && response.version == Some(1) }))
}

/// A whole body that came in chunks (RFC 9112, 7.1), if it is there.
fn dechunk(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((start, size)) = httparse::parse_chunk_size(bytes).map_err(drop)? else {
            return Ok(None);
        };
        let end = start + usize::try_from(size).map_err(drop)?;
        let Some(after) = bytes.get(end..end + 2) else { return Ok(None) };
        if after != b"\r\n" {
            return Err(());
        }
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&bytes[start..end]);
        bytes = &bytes[end + 2..];
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// What one request to a server that sends `answer` and then ends comes to.
    async fn outcome_of(answer: &'static [u8], read_first: bool) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            if read_first {
                let _ = stream.read(&mut [0; 1024]).unwrap();
            } else {
                // Closing with the request unread sends a reset (RFC 9293, 3.6.1).
                while stream.peek(&mut [0]).unwrap() == 0 {}
            }
            stream.write_all(answer).unwrap();
        });
        let outcome = Connection::open(address).await.unwrap().get("/").await.outcome;
        server.join().unwrap();
        outcome
    }

    #[tokio::test]
    async fn every_end_of_a_request_has_its_own_outcome() {
        assert_eq!(outcome_of(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true).await, Outcome::Answered);
        assert_eq!(outcome_of(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", true).await, Outcome::WrongStatus);
        assert_eq!(outcome_of(b"", true).await, Outcome::Closed);
        assert_eq!(outcome_of(b"", false).await, Outcome::Reset);
        assert_eq!(outcome_of(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", true).await, Outcome::Truncated);
        assert_eq!(outcome_of(b"HTTP/1.1 200 O", true).await, Outcome::Truncated);
        assert_eq!(outcome_of(b"SSH-2.0-nonsense\r\n", true).await, Outcome::WrongBody);
        const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(outcome_of(CHUNKED, true).await, Outcome::Answered);
        assert_eq!(outcome_of(&CHUNKED[..CHUNKED.len() - 5], true).await, Outcome::Truncated);
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_refuses() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(Connection::open(address).await.is_err());
        let report = crate::Load::start_at(address, crate::Mode::C1, 1);
        thread::sleep(Duration::from_secs(1));
        let report = report.stop();
        assert!(report.sent() > 0);
        assert_eq!(report.outcomes().into_keys().collect::<Vec<_>>(), [Outcome::Refused]);
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_idle_is_seen_before_anything_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::open(listener.local_addr().unwrap()).await.unwrap();
        assert!(!connection.is_closed_while_idle(Duration::from_millis(1)).await);
        drop(listener.accept().unwrap());
        assert!(connection.is_closed_while_idle(Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn an_end_that_is_on_the_wire_when_the_client_sends_is_a_loss() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = Connection::open(listener.local_addr().unwrap()).await.unwrap();
        let mut connection = connection.over(Duration::from_millis(50));
        drop(listener.accept().unwrap());
        assert!(!connection.is_closed_while_idle(Duration::from_millis(20)).await);
        assert_eq!(connection.get("/").await.outcome, Outcome::Closed);
    }
}
