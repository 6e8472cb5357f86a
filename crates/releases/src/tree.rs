//! A folder of files held against its manifest.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    Error, Manifest, Result, effect,
    id::hex,
    manifest::{self, File},
};

pub(crate) const MISSING: &str = "is in the manifest and not here";
pub(crate) const IN_EXCESS: &str = "is not in the manifest";
pub(crate) const NO_FILE: &str = "is not a regular file";

/// Reads every file below `folder`: its digest, size and mode must be the manifest's, and nothing may be in excess.
///
/// # Errors
/// [`Error::Damaged`] names the first file that differs.
pub fn verify(folder: &Path, manifest: &Manifest) -> Result<()> {
    let found = check_shape(folder, manifest)?;
    for (path, file) in found {
        let mut source = effect::open_to_read(&path).map_err(Error::disk("open", &path))?;
        copy_verified(&mut source, file, &path, &mut io::sink(), &path)?;
    }
    Ok(())
}

/// The same without reading contents: presence, kind, size and mode.
///
/// # Errors
/// As [`verify`].
pub fn check_shape<'a>(folder: &Path, manifest: &'a Manifest) -> Result<Vec<(PathBuf, &'a File)>> {
    let mut missing: BTreeMap<_, _> = manifest.files.iter().map(|file| (folder.join(&file.path), file)).collect();
    let mut found = Vec::with_capacity(missing.len());
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(&current).map_err(Error::disk("list", &current))? {
            let path = entry.map_err(Error::disk("list", &current))?.path();
            let metadata = fs::symlink_metadata(&path).map_err(Error::disk("examine", &path))?;
            if metadata.is_dir() {
                folders.push(path);
            } else if path != folder.join(manifest::FILE) {
                let file = missing.remove(&path).ok_or_else(|| damaged(&path, IN_EXCESS))?;
                if !metadata.is_file() {
                    return Err(damaged(&path, NO_FILE));
                }
                compare(&path, file, metadata.len(), metadata.mode() & 0o7777)?;
                found.push((path, file));
            }
        }
    }
    match missing.into_keys().next() {
        Some(path) => Err(damaged(&path, MISSING)),
        None => Ok(found),
    }
}

/// Copies a file from `path` to `target` and verifies what was copied, not what was there before.
pub(crate) fn copy_verified(
    from: &mut dyn Read,
    file: &File,
    path: &Path,
    to: &mut impl Write,
    target: &Path,
) -> Result<()> {
    let (mut digest, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 17];
    loop {
        let read = from.read(&mut buffer).map_err(Error::disk("read", path))?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        size += read as u64;
        if size > file.size {
            break;
        }
        to.write_all(&buffer[..read]).map_err(Error::disk("write", target))?;
    }
    if size != file.size {
        return Err(damaged(path, "changed its size while it was read"));
    }
    compare_digest(path, file, &hex(&digest.finalize()))
}

/// Whether a file's size and mode are the manifest's.
pub(crate) fn compare(path: &Path, file: &File, size: u64, mode: u32) -> Result<()> {
    if size != file.size {
        return Err(damaged(path, &format!("has {size} bytes and the manifest says {}", file.size)));
    }
    if mode != file.mode() {
        return Err(damaged(path, &format!("has mode {mode:04o} and the manifest says {}", file.mode)));
    }
    Ok(())
}

/// Whether its contents are.
pub(crate) fn compare_digest(path: &Path, file: &File, sha256: &str) -> Result<()> {
    if sha256 == file.sha256 { Ok(()) } else { Err(damaged(path, "does not have the SHA-256 that the manifest says")) }
}

pub(crate) fn damaged(path: &Path, fault: &str) -> Error {
    Error::Damaged { path: path.to_owned(), fault: fault.to_owned() }
}
