//! Points 5 and 6: unpacking, stripping and pruning.

use std::{collections::BTreeSet, io::Read};

use flate2::read::GzDecoder;

use super::*;

// Point 5.
#[test]
fn a_tgz_sets_modes_setuid_and_owners_of_its_root_folder_too() {
    let host = Host::boot();
    let small = Small::default().file("./", 0o711, "").file("owned", 0o4750, "x").file("link", 0, "owned");
    let deployment = Agent::new(&host).deploy(&small.tgz()).expect_success();
    let stat = |name: &str| host.succeed(&format!("cd {}; stat -c '%a %u:%g' {name}", archive(&host, &deployment)));
    assert_eq!((stat("owned").trim(), stat(".").trim()), ("4750 1234:5678", "711 1234:5678"));
    host.succeed(&format!("test -L {}/link", archive(&host, &deployment)));
}

#[test]
fn a_tar_that_nobody_has_packed_is_a_bundle_too() {
    let host = Host::boot();
    let mut tar = Vec::new();
    GzDecoder::new(&Small::default().file("tool", 0o751, "x").tgz()[..]).read_to_end(&mut tar).unwrap();
    let deployment = Agent::new(&host).deploy(&tar).expect_success();
    assert_eq!(host.succeed(&format!("stat -c %a {}/tool", archive(&host, &deployment))).trim(), "751");
}

fn zipped() -> Vec<u8> {
    let small = Small::default().file("tool", 0o755, "x").file("setuid", 0o4755, "x").file("link", 0, "tool");
    agent::as_zip(&small.tgz()).unwrap()
}

#[test]
fn a_zip_keeps_stored_modes_and_links_and_drops_setuid() {
    let host = Host::boot();
    let deployment = Agent::new(&host).deploy(&zipped()).expect_success();
    let modes = host.succeed(&format!("cd {}; stat -c %a tool setuid; readlink link", archive(&host, &deployment)));
    assert_eq!(modes.split_whitespace().collect::<Vec<_>>(), ["755", "755", "tool"]);
}

#[test]
fn where_unzip_is_missing_every_file_is_0644_links_are_left_out_and_it_is_called_a_success() {
    let host = Host::boot();
    host.succeed("rm /usr/bin/unzip");
    let deployment = Agent::new(&host).deploy(&zipped()).expect_success();
    let modes = host.succeed(&format!("cd {}; stat -c %a tool setuid appspec.yml", archive(&host, &deployment)));
    assert_eq!(modes.split_whitespace().collect::<Vec<_>>(), ["644"; 3]);
    host.fail(&format!("test -L {0}/link || test -e {0}/link", archive(&host, &deployment)));
}

#[test]
fn without_unzip_a_path_that_leads_outside_is_followed() {
    let host = Host::boot();
    let script = "import sys, zipfile\nwith zipfile.ZipFile('/root/bundle', 'w') as to:\n  to.writestr('../outside', 'x')\n  to.writestr('appspec.yml', 'version: 0.0\\nos: linux\\n')\n";
    host.command("python3").args(["-c", script]).status().unwrap();
    let bundle = fs::read(host.path("/root/bundle")).unwrap();
    let deployment = Agent::new(&host).deploy(&bundle).expect_success();
    host.fail(&format!("test -e {}/outside", folder(&host, &deployment)));
    host.succeed("rm /usr/bin/unzip");
    let deployment = Agent::new(&host).deploy(&bundle).expect_success();
    host.succeed(&format!("test -e {}/outside", folder(&host, &deployment)));
}

/// It writes into what unzip has left, and changes no mode of that; unzip would have set the times that are stored.
#[test]
fn where_unzip_only_warns_all_is_unpacked_again_over_it() {
    let host = Host::boot();
    let bundle = [b"junk before it".as_slice(), &zipped()].concat();
    let deployment = Agent::new(&host).kind(Kind::Zip).deploy(&bundle).expect_success();
    host.succeed(&format!("cd {}; test -x tool && test -L link", archive(&host, &deployment)));
    host.succeed(&format!("test {}/tool -nt /run/systemd/system", archive(&host, &deployment)));
    let torn = &zipped()[..200];
    let deployment = Agent::new(&host).deploy(torn).expect_failure("DownloadBundle");
    assert_eq!(code(&deployment), Some(Code::UnknownError));
}

