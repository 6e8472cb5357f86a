//! What the CloudFormation template and the workflows promise. Whether they are such at all is cfn-lint's and actionlint's to say
//! (`.ci/lint`).

mod template;
mod workflows;

use std::fs;

use serde_json::Value;

/// A file of the workspace.
fn file(path: &str) -> String {
    fs::read_to_string(rig::workspace().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&file(path)).unwrap_or_else(|error| panic!("parse {path}: {error}"))
}
