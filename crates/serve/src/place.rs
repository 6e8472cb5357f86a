//! Where instances find each other: the runtime directory that they share.
//!
//! Each that serves listens at `<n>.sock` there, and renames the symlink `handover` over the last one's.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::packet::{Channel, Listener};

const NEWEST: &str = "handover";

/// One instance's place among the others.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    n: u64,
}

impl Place {
    pub(crate) fn new(folder: PathBuf, n: u64) -> Self {
        Self { folder, n }
    }

    pub(crate) fn n(&self) -> u64 {
        self.n
    }

    /// Lets the others find this instance.
    pub(crate) fn listen(&self) -> io::Result<Listener> {
        let (socket, aside) = (self.socket(self.n), self.folder.join(format!("{}.handover", self.n)));
        // What an instance of the same number left behind; one that lives keeps it.
        let is_stale = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if Channel::connect(&socket).is_err_and(is_stale) {
            fs::remove_file(&socket)?;
        }
        let listener = Listener::bind(&socket)?;
        remove(&aside)?;
        std::os::unix::fs::symlink(format!("{}.sock", self.n), &aside)?;
        fs::rename(&aside, self.folder.join(NEWEST))?;
        Ok(listener)
    }

    /// Lets nobody find it any more.
    pub(crate) fn leave(&self) -> io::Result<()> {
        remove(&self.socket(self.n))
    }

    /// Calls another one.
    pub(crate) fn call(&self, n: u64) -> io::Result<Channel> {
        Channel::connect(&self.socket(n))
    }

    /// Who may serve beside this instance: the one that was ready last, then the others from the newest on.
    pub(crate) fn others(&self) -> io::Result<Vec<u64>> {
        let mut others: Vec<u64> = fs::read_dir(&self.folder)?
            .filter_map(|entry| number(Path::new(&entry.ok()?.file_name())))
            .filter(|n| *n != self.n)
            .collect();
        let newest = fs::read_link(self.folder.join(NEWEST)).ok().and_then(|target| number(&target));
        others.sort_unstable_by_key(|n| (Some(*n) != newest, std::cmp::Reverse(*n)));
        Ok(others)
    }

    fn socket(&self, n: u64) -> PathBuf {
        self.folder.join(format!("{n}.sock"))
    }
}

fn number(socket: &Path) -> Option<u64> {
    socket.to_str()?.strip_suffix(".sock")?.parse().ok()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_one_ready_is_asked_first_then_the_others_from_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let place = |n| Place::new(folder.path().to_owned(), n);
        let _listeners: Vec<_> = [9, 10, 11, 4, 8].map(|n| place(n).listen().unwrap()).into();
        fs::write(folder.path().join("12.json"), "").unwrap();
        assert_eq!(place(9).others().unwrap(), [8, 11, 10, 4]);
        place(8).leave().unwrap();
        assert_eq!(place(9).others().unwrap(), [11, 10, 4], "the link to it means nothing any more");
    }

    #[tokio::test]
    async fn a_number_that_lives_is_not_taken_and_one_that_died_is() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path().to_owned(), 7);
        let listener = place.listen().unwrap();
        assert_eq!(place.listen().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        place.listen().unwrap();
    }
}
