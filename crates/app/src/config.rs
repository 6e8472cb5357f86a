//! What the environment says; on a host that is `/etc/app/env` and the release's unit.

use std::{env, fs, path::PathBuf, time::Duration};

/// The service's configuration. A field more is a variable more.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is logged, as tracing-subscriber's `EnvFilter` reads it; not by what a request's span says, which a line is given
    /// after it was let through.
    pub log: String,
    /// How long a handler may take.
    pub request_limit: Duration,
    /// Where the service keeps what must outlive it (StateDirectory=); none when run by hand.
    pub state: Option<PathBuf>,
    /// The release's id, and the number of the instance.
    pub release: (String, String),
    /// The bundle's label.
    pub label: Option<String>,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// One line that names the variable.
    pub fn from_env() -> Result<Self, String> {
        let text = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
        let seconds = text("APP_REQUEST_SECONDS", "60");
        let limit = seconds.parse().ok().filter(|limit| (1..=3600).contains(limit));
        let limit = limit.ok_or(format!("APP_REQUEST_SECONDS={seconds:?}: expected whole seconds, 1 to 3600"))?;
        Ok(Self {
            log: text("APP_LOG", "info"),
            request_limit: Duration::from_secs(limit),
            state: env::var_os("STATE_DIRECTORY").map(PathBuf::from),
            release: (text("APP_RELEASE", "dev"), text("APP_INSTANCE", "0")),
            label: label(),
        })
    }
}

#[cfg(test)]
impl Config {
    /// Of an instance run by hand.
    pub fn for_tests() -> Self {
        let (log, request_limit) = (String::new(), Duration::from_secs(60));
        Self { log, request_limit, state: None, release: Default::default(), label: None }
    }
}

/// From the manifest beside `bin/`.
fn label() -> Option<String> {
    let manifest = env::current_exe().ok()?.parent()?.parent()?.join("manifest.json");
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest).ok()?).ok()?;
    Some(manifest.get("label")?.as_str()?.to_owned())
}
