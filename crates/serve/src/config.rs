//! What the environment says.

use std::{env, ops::RangeInclusive, path::PathBuf, process, time::Duration};

use crate::Error;

const LONGEST: u64 = 24 * 3600;

/// Read once, before any thread exists.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where to listen where no socket is passed.
    pub listen: String,
    /// How long `/readyz` may take to say 200.
    pub ready: Duration,
    /// From the moment on at which the instance is told to end, and no successor serves, until what is left is cut.
    pub drain: Duration,
    /// The same while a successor serves.
    pub drain_beside: Duration,
    /// The most connections that are open at once.
    pub connections: u32,
    /// The release that this is, for the instance's file.
    pub release: String,
    /// The number of this instance.
    pub n: u64,
    /// Where the instance's file goes, and where instances find each other; none without systemd.
    pub runtime: Option<PathBuf>,
}

impl Config {
    pub(crate) fn from_env() -> Result<Self, Error> {
        let runtime = text("RUNTIME_DIRECTORY")?
            .and_then(|folders| folders.split(':').next().filter(|folder| !folder.is_empty()).map(PathBuf::from));
        Ok(Self {
            listen: text("APP_LISTEN")?.unwrap_or_else(|| "127.0.0.1:8080".to_owned()),
            ready: seconds("APP_READY_SECONDS", 20)?,
            drain: seconds("APP_DRAIN_SECONDS", 30)?,
            drain_beside: seconds("APP_DRAIN_SUCCESSOR_SECONDS", 600)?,
            connections: number("APP_CONNECTIONS", 16_384, 1..=1_000_000, "expected a whole number, 1 to 1000000")?
                as u32,
            release: text("APP_RELEASE")?.unwrap_or_else(|| "dev".to_owned()),
            n: number("APP_INSTANCE", process::id().into(), 0..=u64::MAX, "expected a whole number")?,
            runtime,
        })
    }
}

fn seconds(variable: &'static str, default: u64) -> Result<Duration, Error> {
    number(variable, default, 0..=LONGEST, "expected whole seconds, 0 to 86400").map(Duration::from_secs)
}

fn number(
    variable: &'static str,
    default: u64,
    range: RangeInclusive<u64>,
    expected: &'static str,
) -> Result<u64, Error> {
    let Some(value) = text(variable)? else { return Ok(default) };
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or(Error::Variable { variable, value, expected })
}

fn text(variable: &'static str) -> Result<Option<String>, Error> {
    match env::var(variable) {
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(value)) => {
            let value = value.to_string_lossy().into_owned();
            Err(Error::Variable { variable, value, expected: "expected UTF-8" })
        }
    }
}
