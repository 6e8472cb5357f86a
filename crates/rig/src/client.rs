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
