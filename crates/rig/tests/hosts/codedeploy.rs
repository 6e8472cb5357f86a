//! `just push`, `just deploy` and `just rollback`, by the AWS CLI: moto for what it knows of AWS, and for the rest a stand-in for
//! CodeDeploy's service that really deploys to hosts.

mod lost;
mod refusals;
mod terminal;

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use releases::bundle::Bundle;
use rig::{
    Host,
    codedeploy::{Account, Endpoint},
    host::Ran,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    bundles::{contents, damaged, good},
    deploy::assert_converged,
    programs::program,
};

const BUCKET: &str = "releases";

/// An application `app` with a group `web`, a bucket, and a user of them.
struct User {
    endpoint: Endpoint,
    account: Arc<Account>,
    folder: TempDir,
}

impl User {
    fn of(hosts: &[(&str, &Arc<Host>)]) -> Self {
        Self::of_group(hosts, &[])
    }

    /// Of a group that is made with these options.
    fn of_group(hosts: &[(&str, &Arc<Host>)], options: &[&str]) -> Self {
        let account = Arc::new(Account::open());
        let endpoint = Endpoint::start(&account, hosts);
        bucket_and_application(&account);
        let group = "deploy create-deployment-group --application-name app --deployment-group-name web --service-role-arn \
                     arn:aws:iam::123456789012:role/codedeploy";
        let words: Vec<_> = group.split_whitespace().chain(options.iter().copied()).collect();
        account.aws(&words);
        Self { endpoint, account, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, archive: &[u8], name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, archive).unwrap();
        path
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.account.command(&program("codedeploy"));
        command.env("AWS_ENDPOINT_URL_CODEDEPLOY", self.endpoint.url()).args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        self.command(words).output().unwrap().into()
    }

    #[track_caller]
    fn succeeds(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert_eq!(ran.code, 0, "{words:?}: {}", ran.output);
        ran.output
    }

    #[track_caller]
    fn pushes(&self, bundle: &Bundle) -> String {
        let file = self.file(&bundle.archive, &format!("{}.tgz", bundle.id));
        self.succeeds(&["push", BUCKET, "--bundle", file.to_str().unwrap()])
    }

    #[track_caller]
    fn brings(&self, bundle: &Bundle) {
        self.pushes(bundle);
        self.succeeds(&["deploy", "web"]);
    }

    /// What it has, and what it is to have, and a host refuses.
    #[track_caller]
    fn is_to_have_a_bad_one(&self) -> [Bundle; 2] {
        let (before, bad) = (good("before"), refused("bad"));
        self.brings(&before);
        self.pushes(&bad);
        [before, bad]
    }

    /// It fails, and what it says has all these.
    #[track_caller]
    fn fails(&self, words: &[&str], told: &[&str]) -> String {
        let ran = self.run(words);
        assert_eq!(ran.code, 1, "{words:?}: {}", ran.output);
        for words in told {
            assert!(ran.output.contains(words), "{words}: {}", ran.output);
        }
        ran.output
    }

    #[track_caller]
    fn is_refused(&self, words: &[&str], told: &[&str]) {
        assert_refused(&self.command(words).output().unwrap(), told);
    }

    /// Begins, and returns once it has `told` all of that, with what it said until then.
    fn begin(&self, words: &[&str], told: &[&str]) -> (Child, String) {
        let mut child = self.command(words).spawn().unwrap();
        let (mut said, mut lines) = (String::new(), BufReader::new(child.stdout.take().unwrap()));
        while !told.iter().all(|words| said.contains(words)) {
            assert!(lines.read_line(&mut said).unwrap() > 0, "{told:?}: {said}");
        }
        // The rest is short, and may be read at its end.
        child.stdout = Some(lines.into_inner());
        (child, said)
    }
}

/// One line on standard error, whatever was announced before, and exit code 2.
#[track_caller]
fn assert_refused(output: &Output, told: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.lines().count() == 1, "{}: {said}", output.status);
    for words in told {
        assert!(said.contains(words), "{words}: {said}");
    }
}

fn bucket_and_application(account: &Account) {
    let place = "LocationConstraint=eu-central-1";
    account.aws(&["s3api", "create-bucket", "--bucket", BUCKET, "--create-bucket-configuration", place]);
    account.aws(&["deploy", "create-application", "--application-name", "app"]);
}

fn interrupt(child: Child) -> Ran {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait_with_output().unwrap().into()
}

