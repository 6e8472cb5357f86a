//! A short pass of `just bench`. What it measures on a busy machine means nothing; that it is there, and of right answers, does.

use std::fs;

use rig::{
    bench::{self, Effort},
    machine,
};
use serde_json::Value;

#[test]
fn each_peer_is_measured_or_named_and_nothing_is_left_running() {
    machine::prepare().unwrap();
    bench::run(Effort::SHORT, &["losing".to_owned(), "serving".to_owned()]).unwrap();
    let folder = rig::workspace().join("target/bench/part");
    let report: Value = serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap();
    let [losing, serving] = [0, 1].map(|n| &report["chapters"][n]);

    for what in ["requests lost, c3b", "HTTP/1.1 connections closed, c3b", "the longest request, c3b"] {
        assert_measured(losing, what, &["ours", "this project", "axum", "ecdysis", "nginx", "HAProxy", "Caddy"]);
    }
    assert_measured(losing, "requests lost, all kinds", &["ours"]);
    let servers = ["ours, as shipped", "ours, bare", "axum::serve", "the same, tower-http", "hyper", "nginx", "Caddy"];
    for generator in ["HTTP/1.1, 64 connections", "HTTP/2, 1 connection"] {
        assert_measured(serving, &format!("greeting, {generator}"), &servers);
        assert_measured(serving, &format!("64 KiB, {generator}"), &servers[1..]);
    }
    assert_measured(serving, "instructions for each greeting, HTTP/1.1, 1 connection", &["ours", "axum::serve"]);
    assert!(figures(serving).all(|figure| figure["least"].as_f64() > Some(0.0)), "{serving:#}");
    assert!([losing, serving].iter().all(|chapter| !chapter["goals"].as_array().unwrap().is_empty()));
    assert!(fs::read_to_string(folder.join("lost.svg")).unwrap().contains("bar ours"));

    let children = fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = children.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    assert_eq!(children.collect::<String>(), "");
}

/// Of each whose name begins so; or a note says why not.
fn assert_measured(chapter: &Value, what: &str, whose: &[&str]) {
    for whose in whose {
        let begins = |text: &Value| text.as_str().is_some_and(|text| text.starts_with(whose));
        let is_measured = figures(chapter).any(|figure| figure["what"] == what && begins(&figure["whose"]));
        let mut notes = chapter["notes"].as_array().unwrap().iter();
        let is_named =
            notes.any(|note| begins(note) && note.as_str().is_some_and(|note| note.contains("could not be had")));
        assert!(is_measured || is_named, "{what} of {whose}: {chapter:#}");
    }
}

fn figures(chapter: &Value) -> impl Iterator<Item = &Value> {
    chapter["figures"].as_array().unwrap().iter()
}
