//! Point 7: what a script finds around it.

use super::*;

// Point 7.
/// Prints the environment, byte for byte, and then itself.
const ENVIRONMENT: &str = "#!/bin/cat /proc/self/environ\n";

fn environment(agent: Agent<'_>) -> (String, Vec<String>) {
    let mut agent = agent;
    let deployment = agent.deploy(&Small::hook("AfterInstall", ENVIRONMENT).tgz()).expect_success();
    let output = deployment.event("AfterInstall").output.clone();
    let line = output.lines().find_map(|line| line.strip_prefix("[stdout]")).unwrap();
    let mut variables: Vec<_> = line.split('\0').filter(|word| word.contains('=')).map(str::to_owned).collect();
    variables.sort();
    (deployment.id, variables)
}

#[test]
fn a_hook_has_these_variables_and_no_others() {
    let host = Host::boot();
    let (id, variables) = environment(Agent::new(&host).group("blue").source(Source::S3Exactly));
    let names: Vec<_> = variables.iter().map(|variable| variable.split_once('=').unwrap().0).collect();
    assert_eq!(
        names.join(" "),
        "APPLICATION_NAME BUNDLE_BUCKET BUNDLE_ETAG BUNDLE_KEY BUNDLE_VERSION DEPLOYMENT_GROUP_ID \
         DEPLOYMENT_GROUP_NAME DEPLOYMENT_ID LIFECYCLE_EVENT PATH"
    );
    for wanted in [
        format!("DEPLOYMENT_ID={id}"),
        "APPLICATION_NAME=app".to_owned(),
        "LIFECYCLE_EVENT=AfterInstall".to_owned(),
        "DEPLOYMENT_GROUP_NAME=blue".to_owned(),
    ] {
        assert!(variables.contains(&wanted), "{variables:?}");
    }
    let group = variables.iter().find_map(|variable| variable.strip_prefix("DEPLOYMENT_GROUP_ID=")).unwrap();
    host.succeed(&format!("test -d {ROOT}/{group}/{id}"));
}

#[test]
fn version_and_etag_may_be_missing_and_github_tells_a_commit_alone() {
    let host = Host::boot();
    let bundle = |source| {
        let (_, variables) = environment(Agent::new(&host).source(source));
        let names = variables.iter().filter(|variable| variable.starts_with("BUNDLE_"));
        names.map(|variable| variable.split_once('=').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(bundle(Source::S3), ["BUNDLE_BUCKET", "BUNDLE_KEY"]);
    assert_eq!(bundle(Source::GitHub), ["BUNDLE_COMMIT"]);
}

/// One line of each: arguments, umask, standard input, group and process, user, folder, control group.
const SURROUNDINGS: &str = "#!/bin/sh\necho $#\numask\ncat | wc -c\n[ $(cut -d ' ' -f 5 /proc/$$/stat) = $$ ] && echo leads\nid -u\nreadlink /proc/self/cwd\ngrep -o codedeploy-agent.service /proc/self/cgroup | head -1\n";

fn surroundings(agent: Agent<'_>) -> Vec<String> {
    let mut agent = agent;
    let deployment = agent.deploy(&Small::hook("AfterInstall", SURROUNDINGS).tgz()).expect_success();
    let output = &deployment.event("AfterInstall").output;
    output.lines().filter_map(|line| line.strip_prefix("[stdout]")).map(str::to_owned).collect()
}

#[test]
fn a_hook_has_no_arguments_begins_in_the_root_folder_leads_its_group_and_reads_nothing() {
    let host = Host::boot();
    assert_eq!(surroundings(Agent::new(&host)), ["0", "0022", "0", "leads", "0", "/", "codedeploy-agent.service"]);
}

#[test]
fn a_hook_may_begin_in_a_folder_that_is_gone() {
    let host = Host::boot();
    let folder = &surroundings(Agent::new(&host).in_a_deleted_folder())[5];
    assert!(folder.ends_with(" (deleted)"), "{folder}");
}

#[test]
fn both_pipes_are_read_at_once() {
    let host = Host::boot();
    // More than a pipe holds, of each.
    let script = "#!/bin/sh\nseq 50000 >&2\nseq 50000\nseq 50000 >&2\n";
    let small = Small::default().with("AfterInstall", "{location: hook, timeout: 60}").file("hook", 0o755, script);
    let deployment = Agent::new(&host).deploy(&small.tgz()).expect_success();
    let output = &deployment.event("AfterInstall").output;
    let count = |mark: &str| output.lines().filter(|line| line.starts_with(mark)).count();
    assert_eq!((count("[stdout]"), count("[stderr]")), (50_000, 100_000));
}

#[test]
fn a_script_without_the_execute_bit_is_given_it_and_what_it_calls_is_not() {
    let host = Host::boot();
    let calls = "#!/bin/sh\necho started\nexec \"${0%/*}/other\"\n";
    let small = Small::hook("AfterInstall", "").file("hooks/AfterInstall", 0o644, calls).file(
        "hooks/other",
        0o644,
        "#!/bin/sh\n",
    );
    let deployment = Agent::new(&host).deploy(&small.tgz()).expect_failure("AfterInstall");
    let tail = deployment.last().tail();
    assert!(tail.contains("[stdout]started") && tail.contains("Permission denied"), "{tail}");
}

/// A shell and a session between: what the agent signals is su, and the script has a HOME and a group that it does not lead.
#[test]
fn a_script_with_runas_is_started_by_su() {
    let host = Host::boot();
    let script = "#!/bin/sh\necho \"home $HOME\"; cat /proc/$PPID/comm\n";
    let small = Small::default().with("AfterInstall", "{location: hook, runas: root}").file("hook", 0o755, script);
    let deployment = Agent::new(&host).deploy(&small.tgz()).expect_success();
    let output = &deployment.event("AfterInstall").output;
    assert!(output.contains("[stdout]home /root\n[stdout]su\n"), "{output}");
}

#[test]
fn sudo_goes_before_the_script_and_before_su() {
    let host = Host::boot();
    let sudo = "#!/bin/sh\necho \"sudo $*\"\nexec \"$@\"\n";
    fs::write(host.path("/usr/local/bin/sudo"), sudo).unwrap();
    host.succeed("chmod +x /usr/local/bin/sudo");
    for (runas, before) in [("", ""), (", runas: root", "su root -c ")] {
        let hook = format!("{{location: hook, sudo: true{runas}}}");
        let small = Small::default().with("AfterInstall", &hook).file("hook", 0o755, "#!/bin/sh\necho ran\n");
        let deployment = Agent::new(&host).deploy(&small.tgz()).expect_success();
        let wanted = format!("[stdout]sudo {before}{}/hook\n[stdout]ran\n", archive(&host, &deployment));
        let output = &deployment.event("AfterInstall").output;
        assert!(output.contains(&wanted), "{output}");
    }
}
