//! The store on the files of a host that does not run (`--root`): every verb by its real binary, no systemd needed.

#![allow(clippy::disallowed_methods, reason = "a test sets its host up, and damages it")]

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use flate2::{read::GzDecoder, write::GzEncoder};
use releases::manifest::REQUIRED;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// An empty host, and a folder for bundles.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("host/etc")).unwrap();
        Self { folder }
    }

    fn host(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    /// An unpacked bundle with all that is required, and its id.
    fn bundle(&self, label: &str) -> (PathBuf, String) {
        let folder = self.folder.path().join(label);
        let mut files = Vec::new();
        for path in REQUIRED {
            let (at, mode) = (folder.join(path), if path.starts_with("bin/") { 0o755 } else { 0o644 });
            let text = match path {
                "units/app.sysusers" => "u app - \"app\" /var/lib/app\n".to_owned(),
                "units/app.socket" => "[Socket]\nListenStream=80\n[Install]\nWantedBy=sockets.target\n".to_owned(),
                "units/app.service" => {
                    "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n".to_owned()
                }
                "units/app@.service" => {
                    format!("# {label}\nStartLimitIntervalSec=0\nType=notify\nNonBlocking=yes\nRestart=no\n")
                }
                _ => format!("{path} of {label}\n"),
            };
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(&at, &text).unwrap();
            fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
            let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
            files.push(json!({"path": path, "mode": format!("{mode:04o}"), "size": text.len(), "sha256": digest}));
        }
        let arch = std::env::consts::ARCH;
        let manifest =
            json!({"format": 1, "app": "app", "label": label, "commit": "c0ffee", "arch": arch, "files": files});
        let id = write_manifest(&folder, &manifest);
        (folder, id)
    }

    fn run(&self, arguments: &[&str]) -> assert_cmd::assert::Assert {
        let mut command = Command::cargo_bin("releasectl").unwrap();
        command.arg("--root").arg(self.host()).args(arguments).assert()
    }

    fn install(&self, bundle: &Path) -> assert_cmd::assert::Assert {
        self.run(&["install", bundle.to_str().unwrap()])
    }

    fn link(&self, name: &str) -> String {
        fs::read_link(self.host().join("opt/app").join(name)).unwrap().to_str().unwrap().to_owned()
    }

    /// Every path of the host with mode and contents: the store byte for byte, but for who last held its lock.
    fn picture(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let (mut picture, mut folders) = (BTreeMap::new(), vec![self.host()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                let bytes = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                if path.ends_with("opt/app/lock") {
                    continue;
                }
                picture.insert(path, (metadata.mode(), bytes));
            }
        }
        picture
    }

    /// Installing `bundle`, and the same as an archive, must fail with one clear line that has `words`, and change nothing.
    fn refuses(&self, bundle: &Path, words: &str) {
        self.refuses_one(bundle, words);
        self.refuses_one(&self.pack(bundle), words);
    }

    fn refuses_one(&self, bundle: &Path, words: &str) {
        let before = self.picture();
        let output = self.install(bundle).failure().code(2).get_output().clone();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(words) && said.lines().count() == 1, "wanted {words:?}: {said}");
        assert!(self.picture() == before, "{words}: the host is not as it was");
    }

    /// An archive of a bundle, whatever is in it.
    fn pack(&self, bundle: &Path) -> PathBuf {
        let archive = self.folder.path().join("packed.tgz");
        let pack = "cd \"$1\" && tar -cz --format=ustar --hard-dereference -f \"$2\" *";
        let packed = std::process::Command::new("sh").args(["-c", pack, "sh"]).args([bundle, &archive]).status();
        assert!(packed.unwrap().success());
        archive
    }
}

fn write_manifest(folder: &Path, manifest: &Value) -> String {
    let text = serde_json::to_vec_pretty(manifest).unwrap();
    fs::write(folder.join("manifest.json"), &text).unwrap();
    id_of(&text)
}

