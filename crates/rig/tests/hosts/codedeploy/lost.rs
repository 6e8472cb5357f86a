//! What the AWS CLI does not answer: nobody says that nothing was changed, or that a host has what it may not have.

use super::*;

/// A deployment to two hosts that CodeDeploy calls a success, but for what is to go wrong.
const ANSWERS: &str = r#"#!/bin/sh
info='{"deploymentId": "d-1", "status": "Succeeded", "createTime": 1,
 "revision": {"revisionType": "S3", "s3Location": {"bucket": "b", "key": "k", "bundleType": "tgz"}}}'
hang() { sh -c "sleep 20; touch ${0%/*}/waited" 2>/dev/null; exit 1; }
case $2 in
WRONG
list-application-revisions) echo '{"revisions": [{"s3Location": {"bucket": "b", "key": "k"}}]}' ;;
get-deployment) echo "{\"deploymentInfo\": $info}" ;;
list-deployment-targets) echo '{"targetIds": ["i-1", "i-2"]}' ;;
batch-get-deployment-targets) echo '{"deploymentTargets": [{"instanceTarget": {"targetId": "i-1", "status": "Succeeded"}}]}' ;;
esac
"#;

#[track_caller]
fn fails(wrong: &str, words: &[&str], told: &str) {
    ends_with(1, wrong, words, told);
}

#[track_caller]
fn ends_with(code: i32, wrong: &str, words: &[&str], told: &str) {
    let folder = aws(&ANSWERS.replace("WRONG", wrong));
    let mut command = Command::new(program("codedeploy"));
    let ran = Ran::from(command.args(words).env("PATH", path(&folder)).output().unwrap());
    assert!(ran.code == code && ran.output.contains(told), "{wrong}: {}: {}", ran.code, ran.output);
    // Neither for what hangs nor for what it began itself.
    assert!(!folder.path().join("waited").exists(), "it was waited for: {wrong}");
}

#[test]
fn where_the_answer_to_a_deployment_is_lost_it_is_said_how_to_find_out() {
    let closed = "create-deployment) echo Connection was closed before we received a valid response >&2; exit 255 ;;";
    for wrong in ["create-deployment) kill -9 $$ ;;", "create-deployment) echo '{\"deploy' ;;", closed] {
        fails(
            wrong,
            &["deploy", "web"],
            "`aws deploy list-deployments --application-name app --deployment-group-name web",
        );
    }
}

#[test]
fn a_host_that_nobody_tells_of_has_not_got_it() {
    fails("", &["watch", "d-1"], "Succeeded: i-1; Unknown: i-2");
    fails("list-deployment-targets) echo '{}' ;;", &["watch", "d-1"], "not every host has it");
}

/// A group may have hundreds of hosts, and AWS tells of 25 at once.
#[test]
fn of_a_host_that_has_ended_nobody_asks_again() {
    let wrong = r#"
get-deployment)
    [ -e "${0%/*}/once" ] || info=$(echo "$info" | sed 's/"Succeeded"/"InProgress"/')
    echo "{\"deploymentInfo\": $info}" ;;
batch-get-deployment-targets)
    status=$([ -e "${0%/*}/once" ] && echo Succeeded || echo InProgress)
    case $status$* in Succeeded*i-1*) echo "asked again: $*" >&2; exit 255 ;; esac
    touch "${0%/*}/once"
    echo '{"deploymentTargets": ['
    case $* in *i-1*) echo '{"instanceTarget": {"targetId": "i-1", "status": "Failed"}},' ;; esac
    echo "{\"instanceTarget\": {\"targetId\": \"i-2\", \"status\": \"$status\"}}]}" ;;"#;
    fails(wrong, &["watch", "d-1"], "Succeeded: i-2; Failed: i-1");
}

#[test]
fn what_is_looked_for_before_a_deployment_ends_with_the_time_limit_too() {
    let told = "no answer after 1 s before a deployment was made";
    for (hangs, verb) in [("list-application-revisions) hang ;;", "deploy"), ("list-deployments) hang ;;", "rollback")]
    {
        ends_with(2, hangs, &[verb, "web", "--time-limit", "1"], told);
    }
}

#[test]
fn a_look_that_hangs_ends_with_the_time_limit() {
    let told = "no answer after 1 s\nthe deployment d-1 goes on; watch it:";
    fails("get-deployment) hang ;;", &["watch", "d-1", "--time-limit", "1"], told);
}

#[test]
fn a_look_that_hangs_ends_with_a_signal_to_the_program_alone() {
    let hangs = "list-deployment-targets) kill -TERM $PPID; hang ;;";
    fails(hangs, &["watch", "d-1"], "interrupted\nthe deployment d-1 goes on; watch it:");
}
