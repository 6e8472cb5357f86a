//! A revision: where the bundle of a release is.

use std::{fmt, path::Path, time::Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::aws::Request;
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

impl Revision {
    /// Its key says which release it is, so that pushing that again gives the same object, and old ones stay. Its ETag is not
    /// part of it: with a key of KMS it is another after each upload, and what was deployed before could not be gone back to.
    pub fn of_release(bucket: &str, id: &ReleaseId) -> Self {
        Self::of_object(bucket, &format!("{APP}-{id}.tgz"))
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
pub fn newest(application: &str) -> Result<Revision> {
    let none =
        || Error::Aws(format!("no revision of application {application} is registered: `just push BUCKET` first"));
    registered(application)?.into_iter().find(|revision| revision.s3_location.is_some()).ok_or_else(none)
}

/// The one that people call by `s3://BUCKET/KEY`, or by the key of one that is registered.
pub fn named(application: &str, name: &str) -> Result<Revision> {
    if let Some((bucket, key)) = name.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) {
        return Ok(Revision::of_object(bucket, key));
    }
    let is_it = |revision: &Revision| revision.s3_location.as_ref().is_some_and(|s3| s3.key == name);
    registered(application)?.into_iter().find(is_it).ok_or_else(|| {
        Error::Aws(format!(
            "{name:?} is none of the last revisions of application {application}: give s3://BUCKET/KEY, as `just push` prints it"
        ))
    })
}

/// The last hundred, newest first.
fn registered(application: &str) -> Result<Vec<Revision>> {
    let request = Request::new("deploy", "list-application-revisions").with("application-name", application);
    let request = request.with("sort-by", "registerTime").with("sort-order", "descending").words(["--no-paginate"]);
    Ok(request.send::<Registered>()?.revisions)
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
        let revision = Revision::of_release("b", &"0123456789abcdef".parse().unwrap());
        assert_eq!(revision.to_string(), "s3://b/app-0123456789abcdef.tgz");
        assert_eq!(named("none", &revision.to_string()).unwrap(), revision);
    }
}
