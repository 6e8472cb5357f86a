//! The manifest of a bundle and of a release: what it is, and every file in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{Error, ReleaseId, Result, effect};

/// The file's name, at the top of a bundle and of a release.
pub const FILE: &str = "manifest.json";
/// The version of the format that this crate writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
/// The product: unit names, user and paths are made of it, so a bundle of another one is refused.
pub const APP: &str = "app";
/// Files that no release can do without.
pub const REQUIRED: [&str; 6] =
    ["bin/app", "bin/releasectl", "units/app.service", "units/app.socket", "units/app.sysusers", "units/app@.service"];

pub(crate) const MOST_BYTES: u64 = 4 << 20;
const LONGEST_TEXT: usize = 400;

/// What a bundle says of itself. Fields that a reader does not know are ignored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// The product: `app`.
    pub app: String,
    /// What people call this revision; part of its identity.
    pub label: String,
    /// The commit that it was built from.
    pub commit: String,
    /// The machine it runs on, as `uname -m` says it.
    pub arch: String,
    /// Every file but the manifest itself, by path.
    pub files: Vec<File>,
}

/// One file of a release.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct File {
    /// Relative to the manifest's folder.
    pub path: String,
    /// Permission bits in octal: `0644` or `0755`.
    pub mode: String,
    /// In bytes.
    pub size: u64,
    /// In lower-case hex digits.
    pub sha256: String,
}

impl File {
    /// The permission bits as a number.
    pub fn mode(&self) -> u32 {
        u32::from_str_radix(&self.mode, 8).unwrap_or(0)
    }
}

