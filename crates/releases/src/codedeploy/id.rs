//! What AWS calls a deployment or a host.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// The id of a deployment (`d-ABCDEFGHI`) or of a host: an instance's, or a name that somebody gave to a host of their own.
///
/// It stands in commands that people paste into a shell, and among the words that the AWS CLI is given, which takes some of
/// them for options (`--`) or for files (`file://`): nothing that could be either ever becomes one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Id(String);

impl Id {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_of_one = |c: char| c.is_ascii_alphanumeric() || "-_.:/@+=".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && text.chars().all(is_of_one) && !text.contains("://") {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{text:?} is no id"))
        }
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_an_option_a_file_or_a_command_is_no_id() {
        for id in ["d-ABCDEFGHI", "i-0123456789abcdef0", "premises.host-1"] {
            assert_eq!(id.parse::<Id>().unwrap().to_string(), id);
        }
        for text in ["", "--endpoint-url=http://a", "file:///etc/hostname", "d-1; id", "$(id)", "d-1\nd-2", "d-1`id`"] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
