//! `.github/workflows`.

use serde_json::Value;

use crate::yaml;

/// Each workflow's jobs, by name.
fn jobs() -> Vec<(String, Value)> {
    let workflows = ["release", "rollback"].map(|name| yaml(&format!(".github/workflows/{name}.yml")));
    let jobs = workflows.iter().flat_map(|workflow| workflow["jobs"].as_object().unwrap());
    jobs.map(|(name, job)| (name.clone(), job.clone())).collect()
}

fn steps() -> Vec<Value> {
    jobs().iter().flat_map(|(_, job)| job["steps"].as_array().unwrap().clone()).collect()
}

/// A tag is whatever its owner, or who stole it, makes of it tomorrow.
#[test]
fn each_action_is_named_by_its_commit() {
    let steps = steps();
    let actions: Vec<&str> = steps.iter().filter_map(|step| step["uses"].as_str()).collect();
    assert!(actions.len() >= 7, "{actions:?}");
    for action in actions {
        let (_, commit) = action.split_once('@').unwrap();
        assert!(commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{action}");
    }
}

/// What stands in `${{ }}` becomes a part of the script, whatever it says; a variable does not.
#[test]
fn nothing_is_written_into_a_script() {
    let steps = steps();
    let scripts: Vec<&str> = steps.iter().filter_map(|step| step["run"].as_str()).collect();
    assert!(scripts.len() >= 5, "{scripts:?}");
    for script in scripts {
        assert!(!script.contains("${{"), "{script}");
    }
}

#[test]
fn who_deploys_takes_turns_is_never_cancelled_and_alone_gets_a_token() {
    let (deploying, others): (Vec<_>, Vec<_>) =
        jobs().into_iter().partition(|(_, job)| job["steps"].to_string().contains("cargo codedeploy"));
    let names: Vec<&str> = deploying.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["deploy", "rollback"]);
    for (name, job) in &deploying {
        assert_eq!(job["concurrency"], deploying[0].1["concurrency"], "{name}");
        assert_eq!(job["concurrency"]["cancel-in-progress"], false, "{name}");
        assert_eq!(job["environment"], "production", "{name}: the one that the template's role is lent to");
        assert_eq!(job["permissions"]["id-token"], "write", "{name}");
    }
    for (name, job) in others {
        assert_eq!(job.get("permissions"), None, "{name}: the workflow's, which reads");
    }
}