#[test]
fn a_zip_that_fills_the_disk_fails_the_download_and_leaves_nothing_unpacked() {
    let host = host_with_a_small_disk();
    let large = Small::default().file("large", 0o644, &"x".repeat(2 << 20)).tgz();
    let deployment = Agent::new(&host).deploy(&agent::as_zip(&large).unwrap()).expect_failure("DownloadBundle");
    assert!(deployment.failure().unwrap().message.contains("disk is (or was) full"), "{:?}", deployment.failure());
    host.fail(&format!("test -e {}", archive(&host, &deployment)));
}

// Point 6.
#[test]
fn a_sole_folder_that_holds_an_appspec_is_stripped_and_no_other() {
    let host = Host::boot();
    let appspec = Small::default().appspec();
    let at = |path: &str| (path.to_owned(), 0o644, appspec.clone());
    let deployment = Agent::new(&host).deploy(&pack(&[at("app-1/appspec.yml"), at("app-1/.hidden")])).expect_success();
    host.succeed(&format!(
        "cd {}; test -e appspec.yml && test -e .hidden && test ! -e app-1",
        archive(&host, &deployment)
    ));
    let deployment = Agent::new(&host).deploy(&pack(&[at("app-1/AppSpec.txt")])).expect_failure("BeforeInstall");
    host.succeed(&format!("test -e {}/AppSpec.txt", archive(&host, &deployment)));
    // A second entry, a hidden one even, or a folder without an appspec.
    for bundle in [pack(&[at("app-1/appspec.yml"), at(".hidden")]), pack(&[at("app-1/file")])] {
        let deployment = Agent::new(&host).deploy(&bundle).expect_failure("BeforeInstall");
        host.succeed(&format!("test -d {}/app-1", archive(&host, &deployment)));
    }
}

/// The deployments that have a folder.
fn there(host: &Host) -> BTreeSet<String> {
    let listed = host.succeed(&format!("cd {ROOT}; ls -d */d-*"));
    listed.lines().map(|line| line.split_once('/').unwrap().1.to_owned()).collect()
}

fn ids(deployments: &[&Deployment]) -> BTreeSet<String> {
    deployments.iter().map(|deployment| deployment.id.clone()).collect()
}

#[test]
fn before_a_download_old_deployments_are_pruned_and_never_the_last_that_was_installed() {
    let host = Host::boot();
    let (good, bad) = (Small::default().tgz(), b"no archive".to_vec());
    let mut agent = Agent::new(&host).max_revisions(2);
    let first = agent.deploy(&good).expect_success();
    let installed = agent.deploy(&good).expect_success();
    assert_eq!(there(&host), ids(&[&first, &installed]));
    let failed = agent.deploy(&bad).expect_failure("DownloadBundle");
    assert_eq!(there(&host), ids(&[&installed, &failed]), "the oldest is gone, though the download failed");
    let again = agent.deploy(&bad).expect_failure("DownloadBundle");
    assert_eq!(there(&host), ids(&[&installed, &again]), "the oldest is the last that was installed, and stays");
    Agent::new(&host).group("other").max_revisions(1).deploy(&good).expect_success();
    assert_eq!(there(&host).len(), 3, "another group's are no concern of it");
}

#[test]
fn the_oldest_are_pruned_first_and_five_are_kept_where_nothing_else_is_said() {
    let host = Host::boot();
    let bundle = Small::default().tgz();
    let deployments: Vec<_> = (0..7).map(|_| Agent::new(&host).deploy(&bundle).expect_success()).collect();
    assert_eq!(there(&host), ids(&deployments[2..].iter().collect::<Vec<_>>()));
}