/// R1.
fn id_of(manifest: &[u8]) -> String {
    Sha256::digest(manifest).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn edit_manifest(folder: &Path, edit: impl FnOnce(&mut Value)) {
    let mut manifest = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    edit(&mut manifest);
    write_manifest(folder, &manifest);
}

/// R1, R2: the id follows from the manifest, and the release is its files and nothing else.
#[test]
fn a_bundle_becomes_a_release_named_by_its_manifest() {
    let files = Files::new();
    let (bundle, id) = files.bundle("one");
    files.install(&bundle).success();
    let release = files.host().join("opt/app/releases").join(&id);
    assert_eq!(fs::read(release.join("bin/app")).unwrap(), fs::read(bundle.join("bin/app")).unwrap());
    assert_eq!(fs::metadata(release.join("bin/app")).unwrap().mode() & 0o7777, 0o755);
    assert!(files.host().join(format!("etc/systemd/system/app-{id}@.service")).is_file());
    assert!(files.host().join("etc/systemd/system/sockets.target.wants/app.socket").is_symlink());
    assert!(fs::read_to_string(files.host().join("etc/passwd")).unwrap().contains("app:"));
}

#[test]
fn installing_again_copies_nothing() {
    let files = Files::new();
    let (bundle, id) = files.bundle("one");
    files.install(&bundle).success();
    let inode = || fs::metadata(files.host().join("opt/app/releases").join(&id).join("bin/app")).unwrap().ino();
    let before = inode();
    files.install(&bundle).success();
    assert_eq!(inode(), before);
}

/// R2: a damaged release is repaired by installing it again.
#[test]
fn a_release_that_was_damaged_in_the_store_is_repaired() {
    let files = Files::new();
    let (bundle, id) = files.bundle("one");
    files.install(&bundle).success();
    let file = files.host().join("opt/app/releases").join(&id).join("bin/app");
    fs::write(&file, "rotten").unwrap();
    files.run(&["activate", &id]).failure().code(2);
    files.install(&bundle).success();
    assert_eq!(fs::read(file).unwrap(), fs::read(bundle.join("bin/app")).unwrap());
    assert_eq!(fs::read_dir(files.host().join("opt/app/releases")).unwrap().count(), 1, "nothing is left aside");
}

/// R3: what a killed install left aside is not a release, and is replaced.
#[test]
fn what_a_killed_install_left_is_no_release() {
    let files = Files::new();
    let (bundle, id) = files.bundle("one");
    let aside = files.host().join("opt/app/releases").join(format!(".{id}.new"));
    fs::create_dir_all(aside.join("bin")).unwrap();
    fs::write(aside.join("bin/app"), "half").unwrap();
    let listed = files.run(&["list"]).success().get_output().stdout.clone();
    assert!(!String::from_utf8(listed).unwrap().contains(&id));
    files.install(&bundle).success();
    assert!(!aside.exists());
}

#[test]
fn a_bundle_that_is_not_as_its_manifest_says_is_refused_and_nothing_changes() {
    let files = Files::new();
    let damage = |name: &str, words: &str, damage: &dyn Fn(&Path)| {
        let (bundle, _) = files.bundle(name);
        damage(&bundle);
        files.refuses(&bundle, words);
    };
    damage("flipped", "SHA-256", &|bundle| fs::write(bundle.join("bin/app"), "bin/app of flippeD\n").unwrap());
    damage("truncated", "bytes", &|bundle| fs::write(bundle.join("bin/app"), "bin").unwrap());
    damage("missing", "not here", &|bundle| fs::remove_file(bundle.join("bin/app")).unwrap());
    damage("excess", "not in the manifest", &|bundle| fs::write(bundle.join("bin/more"), "x").unwrap());
    damage("mode", "mode", &|bundle| {
        fs::set_permissions(bundle.join("bin/app"), fs::Permissions::from_mode(0o4755)).unwrap();
    });
    damage("link", "regular file", &|bundle| {
        fs::rename(bundle.join("bin/app"), bundle.join("../stolen")).unwrap();
        symlink("../../stolen", bundle.join("bin/app")).unwrap();
    });
    damage("empty", "manifest.json", &|bundle| fs::remove_file(bundle.join("manifest.json")).unwrap_or_default());
}

/// R1, R2: it need not be unpacked.
#[test]
fn an_archive_becomes_the_same_release_as_what_is_in_it() {
    let (files, packed) = (Files::new(), Files::new());
    let (bundle, id) = files.bundle("one");
    files.install(&bundle).success();
    let archive = packed.pack(&bundle);
    packed.install(&archive).success();
    let below = |files: &Files| {
        let host = files.host();
        let relative = |(path, found): (PathBuf, _)| (path.strip_prefix(&host).unwrap().to_owned(), found);
        let mut picture: BTreeMap<_, _> = files.picture().into_iter().map(relative).collect();
        // It has times in it.
        picture.remove(Path::new("opt/app/activations.jsonl"));
        picture
    };
    assert!(below(&files) == below(&packed));
    packed.run(&["activate", archive.to_str().unwrap()]).success();
    assert_eq!(packed.link("current"), format!("releases/{id}"));
}

/// As an interrupted download leaves it, and as a bad disk or line does.
#[test]
fn an_archive_that_ends_anywhere_or_has_a_bit_flipped_is_refused_and_nothing_changes() {
    let files = Files::new();
    let (bundle, _) = files.bundle("one");
    let whole = fs::read(files.pack(&bundle)).unwrap();
    let damaged = files.folder.path().join("damaged.tgz");
    for length in 0..whole.len() {
        fs::write(&damaged, &whole[..length]).unwrap();
        files.refuses_one(&damaged, "is no whole archive");
    }
    let unpack = |archive: &[u8]| {
        let mut bytes = Vec::new();
        GzDecoder::new(archive).read_to_end(&mut bytes).map(|_| bytes)
    };
    let unpacked = unpack(&whole).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        // Some are of no use: a time in gzip's header, what fills the last byte.
        if unpack(&bytes).is_ok_and(|bytes| bytes == unpacked) {
            continue;
        }
        fs::write(&damaged, bytes).unwrap();
        files.refuses_one(&damaged, "is no whole archive");
    }
}

