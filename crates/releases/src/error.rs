//! Errors: each names the path or unit, the operation, and what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::ReleaseId;

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Disk {
        /// What was tried, as a verb: `read`, `rename`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Text that is no release id.
    #[error(
        "{0:?} is not a release: expected its 16 hex digits in lower case, or the path of a bundle, as an archive or unpacked"
    )]
    NotARelease(String),
    /// A manifest that cannot be used.
    #[error("{}: {fault}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// A file that is not as the manifest says.
    #[error("{}: {fault}; unpack or build the bundle again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it differs.
        fault: String,
    },
    /// A release's unit that the host would not be safe with.
    #[error("{}: lacks the line {line}; take the rest of your changes to a drop-in or leave that line", path.display())]
    Unit {
        /// The unit.
        path: PathBuf,
        /// What every release's unit must say.
        line: String,
    },
    /// A release that is not in the store.
    #[error("release {0} is not installed; `releasectl list` shows what is")]
    NotInstalled(ReleaseId),
    /// A verb that needs a current release.
    #[error("no release is current on this host; install and activate one first")]
    NothingCurrent,
    /// A verb for releases that have passed `validate`.
    #[error("release {0} is provisional: `releasectl validate` first")]
    Provisional(ReleaseId),
    /// A bare rollback with nothing to go back to.
    #[error("no validated release was activated before {0}; name one: `releasectl rollback ID`")]
    NothingBefore(ReleaseId),
    /// The caller may not change the host.
    #[error("releasectl {0} needs root: run it as root, or by sudo")]
    NotRoot(&'static str),
    /// No systemd runs here.
    #[error("systemd does not run this host (no /run/systemd/system); --root DIR prepares the files of another")]
    NoSystemd,
    /// `--root` names no folder.
    #[error("cannot use --root {}: {source}", path.display())]
    Root {
        /// What was given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// `/etc/app/notify` is not run.
    #[error("{} {fault}", path.display())]
    Notify {
        /// The file.
        path: PathBuf,
        /// Why not, and what to do.
        fault: &'static str,
    },
    /// There is no such receipt.
    #[error("there is no receipt {0}; `releasectl history` shows what there is")]
    NoReceipt(u64),
    /// What ssh would not take for a host.
    #[error("{0:?} is no host: give user@host, or a name that ssh knows")]
    Host(String),
    /// What cannot be taken back was asked for where nobody can confirm it.
    #[error("uninstall asks before it removes anything, and here is no terminal: give --yes")]
    Unasked,
    /// The answer was no.
    #[error("not confirmed: nothing was changed")]
    Declined,
    /// The verb needs a running host, and was given a tree of files.
    #[error("releasectl {0} needs a running host and does not take --root")]
    Offline(&'static str),
    /// A store that a later releasectl has changed in a way that this one does not know.
    #[error(
        "{}: format {format}, and this releasectl knows 1; use the host's own, which is later: /usr/local/bin/releasectl",
        path.display()
    )]
    LaterStore {
        /// The file that says so.
        path: PathBuf,
        /// What it says.
        format: String,
    },
    /// Somebody else holds the lock.
    #[error("{} is still held by {holder}, after a wait of {waited} s; try again, or give --lock-wait SECONDS", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote into it.
        holder: String,
        /// How long was waited.
        waited: u64,
    },
    /// A program failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it printed on standard error, or how it ended.
        output: String,
    },
    /// AWS, or its command line, refused what was asked first: nothing was changed.
    #[error("{0}")]
    Aws(String),
    /// A release did not do what was asked of it; the text says what it did and what is serving now.
    #[error("{0}")]
    Release(String),
}

impl Error {
    /// The exit code: 2 where the input was bad and nothing was changed, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Disk { .. } | Self::Locked { .. } | Self::Command { .. } | Self::Release(_) => 1,
            _ => 2,
        }
    }

    /// Whether room would cure it (ENOSPC, EDQUOT).
    pub(crate) fn is_of_a_full_disk(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Disk { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Why a bundle or a release cannot be read: what is not there is bad input, and a host that fails to read it is not.
    pub(crate) fn unreadable(path: &Path, error: io::Error) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        if matches!(errno, Some(Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM)) {
            return Self::disk("read", path)(error);
        }
        let fault = format!("cannot read it ({error}); give a bundle, as an archive or unpacked");
        Self::Manifest { path: path.to_owned(), fault }
    }

    /// Says where more of it is told.
    pub(crate) fn with_receipt(self, number: u64) -> Self {
        match self {
            Self::Release(text) => Self::Release(format!("{text}\nmore of it: `releasectl show {number}`")),
            other => other,
        }
    }

    pub(crate) fn disk<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Disk { operation, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_bad_input_and_a_host_that_cannot_read_it_is_not() {
        let code = |errno: Errno| Error::unreadable(Path::new("/b"), errno.into()).exit_code();
        assert_eq!([Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(code), [2; 3]);
        assert_eq!([Errno::MFILE, Errno::IO].map(code), [1; 2]);
    }
}
