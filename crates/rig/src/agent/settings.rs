//! How an agent is set up, and what CodeDeploy tells it about a deployment.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{
    Agent, Kind,
    incident::{Incident, Incidents},
};

/// Which agent it stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    /// 1.8.1, in Ruby
    V1,
    /// 2.1.0, the rewrite
    V2,
}

/// Where CodeDeploy says that the revision is: that much a hook learns of it.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// An object of a bucket,
    S3,
    /// and one that was named with its version and its ETag.
    S3Exactly,
    /// A commit.
    GitHub,
}

impl Source {
    pub(super) fn variables(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &["BUNDLE_BUCKET=rig", "BUNDLE_KEY=app.tgz"],
            Self::S3Exactly => &["BUNDLE_BUCKET=rig", "BUNDLE_KEY=app.tgz", "BUNDLE_VERSION=v7", "BUNDLE_ETAG=e1"],
            Self::GitHub => &["BUNDLE_COMMIT=0123456789abcdef0123456789abcdef01234567"],
        }
    }
}

/// Whether a load balancer sends the host its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    Alone,
    Balanced,
}

/// The folder that the agent itself is in, and every hook begins in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    Root,
    /// As after an update of the agent that was started from its old version's folder.
    Deleted,
}

/// A deployment group: its name, and the id that folders are named after.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub id: String,
}

#[derive(Debug)]
pub(super) struct Settings {
    pub version: Version,
    pub group: Group,
    pub source: Source,
    /// What the deployer says that the bundle is; else its first bytes tell.
    pub kind: Option<Kind>,
    pub traffic: Traffic,
    pub folder: Folder,
    pub max_revisions: usize,
    pub ignores_previous_failures: bool,
    pub rejects_unknown_events: bool,
    pub incidents: Incidents,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: Version::V1,
            group: Group::named("rig"),
            source: Source::S3,
            kind: None,
            traffic: Traffic::Alone,
            folder: Folder::Root,
            max_revisions: 5,
            ignores_previous_failures: false,
            rejects_unknown_events: false,
            incidents: Incidents::default(),
        }
    }
}

impl Group {
    fn named(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self { name: name.to_owned(), id: format!("1c0ffee0-aaaa-4bbb-8ccc-{:012x}", hasher.finish() >> 16) }
    }
}

impl Agent<'_> {
    /// Which one it is; without this, version 1.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.settings.version = version;
        self
    }

    /// The deployment group that it is told to deploy for. Each has its own archives and its own last success.
    #[must_use]
    pub fn group(mut self, name: &str) -> Self {
        self.settings.group = Group::named(name);
        self
    }

    /// Where the revisions are said to be.
    #[must_use]
    pub fn source(mut self, source: Source) -> Self {
        self.settings.source = source;
        self
    }

    /// What the bundles are said to be, whatever they look like.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.settings.kind = Some(kind);
        self
    }

    /// With the events of a load balancer.
    #[must_use]
    pub fn behind_a_load_balancer(mut self) -> Self {
        self.settings.traffic = Traffic::Balanced;
        self
    }

    /// In a folder that is no longer there.
    #[must_use]
    pub fn in_a_deleted_folder(mut self) -> Self {
        self.settings.folder = Folder::Deleted;
        self
    }

    /// How many revisions it keeps.
    #[must_use]
    pub fn max_revisions(mut self, most: usize) -> Self {
        self.settings.max_revisions = most;
        self
    }

    /// Goes on where an event of the previous bundle fails (`ignoreApplicationStopFailures`).
    #[must_use]
    pub fn ignoring_previous_failures(mut self) -> Self {
        self.settings.ignores_previous_failures = true;
        self
    }

    /// Is told by CodeDeploy which events there can be, and takes no others.
    #[must_use]
    pub fn rejecting_unknown_events(mut self) -> Self {
        self.settings.rejects_unknown_events = true;
        self
    }

    /// Something happens in the next deployment.
    #[must_use]
    pub fn with(mut self, incident: Incident) -> Self {
        self.settings.incidents.push(incident);
        self
    }
}
