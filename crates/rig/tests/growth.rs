//! A short pass of the chapters of `just bench` about deployments, size and growth: that all of it is measured, or named, and
//! told in the report. How fast it is on a busy machine means nothing.

use std::fs;

use rig::{
    bench::{self, Effort},
    machine,
};
use serde_json::Value;

#[test]
fn what_is_measured_of_deployments_size_and_growth_is_told_in_the_report() {
    machine::prepare().unwrap();
    let names = ["deploying", "hardening", "handing-over", "small", "growth"].map(str::to_owned);
    bench::run(Effort::SHORT, &names).unwrap();
    let report = fs::read(rig::workspace().join("target/bench/part/report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let [deploying, hardening, handing_over, small, growth] = [0, 1, 2, 3, 4].map(|n| Chapter(&report["chapters"][n]));
    assert_deploying(&deploying);
    assert_hardening(&hardening);
    assert_handing_over(&handing_over);
    assert_small(&small);
    assert_growth(&growth);
}

fn assert_deploying(deploying: &Chapter) {
    deploying.assert_measured("hook after-install (install)", &["ours"]);
    deploying.assert_measured("hook application-start (activate)", &["ours"]);
    deploying.assert_measured("hook validate-service (validate)", &["ours"]);
    deploying.assert_measured("all three hooks", &["ours"]);
    deploying.assert_measured("from its beginning to the first answer of the new release", &["ours"]);
    deploying.assert_measured("releasectl rollback, validation included", &["ours"]);
    deploying.assert_measured("from its beginning to the first answer of the old release", &["ours"]);
    deploying.assert_measured("systemctl start of the same unit", &["ours"]);
    deploying.assert_measured("from nothing copied to serving", &["ours", "rsync"]);
    for verb in ["activate", "rollback"] {
        let steps = ["ours, verify", "ours, prepare", "ours, start", "ours, flip", "ours, retire"];
        deploying.assert_measured(&format!("where the time of {verb} goes"), &steps);
    }
    deploying.assert_measured("where the time of rollback goes", &["ours, answer", "ours, settle"]);
    for verb in ["install", "activate", "validate", "rollback"] {
        // Each promises what must outlive a power cut.
        assert!(deploying.median(&format!("{verb}: waits for the disk"), "ours") > Some(0.0), "{verb}");
        assert!(deploying.median(&format!("{verb}: for so long, all together"), "ours") > Some(0.0), "{verb}");
    }
    deploying.assert_goals(&["releasectl activate, beyond", "releasectl rollback, beyond"]);
}

fn assert_hardening(hardening: &Chapter) {
    let parts = [
        "without: network",
        "without: IP filter",
        "without: system call filter",
        "without: other seccomp",
        "without: users",
        "without: devices",
        "without: file system",
        "without: kernel",
        "without: proc",
        "without: privileges",
        "without any of it",
        "as shipped, in a root of its own",
    ];
    hardening.assert_measured("systemctl start", &[&["ours, as shipped"], &parts[..]].concat());
    hardening.assert_measured("what the part costs", &parts);
    hardening.assert_measured("exposure", &[&["ours, as shipped"], &parts[..]].concat());
    let exposure = |whose| hardening.median("exposure", whose);
    assert!(exposure("without any of it") > exposure("ours, as shipped"));
}

fn assert_handing_over(handing_over: &Chapter) {
    let (gone, longest) =
        ("systemctl stop to the end of who had them, all handed over", "longest request on any of them");
    for count in [10, 100] {
        let of = |what: &str| format!("{what}, {count} idle connections");
        let both = ["ours, releasectl restart", "systemctl start of the same unit"];
        handing_over.assert_measured(&of("an activation beside systemctl start"), &both);
        handing_over.assert_measured(&of(gone), &["ours"]);
        handing_over.assert_measured(&of(longest), &["ours, during a handover", "without a handover"]);
        handing_over.assert_goals(&[&of("activation beyond systemctl start"), &of(gone), &of(longest)]);
    }
    handing_over.assert_goals(&[&format!("{gone}: growth from 10 to 100")]);
    let ways = ["ours, releasectl restart", "systemctl start of the same unit", "ours, systemctl stop to its end"];
    handing_over.assert_curve("handing over", &ways, &[10, 100]);
    handing_over.assert_curve(longest, &["ours, during a handover", "without a handover"], &[10, 100]);
}

fn assert_small(small: &Chapter) {
    small.assert_measured("from before fork to READY, by a shell", &["ours", "axum::serve", "the shell alone"]);
    small.assert_measured("memory of each of 100 idle connections", &["ours, as shipped", "axum::serve", "nginx"]);
    let own = [
        "resident memory, idle",
        "at most during an activation, both instances and releasectl",
        "bundle",
        "releasectl",
        "the example app's binary",
        "crates that app is built of",
        "crates that releasectl is built of",
    ];
    assert!(own.iter().all(|what| small.median(what, "ours") > Some(0.0)), "{}", small.0);
    small.assert_goals(&["exec to READY", "resident memory, idle", "memory of each", "bundle", "releasectl"]);
    for package in ["app", "serve", "releases"] {
        assert!(small.notes().any(|note| note.starts_with(&format!("What {package} depends on. "))), "{package}");
    }
}

fn assert_growth(growth: &Chapter) {
    let verbs =
        ["status", "doctor", "prune", "boot beside an instance", "boot where none is up", "prune of all but five"];
    growth.assert_curve("verbs over releases", &verbs.map(|verb| format!("ours, {verb}")), &[2, 10, 100]);
    let verbs = ["history", "history of all", "status"].map(|verb| format!("ours, {verb}"));
    growth.assert_curve("verbs over receipts", &verbs, &[10, 100]);
    let disks = ["ours, install, in memory", "ours, install, on a disk"];
    growth.assert_curve("install over files beside the product's own", &disks, &[1, 10, 100]);
    for what in ["resident memory", "time on the processor for a request on each", "and in a second without any"] {
        growth.assert_curve(what, &["ours, as shipped", "axum::serve", "nginx"], &[1, 10, 100]);
    }
    growth.assert_curve("an activation over deployments", &["ours, activate"], &[1, 10]);
    let held =
        ["units of systemd", "inodes", "control groups", "memory of systemd, KiB"].map(|what| format!("ours, {what}"));
    growth.assert_curve("what the host holds", &held, &[1, 10]);
}

/// As the report has it.
struct Chapter<'a>(&'a Value);

impl Chapter<'_> {
    fn list(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0[kind].as_array().into_iter().flatten()
    }

    fn notes(&self) -> impl Iterator<Item = &str> {
        self.list("notes").filter_map(Value::as_str)
    }

    fn median(&self, what: &str, whose: &str) -> Option<f64> {
        let mut figures = self.list("figures").filter(|figure| figure["what"] == what);
        figures.find(|figure| is_of(&figure["whose"], whose))?["median"].as_f64()
    }

    /// Each of them; or a note says why not.
    #[track_caller]
    fn assert_measured(&self, what: &str, whose: &[&str]) {
        for whose in whose {
            assert!(self.median(what, whose).is_some() || self.lacks(whose), "{what} of {whose}: {:#}", self.0);
        }
    }

    /// Each of them has a point at each of these counts, whatever it has beside them.
    #[track_caller]
    fn assert_curve(&self, what: &str, whose: &[impl AsRef<str>], counts: &[u64]) {
        let curve = self.list("curves").find(|curve| curve["what"] == what);
        let points = curve.unwrap_or_else(|| panic!("{what}: {:#}", self.0))["points"].as_array().expect("a list");
        for (whose, count) in whose.iter().flat_map(|whose| counts.iter().map(move |count| (whose.as_ref(), *count))) {
            let is_it = |point: &&Value| point[0] == count && is_of(&point[1]["whose"], whose);
            let is_there = points.iter().find(is_it).is_some_and(|point| point[1]["median"].is_number());
            assert!(is_there || self.lacks(whose), "{what} of {whose} at {count}: {points:?}");
        }
    }

    /// There is a goal that begins so; whether it is met is not asked here.
    #[track_caller]
    fn assert_goals(&self, whats: &[&str]) {
        for what in whats {
            assert!(self.list("goals").any(|goal| begins(&goal["what"], what)), "{what}: {:#}", self.0["goals"]);
        }
    }

    /// A peer may lack, and is named then; what is ours may not.
    fn lacks(&self, whose: &str) -> bool {
        !whose.starts_with("ours")
            && self.notes().any(|note| note.starts_with(whose) && note.contains(" could not be "))
    }
}

/// A peer's name ends with its version.
fn is_of(name: &Value, whose: &str) -> bool {
    name == whose || !whose.starts_with("ours") && begins(name, whose)
}

fn begins(text: &Value, start: &str) -> bool {
    text.as_str().is_some_and(|text| text.starts_with(start))
}
