//! Connections that are open and have nothing on their way: what a server keeps, and hands over.

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::sleep_until,
};

const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n";
/// What the body is, and nothing comes after it.
const END: &[u8] = b"ok\n";

/// Allows this process as many descriptors as it may have. What it starts has as many: no server may be started before.
///
/// # Errors
/// Where the limit cannot be set.
pub(super) fn allow_many() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub began: Instant,
    pub took: Duration,
}

/// Connections that are open and have nothing on their way.
pub(super) struct Idle {
    runtime: Runtime,
    streams: Vec<TcpStream>,
}

impl Idle {
    /// None yet.
    ///
    /// # Errors
    /// Where no runtime can be made.
    pub fn none() -> io::Result<Self> {
        Ok(Self { runtime: Builder::new_current_thread().enable_all().build()?, streams: Vec::new() })
    }

    /// Opens connections in the calling thread's network until there are so many, each with a request behind it.
    ///
    /// # Errors
    /// Where one is refused, or closed.
    pub fn open_until(&mut self, count: usize, address: SocketAddr) -> io::Result<()> {
        let Self { runtime, streams } = self;
        runtime.block_on(async {
            while streams.len() < count {
                let mut stream = TcpStream::connect(address).await?;
                ask(&mut stream).await?;
                streams.push(stream);
            }
            Ok(())
        })
    }

    /// So many requests on each within so long, one after the other, each at a moment of its own.
    ///
    /// # Errors
    /// Where one was closed: that is a request lost.
    pub fn ask_each(&mut self, within: Duration, times: u32) -> io::Result<Vec<Request>> {
        let each = self.streams.iter_mut().map(|stream| ask_often(stream, within / times, times));
        Ok(self.runtime.block_on(try_join_all(each))?.concat())
    }
}

impl Request {
    /// Whether it was on its way at some moment of that span.
    pub fn meets(&self, span: &Range<Instant>) -> bool {
        self.began <= span.end && self.began + self.took >= span.start
    }
}

/// One request in each part of the time, so that the connection is idle in between.
async fn ask_often(stream: &mut TcpStream, part: Duration, times: u32) -> io::Result<Vec<Request>> {
    let (began, mut requests) = (Instant::now(), Vec::new());
    for n in 0..times {
        sleep_until((began + part.mul_f64(f64::from(n) + fastrand::f64())).into()).await;
        requests.push(ask(stream).await?);
    }
    Ok(requests)
}

async fn ask(stream: &mut TcpStream) -> io::Result<Request> {
    let began = Instant::now();
    stream.write_all(REQUEST).await?;
    let (mut answer, mut length) = ([0; 1024], 0);
    while !answer[..length].ends_with(END) {
        match stream.read(&mut answer[length..]).await? {
            0 => return Err(io::Error::other("an idle connection was closed")),
            read => length += read,
        }
    }
    Ok(Request { began, took: began.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_meets_a_span_that_it_begins_in_ends_in_or_is_longer_than() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let meets =
            |began, took| Request { began: at(began), took: Duration::from_millis(took) }.meets(&(at(10)..at(20)));
        assert!(meets(12, 100) && meets(2, 10) && meets(2, 100));
        assert!(!meets(0, 5) && !meets(40, 5));
    }
}
