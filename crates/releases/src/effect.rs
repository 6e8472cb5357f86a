//! Everything that changes a host, one system call or one program a function; nothing else in this crate may (clippy.toml).
//!
//! Built with the feature `faults`, each can be counted, fail, or be the last (`fault.rs`).
#![expect(clippy::disallowed_methods, reason = "this is the file that they are allowed in")]

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

#[cfg(feature = "faults")]
use crate::fault::reach;

/// Comes before each effect, and may keep it from happening.
#[cfg(not(feature = "faults"))]
fn reach(_: &str, _: &Path) -> io::Result<Outcome> {
    Ok(Outcome::Happens)
}

/// What becomes of an effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Happens,
    /// It says that it happened.
    #[cfg(feature = "faults")]
    IsLeftOut,
}

/// Opens a file that is not ours, to read it: a symbolic link is refused, and a FIFO not waited for. It changes nothing, and
/// is here because it opens.
pub fn open_to_read(path: &Path) -> io::Result<fs::File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// A file that is being written.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    path: PathBuf,
}

impl File {
    /// Makes a file that is not there, with exactly this mode.
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        reach("create", path)?;
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        let this = Self { file, path: path.to_owned() };
        reach("set the mode of", path)?;
        this.file.set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(this)
    }

    /// Opens a file, or makes it, as the options say.
    pub fn open(path: &Path, options: &fs::OpenOptions) -> io::Result<Self> {
        reach("open", path)?;
        Ok(Self { file: options.open(path)?, path: path.to_owned() })
    }

    /// Writes what it holds to the disk (fsync(2)).
    pub fn sync(&self) -> io::Result<()> {
        match reach("sync", &self.path)? {
            Outcome::Happens => self.file.sync_all(),
            #[cfg(feature = "faults")]
            Outcome::IsLeftOut => Ok(()),
        }
    }

    /// Empties it.
    pub fn truncate(&self) -> io::Result<()> {
        reach("truncate", &self.path)?;
        self.file.set_len(0)
    }

    /// To read it, lock it or seek in it.
    pub fn inner(&mut self) -> &mut fs::File {
        &mut self.file
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        reach("write", &self.path)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a folder that all may read.
pub fn make_folder(path: &Path) -> io::Result<()> {
    reach("make folder", path)?;
    fs::DirBuilder::new().mode(0o755).create(path)
}

/// Writes a folder's entries to the disk (fsync(2)).
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match reach("sync folder", path)? {
        Outcome::Happens => fs::File::open(path)?.sync_all(),
        #[cfg(feature = "faults")]
        Outcome::IsLeftOut => Ok(()),
    }
}

/// rename(2).
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    reach("rename to", to)?;
    fs::rename(from, to)
}

/// Puts each in the place of the other at one moment (renameat2(2), RENAME_EXCHANGE).
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    reach("exchange", other)?;
    let here = rustix::fs::CWD;
    Ok(rustix::fs::renameat_with(here, one, here, other, rustix::fs::RenameFlags::EXCHANGE)?)
}

/// symlink(2).
pub fn link(target: &Path, path: &Path) -> io::Result<()> {
    reach("link", path)?;
    symlink(target, path)
}

/// unlink(2).
pub fn remove(path: &Path) -> io::Result<()> {
    reach("remove", path)?;
    fs::remove_file(path)
}

/// rmdir(2).
pub fn remove_folder(path: &Path) -> io::Result<()> {
    reach("remove folder", path)?;
    fs::remove_dir(path)
}

/// Sends an entry to the journal, fields in lines (systemd.io/JOURNAL_NATIVE_PROTOCOL). Where nobody listens, nobody reads it.
pub fn log(entry: &str) {
    // A journal that hangs is not waited for.
    if let Ok(socket) = UnixDatagram::unbound()
        && socket.set_nonblocking(true).is_ok()
    {
        let _ = socket.send_to(entry.as_bytes(), "/run/systemd/journal/socket");
    }
}

/// Starts a program whose output is read, with nothing on its standard input.
pub fn start<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> io::Result<Started> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let words = arguments.iter().map(|word| word.as_ref().to_string_lossy());
    let line = std::iter::once(program.into()).chain(words).collect::<Vec<_>>().join(" ");
    reach("start", Path::new(&line))?;
    Ok(Started { child: command.spawn()?, line })
}

/// A program that runs.
#[derive(Debug)]
pub struct Started {
    child: Child,
    /// Its command line, for people.
    pub line: String,
}

impl Started {
    /// Waits for its end, and returns what it printed.
    pub fn wait(self) -> io::Result<Output> {
        reach("wait for", Path::new(&self.line))?;
        self.child.wait_with_output()
    }

    /// The same beside what the verb does: no step of it, since nothing waits for its end.
    pub fn wait_aside(self) -> io::Result<Output> {
        self.child.wait_with_output()
    }
}