/// One entry more than a sound bundle has, or another one in its place.
#[test]
fn an_archive_that_would_write_elsewhere_or_something_else_is_refused_and_nothing_changes() {
    let files = Files::new();
    let (bundle, _) = files.bundle("one");
    let entries = |archive: &mut tar::Builder<_>| {
        for path in REQUIRED.into_iter().chain(["manifest.json"]) {
            archive.append_path_with_name(bundle.join(path), path).unwrap();
        }
    };
    let refuses = |words: &str, add: &dyn Fn(&mut tar::Builder<GzEncoder<fs::File>>)| {
        let path = files.folder.path().join("hostile.tgz");
        let mut archive =
            tar::Builder::new(GzEncoder::new(fs::File::create(&path).unwrap(), flate2::Compression::fast()));
        add(&mut archive);
        entries(&mut archive);
        archive.into_inner().unwrap().finish().unwrap();
        files.refuses_one(&path, words);
    };
    for name in ["../out", "/etc/cron.d/x", "bin/../../out", "bin/\u{1b}[2J", "units/a b", ".", "bin//app"] {
        refuses("is not a path", &|archive| {
            let mut header = tar::Header::new_ustar();
            // `set_path` refuses what these are.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(1);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append(&header, &b"x"[..]).unwrap();
        });
    }
    use tar::EntryType::{Block, Char, Fifo, GNULongName, GNUSparse, Link, Symlink, XGlobalHeader, XHeader};
    for kind in [Symlink, Link, Char, Block, Fifo, GNULongName, GNUSparse, XGlobalHeader, XHeader] {
        refuses("is not a regular file", &|archive| {
            let mut header = tar::Header::new_ustar();
            header.set_path("bin/more").unwrap();
            header.set_link_name("/etc/passwd").unwrap();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append(&header, &b""[..]).unwrap();
        });
    }
    refuses("is there twice", &|archive| archive.append_path_with_name(bundle.join("bin/app"), "bin/app").unwrap());
    // 1:1000: what it unpacks to is read, and nowhere kept.
    refuses("1024 MiB", &|archive| {
        let mut header = tar::Header::new_ustar();
        header.set_path("bin/bomb").unwrap();
        header.set_size(2 << 30);
        header.set_mode(0o755);
        header.set_cksum();
        archive.append(&header, std::io::repeat(0).take(1 << 20)).unwrap();
    });
    refuses("SHA-256", &|archive| {
        fs::write(bundle.join("bin/app"), "bin/app of onE\n").unwrap();
        archive.append_dir("bin", &bundle).unwrap();
    });
}

#[test]
fn a_bit_that_is_flipped_in_any_file_is_found() {
    let files = Files::new();
    for path in REQUIRED {
        let (bundle, _) = files.bundle("flipped");
        let mut bytes = fs::read(bundle.join(path)).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(bundle.join(path), bytes).unwrap();
        files.refuses(&bundle, path);
        fs::remove_dir_all(bundle).unwrap();
    }
}