/// Only the field that says whether the rest can be read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Manifest {
    /// Reads and checks the manifest in `folder`, and names the release.
    ///
    /// # Errors
    /// [`Error::Manifest`] where it is not there or not sound, [`Error::Disk`] where the host fails to read it.
    pub fn read(folder: &Path) -> Result<(Self, ReleaseId)> {
        let bytes = read_text(folder)?;
        let manifest = Self::parse(&bytes).map_err(|fault| Error::Manifest { path: folder.join(FILE), fault })?;
        Ok((manifest, ReleaseId::of_manifest(&bytes)))
    }

    /// Parses a manifest and checks all that can be known without its files.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let not_one = |error: serde_json::Error| format!("not a manifest of a release ({error})");
        let Format { format } = serde_json::from_slice(bytes).map_err(not_one)?;
        if format != FORMAT {
            return Err(format!(
                "manifest format {format}; this releasectl reads format {FORMAT}: use the bundle's own"
            ));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(not_one)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.app != APP {
            return Err(format!("a bundle of {:?}, and this host runs {APP:?}", self.app));
        }
        for (name, text) in [("label", &self.label), ("commit", &self.commit), ("arch", &self.arch)] {
            if text.len() > LONGEST_TEXT || text.chars().any(char::is_control) {
                return Err(format!("{name} is longer than {LONGEST_TEXT} bytes or has control characters"));
            }
        }
        let mut seen = BTreeSet::new();
        for file in &self.files {
            check_file(file)?;
            if !seen.insert(file.path.as_str()) {
                return Err(format!("{:?} is listed twice", file.path));
            }
        }
        self.check_names()?;
        match REQUIRED.iter().find(|path| !seen.contains(**path)) {
            Some(path) => Err(format!("{path} is not listed, and no release can do without it")),
            None => Ok(()),
        }
    }

    /// No two files, nor the folders that they are in, share a name; neither where a file system folds case: there one would
    /// have replaced the other.
    fn check_names(&self) -> std::result::Result<(), String> {
        let mut names: BTreeMap<String, (&Path, bool)> = BTreeMap::new();
        for file in &self.files {
            let path = Path::new(&file.path);
            for name in path.ancestors().filter(|name| !name.as_os_str().is_empty()) {
                let is_file = name == path;
                let folded = name.to_string_lossy().to_ascii_lowercase();
                match names.insert(folded, (name, is_file)) {
                    Some((other, _)) if other != name => {
                        return Err(format!("{:?} differs from another path by case alone", name.display()));
                    }
                    Some((_, was_file)) if was_file || is_file => {
                        return Err(format!("{:?} is both a file and a folder", name.display()));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Whether a release can have a file there: below its folder, and plain in any shell, unit and terminal.
pub(crate) fn check_path(path: &str) -> std::result::Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    let part_is_sound = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
    if path.len() <= LONGEST_TEXT && path.split('/').all(part_is_sound) {
        return Ok(());
    }
    Err(format!("{path:?} is not a path that a release can have"))
}

fn check_file(file: &File) -> std::result::Result<(), String> {
    check_path(&file.path)?;
    // Nor what it is written aside as, nor a folder of its name.
    if file.path.to_ascii_lowercase().starts_with(FILE) {
        return Err(format!("{:?}: {FILE} cannot list itself, and names like it are not a release's", file.path));
    }
    if !matches!(file.mode.as_str(), "0644" | "0755") {
        return Err(format!("{}: mode {:?}; a release has 0644 and 0755 only", file.path, file.mode));
    }
    Ok(())
}

/// The manifest in `folder`, byte for byte.
pub(crate) fn read_text(folder: &Path) -> Result<Vec<u8>> {
    let path = folder.join(FILE);
    let bytes = read_bounded(&path).map_err(|error| Error::unreadable(&path, error))?;
    if bytes.len() as u64 > MOST_BYTES { Err(Error::Manifest { path, fault: too_large() }) } else { Ok(bytes) }
}

/// To one byte beyond the most that is read.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let regular = |file: fs::File| {
        let is_file = file.metadata()?.is_file();
        is_file.then_some(file).ok_or_else(|| io::Error::other("it is no regular file"))
    };
    effect::open_to_read(path).and_then(regular)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn too_large() -> String {
    format!("larger than {MOST_BYTES} bytes; not a manifest")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A manifest that lists the required files, all empty.
    pub(crate) fn sound() -> Manifest {
        let file = |path: &&str| File {
            path: (*path).to_owned(),
            mode: "0644".to_owned(),
            size: 0,
            sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
        };
        Manifest {
            format: FORMAT,
            app: APP.to_owned(),
            label: "test".to_owned(),
            commit: "none".to_owned(),
            arch: "x86_64".to_owned(),
            files: REQUIRED.iter().map(file).collect(),
        }
    }

    fn fault_of(change: impl FnOnce(&mut Manifest)) -> String {
        let mut manifest = sound();
        change(&mut manifest);
        Manifest::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap_err()
    }

    #[test]
    fn a_sound_manifest_with_a_field_of_the_future_is_read() {
        let mut value = serde_json::to_value(sound()).unwrap();
        value["signature"] = "later".into();
        assert!(Manifest::parse(value.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn a_path_that_leaves_the_release_is_refused() {
        for path in ["../x", "/etc/passwd", "a/../b", "a//b", "", "./a", "a/", "a b", "a\nb"] {
            let fault = fault_of(|manifest| manifest.files[0].path = path.to_owned());
            assert!(fault.contains("not a path"), "{path}: {fault}");
        }
        for path in [FILE, "Manifest.json", "manifest.json.new", "manifest.json/x"] {
            assert!(fault_of(|manifest| manifest.files[0].path = path.to_owned()).contains("itself"), "{path}");
        }
    }

    #[test]
    fn another_format_is_named_before_anything_else_is_read() {
        let fault = Manifest::parse(br#"{"format": 2, "unknown": []}"#).unwrap_err();
        assert!(fault.contains("format 2"), "{fault}");
    }

    #[test]
    fn special_modes_duplicates_and_other_products_are_refused() {
        assert!(fault_of(|manifest| manifest.files[0].mode = "4755".to_owned()).contains("mode"));
        assert!(fault_of(|manifest| manifest.files[1].path = "bin/app".to_owned()).contains("twice"));
        assert!(fault_of(|manifest| manifest.files[0].path = "Bin/releasectl".to_owned()).contains("case"));
        assert!(fault_of(|manifest| manifest.files[0].path = "Bin/other".to_owned()).contains("case"));
        assert!(fault_of(|manifest| manifest.files[0].path = "bin".to_owned()).contains("both a file and a folder"));
        let below = |manifest: &mut Manifest| manifest.files[0].path = "bin/releasectl/x".to_owned();
        assert!(fault_of(below).contains("both a file and a folder"));
        assert!(fault_of(|manifest| manifest.app = "other".to_owned()).contains("other"));
        assert!(fault_of(|manifest| manifest.label = "a\u{1b}[2J".to_owned()).contains("label"));
        assert!(fault_of(|manifest| drop(manifest.files.remove(0))).contains("bin/app"));
    }
}
