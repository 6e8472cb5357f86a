//! What is shipped: a bundle with what is to be done with it, or the wish to go back.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    Error, Result,
    appspec::{self, Appspec, EVENTS},
    id::hex,
    source::Source,
};

/// Beyond a rollback and its validation.
const ROLLBACK_SECONDS: u64 = 300;

/// What is brought to each host, and done there.
#[derive(Debug)]
pub struct Shipment {
    name: String,
    /// A bundle as it was verified; empty where nothing is brought.
    pub(super) archive: Vec<u8>,
    steps: Vec<Step>,
}

/// A thing to be done on the host.
#[derive(Debug)]
struct Step {
    name: String,
    seconds: u64,
    program: Program,
}

#[derive(Debug)]
enum Program {
    /// A path in the bundle.
    Hook(String),
    /// A command line of the host.
    Hosts(&'static str),
}

impl Shipment {
    /// A bundle that is sound, and the hooks of its appspec in their order.
    ///
    /// # Errors
    /// [`Error::Manifest`] and [`Error::Damaged`] where it is not sound, or has to be deployed otherwise.
    pub fn read(path: &Path) -> Result<Self> {
        let (source, archive) = Source::read_archive(path)?;
        let name = format!("release {} ({})", source.id, source.manifest.label);
        Ok(Self { name, archive, steps: hooks(&source)? })
    }

    /// `releasectl rollback`, by the host's own tool.
    pub fn rollback() -> Self {
        let program = Program::Hosts("/usr/local/bin/releasectl rollback");
        let step = Step { name: "Rollback".to_owned(), seconds: ROLLBACK_SECONDS, program };
        Self { name: "rollback".to_owned(), archive: Vec::new(), steps: vec![step] }
    }

    /// The archive's SHA-256, or nothing.
    pub(super) fn digest(&self) -> String {
        if self.archive.is_empty() { String::new() } else { hex(&Sha256::digest(&self.archive)) }
    }

    /// A line for each step, as the script on the host reads them; `folder` is where the bundle will be.
    pub(super) fn plan(&self, folder: &str) -> String {
        let line = |step: &Step| match &step.program {
            Program::Hook(path) => format!("{} {} {folder}/{path}\n", step.name, step.seconds),
            Program::Hosts(command) => format!("{} {} {command}\n", step.name, step.seconds),
        };
        self.steps.iter().map(line).collect()
    }
}

impl fmt::Display for Shipment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn hooks(source: &Source) -> Result<Vec<Step>> {
    let path = source.path(appspec::FILE);
    let refuse = |fault: String| Error::Manifest { path: path.clone(), fault };
    let appspec = Appspec::parse(&read(source, appspec::FILE)?).map_err(refuse)?;
    if let Some(fault) = appspec.needs_an_agent() {
        return Err(refuse(format!("{fault}, which CodeDeploy's agent alone does: ship it by that, or leave it out")));
    }
    let scripts = EVENTS.iter().flat_map(|event| appspec.scripts(event).iter().map(move |script| (event, script)));
    let steps = scripts.map(|(event, script)| {
        if !source.manifest.files.iter().any(|file| file.path == script.location) {
            return Err(refuse(format!("{} is not in the bundle", script.location)));
        }
        let program = Program::Hook(script.location.clone());
        Ok(Step { name: (*event).to_owned(), seconds: script.timeout, program })
    });
    match steps.collect::<Result<Vec<_>>>()? {
        steps if steps.is_empty() => Err(refuse("it has no hooks, so nothing would be deployed".to_owned())),
        steps => Ok(steps),
    }
}

fn read(source: &Source, name: &str) -> Result<String> {
    let mut text = None;
    source.copy_each(|file, from, path: &Path| {
        if file.path == name {
            let read = from.read_to_string(text.insert(String::new()));
            read.map_err(Error::disk("read", path))?;
        }
        Ok(())
    })?;
    let path: PathBuf = source.path(name);
    text.ok_or_else(|| Error::Manifest { path, fault: "is not in the bundle; make one with `just bundle`".to_owned() })
}
