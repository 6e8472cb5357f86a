//! The stand-in for CodeDeploy's agent, held against what is known of the real one. Points are those of the list that it was
//! built by; what is known of version 2 from its change log alone is called assumed.

mod archives;
mod ends;
mod hooks;
mod order;

use std::{fs, time::Duration};

use flate2::{Compression, write::GzEncoder};
use rig::{
    Agent, Deployment, Host,
    agent::{self, Code, Incident, Kind, Source, Status, Version, What},
};

const ROOT: &str = "/opt/codedeploy-agent/deployment-root";
const ALL: [&str; 11] = [
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    "BeforeInstall",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
    "DownloadBundle",
    "Install",
];

/// A small bundle: files with their modes, and an appspec that names scripts.
#[derive(Default)]
struct Small {
    hooks: String,
    files: Vec<(String, u32, String)>,
}

impl Small {
    /// One script for one event.
    fn hook(event: &str, script: &str) -> Self {
        Self::default().and(event, script)
    }

    fn and(self, event: &str, script: &str) -> Self {
        self.with(event, &format!("{{location: hooks/{event}}}")).file(&format!("hooks/{event}"), 0o755, script)
    }

    /// An event's script as the appspec has it.
    fn with(mut self, event: &str, script: &str) -> Self {
        self.hooks += &format!("  {event}:\n    - {script}\n");
        self
    }

    fn file(mut self, path: &str, mode: u32, text: &str) -> Self {
        self.files.push((path.to_owned(), mode, text.to_owned()));
        self
    }

    fn appspec(&self) -> String {
        let hooks = if self.hooks.is_empty() { "" } else { "hooks:\n" };
        format!("version: 0.0\nos: linux\n{hooks}{}", self.hooks)
    }

    fn tgz(self) -> Vec<u8> {
        let appspec = self.appspec();
        let files = [vec![("appspec.yml".to_owned(), 0o644, appspec)], self.files].concat();
        pack(&files)
    }
}

/// An archive of files, or of links where the mode is 0.
fn pack(files: &[(String, u32, String)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, mode, text) in files {
        let mut header = tar::Header::new_gnu();
        if *mode == 0 {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, text).unwrap();
            continue;
        }
        header.set_mode(*mode);
        header.set_size(text.len() as u64);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        if path.contains("owned") || path == "./" {
            header.set_uid(1234);
            header.set_gid(5678);
        }
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Every event's script writes its event to /root/ran.
fn tells_each_event() -> Small {
    let script = "#!/bin/sh\necho $LIFECYCLE_EVENT >>/root/ran\n";
    ALL.into_iter().fold(Small::default(), |small, event| small.and(event, script))
}

fn ran(host: &Host) -> String {
    let ran = host.run("cat /root/ran; rm -f /root/ran").output;
    ran.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn code(deployment: &Deployment) -> Option<Code> {
    deployment.failure().map(|failure| failure.code)
}

fn folder(host: &Host, deployment: &Deployment) -> String {
    host.succeed(&format!("echo {ROOT}/*/{}", deployment.id)).trim().to_owned()
}

fn archive(host: &Host, deployment: &Deployment) -> String {
    folder(host, deployment) + "/deployment-archive"
}

/// Where deployments are is a disk of 1 MiB.
fn host_with_a_small_disk() -> Host {
    let host = Host::boot();
    host.succeed("mkdir -p /opt/codedeploy-agent && mount -t tmpfs -o size=1m tmpfs /opt/codedeploy-agent");
    host
}