/// A folder with an AWS CLI in it that is this script.
fn aws(script: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let aws = folder.path().join("aws");
    std::fs::write(&aws, script).unwrap();
    std::fs::set_permissions(&aws, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// The PATH on which it comes first.
fn path(folder: &TempDir) -> String {
    format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap())
}

/// The id of the deployment that it began.
fn id(said: &str) -> &str {
    said.lines().find_map(|line| line.strip_prefix("deployment ")).unwrap_or_else(|| panic!("no deployment: {said}"))
}

/// A bundle that a host refuses as soon as it has the file `/root/refuse`, with its words.
fn refused(label: &str) -> Bundle {
    let mut contents = contents();
    let hook = String::from_utf8(contents.get("hooks/application-start").unwrap().to_vec()).unwrap();
    let refuse = "#!/bin/sh\n[ ! -e /root/refuse ] || { echo no database; exit 3; }\n";
    contents.put("hooks/application-start", 0o755, hook.replacen("#!/bin/sh\n", refuse, 1).as_bytes());
    contents.pack(label).unwrap()
}

/// From here on it does.
fn refuse(host: &Host) {
    host.succeed("touch /root/refuse");
}

/// A bundle whose validation does not begin before the host has the file `/root/go`.
fn waiting(label: &str) -> Bundle {
    let mut contents = contents();
    let hook = String::from_utf8(contents.get("hooks/validate-service").unwrap().to_vec()).unwrap();
    let wait = "#!/bin/sh\nuntil [ -e /root/go ]; do sleep 0.1; done\n";
    contents.put("hooks/validate-service", 0o755, hook.replacen("#!/bin/sh\n", wait, 1).as_bytes());
    contents.pack(label).unwrap()
}

/// Lets it go on.
fn go(host: &Host) {
    host.succeed("touch /root/go");
}

fn two_hosts() -> (Arc<Host>, Arc<Host>, User) {
    let [one, two] = [(); 2].map(|()| Arc::new(Host::boot()));
    let user = User::of(&[("i-one", &one), ("i-two", &two)]);
    (one, two, user)
}

#[test]
fn what_is_pushed_is_deployed_to_each_host_and_gone_back_from() {
    let (one, two, user) = two_hosts();
    let bundles = ["first", "second", "third"].map(good);
    for bundle in &bundles {
        user.pushes(bundle);
        let said = user.succeeds(&["deploy", "web"]);
        for words in ["i-one", "i-two", "Succeeded", "has succeeded", bundle.id.as_str()] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    // Once more, and it goes further back.
    for back in [&bundles[1], &bundles[0]] {
        let said = user.succeeds(&["rollback", "web"]);
        assert!(said.contains(&format!("back to s3://{BUCKET}/app-{}.tgz", back.id)), "{said}");
        for host in [&one, &two] {
            assert_converged(host, back.id.as_str());
        }
    }
    user.is_refused(&["rollback", "web"], &["none of its last 50 deployments", "--revision"]);
    // By name.
    user.succeeds(&["deploy", "web", "--revision", &format!("app-{}.tgz", bundles[1].id)]);
    assert_converged(&two, bundles[1].id.as_str());
}

#[test]
fn a_host_that_fails_shows_its_event_code_and_last_lines_and_is_the_last_one() {
    let (one, two, user) = two_hosts();
    let [before, bad] = user.is_to_have_a_bad_one();
    refuse(&one);
    user.fails(
        &["deploy", "web"],
        &[
            "ApplicationStart: ScriptFailed: ",
            "  | [stdout]no database",
            "HEALTH_CONSTRAINTS",
            "Failed: i-one; Skipped: i-two",
        ],
    );
    let history = two.succeed("releasectl history --json");
    assert!(!history.contains(bad.id.as_str()), "{history}");
    user.succeeds(&["rollback", "web"]);
    for host in [&one, &two] {
        assert_converged(host, before.id.as_str());
    }
}

/// The last host of OneAtATime may fail.
#[test]
fn what_codedeploy_calls_a_success_is_none_where_a_host_has_failed() {
    let (one, two, user) = two_hosts();
    let [before, bad] = user.is_to_have_a_bad_one();
    refuse(&two);
    user.fails(&["deploy", "web"], &["Succeeded, says CodeDeploy", "Succeeded: i-one; Failed: i-two"]);
    assert_converged(&one, bad.id.as_str());
    user.succeeds(&["rollback", "web"]);
    for host in [&one, &two] {
        assert_converged(host, before.id.as_str());
    }
}

#[test]
fn where_codedeploy_goes_back_by_itself_that_is_watched_too() {
    let hosts = [(); 3].map(|()| Arc::new(Host::boot()));
    let [one, two, three] = &hosts;
    let back = ["--auto-rollback-configuration", "enabled=true,events=DEPLOYMENT_FAILURE"];
    let user = User::of_group(&[("i-one", one), ("i-two", two), ("i-three", three)], &back);
    let [before, _] = user.is_to_have_a_bad_one();
    refuse(two);
    let said = user.fails(
        &["deploy", "web"],
        &["Succeeded: i-one; Failed: i-two; Skipped: i-three", "CodeDeploy goes back by itself\ndeployment "],
    );
    let last: Vec<_> = said.lines().rev().take(2).collect();
    let brought = format!("has succeeded: s3://{BUCKET}/app-{}.tgz on 3 hosts", before.id);
    assert!(last[0].ends_with(&brought) && last[1].contains("Failed, and CodeDeploy went back by itself"), "{said}");
    for host in &hosts {
        assert_converged(host, before.id.as_str());
    }
    // Who comes later is told the same.
    user.fails(&["watch", id(&said)], &[&brought]);
}

#[test]
fn all_at_once_begins_on_all_hosts() {
    let [one, two] = [(); 2].map(|()| Arc::new(Host::boot()));
    let at_once = ["--deployment-config-name", "CodeDeployDefault.AllAtOnce"];
    let user = User::of_group(&[("i-one", &one), ("i-two", &two)], &at_once);
    let bundle = waiting("slow");
    user.pushes(&bundle);
    // None lets the other begin: it waits for a file that neither has yet.
    let begun = ["i-one               InProgress", "i-two               InProgress"];
    let (deploys, said) = user.begin(&["deploy", "web", "--time-limit", "60"], &begun);
    assert!(!said.contains("Succeeded"), "{said}");
    go(&one);
    go(&two);
    let ran = Ran::from(deploys.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.output);
    for host in [&one, &two] {
        assert_converged(host, bundle.id.as_str());
    }
}

#[test]
fn ctrl_c_and_a_time_limit_end_the_watching_and_the_deployment_goes_on() {
    let host = Arc::new(Host::boot());
    let user = User::of(&[("i-one", &host)]);
    let bundle = waiting("slow");
    user.pushes(&bundle);
    let (deploys, said) = user.begin(&["deploy", "web"], &["InProgress"]);
    let id = id(&said);
    let ran = interrupt(deploys);
    let hints = [
        &format!("the deployment {id} goes on"),
        &format!("`just watch {id}`"),
        &format!("stop-deployment --deployment-id {id}"),
    ];
    assert!(ran.code == 1 && ran.output.contains("interrupted"), "{}: {}", ran.code, ran.output);
    assert!(hints.iter().all(|hint| ran.output.contains(*hint)), "{}", ran.output);
    user.is_refused(&["deploy", "web"], &["already has an active Deployment", hints[1], hints[2]]);
    let ran = user.run(&["watch", id, "--time-limit", "1"]);
    assert!(ran.code == 1 && ran.output.contains(" after 1 s\n"), "{}", ran.output);
    assert!(hints.iter().all(|hint| ran.output.contains(*hint)), "{}", ran.output);
    go(&host);
    user.succeeds(&["watch", id]);
    assert_converged(&host, bundle.id.as_str());
}

#[test]
fn a_rollback_stops_what_is_under_way_and_the_other_host_never_gets_it() {
    let (one, two, user) = two_hosts();
    let (before, next) = (good("before"), waiting("next"));
    user.brings(&before);
    user.pushes(&next);
    let (deploys, said) = user.begin(&["deploy", "web"], &["i-one               InProgress"]);
    // It tells of hosts once CodeDeploy has been asked to stop.
    let (goes_back, said_of_it) = user.begin(&["rollback", "web"], &["InProgress"]);
    assert!(said_of_it.contains(&format!("stopping {}", id(&said))), "{said_of_it}");
    go(&one);
    let ran = Ran::from(goes_back.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.output);
    let ran = Ran::from(deploys.wait_with_output().unwrap());
    assert!(ran.code == 1 && ran.output.contains("Stopped"), "{}", ran.output);
    for host in [&one, &two] {
        assert_converged(host, before.id.as_str());
    }
    let history = two.succeed("releasectl history --json");
    assert!(!history.contains(next.id.as_str()), "{history}");
}

#[test]
fn a_rollback_that_is_under_way_is_joined() {
    let host = Arc::new(Host::boot());
    let user = User::of(&[("i-one", &host)]);
    let before = waiting("before");
    go(&host);
    user.brings(&before);
    user.brings(&good("next"));
    host.succeed("rm /root/go");
    let (first, said) = user.begin(&["rollback", "web"], &["InProgress"]);
    let (second, joined) = user.begin(&["rollback", "web"], &["InProgress"]);
    assert!(joined.contains(&format!("{} goes back to", id(&said))), "{joined}");
    go(&host);
    for child in [first, second] {
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.output);
    }
    assert_converged(&host, before.id.as_str());
}

#[test]
fn an_alarm_stops_a_deployment_and_no_rollback() {
    let host = Arc::new(Host::boot());
    let user = User::of(&[("i-one", &host)]);
    let bundles = ["before", "now", "next"].map(good);
    user.brings(&bundles[0]);
    user.brings(&bundles[1]);
    user.endpoint.alarm();
    user.pushes(&bundles[2]);
    let ran = user.run(&["deploy", "web"]);
    assert!(ran.code == 1 && ran.output.contains("ALARM_ACTIVE"), "{}: {}", ran.code, ran.output);
    assert_converged(&host, bundles[1].id.as_str());
    user.succeeds(&["rollback", "web"]);
    user.succeeds(&["rollback", "web"]);
    assert_converged(&host, bundles[0].id.as_str());
}
