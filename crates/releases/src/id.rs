//! The name of a release.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;

const DIGITS: usize = 16;

/// The first 16 hex digits of the SHA-256 of a release's manifest.
///
/// It stands in paths and unit names, so nothing but lower-case hex digits ever becomes one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId(String);

impl ReleaseId {
    /// The id of the release whose manifest has these bytes.
    pub fn of_manifest(bytes: &[u8]) -> Self {
        Self(hex(&Sha256::digest(bytes))[..DIGITS].to_owned())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FromStr for ReleaseId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == DIGITS && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::NotARelease(text.to_owned()))
        }
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> Self {
        id.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sixteen_lower_case_hex_digits_are_an_id() {
        assert!("0123456789abcdef".parse::<ReleaseId>().is_ok());
        for text in ["", "../x", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "0123456789abcde/"] {
            assert!(text.parse::<ReleaseId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_is_the_start_of_the_manifests_sha256() {
        assert_eq!(ReleaseId::of_manifest(b"abc").as_str(), "ba7816bf8f01cfea");
    }
}
