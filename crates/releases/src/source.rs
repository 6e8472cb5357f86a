//! A bundle that is to be installed: the folder that it was unpacked to, or the archive itself.
//!
//! Of an archive nothing is written before all of it was held against its manifest, and it is never unpacked elsewhere.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use tar::EntryType;

use crate::{
    Error, Manifest, ReleaseId, Result, effect,
    id::hex,
    manifest::{self, File},
    tree::{self, damaged},
    units,
};

/// The most that an archive may unpack to. Ours have some 10 MB, and a small file must not keep a host busy for hours.
const MOST_BYTES: u64 = 1 << 30;
/// The most entries of one.
const MOST_ENTRIES: usize = 10_000;

/// A bundle whose manifest was read, and found sound in itself.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    /// The release that it becomes.
    pub id: ReleaseId,
    text: Vec<u8>,
    archive: Option<Archive>,
}

impl Source {
    /// Reads the manifest of the folder or archive at `path`; of an archive everything.
    ///
    /// # Errors
    /// [`Error::Manifest`] where it is no bundle, [`Error::Damaged`] where an archive cannot be read to its end, [`Error::Disk`]
    /// where the host fails to read it.
    pub fn read(path: &Path) -> Result<Self> {
        fs::metadata(path).map_err(|error| Error::unreadable(path, error))?;
        let archive = if path.is_file() { Some(Archive::read(path)?) } else { None };
        let at = path.join(manifest::FILE);
        let text = match &archive {
            Some(archive) => archive.manifest.clone(),
            None => manifest::read_text(path)?,
        };
        let manifest = Manifest::parse(&text).map_err(|fault| Error::Manifest { path: at, fault })?;
        Ok(Self { path: path.to_owned(), manifest, id: ReleaseId::of_manifest(&text), text, archive })
    }

    /// The same of an archive alone, verified, with its bytes, which are of the same open file.
    ///
    /// # Errors
    /// As [`Self::read`] and [`Self::verify`]; and [`Error::Manifest`] of a folder.
    #[cfg(feature = "bundle")]
    pub fn read_archive(path: &Path) -> Result<(Self, Vec<u8>)> {
        if path.is_dir() {
            let fault = "is a folder; give the archive that `cargo bundle` makes".to_owned();
            return Err(Error::Manifest { path: path.to_owned(), fault });
        }
        let (source, mut bytes) = (Self::read(path)?, Vec::new());
        source.verify()?;
        if let Some(archive) = &source.archive {
            archive.again(path)?.read_to_end(&mut bytes).map_err(Error::disk("read", path))?;
        }
        Ok((source, bytes))
    }

    /// Where a file of it is, for people.
    pub fn path(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }

    /// The manifest, byte for byte.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Holds every file against the manifest.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the first file that differs.
    pub fn verify(&self) -> Result<()> {
        match &self.archive {
            Some(archive) => archive.verify(&self.path, &self.manifest),
            None => tree::verify(&self.path, &self.manifest),
        }
    }

    /// The release's own unit.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn unit(&self) -> Result<String> {
        let path = self.path(units::OWN);
        match &self.archive {
            Some(archive) => Ok(String::from_utf8_lossy(&archive.unit).into_owned()),
            None => fs::read_to_string(&path).map_err(Error::disk("read", &path)),
        }
    }

    /// Gives each file of the manifest, to be read once, with its path for people. Whoever copies it verifies what was copied.
    ///
    /// # Errors
    /// What `copy` returns, and where a file cannot be read.
    pub fn copy_each(&self, mut copy: impl FnMut(&File, &mut dyn Read, &Path) -> Result<()>) -> Result<()> {
        let Some(archive) = &self.archive else {
            return self.manifest.files.iter().try_for_each(|file| {
                let path = self.path(&file.path);
                copy(file, &mut effect::open_to_read(&path).map_err(Error::disk("open", &path))?, &path)
            });
        };
        let files: BTreeMap<_, _> = self.manifest.files.iter().map(|file| (file.path.as_str(), file)).collect();
        let mut copied = 0;
        each_entry(&self.path, archive.again(&self.path)?, |name, _, entry| match files.get(name) {
            Some(file) => {
                copied += 1;
                copy(file, entry, &self.path(name))
            }
            None => Ok(()),
        })?;
        if copied == files.len() { Ok(()) } else { Err(damaged(&self.path, "changed while it was installed")) }
    }
}

