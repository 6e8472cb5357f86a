//! A folder of files held against its manifest.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    Error, Manifest, Result, effect,
    id::hex,
    manifest::{self, File},
};

/// Reads every file below `folder`: its digest, size and mode must be the manifest's, and nothing may be in excess.
///
/// # Errors
/// [`Error::Damaged`] names the first file that differs.
pub fn verify(folder: &Path, manifest: &Manifest) -> Result<()> {
    let found = check_shape(folder, manifest)?;
    for (path, file) in found {
        let source = effect::open_to_read(&path).map_err(Error::disk("open", &path))?;
        copy_verified(source, file, &path, &mut std::io::sink())?;
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
                let file = missing.remove(&path).ok_or_else(|| damaged(&path, "is not in the manifest"))?;
                check_metadata(&path, file, &metadata)?;
                found.push((path, file));
            }
        }
    }
    match missing.into_keys().next() {
        Some(path) => Err(damaged(&path, "is in the manifest and not here")),
        None => Ok(found),
    }
}

/// Copies a file and verifies what was copied, not what was there before.
pub(crate) fn copy_verified(mut from: fs::File, file: &File, path: &Path, to: &mut impl Write) -> Result<()> {
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
        to.write_all(&buffer[..read]).map_err(Error::disk("copy", path))?;
    }
    if size != file.size {
        return Err(damaged(path, "changed its size while it was read"));
    }
    if hex(&digest.finalize()) != file.sha256 {
        return Err(damaged(path, "does not have the SHA-256 that the manifest says"));
    }
    Ok(())
}

fn check_metadata(path: &Path, file: &File, metadata: &fs::Metadata) -> Result<()> {
    if !metadata.is_file() {
        return Err(damaged(path, "is not a regular file"));
    }
    if metadata.len() != file.size {
        return Err(damaged(path, &format!("has {} bytes and the manifest says {}", metadata.len(), file.size)));
    }
    let mode = metadata.mode() & 0o7777;
    if mode != file.mode() {
        return Err(damaged(path, &format!("has mode {mode:04o} and the manifest says {}", file.mode)));
    }
    Ok(())
}

fn damaged(path: &Path, fault: &str) -> Error {
    Error::Damaged { path: path.to_owned(), fault: fault.to_owned() }
}
