//! Making a bundle: the one file that is shipped, the same bytes for the same tree and label wherever it is made.

#![expect(clippy::disallowed_methods, reason = "it runs where bundles are made, and changes no host")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

use crate::{
    Error, Manifest, ReleaseId, Result,
    id::hex,
    manifest::{self, APP, FORMAT, File},
    manual,
};

/// A date that every tool takes (1980-01-01, the earliest of a zip): the real one would make each build another.
const TIME: u64 = 315_532_800;
/// What people call a revision where nobody says.
pub const LABEL: &str = env!("CARGO_PKG_VERSION");
/// What is built, in cargo's words.
const BINARIES: [&str; 8] = ["-p", "app", "--bin", "app", "-p", "releases", "--bin", "releasectl"];
const EXECUTABLE: u32 = 0o755;
const PLAIN: u32 = 0o644;

/// What goes into a bundle, by path.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    files: BTreeMap<String, (u32, Vec<u8>)>,
    commit: String,
}

/// A packed bundle.
#[derive(Debug)]
pub struct Bundle {
    /// The release that it becomes.
    pub id: ReleaseId,
    /// A gzipped tar archive, its files owned by root.
    pub archive: Vec<u8>,
}

/// Builds the workspace and writes its bundle below `target/bundle`.
///
/// # Errors
/// Where cargo fails, or a file cannot be read or written.
pub fn make(workspace: &Path, label: &str) -> Result<PathBuf> {
    let bundle = Contents::build(workspace)?.pack(label)?;
    let folder = target_folder(workspace).join("bundle");
    fs::create_dir_all(&folder).map_err(Error::disk("make folder", &folder))?;
    let path = folder.join(format!("{APP}-{}.tgz", bundle.id));
    fs::write(&path, bundle.archive).map_err(Error::disk("write", &path))?;
    Ok(path)
}

/// Builds the programs that a bundle ships; returns the folder that they are in.
///
/// # Errors
/// Where cargo fails.
pub fn programs(workspace: &Path) -> Result<PathBuf> {
    build(workspace, &BINARIES)
}

/// Builds some of the workspace, named in cargo's words, as what a bundle ships; returns the folder that it is in.
///
/// # Errors
/// Where cargo fails.
pub fn build(workspace: &Path, what: &[&str]) -> Result<PathBuf> {
    compile(workspace, &target_folder(workspace), what, &[])
}

/// The bundle that was given, or one of this checkout.
///
/// # Errors
/// As [`make`].
pub fn given_or_made(given: Option<PathBuf>) -> Result<PathBuf> {
    given.map_or_else(|| make(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), LABEL), Ok)
}

impl Contents {
    /// Static binaries of the workspace, its units, its hooks and its appspec.
    ///
    /// # Errors
    /// As [`make`].
    pub fn build(workspace: &Path) -> Result<Self> {
        let mut contents = Self { commit: commit(workspace), ..Self::default() };
        let programs = programs(workspace)?;
        for name in ["app", "releasectl"] {
            contents.add(&format!("bin/{name}"), EXECUTABLE, &programs.join(name))?;
        }
        contents.add("appspec.yml", PLAIN, &workspace.join("appspec.yml"))?;
        for (folder, mode) in [("hooks", EXECUTABLE), ("units", PLAIN)] {
            contents.add_folder(folder, mode, &workspace.join(folder))?;
        }
        for (path, bytes) in manual::files() {
            contents.put(path, PLAIN, &bytes);
        }
        Ok(contents)
    }

    /// Replaces `releasectl` by one that counts its steps, and fails where it is told to.
    ///
    /// # Errors
    /// As [`make`].
    pub fn use_faults(&mut self, workspace: &Path) -> Result<()> {
        // Its own folder, so that neither build is made anew for the other's sake.
        let target = target_folder(workspace).join("faults");
        let features = ["--features", "releases/faults", "--config", "profile.release.lto=false"];
        let binaries = compile(workspace, &target, &BINARIES[4..], &features)?;
        self.add("bin/releasectl", EXECUTABLE, &binaries.join("releasectl"))
    }