/// What an archive holds.
#[derive(Debug)]
struct Archive {
    file: fs::File,
    manifest: Vec<u8>,
    unit: Vec<u8>,
    /// By path, as a manifest would list them.
    files: BTreeMap<String, File>,
}

impl Archive {
    fn read(path: &Path) -> Result<Self> {
        let file = fs::File::open(path).map_err(Error::disk("open", path))?;
        let (mut manifest, mut unit, mut files) = (Vec::new(), Vec::new(), BTreeMap::new());
        each_entry(path, &file, |name, mode, entry| {
            let at = path.join(name);
            let keeps = match name {
                manifest::FILE => Some(&mut manifest),
                units::OWN => Some(&mut unit),
                _ => None,
            };
            let listed = describe(name, mode, entry, keeps).map_err(|error| unreadable(path, &error))?;
            match files.entry(name.to_owned()) {
                Entry::Occupied(_) => Err(damaged(&at, "is there twice")),
                Entry::Vacant(vacant) => {
                    vacant.insert(listed);
                    Ok(())
                }
            }
        })?;
        match files.remove(manifest::FILE) {
            Some(listed) if listed.size <= manifest::MOST_BYTES => Ok(Self { file, manifest, unit, files }),
            found => {
                let none = || "is not in the archive; make a bundle with `just bundle`".to_owned();
                let fault = found.map_or_else(none, |_| manifest::too_large());
                Err(Error::Manifest { path: path.join(manifest::FILE), fault })
            }
        }
    }

    fn verify(&self, path: &Path, manifest: &Manifest) -> Result<()> {
        let mut found = self.files.clone();
        for file in &manifest.files {
            let at = path.join(&file.path);
            let there = found.remove(&file.path).ok_or_else(|| damaged(&at, tree::MISSING))?;
            tree::compare(&at, file, there.size, there.mode())?;
            tree::compare_digest(&at, file, &there.sha256)?;
        }
        found.into_keys().next().map_or(Ok(()), |name| Err(damaged(&path.join(name), tree::IN_EXCESS)))
    }

    fn again(&self, path: &Path) -> Result<&fs::File> {
        let mut file = &self.file;
        file.rewind().map_err(Error::disk("rewind", path))?;
        Ok(file)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    // Its text may quote the archive.
    damaged(path, &format!("is no whole archive ({})", error.kind()))
}

/// Reads an entry to its end; `keeps` gets what of it a manifest or a unit may have.
fn describe(name: &str, mode: u32, entry: &mut dyn Read, keeps: Option<&mut Vec<u8>>) -> io::Result<File> {
    let (mut digest, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 17]);
    let mut kept = keeps;
    loop {
        let read = entry.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        size += read as u64;
        if let Some(kept) = kept.as_mut().filter(|_| size <= manifest::MOST_BYTES) {
            kept.extend_from_slice(&buffer[..read]);
        }
    }
    Ok(File { path: name.to_owned(), mode: format!("{mode:04o}"), size, sha256: hex(&digest.finalize()) })
}

/// Gives each file of a gzipped tar archive, in its order. Only plain files and folders may be in it, and the folders are
/// passed over: a release has those that its files are in.
fn each_entry(
    path: &Path,
    archive: impl Read,
    mut each: impl FnMut(&str, u32, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let unreadable = |error: io::Error| unreadable(path, &error);
    // As much again for headers and what rounds them up.
    let mut tar = tar::Archive::new(GzDecoder::new(archive).take(2 * MOST_BYTES));
    let (mut entries, mut bytes) = (0, 0);
    // Raw: an entry that speaks for others (a long name, for one) is one like any other, and refused.
    for entry in tar.entries().map_err(unreadable)?.raw(true) {
        let mut entry = entry.map_err(unreadable)?;
        entries += 1;
        bytes += entry.size();
        if entries > MOST_ENTRIES || bytes > MOST_BYTES {
            let most = MOST_BYTES >> 20;
            return Err(damaged(path, &format!("has more than {MOST_ENTRIES} entries, or {most} MiB")));
        }
        let name = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(&name);
        let (kind, mode) = (entry.header().entry_type(), entry.header().mode().map_err(unreadable)? & 0o7777);
        match kind {
            EntryType::Directory => continue,
            EntryType::Regular => manifest::check_path(&name).map_err(|fault| damaged(path, &fault))?,
            _ => return Err(damaged(&path.join(&*name), tree::NO_FILE)),
        }
        each(&name, mode, &mut entry)?;
    }
    // To the checksum at its end.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(unreadable).map(drop)
}
