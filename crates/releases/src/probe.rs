//! Asking the service through its public socket, as a client would.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde::Deserialize;

const TIME_LIMIT: Duration = Duration::from_secs(2);
const MOST_BYTES: usize = 64 << 10;

/// Where the socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A path.
    Unix(String),
}

impl Address {
    /// Parses what `systemctl show -p Listen` prints, and turns "any address" into this host's own.
    pub fn parse(listen: &str) -> Option<Self> {
        let text = listen.lines().find_map(|line| line.strip_suffix(" (Stream)"))?;
        if text.starts_with('/') {
            return Some(Self::Unix(text.to_owned()));
        }
        let mut address: SocketAddr = text.parse().ok()?;
        if address.ip() == Ipv6Addr::UNSPECIFIED || address.ip() == Ipv4Addr::UNSPECIFIED {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        Some(Self::Tcp(address))
    }
}

#[derive(Deserialize)]
struct Version {
    release: String,
}

/// One fresh connection: the release that answers `/version`, if its `/readyz` says 200 on the same connection.
///
/// # Errors
/// A sentence that says what went wrong.
pub fn ask(address: &Address) -> Result<String, String> {
    let mut stream = connect(address).map_err(|error| format!("cannot connect: {error}"))?;
    let (ready, body) = get(&mut *stream, "/readyz").map_err(|error| format!("/readyz: {error}"))?;
    if ready != 200 {
        let body = crate::screen::printable(&String::from_utf8_lossy(&body));
        return Err(format!("/readyz answered {ready}: {body}"));
    }
    let (status, body) = get(&mut *stream, "/version").map_err(|error| format!("/version: {error}"))?;
    match serde_json::from_slice::<Version>(&body) {
        Ok(version) if status == 200 => Ok(version.release),
        _ => Err(format!("/version answered {status} and no JSON with a `release`")),
    }
}

/// One fresh connection: whether `/livez` is answered, and not with an error of the server's own. A service that has no such
/// route says so, and is alive.
///
/// # Errors
/// A sentence that says what went wrong.
pub fn is_alive(address: &Address) -> Result<(), String> {
    let mut stream = connect(address).map_err(|error| format!("cannot connect: {error}"))?;
    match exchange(&mut *stream, "/livez", status).map_err(|error| format!("/livez: {error}"))? {
        status @ 500.. => Err(format!("/livez answered {status}")),
        _ => Ok(()),
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

fn connect(address: &Address) -> io::Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, TIME_LIMIT)?;
            stream.set_read_timeout(Some(TIME_LIMIT))?;
            Box::new(stream)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIME_LIMIT))?;
            Box::new(stream)
        }
    })
}

/// Status and body of a GET whose response has a Content-Length, as both routes' have.
fn get(stream: &mut dyn Stream, path: &str) -> io::Result<(u16, Vec<u8>)> {
    exchange(stream, path, |bytes| {
        let Some((status, start, length)) = head(bytes)? else { return Ok(None) };
        Ok(bytes.get(start..start + length).map(|body| (status, body.to_vec())))
    })
}

/// Sends a GET, and reads until `whole` has what it wants of the response.
fn exchange<T>(stream: &mut dyn Stream, path: &str, whole: impl Fn(&[u8]) -> io::Result<Option<T>>) -> io::Result<T> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: releasectl\r\n\r\n").as_bytes())?;
    let (mut bytes, mut chunk, began) = (Vec::new(), [0; 4096], Instant::now());
    loop {
        if let Some(answer) = whole(&bytes)? {
            return Ok(answer);
        }
        let read = match stream.read(&mut chunk) {
            // A child ended while another began: with a time limit, the kernel does not go on by itself (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if began.elapsed() > TIME_LIMIT {
            // Byte by byte it would never end.
            return Err(io::ErrorKind::TimedOut.into());
        }
        if read == 0 || bytes.len() > MOST_BYTES {
            return Err(io::Error::other(if read == 0 { "closed without an answer" } else { "a response too large" }));
        }
        bytes.extend_from_slice(&chunk[..read]);
    }
}

/// The status, once the head is whole.
fn status(bytes: &[u8]) -> io::Result<Option<u16>> {
    parse(bytes, |response, _| Ok(response.code.unwrap_or(0)))
}

/// Status, where the body starts and how long it is; `None` while the head is not whole.
fn head(bytes: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    parse(bytes, |response, start| {
        let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
        let length = length.filter(|length| *length <= MOST_BYTES);
        let length = length.ok_or_else(|| io::Error::other("a response without a sound Content-Length"))?;
        Ok((response.code.unwrap_or(0), start, length))
    })
}

fn parse<T>(
    bytes: &[u8],
    read: impl FnOnce(&httparse::Response<'_, '_>, usize) -> io::Result<T>,
) -> io::Result<Option<T>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(start) => read(&response, start).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemctl_prints_becomes_this_hosts_own_address() {
        assert_eq!(Address::parse("[::]:80 (Stream)"), Some(Address::Tcp("127.0.0.1:80".parse().unwrap())));
        assert_eq!(Address::parse("10.0.0.1:8080 (Stream)"), Some(Address::Tcp("10.0.0.1:8080".parse().unwrap())));
        assert_eq!(Address::parse("/run/x.sock (Stream)"), Some(Address::Unix("/run/x.sock".to_owned())));
        assert_eq!(Address::parse(""), None);
    }

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        assert_eq!(head(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap(), None);
        let whole = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno";
        assert_eq!(head(whole).unwrap(), Some((503, whole.len() - 2, 2)));
        assert!(head(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n").is_err());
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some(204));
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n").unwrap(), None);
    }
    #[test]
    fn a_signal_is_no_failure() {
        struct Interrupted(Vec<io::Result<&'static [u8]>>);
        impl Read for Interrupted {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let next = self.0.remove(0)?;
                into[..next.len()].copy_from_slice(next);
                Ok(next.len())
            }
        }
        impl Write for Interrupted {
            fn write(&mut self, from: &[u8]) -> io::Result<usize> {
                Ok(from.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let interrupt = || Err(io::ErrorKind::Interrupted.into());
        let reads = vec![interrupt(), Ok(&b"HTTP/1.1 204"[..]), interrupt(), Ok(b" No Content\r\n\r\n")];
        assert_eq!(exchange(&mut Interrupted(reads), "/livez", status).unwrap(), 204);
    }
}
