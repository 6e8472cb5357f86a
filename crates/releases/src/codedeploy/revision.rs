//! A revision: where the bundle of a release is.

use std::{fmt, path::Path, str::FromStr, time::Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Watcher, aws::Request};
use crate::{
    Error, ReleaseId, Result,
    manifest::APP,
    screen::{say, show_doing, show_done, step, without_controls},
};

/// As CodeDeploy has it; it goes back to AWS as it came.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    #[serde(skip_serializing_if = "Option::is_none")]
    s3_location: Option<S3>,
    /// Its type, and other places than S3.
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct S3 {
    bucket: String,
    key: String,
    /// Its format, and where they are known its version and its ETag.
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// An S3 bucket's name, alone.
#[derive(Clone, Debug)]
pub struct Bucket(String);

impl FromStr for Bucket {
    type Err = &'static str;

    /// Old ones may have what a name may not have today, so S3 is asked about the rest.
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let may_be = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !text.is_empty() && text.chars().all(may_be) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a bucket's name alone is wanted, as `aws s3 ls` lists it")
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Revision {
    /// Its key says which release it is, so that pushing that again gives the same object, and old ones stay. Its ETag is not
    /// part of it: with a key of KMS it is another after each upload, and what was deployed before could not be gone back to.
    pub fn of_release(bucket: &Bucket, id: &ReleaseId) -> Self {
        Self::of_object(&bucket.0, &format!("{APP}-{id}.tgz"))
    }

    /// At `s3://BUCKET/KEY`.
    fn at(uri: &str) -> Option<Self> {
        let (bucket, key) = uri.strip_prefix("s3://")?.split_once('/')?;
        Some(Self::of_object(bucket, key))
    }

    fn of_object(bucket: &str, key: &str) -> Self {
        let more = Map::from_iter([("bundleType".to_owned(), "tgz".into())]);
        let s3_location = Some(S3 { bucket: bucket.to_owned(), key: key.to_owned(), more });
        Self { s3_location, more: Map::from_iter([("revisionType".to_owned(), "S3".into())]) }
    }

    /// As an option of the AWS CLI takes it.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Uploads the file with these bytes, in one piece.
    pub fn upload(&self, file: &Path, archive: &[u8]) -> Result<()> {
        let Some(s3) = &self.s3_location else { return Ok(()) };
        let began = Instant::now();
        show_doing("upload");
        let request = Request::new("s3api", "put-object").with("bucket", &s3.bucket).with("key", &s3.key);
        let request = request.with("body", file.display()).with("content-type", "application/gzip");
        // The CLI opens the file once more: these are the bytes that were verified, or S3 does not take them.
        let sent =
            request.with("checksum-sha256", BASE64_STANDARD.encode(Sha256::digest(archive))).send::<IgnoredAny>();
        show_done();
        sent?;
        say(&step("uploaded", began.elapsed(), &format!("{} KiB", archive.len() / 1024)));
        Ok(())
    }

    /// Lets CodeDeploy know of it.
    pub fn register(&self, application: &str, description: &str) -> Result<()> {
        let request = Request::new("deploy", "register-application-revision").with("application-name", application);
        request.with("revision", self.json()).with("description", description).send::<IgnoredAny>().map(drop)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.s3_location {
            // A key may have any character, and whoever may register a revision chooses it.
            Some(S3 { bucket, key, .. }) => f.write_str(&one_line(&format!("s3://{bucket}/{key}"))),
            None => f.write_str(&one_line(&self.json())),
        }
    }
}

fn one_line(text: &str) -> String {
    without_controls(&text.replace('\n', " "))
}

/// What a list of revisions answers.
#[derive(Deserialize)]
struct Registered {
    revisions: Vec<Revision>,
}

/// The revision that was registered last.
pub fn newest(application: &str, watcher: &Watcher) -> Result<Revision> {
    let none =
        || Error::Aws(format!("no revision of application {application} is registered: `just push BUCKET` first"));
    registered(application, watcher)?.into_iter().find(|revision| revision.s3_location.is_some()).ok_or_else(none)
}

/// The one that people call by `s3://BUCKET/KEY`, or by the key of one that is registered.
pub fn named(application: &str, name: &str, watcher: &Watcher) -> Result<Revision> {
    if let Some(revision) = Revision::at(name) {
        return Ok(revision);
    }
    let is_it = |revision: &Revision| revision.s3_location.as_ref().is_some_and(|s3| s3.key == name);
    registered(application, watcher)?.into_iter().find(is_it).ok_or_else(|| {
        Error::Aws(format!(
            "{name:?} is none of the last revisions of application {application}: give s3://BUCKET/KEY, as `just push` prints it"
        ))
    })
}

/// The last hundred, newest first.
fn registered(application: &str, watcher: &Watcher) -> Result<Vec<Revision>> {
    let request = Request::new("deploy", "list-application-revisions").with("application-name", application);
    let request = request.with("sort-by", "registerTime").with("sort-order", "descending").words(["--no-paginate"]);
    Ok(watcher.ask::<Registered>(&request)?.revisions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_goes_back_to_aws_as_it_came() {
        for text in [
            r#"{"s3Location":{"bucket":"b","key":"a/k.zip","bundleType":"zip","version":"7","eTag":"e"},"revisionType":"S3"}"#,
            r#"{"gitHubLocation":{"commitId":"1","repository":"a/b"},"revisionType":"GitHub"}"#,
        ] {
            let revision: Revision = serde_json::from_str(text).unwrap();
            assert_eq!(
                serde_json::from_str::<Value>(&revision.json()).unwrap(),
                serde_json::from_str::<Value>(text).unwrap()
            );
        }
    }

    #[test]
    fn what_is_pushed_is_named_as_it_is_printed() {
        let revision = Revision::of_release(&"b".parse().unwrap(), &"0123456789abcdef".parse().unwrap());
        assert_eq!(revision.to_string(), "s3://b/app-0123456789abcdef.tgz");
        assert_eq!(Revision::at(&revision.to_string()), Some(revision));
    }

    #[test]
    fn a_bucket_is_called_by_its_name_alone() {
        assert_eq!("my-releases.example".parse::<Bucket>().unwrap().to_string(), "my-releases.example");
        for text in ["", "s3://my-releases", "my-releases/", "my-releases/app.tgz", "a b"] {
            assert!(text.parse::<Bucket>().is_err(), "{text}");
        }
    }
}
