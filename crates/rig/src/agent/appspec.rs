//! appspec.yml, taken and refused as the agent does.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the agent makes of it. Keys that it does not know it passes over.
#[derive(Debug)]
pub struct Appspec {
    /// The scripts of each event.
    pub hooks: BTreeMap<String, Vec<Script>>,
    /// Whether it has `files:` to be copied.
    pub copies_files: bool,
}

/// One script of an event.
#[derive(Debug)]
pub struct Script {
    /// Where it is in the bundle.
    pub location: String,
    /// How long it may take, in seconds.
    pub timeout: u64,
    /// Whom it runs as, through su(1).
    pub runas: Option<String>,
    /// Whether it runs through sudo(8).
    pub sudo: bool,
}

const AN_HOUR: u64 = 3600;

impl Appspec {
    /// Reads it.
    ///
    /// # Errors
    /// In the agent's words, or nearly: why a deployment with it fails.
    pub fn parse(text: &str) -> Result<Self, String> {
        let all: Value = serde_saphyr::from_str(text).map_err(|error| format!("appspec.yml is no YAML: {error}"))?;
        if all.is_null() {
            return Err("the application specification file was empty".to_owned());
        }
        // A number and not text: `"0.0"` is refused.
        if all["version"].as_f64() != Some(0.0) {
            return Err(format!("an invalid version value ({}) was entered: it must be 0.0", all["version"]));
        }
        if all["os"] != "linux" {
            return Err(format!("an unsupported operating system ({}): it must be linux", all["os"]));
        }
        let copies_files = all["files"].as_array().is_some_and(|files| !files.is_empty());
        Ok(Self { hooks: hooks(&all["hooks"])?, copies_files })
    }
}

fn hooks(all: &Value) -> Result<BTreeMap<String, Vec<Script>>, String> {
    let Some(all) = all.as_object() else {
        return if all.is_null() { Ok(BTreeMap::new()) } else { Err("`hooks` is no map".to_owned()) };
    };
    // An event without scripts is passed over.
    let named = all.iter().filter(|(_, scripts)| !scripts.is_null());
    named.map(|(event, scripts)| Ok((event.clone(), self::scripts(event, scripts)?))).collect()
}

fn scripts(event: &str, scripts: &Value) -> Result<Vec<Script>, String> {
    let scripts = scripts.as_array().ok_or_else(|| format!("the scripts of {event} are no list"))?;
    scripts.iter().map(|script| Script::parse(event, script)).collect()
}

impl Script {
    fn parse(event: &str, script: &Value) -> Result<Self, String> {
        let location = text(&script["location"]).filter(|location| !location.is_empty());
        let location = location.ok_or_else(|| format!("{event} has a script with no location value"))?;
        let timeout = match &script["timeout"] {
            Value::Null => Some(AN_HOUR),
            Value::Number(number) => number.as_f64().map(|seconds| seconds as u64),
            // As much of it as is a number.
            other => text(other).and_then(|text| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()),
        };
        let timeout = timeout.filter(|seconds| *seconds > 0);
        let timeout = timeout.ok_or_else(|| format!("an invalid timeout value was provided for {location}"))?;
        let sudo = !matches!(script["sudo"], Value::Null | Value::Bool(false));
        Ok(Self { location, timeout, runas: text(&script["runas"]), sudo })
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.trim().to_owned()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "version: 0.0\nos: linux\n";

    fn refused(text: &str) -> String {
        Appspec::parse(text).unwrap_err()
    }

    fn script(lines: &str) -> Result<Script, String> {
        let text = format!("{HEAD}hooks:\n  AfterInstall:\n    - {lines}\n");
        Ok(Appspec::parse(&text)?.hooks.remove("AfterInstall").unwrap().remove(0))
    }

    #[test]
    fn the_version_is_a_number_and_not_text() {
        assert!(refused("version: \"0.0\"\nos: linux\n").contains("invalid version"));
        assert!(refused("version: 0.1\nos: linux\n").contains("invalid version"));
        assert!(refused("os: linux\n").contains("invalid version"));
        assert!(Appspec::parse("version: 0\nos: linux\n").is_ok());
        assert!(refused("").contains("empty"));
    }

    #[test]
    fn the_system_is_linux_and_no_other() {
        for os in ["windows", "Linux", ""] {
            assert!(refused(&format!("version: 0.0\nos: {os}\n")).contains("unsupported operating system"), "{os}");
        }
    }

    #[test]
    fn hooks_are_lists_of_scripts_with_a_location_each() {
        assert!(Appspec::parse(HEAD).unwrap().hooks.is_empty());
        assert!(Appspec::parse(&format!("{HEAD}hooks:\n  AfterInstall:\n")).unwrap().hooks.is_empty());
        assert!(refused(&format!("{HEAD}hooks:\n  AfterInstall: run\n")).contains("no list"));
        assert!(script("timeout: 3").unwrap_err().contains("no location"));
        assert_eq!(script("location: ' a/b '").unwrap().location, "a/b");
    }

    #[test]
    fn a_timeout_is_above_zero_and_an_hour_where_there_is_none() {
        assert_eq!(script("location: a").unwrap().timeout, 3600);
        assert_eq!(script("{location: a, timeout: '30s'}").unwrap().timeout, 30);
        for timeout in ["0", "-1", "soon", "0.5"] {
            assert!(
                script(&format!("{{location: a, timeout: {timeout}}}")).unwrap_err().contains("timeout"),
                "{timeout}"
            );
        }
    }

    #[test]
    fn keys_and_events_that_nobody_knows_are_passed_over_and_files_are_seen() {
        let appspec = Appspec::parse(&format!("{HEAD}more: 1\nhooks:\n  Sometime:\n    - location: a\n")).unwrap();
        assert!(appspec.hooks.contains_key("Sometime") && !appspec.copies_files);
        let copies = Appspec::parse(&format!("{HEAD}files:\n  - source: a\n    destination: /b\n")).unwrap();
        assert!(copies.copies_files);
    }
}
