//! What is asked for, and what must be answered.

use std::{
    fmt,
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

const GREETING: &str = "Hello, world!\n";
/// All of it is x.
const LARGE: usize = 64 << 10;
/// One that accepts and says nothing must not hold up the run.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Greeting,
    Large,
}

impl Answer {
    /// Whether it is what a fresh connection gets at `path`.
    pub fn is_at(self, path: &str) -> bool {
        get(path).is_ok_and(|answer| is(&answer, &self.body()))
    }

    pub fn body(self) -> Vec<u8> {
        match self {
            Self::Greeting => GREETING.into(),
            Self::Large => vec![b'x'; LARGE],
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "greeting",
            Self::Large => "64 KiB",
        })
    }
}

fn get(path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect("127.0.0.1:80")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: rig\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn is(answer: &[u8], body: &[u8]) -> bool {
    let head = answer.strip_suffix(body).unwrap_or_default();
    head.starts_with(b"HTTP/1.1 200 ") && head.ends_with(b"\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_whole_body_after_a_head_that_says_200() {
        assert!(is(b"HTTP/1.1 200 OK\r\n\r\nab", b"ab"));
        assert!(!is(b"HTTP/1.1 200 OK\r\n\r\naab", b"ab"));
        assert!(!is(b"HTTP/1.1 503 No\r\n\r\nab", b"ab"));
        assert!(!is(b"HTTP/1.1 200 OK\r\n\r\na", b"ab"));
    }
}
