//! `appspec.yml`: which scripts a deployment runs at which event, as CodeDeploy's agent reads it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Its name in a bundle.
pub const FILE: &str = "appspec.yml";
/// What the bundle that is being deployed runs, in order, in place and without a load balancer.
pub const EVENTS: [&str; 4] = ["BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService"];

/// What of it matters to whoever runs its hooks; keys that are not known are ignored.
#[derive(Clone, Debug, Deserialize)]
pub struct Appspec {
    /// `linux`.
    pub os: String,
    #[serde(default)]
    files: Vec<BTreeMap<String, String>>,
    #[serde(default)]
    hooks: BTreeMap<String, Vec<Script>>,
}

/// A hook.
#[derive(Clone, Debug, Deserialize)]
pub struct Script {
    /// Its path in the bundle.
    pub location: String,
    /// How many seconds it may take.
    #[serde(default = "an_hour")]
    pub timeout: u64,
    runas: Option<String>,
}

fn an_hour() -> u64 {
    3600
}

impl Appspec {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // The position is told on the first line, and what follows it quotes the text.
        serde_saphyr::from_str(text).map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
    }

    /// The scripts of an event, in order.
    pub fn scripts(&self, event: &str) -> &[Script] {
        self.hooks.get(event).map_or(&[], Vec::as_slice)
    }

    /// What of it nobody but CodeDeploy's agent does.
    pub fn needs_an_agent(&self) -> Option<String> {
        let is_foreign = |event: &&String| !EVENTS.contains(&event.as_str());
        let is_others = |script: &&Script| script.runas.as_deref().is_some_and(|user| user != "root");
        if self.os != "linux" {
            return Some(format!("os is {}", self.os));
        }
        if !self.files.is_empty() {
            return Some("it has `files`".to_owned());
        }
        if let Some(event) = self.hooks.keys().find(is_foreign) {
            return Some(format!("it has hooks for {event}"));
        }
        let other = self.hooks.values().flatten().find(is_others);
        other.map(|script| format!("{} runs as another user than root", script.location))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_has_a_script_for_each_of_three_events_and_needs_no_agent() {
        let appspec = Appspec::parse(include_str!("../../../appspec.yml")).unwrap();
        let scripts =
            EVENTS.map(|event| appspec.scripts(event).iter().map(|script| script.location.as_str()).collect());
        let expected: [Vec<&str>; 4] =
            [vec![], vec!["hooks/after-install"], vec!["hooks/application-start"], vec!["hooks/validate-service"]];
        assert_eq!((scripts, appspec.needs_an_agent()), (expected, None));
    }

    #[test]
    fn what_only_an_agent_does_is_told() {
        let of = |text: &str| Appspec::parse(&format!("version: 0.0\n{text}")).unwrap().needs_an_agent();
        assert!(of("os: windows\n").unwrap().contains("windows"));
        assert!(of("os: linux\nfiles:\n  - source: /\n    destination: /x\n").unwrap().contains("files"));
        assert!(of("os: linux\nhooks:\n  ApplicationStop:\n    - location: x\n").unwrap().contains("ApplicationStop"));
        assert!(
            of("os: linux\nhooks:\n  AfterInstall:\n    - location: x\n      runas: a\n").unwrap().contains("runs as")
        );
        assert!(Appspec::parse("hooks: [").is_err());
    }
}
