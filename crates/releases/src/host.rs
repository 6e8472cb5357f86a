//! How a host is changed: files, and programs that are run.
//!
//! Every change of a file is durable when its function returns, always in the same order: write, sync the file, rename,
//! sync the folder. A file or link that others read is there whole, old or new, at every moment (rename(2)).

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use crate::{
    Error, Result,
    effect::{self, Started},
    manifest, tree,
};

/// The extension of what is being made, until it gets its name.
const ASIDE: &str = "new";

/// A host: the running one (`/`), or the tree of files of another below a folder.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The host whose files are below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where `path` of the host is found.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Whether this is the running host, so that systemd can be asked for things.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The folder that all paths are below.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a folder and those above it, readable by all.
    pub fn make_folder(&self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.make_folder(above)?;
        }
        match effect::make_folder(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::disk("make folder", path)(error)),
            _ => self.sync_parent(path),
        }
    }

    /// Makes a folder of what has no name yet, and does not wait for the disk: whoever names the whole syncs each folder first.
    pub fn make_folder_aside(&self, path: &Path) -> Result<()> {
        effect::make_folder(path).map_err(Error::disk("make folder", path))
    }

    /// Makes a file in such a folder.
    pub fn write_aside(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = create(path, 0o644)?;
        file.write_all(bytes).map_err(Error::disk("write", path))?;
        file.sync().map_err(Error::disk("sync", path))
    }

    /// Replaces a file, or makes it.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let aside = aside(path);
        let written = self.write_aside(&aside, bytes);
        if written.is_err() {
            // What is half there takes room that somebody needs.
            let _ = effect::remove(&aside);
        }
        written?;
        self.rename(&aside, path)
    }

    /// Writes over the beginning of a file, which needs no room on the disk where it is as long already.
    pub fn overwrite(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let file = effect::File::open(path, fs::OpenOptions::new().write(true));
        let mut file = file.map_err(Error::disk("open", path))?;
        file.write_all(bytes).map_err(Error::disk("write", path))?;
        file.sync().map_err(Error::disk("sync", path))
    }

    /// Adds a line to a log. A line that a crash cut short before is ended first, so that it costs only itself.
    pub fn append_line(&self, path: &Path, line: &str) -> Result<()> {
        let exists = path.exists();
        self.add_line(path, line)?.sync().map_err(Error::disk("sync", path))?;
        if exists { Ok(()) } else { self.sync_parent(path) }
    }

    /// The same without waiting for the disk: for what may be lost with the power.
    pub fn add_line(&self, path: &Path, line: &str) -> Result<effect::File> {
        let mut options = fs::OpenOptions::new();
        let mut file = effect::File::open(path, options.read(true).append(true).create(true).mode(0o644))
            .map_err(Error::disk("open", path))?;
        let cut_short = ends_without_newline(file.inner()).map_err(Error::disk("read", path))?;
        let text = format!("{}{line}\n", if cut_short { "\n" } else { "" });
        file.write_all(text.as_bytes()).map_err(Error::disk("write", path))?;
        Ok(file)
    }

    /// Replaces a symbolic link, or makes it.
    pub fn link(&self, target: &Path, link: &Path) -> Result<()> {
        let aside = aside(link);
        self.remove(&aside)?;
        effect::link(target, &aside).map_err(Error::disk("link", &aside))?;
        self.rename(&aside, link)
    }

    /// Copies one file of a bundle, `path` for people, into a folder that is not in use yet, verifying what was copied.
    pub fn copy(&self, from: &mut dyn Read, file: &manifest::File, path: &Path, to: &Path) -> Result<()> {
        let mut copy = create(to, file.mode())?;
        tree::copy_verified(from, file, path, &mut copy, to)?;
        copy.sync().map_err(Error::disk("sync", to))
    }

    /// Renames, and syncs the folder that the new name is in.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        effect::rename(from, to).map_err(Error::disk("rename to", to))?;
        self.sync_parent(to)
    }

    /// Puts one folder in the place of another at one moment (renameat2(2), RENAME_EXCHANGE).
    pub fn exchange(&self, one: &Path, other: &Path) -> Result<()> {
        effect::exchange(one, other).map_err(Error::disk("exchange", other))?;
        self.sync_parent(other)
    }

    /// Removes a file or a link, if it is there.
    pub fn remove(&self, path: &Path) -> Result<()> {
        ignore_missing(effect::remove(path)).map_err(Error::disk("remove", path))
    }

    /// Removes a folder with all that is in it, if it is there.
    pub fn remove_tree(&self, path: &Path) -> Result<()> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(metadata) if metadata.is_dir() => {}
            _ => return self.remove(path),
        }
        for entry in fs::read_dir(path).map_err(Error::disk("list", path))? {
            self.remove_tree(&entry.map_err(Error::disk("list", path))?.path())?;
        }
        ignore_missing(effect::remove_folder(path)).map_err(Error::disk("remove", path))
    }

    /// Removes a folder, if nothing is in it.
    pub fn remove_if_empty(&self, path: &Path) -> Result<()> {
        match effect::remove_folder(path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => ignore_missing(other).map_err(Error::disk("remove", path)),
        }?;
        self.sync_parent(path)
    }

    /// Removes what a killed run has left aside in a folder.
    pub fn remove_unfinished(&self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == ASIDE) {
                self.remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes a folder's entries to the disk.
    pub fn sync_folder(&self, path: &Path) -> Result<()> {
        effect::sync_folder(path).map_err(Error::disk("sync", path))
    }

    fn sync_parent(&self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |parent| self.sync_folder(parent))
    }

    /// Opens the lock file, which is made once and never replaced or removed.
    pub fn open_lock(&self, path: &Path) -> Result<effect::File> {
        let mut options = fs::OpenOptions::new();
        // Root's alone: who can read a file can lock it.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        effect::File::open(path, &options).map_err(Error::disk("open", path))
    }

    /// Says in the lock file who holds it. Only for people who wait: that it may be torn or old does no harm.
    pub fn sign_lock(&self, lock: &mut effect::File, text: &str) {
        let _ = lock.inner().rewind().and_then(|()| lock.truncate()).and_then(|()| lock.write_all(text.as_bytes()));
    }

    /// Starts a program whose output is read, with nothing on its standard input.
    pub fn start<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Result<Started> {
        let failed = |error: io::Error| Error::Command { command: program.to_owned(), output: error.to_string() };
        effect::start(program, arguments).map_err(failed)
    }

    /// Runs a program to its end, and returns what it printed.
    ///
    /// # Errors
    /// [`Error::Command`] with what it said where it does not exit with 0.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Result<String> {
        printed(self.start(program, arguments)?)
    }
}