    /// Adds a file, or replaces one.
    pub fn put(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.files.insert(path.to_owned(), (mode, bytes.to_owned()));
    }

    /// The bytes of a file.
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|(_, bytes)| bytes.as_slice())
    }

    /// Writes the manifest and packs everything.
    ///
    /// # Errors
    /// [`Error::Manifest`] where a host would refuse it, for its label for example.
    pub fn pack(&self, label: &str) -> Result<Bundle> {
        let text = serde_json::to_vec_pretty(&self.manifest(label)).unwrap_or_default();
        Manifest::parse(&text).map_err(|fault| Error::Manifest { path: manifest::FILE.into(), fault })?;
        let mut all = self.files.clone();
        all.insert(manifest::FILE.to_owned(), (PLAIN, text.clone()));
        let archive = pack(&all).map_err(Error::disk("pack", Path::new("bundle")))?;
        Ok(Bundle { id: ReleaseId::of_manifest(&text), archive })
    }

    fn manifest(&self, label: &str) -> Manifest {
        let file = |(path, (mode, bytes)): (&String, &(u32, Vec<u8>))| File {
            path: path.clone(),
            mode: format!("{mode:04o}"),
            size: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
        };
        Manifest {
            format: FORMAT,
            app: APP.to_owned(),
            label: label.to_owned(),
            commit: self.commit.clone(),
            arch: env::consts::ARCH.to_owned(),
            files: self.files.iter().map(file).collect(),
        }
    }

    fn add(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        let bytes = fs::read(from).map_err(Error::disk("read", from))?;
        self.put(path, mode, &bytes);
        Ok(())
    }

    fn add_folder(&mut self, name: &str, mode: u32, from: &Path) -> Result<()> {
        for entry in fs::read_dir(from).map_err(Error::disk("list", from))? {
            let path = entry.map_err(Error::disk("list", from))?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.add(&format!("{name}/{file}"), mode, &path)?;
        }
        Ok(())
    }
}

fn pack(files: &BTreeMap<String, (u32, Vec<u8>)>) -> std::io::Result<Vec<u8>> {
    let gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut archive = tar::Builder::new(gzip);
    for (path, (mode, bytes)) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(TIME);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, path, bytes.as_slice())?;
    }
    archive.into_inner()?.finish()
}

/// Builds static binaries, which start on any glibc or none; paths of this machine are mapped away.
fn compile(workspace: &Path, folder: &Path, binaries: &[&str], more: &[&str]) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))).unwrap_or_default();
    let workspace_path = workspace.canonicalize().map_err(Error::disk("find", workspace))?;
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=/source", workspace_path.display()),
        format!("--remap-path-prefix={}=/cargo", home.display()),
    ];
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).env_remove("RUSTFLAGS");
    command.args(["build", "--release", "--locked", "--target", &target, "--target-dir"]).arg(folder);
    command.args(binaries).args(more);
    let status = command.stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(folder.join(target).join("release")),
        Ok(status) => Err(Error::Command { command: "cargo build".to_owned(), output: status.to_string() }),
        Err(error) => Err(Error::Command { command: "cargo build".to_owned(), output: error.to_string() }),
    }
}

fn target_folder(workspace: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |folder| workspace.join(folder))
}

/// The commit, marked where the tree differs from it; `unknown` outside a git checkout.
fn commit(workspace: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(workspace).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return "unknown".to_owned() };
    let is_clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    if is_clean { commit } else { format!("{commit}-modified") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        let mut contents = Contents::default();
        for path in manifest::REQUIRED {
            contents.put(path, PLAIN, path.as_bytes());
        }
        contents
    }

    #[test]
    fn the_same_contents_and_label_are_the_same_bytes() {
        let (one, other) = (contents().pack("a").unwrap(), contents().pack("a").unwrap());
        assert_eq!(one.archive, other.archive);
        assert_ne!(one.id, contents().pack("b").unwrap().id, "another label is another revision");
    }

    #[test]
    fn what_a_host_would_refuse_is_not_packed() {
        assert!(contents().pack("a\nb").is_err());
        assert!(Contents::default().pack("a").is_err());
    }
}
