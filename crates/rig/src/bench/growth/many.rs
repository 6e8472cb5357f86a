//! A store that has much: releases and receipts as the tool itself writes them, at the price of a link or a line.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use releases::{
    ReleaseId,
    trail::{self, By, Record},
};
use serde_json::Value;

use super::super::stage::Stage;

/// Older than any deployment that may be under way, so that nothing of it is kept for that.
const LONG_AGO: u64 = 1_700_000_000;
const LOG: &str = "activations.jsonl";
const RECEIPTS: &str = "receipts.jsonl";

/// The store of a host.
pub(super) struct Many {
    base: PathBuf,
    units: PathBuf,
    current: ReleaseId,
    /// The last number that an instance had.
    n: u64,
}

impl Many {
    pub fn of(stage: &Stage) -> io::Result<Self> {
        let (base, units) = (stage.host().path("/opt/app"), stage.host().path("/etc/systemd/system"));
        let log = trail::read(&base.join(LOG)).map_err(io::Error::other)?;
        let n = log.iter().filter_map(|record| match record {
            Record::Activation { n, .. } => Some(*n),
            _ => None,
        });
        let target = fs::read_link(base.join("current"))?;
        let current = target.file_name().and_then(|name| name.to_str()?.parse().ok());
        let current = current.ok_or_else(|| io::Error::other("current names no release"))?;
        Ok(Self { n: n.max().unwrap_or(0), base, units, current })
    }

    /// How many releases there are.
    pub fn releases(&self) -> io::Result<usize> {
        let names = fs::read_dir(self.base.join("releases"))?.flatten().map(|entry| entry.file_name());
        Ok(names.filter(|name| !name.to_string_lossy().starts_with('.')).count())
    }

    /// How many receipts there are.
    pub fn receipts(&self) -> io::Result<usize> {
        Ok(fs::read_to_string(self.base.join(RECEIPTS))?.lines().count())
    }

    /// Adds releases until there are so many, each deployed after the other and validated, and the one that is current
    /// deployed again.
    pub fn fill_releases(&mut self, count: usize) -> io::Result<()> {
        let (current, mut before) = (self.current.clone(), self.current.clone());
        let mut lines = Vec::new();
        for n in self.releases()?..count {
            let id = self.link(&format!("{n} of {count}"))?;
            lines.push(Record::Installation { installed: id.clone(), time: LONG_AGO });
            lines.extend(self.deployed(&before, &id));
            before = id;
        }
        lines.extend(self.deployed(&before, &current));
        self.append(LOG, &lines)
    }

    /// Adds receipts of restarts, with what the log has of them, until there are so many.
    pub fn fill_receipts(&mut self, count: usize) -> io::Result<()> {
        let mut receipt = self.last_receipt()?;
        (receipt["verb"], receipt["outcome"]) = ("restart".into(), "done".into());
        let (mut receipts, mut log, current) = (Vec::new(), Vec::new(), self.current.clone());
        for _ in self.receipts()?..count {
            let [activation, _] = self.deployed(&current, &current);
            receipt["receipt"] = self.n.into();
            receipts.push(receipt.clone());
            log.push(activation);
        }
        self.append(LOG, &log)?;
        self.append(RECEIPTS, &receipts)
    }

    fn last_receipt(&self) -> io::Result<Value> {
        let written = fs::read_to_string(self.base.join(RECEIPTS))?;
        let receipt = |line| serde_json::from_str(line).ok().filter(|receipt: &Value| receipt.get("receipt").is_some());
        written.lines().rev().find_map(receipt).ok_or_else(|| io::Error::other("no receipt was written"))
    }

    fn deployed(&mut self, from: &ReleaseId, to: &ReleaseId) -> [Record; 2] {
        self.n += 1;
        let (n, release, from) = (self.n, to.clone(), Some(from.clone()));
        let activation = Record::Activation { n, release, from, by: By::Activate, time: LONG_AGO };
        [activation, Record::Validation { validated: to.clone(), time: LONG_AGO }]
    }

    /// The current release's files under another label.
    fn link(&self, label: &str) -> io::Result<ReleaseId> {
        let of = |id: &ReleaseId| self.base.join("releases").join(id.as_str());
        let from = of(&self.current);
        let mut manifest: Value = serde_json::from_slice(&fs::read(from.join("manifest.json"))?)?;
        manifest["label"] = label.into();
        let bytes = serde_json::to_vec_pretty(&manifest)?;
        let id = ReleaseId::of_manifest(&bytes);
        let to = of(&id);
        for path in manifest["files"].as_array().into_iter().flatten().filter_map(|file| file["path"].as_str()) {
            make_folders(to.join(path).parent().unwrap_or(&to))?;
            fs::hard_link(from.join(path), to.join(path))?;
        }
        fs::write(to.join("manifest.json"), bytes)?;
        let unit = |id: &ReleaseId| self.units.join(format!("app-{id}@.service"));
        fs::hard_link(unit(&self.current), unit(&id))?;
        Ok(id)
    }

    fn append(&self, name: &str, lines: &[impl serde::Serialize]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        fs::OpenOptions::new().append(true).open(self.base.join(name))?.write_all(&text)
    }
}

fn make_folders(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}