#[test]
fn what_is_no_file_or_too_much_of_them_is_refused_and_nothing_changes() {
    let files = Files::new();
    let in_place = |name: &str, make: &str| {
        let (bundle, _) = files.bundle(name);
        fs::remove_file(bundle.join("bin/app")).unwrap();
        let made = std::process::Command::new("sh").args(["-c", make, "sh"]).arg(bundle.join("bin/app")).status();
        assert!(made.unwrap().success(), "{make}");
        bundle
    };
    files.refuses(&in_place("fifo", "mkfifo $1"), "regular file");
    files.refuses(&in_place("device", "mknod $1 c 1 3"), "regular file");
    files.refuses(&in_place("folder", "mkdir $1"), "not here");
    files.refuses(&in_place("itself", "ln -s . $1"), "regular file");
    let (bundle, _) = files.bundle("many");
    for n in 0..100_000 {
        fs::write(bundle.join(format!("units/{n}")), "").unwrap();
    }
    files.refuses_one(&bundle, "not in the manifest");
    files.refuses_one(&files.pack(&bundle), "more than 10000 entries");
    let (bundle, _) = files.bundle("many listed");
    edit_manifest(&bundle, |manifest| {
        let file = manifest["files"][0].clone();
        let listed = (0..100_000).map(|n| {
            let mut file = file.clone();
            file["path"] = format!("bin/{n}").into();
            file
        });
        manifest["files"] = listed.collect();
    });
    files.refuses(&bundle, "not a manifest");
}

/// As an interrupted download leaves it.
#[test]
fn a_manifest_that_ends_anywhere_is_refused_and_nothing_changes() {
    let files = Files::new();
    let (bundle, _) = files.bundle("short");
    let whole = fs::read(bundle.join("manifest.json")).unwrap();
    for length in (0..whole.len()).step_by(7) {
        fs::write(bundle.join("manifest.json"), &whole[..length]).unwrap();
        files.refuses(&bundle, "not a manifest");
    }
}

#[test]
fn a_manifest_that_is_none_or_of_another_kind_is_refused_and_nothing_changes() {
    let files = Files::new();
    let wrong = |name: &str, words: &str, edit: &dyn Fn(&mut Value)| {
        let (bundle, _) = files.bundle(name);
        edit_manifest(&bundle, edit);
        files.refuses(&bundle, words);
    };
    wrong("format", "format 2", &|manifest| manifest["format"] = 2.into());
    wrong("arch", "built for", &|manifest| manifest["arch"] = "pdp11".into());
    wrong("app", "other", &|manifest| manifest["app"] = "other".into());
    wrong("outside", "not a path", &|manifest| manifest["files"][0]["path"] = "../../etc/passwd".into());
    wrong("none", "not a manifest", &|manifest| *manifest = json!([1, 2]));
}

/// R5, R6: the links name releases, and the way back is the log's.
#[test]
fn current_is_a_link_and_a_rollback_names_what_was_validated() {
    let files = Files::new();
    let (one, two) = (files.bundle("one"), files.bundle("two"));
    for (bundle, id) in [&one, &two] {
        files.install(bundle).success();
        files.run(&["activate", id]).success();
    }
    assert_eq!(files.link("current"), format!("releases/{}", two.1));
    assert_eq!(files.link("validated"), format!("releases/{}", one.1), "the first one until one has passed");
    files.run(&["rollback"]).failure().code(2);
    files.run(&["rollback", &one.1]).success();
    assert_eq!(files.link("current"), format!("releases/{}", one.1));
    assert_eq!(
        fs::read_to_string(files.host().join("opt/app/counter")).unwrap(),
        "00000000000000000003\n",
        "no number is used twice"
    );
}

