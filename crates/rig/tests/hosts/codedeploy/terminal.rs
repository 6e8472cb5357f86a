//! What a person sees at a terminal of 80 columns, where the AWS CLI always says the same.

use std::io::{Read, Write};

use super::*;

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;
/// One host that starts the release, and another with the longest name that a host on premises may have.
const AWS: &str = r#"#!/bin/sh
case $2 in
get-deployment) cat <<'END'
{"deploymentInfo": {"deploymentId": "d-ABCDEFGHI", "status": "InProgress", "createTime": 1,
 "revision": {"revisionType": "S3", "s3Location": {"bucket": "b", "key": "k", "bundleType": "tgz"}}}}
END
;;
list-deployment-targets) echo '{"targetIds": ["i-one", "LONG"]}' ;;
batch-get-deployment-targets) cat <<'END'
{"deploymentTargets": [
 {"instanceTarget": {"targetId": "i-one", "status": "InProgress", "lifecycleEvents": [
  {"lifecycleEventName": "ApplicationStart", "status": "InProgress", "startTime": 1}]}},
 {"instanceTarget": {"targetId": "LONG", "status": "InProgress", "lifecycleEvents": [
  {"lifecycleEventName": "ValidateService", "status": "InProgress", "startTime": 1}]}}]}
END
;;
esac
"#;
const INTERRUPT: &[u8] = b"\x03";

#[test]
fn a_line_turns_for_each_host_and_none_is_left_behind() {
    let long = "premises-".repeat(11);
    let folder = aws(&AWS.replace("LONG", &long));
    let mut child = at_a_terminal(&folder, &["watch", "d-ABCDEFGHI"]);
    let (mut out, mut terminal) = (child.stdout.take().unwrap(), vt100::Parser::new(ROWS, COLUMNS, 0));
    let wanted = [" i-one ApplicationStart, ", " d-ABCDEFGHI InProgress, 0 of 2 hosts, "];
    while !wanted.iter().all(|line| terminal.screen().contents().contains(line)) {
        let mut bytes = [0; 4096];
        let read = out.read(&mut bytes).unwrap();
        assert!(read > 0, "{}", terminal.screen().contents());
        terminal.process(&bytes[..read]);
    }
    child.stdin.as_mut().unwrap().write_all(INTERRUPT).unwrap();
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    terminal.process(&rest);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let said = format!(
        "d-ABCDEFGHI brings s3://b/k\n  i-one               InProgress\n  {long} InProgress\ncodedeploy: interrupted\n\
         the deployment d-ABCDEFGHI goes on; watch it: `just watch d-ABCDEFGHI`; stop it: `aws deploy stop-deployment \
         --deployment-id d-ABCDEFGHI`"
    );
    assert_eq!(terminal.screen().contents().trim_end(), said);
}

/// On a terminal of its own, which `script` of util-linux makes. It shows no `^C`: where a terminal does, that begins a line below the
/// others, and the first of these stays.
fn at_a_terminal(folder: &TempDir, words: &[&str]) -> Child {
    let run = format!(
        "stty columns {COLUMNS} rows {ROWS} -echoctl && exec {} {}",
        program("codedeploy").display(),
        words.join(" ")
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--flush", "--command", &run, "/dev/null"]);
    command.env("PATH", path(folder)).env("TERM", "xterm").env_remove("COLUMNS");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}
