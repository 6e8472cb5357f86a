//! A short pass of `just bench`. What it measures on a busy machine means nothing; that it is there, and of right answers, does.

use std::fs;

use rig::{
    bench::{self, Effort},
    machine,
};
use serde_json::Value;

/// Names, in whose middle there may be a version.
const WAYS: [(&str, &str); 9] = [
    ("ours", ""),
    ("this project", ", stop and start"),
    ("axum", ", stop and start"),
    ("axum", ", overlapping"),
    ("ecdysis", ""),
    ("nginx", ""),
    ("nginx", ", min_timeout"),
    ("HAProxy", ""),
    ("Caddy", ""),
];
const SERVERS: [(&str, &str); 7] = [
    ("ours", ", as shipped"),
    ("ours", ", bare serve"),
    ("axum::serve", ""),
    ("the same, tower-http", ""),
    ("hyper", ", no router"),
    ("nginx", ""),
    ("Caddy", ""),
];

#[test]
fn each_peer_that_there_is_a_system_for_is_measured_and_nothing_is_left_running() {
    machine::prepare().unwrap();
    bench::run(Effort::SHORT, &["losing".to_owned(), "serving".to_owned()]).unwrap();
    let folder = rig::workspace().join("target/bench/part");
    let report: Value = serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap();
    let [losing, serving] = [0, 1].map(|n| &report["chapters"][n]);

    for what in [
        "releases",
        "requests sent in 100 releases",
        "requests lost in 100 releases",
        "HTTP/1.1 connections closed in 100 releases",
        "p99.9 with releases",
        "p99.9 without releases",
        "p99.9 times that without releases",
        "the longest request with releases",
        "the longest request without releases",
    ] {
        assert_measured(losing, &format!("{what}, c3b"), &WAYS);
        assert_measured(losing, &format!("{what}, all kinds"), &WAYS[..1]);
    }
    for generator in ["HTTP/1.1, 64 connections", "HTTP/2, 1 connection"] {
        assert_measured(serving, &format!("greeting, {generator}"), &SERVERS);
        assert_measured(serving, &format!("64 KiB, {generator}"), &SERVERS);
    }
    assert_measured(serving, "greeting, HTTP/1.1, 64 connections, by h2load", &SERVERS);
    assert_measured(serving, "instructions for each greeting, HTTP/1.1, 1 connection", &SERVERS[..3]);
    assert!(figures(serving).all(|figure| figure["least"].as_f64() > Some(0.0)), "{serving:#}");
    assert!([losing, serving].iter().all(|chapter| !chapter["goals"].as_array().unwrap().is_empty()));
    assert!(fs::read_to_string(folder.join("lost.svg")).unwrap().contains("bar ours"));

    let children = fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = children.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    assert_eq!(children.collect::<String>(), "");
}

/// Of each of them; but where the system that it comes from cannot be had, a note says so and why.
fn assert_measured(chapter: &Value, what: &str, names: &[(&str, &str)]) {
    for name in names {
        let of_it = |figure: &&Value| figure["what"] == what && is(figure["whose"].as_str().unwrap(), name);
        if figures(chapter).any(|figure| of_it(&figure)) {
            continue;
        }
        let mut notes = chapter["notes"].as_array().unwrap().iter().filter_map(Value::as_str);
        let is_of_it = |note: &&str| {
            note.split_once(" could not be had: its system cannot be had: ").is_some_and(|(whose, _)| is(whose, name))
        };
        let note = notes.find(is_of_it).unwrap_or_else(|| panic!("{what} of {name:?}: {chapter:#}"));
        println!("{what}: {note}");
    }
}

/// Of two kinds of one program neither stands for the other.
fn is(whose: &str, (program, kind): &(&str, &str)) -> bool {
    let version = whose.strip_prefix(program).and_then(|rest| rest.strip_suffix(kind));
    version.is_some_and(|version| !version.contains(','))
}

fn figures(chapter: &Value) -> impl Iterator<Item = &Value> {
    chapter["figures"].as_array().unwrap().iter()
}
