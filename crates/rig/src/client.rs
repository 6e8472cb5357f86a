//! One connection of a client that never retries: raw HTTP/1.1, so that no pool hides a loss.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::outcome::Outcome;

/// Beyond the longest request that any mode makes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that is open.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
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
    fn lost(outcome: Outcome) -> Self {
        Self { outcome, body: Vec::new(), is_reusable: false }
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
        Ok(Self { stream })
    }

    /// Sends one GET and reads its response.
    pub async fn get(&mut self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: rig\r\n\r\n");
        timeout(PATIENCE, self.exchange(request.as_bytes())).await.unwrap_or_else(|_| Answer::lost(Outcome::TimedOut))
    }

    /// Waits for `time` as a client with an idle connection does; says whether the server closed it meanwhile.
    pub async fn is_closed_while_idle(&mut self, time: Duration) -> bool {
        let mut byte = [0];
        tokio::select! {
            biased;
            // Anything at all ends it: an end, a reset, or bytes that nobody asked for.
            _ = self.stream.read(&mut byte) => true,
            () = sleep(time) => false,
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> Answer {
        let sent = self.stream.write_all(request).await;
        let mut bytes = Vec::new();
        // Where writing failed the server may have answered before it closed: then that is the answer.
        loop {
            match parse(&bytes) {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(_) => return Answer::lost(Outcome::WrongBody),
            }
            let error = match self.stream.read_buf(&mut bytes).await {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            let error = if bytes.is_empty() { sent.err().unwrap_or(error) } else { error };
            return Answer::lost(Outcome::of_error(&error, !bytes.is_empty()));
        }
    }
}

/// A whole response, if it is there; all of ours have a Content-Length.
fn parse(bytes: &[u8]) -> Result<Option<Answer>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = response.parse(bytes)? else { return Ok(None) };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let Some(body) = bytes.get(start..start + length) else { return Ok(None) };
    let outcome = if response.code == Some(200) { Outcome::Answered } else { Outcome::WrongStatus };
    let is_reusable = !header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Answer { outcome, body: body.to_vec(), is_reusable }))
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
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_refuses() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(Connection::open(address).await.is_err());
        let report = crate::Load::start_at(address, crate::Mode::Fresh, 1);
        thread::sleep(Duration::from_millis(30));
        let report = report.stop();
        assert!(report.sent() > 0);
        assert_eq!(report.outcomes.keys().collect::<Vec<_>>(), [&Outcome::Refused]);
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_idle_is_seen_before_anything_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::open(listener.local_addr().unwrap()).await.unwrap();
        assert!(!connection.is_closed_while_idle(Duration::from_millis(1)).await);
        drop(listener.accept().unwrap());
        assert!(connection.is_closed_while_idle(Duration::from_secs(60)).await);
    }
}
