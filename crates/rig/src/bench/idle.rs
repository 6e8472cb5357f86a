//! Connections that are open and have nothing on their way: what a server keeps, and hands over.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::sleep,
};

const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n";
/// What the body is, and nothing comes after it.
const END: &[u8] = b"ok\n";

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
        allow_many()?;
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
                ask(&mut stream, Duration::ZERO).await?;
                streams.push(stream);
            }
            Ok(())
        })
    }

    /// One request on each, at a moment of its own within so long. Returns how long each took.
    ///
    /// # Errors
    /// Where one was closed: that is a request lost.
    pub fn ask_each(&mut self, within: Duration) -> io::Result<Vec<Duration>> {
        let each = self.streams.iter_mut().map(|stream| ask(stream, within.mul_f64(fastrand::f64())));
        self.runtime.block_on(try_join_all(each))
    }
}

/// Waits, asks, and returns how long the answer took.
async fn ask(stream: &mut TcpStream, wait: Duration) -> io::Result<Duration> {
    if !wait.is_zero() {
        sleep(wait).await;
    }
    let began = Instant::now();
    stream.write_all(REQUEST).await?;
    let (mut answer, mut length) = ([0; 1024], 0);
    while !answer[..length].ends_with(END) {
        match stream.read(&mut answer[length..]).await? {
            0 => return Err(io::Error::other("an idle connection was closed")),
            read => length += read,
        }
    }
    Ok(began.elapsed())
}

/// As many descriptors as this process may have.
pub(super) fn allow_many() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
