//! A short pass of the chapters of `just bench` about deployments, size and growth: that they work, not how fast.

use std::fs;

use rig::bench::{self, Effort};
use serde_json::Value;

#[test]
fn what_is_measured_of_deployments_size_and_growth_is_told_in_the_report() {
    let names = ["deploying", "hardening", "handing-over", "small", "growth"].map(str::to_owned);
    bench::run(Effort::SHORT, &names).unwrap();
    let report = fs::read(rig::workspace().join("target/bench/part/report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let chapters = report["chapters"].as_array().unwrap();
    assert_eq!(chapters.len(), names.len());
    for chapter in chapters {
        let all = |kind: &str| chapter[kind].as_array().unwrap().clone();
        let points = all("curves").into_iter().flat_map(|curve| curve["points"].as_array().unwrap().clone());
        let figures: Vec<Value> = all("figures").into_iter().chain(points.map(|point| point[1].clone())).collect();
        assert!(!figures.is_empty(), "{}", chapter["title"]);
        for figure in figures {
            assert!(figure["median"].is_number(), "{}: {figure}", chapter["title"]);
        }
    }
}