/// What a later releasectl may have written, as far as its rules allow it, and an older bundle's on top of that.
#[test]
fn a_store_of_the_future_loses_nothing_and_the_way_back_works() {
    let files = Files::new();
    let (one, two) = (files.bundle("one"), files.bundle("two"));
    edit_manifest(&two.0, |manifest| manifest["signature"] = json!({"by": "later"}));
    let two = (two.0.clone(), id_of(&fs::read(two.0.join("manifest.json")).unwrap()));
    for (bundle, id) in [&one, &two] {
        files.install(bundle).success();
        files.run(&["activate", id]).success();
    }
    let base = files.host().join("opt/app");
    let log = base.join("activations.jsonl");
    let later = format!(
        "{{\"validated\":\"{}\",\"time\":1,\"receipt\":\"r-1\"}}\n{{\"canary\":\"{}\",\"share\":0.1}}\n",
        one.1, two.1
    );
    let before = fs::read_to_string(&log).unwrap() + &later;
    fs::write(&log, &before).unwrap();
    fs::write(base.join("receipts.jsonl"), "{}\n").unwrap();
    fs::create_dir(base.join("canaries")).unwrap();
    files.install(&one.0).success();
    files.run(&["rollback"]).success();
    assert_eq!(files.link("current"), format!("releases/{}", one.1));
    files.run(&["prune", "--keep", "1"]).success();
    assert!(fs::read_to_string(&log).unwrap().starts_with(&before), "not a byte of it is changed");
    assert!(base.join("receipts.jsonl").exists() && base.join("canaries").exists());

    fs::write(base.join("format"), "2\n").unwrap();
    let picture = files.picture();
    for verb in [["install", one.0.to_str().unwrap()], ["activate", &one.1], ["rollback", &one.1], ["pin", &one.1]] {
        let output = files.run(&verb).failure().code(2).get_output().clone();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("/opt/app/format: format 2") && said.lines().count() == 1, "{said}");
    }
    assert!(files.picture() == picture);
    files.run(&["status"]).success();
    files.run(&["list"]).success();
}

/// R4: a lost counter does not count again from 1.
#[test]
fn a_lost_counter_goes_on_from_the_log() {
    let files = Files::new();
    let (bundle, id) = files.bundle("one");
    files.install(&bundle).success();
    files.run(&["activate", &id]).success();
    files.run(&["activate", &id]).success();
    fs::write(files.host().join("opt/app/counter"), "garbage").unwrap();
    files.run(&["activate", &id]).success();
    assert_eq!(fs::read_to_string(files.host().join("opt/app/counter")).unwrap(), "00000000000000000003\n");
}

/// R4: an instance can be started where there is no room for a new counter (here its new file cannot be made).
#[test]
fn a_counter_that_cannot_be_replaced_is_written_over() {
    let files = Files::new();
    let (bundle, id) = files.bundle("one");
    files.install(&bundle).success();
    files.run(&["activate", &id]).success();
    fs::create_dir(files.host().join("opt/app/counter.new")).unwrap();
    files.run(&["activate", &id]).success();
    assert_eq!(fs::read_to_string(files.host().join("opt/app/counter")).unwrap(), "00000000000000000002\n");
}

/// R6: what is not whole is no way back.
#[test]
fn a_rollback_passes_over_a_release_that_is_damaged() {
    let files = Files::new();
    let [one, two, three] = ["one", "two", "three"].map(|label| files.bundle(label));
    let log = files.host().join("opt/app/activations.jsonl");
    for (bundle, id) in [&one, &two, &three] {
        files.install(bundle).success();
        files.run(&["activate", id]).success();
        // As validate writes it, which needs a host that runs.
        let line = format!("{{\"validated\":\"{id}\",\"time\":1}}\n");
        fs::write(&log, fs::read_to_string(&log).unwrap() + &line).unwrap();
    }
    fs::write(files.host().join("opt/app/releases").join(&two.1).join("bin/app"), "BIN/app of two\n").unwrap();
    files.run(&["rollback"]).success();
    assert_eq!(files.link("current"), format!("releases/{}", one.1));
}

#[test]
fn bad_input_is_one_clear_line_and_changes_nothing() {
    let files = Files::new();
    let (bundle, _) = files.bundle("one");
    files.install(&bundle).success();
    let before = files.picture();
    for arguments in [
        &["activate", "../x"][..],
        &["activate", "0123456789abcdef"],
        &["activate", "/nowhere"],
        &["rollback", "../../etc"],
        &["rollback"],
        &["install", "/nowhere"],
        &["boot"],
        &["validate"],
        &["socket", "apply"],
    ] {
        let output = files.run(arguments).failure().get_output().clone();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("releasectl: ") && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    assert!(files.picture() == before, "the host is not as it was");
}

#[test]
fn status_and_list_are_json_on_request() {
    let files = Files::new();
    let (bundle, id) = files.bundle("one");
    files.install(&bundle).success();
    files.run(&["activate", &id]).success();
    let output = |verb| files.run(&[verb, "--json"]).success().get_output().stdout.clone();
    let status: Value = serde_json::from_slice(&output("status")).unwrap();
    assert_eq!((&status["current"], &status["provisional"]), (&json!(id), &json!(false)));
    let list: Value = serde_json::from_slice(&output("list")).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["label"], &list[0]["current"]), (&json!(id), &json!("one"), &json!(true)));
}
