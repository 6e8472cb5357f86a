//! Who listens at a port of this host, and how many wait there (proc(5), /proc/net/tcp).

use std::{fs, path::Path};

use crate::host::Host;

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its own.
    pub inode: u64,
    /// Connections that nobody has accepted yet.
    pub waiting: u64,
}

impl Listener {
    /// The one at a port, of whatever address.
    pub fn at(host: &Host, port: u16) -> Option<Self> {
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
            let text = fs::read_to_string(host.path(table)).ok()?;
            text.lines().find_map(|line| Self::parse(line, port))
        })
    }

    fn parse(line: &str, port: u16) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let hex = |word: &str| u64::from_str_radix(word.rsplit(':').next()?, 16).ok();
        // 0A: TCP_LISTEN. Of a socket that listens, rx_queue is how many wait.
        let is_it = hex(words.get(1)?)? == u64::from(port) && *words.get(3)? == "0A";
        is_it.then_some(Self { inode: words.get(9)?.parse().ok()?, waiting: hex(words[4])? })
    }

    /// A process that has it open, for people. Only root sees everybody's.
    pub fn holder(self, host: &Host) -> Option<String> {
        let wanted = format!("socket:[{}]", self.inode);
        for process in fs::read_dir(host.path("/proc")).ok()?.flatten() {
            let has = |fd: fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|target| target == Path::new(&wanted));
            let Ok(mut open) = fs::read_dir(process.path().join("fd")) else { continue };
            if open.any(|fd| fd.is_ok_and(has)) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(format!("{} (pid {})", name.trim(), process.file_name().to_string_lossy()));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_tells_who_listens_and_how_many_wait() {
        let line = |state, queues| {
            format!("  0: 00000000:0050 00000000:0000 {state} {queues} 00:00000000 00000000     0        0 4242 1 0")
        };
        let listens = line("0A", "00000000:00000011");
        assert_eq!(Listener::parse(&listens, 80), Some(Listener { inode: 4242, waiting: 17 }));
        assert_eq!(Listener::parse(&listens, 81), None);
        assert_eq!(Listener::parse(&line("01", "00000000:00000011"), 80), None, "a connection");
    }
}