/// Waits for the end of a program, and returns what it printed.
///
/// # Errors
/// As [`Host::run`].
pub fn printed(started: Started) -> Result<String> {
    let command = started.line.clone();
    let output = started.wait();
    let output = output.map_err(|error| Error::Command { command: command.clone(), output: error.to_string() })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error::Command { command, output: said(&output) }),
    }
}

/// What a program that failed had to say.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    if text.is_empty() { output.status.to_string() } else { text }
}

/// A sibling in the same folder, so that a rename replaces the original at one moment.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ASIDE);
    path.with_file_name(name)
}

/// Makes a file with exactly these permissions, in place of what a run that was killed left there.
fn create(path: &Path, mode: u32) -> Result<effect::File> {
    ignore_missing(effect::remove(path)).map_err(Error::disk("remove", path))?;
    effect::File::create(path, mode).map_err(Error::disk("make", path))
}

fn ends_without_newline(file: &mut fs::File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_line_that_was_cut_short_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "one\ntw").unwrap();
        Host::new(folder.path()).append_line(&log, "three").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "one\ntw\nthree\n");
    }

    #[test]
    fn what_a_killed_run_left_aside_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(folder.path());
        fs::write(folder.path().join("file.new"), "half").unwrap();
        symlink("half", folder.path().join("link.new")).unwrap();
        host.write(&folder.path().join("file"), b"whole").unwrap();
        host.link(Path::new("file"), &folder.path().join("link")).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("link")).unwrap(), "whole");
        assert!(!folder.path().join("file.new").exists());
    }
}
