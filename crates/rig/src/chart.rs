//! A report for people: one page that needs nothing else.

use std::fmt::Write;

use crate::{
    Report,
    report::{Activation, Request, Span},
};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 90.0;
/// Latencies are drawn from 0.01 ms to 10 s, each power of ten as high as the other.
const LEAST: f64 = -2.0;
const MOST: f64 = 4.0;
/// Columns of a panel; of the requests that begin in each, the middle one and the longest are drawn.
const COLUMNS: usize = 500;
const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem;
  color: #1c2430; background: #fff }
h1 { font-size: 1.4rem; margin-bottom: .2rem } h2 { font-size: .95rem; margin: 1.1rem 0 .1rem; font-weight: 600 }
h2 small { font-weight: 400; color: #667 } svg { width: 100%; height: auto; display: block }
.grid { stroke: #e4e7ec } .mark { stroke: #d98b2b; stroke-opacity: .55 } .band { fill: #9db7dd } .middle { fill: #1d4f9c }
.lost { fill: #c21f1f } text { font-size: 10px; fill: #667 } .good { color: #1c7a3d } .bad { color: #c21f1f }
@media (prefers-color-scheme: dark) { body { color: #dde3ec; background: #14181f } .grid { stroke: #2a313c }
  .band { fill: #35507a } .middle { fill: #8db4f2 } text, h2 small { fill: #98a2b3; color: #98a2b3 } }";

/// What happened in one run, and how the clients fared.
pub(crate) struct Chapter<'a> {
    pub title: &'a str,
    pub activations: &'a [Activation],
    pub reports: &'a [Report],
}

/// Latency over time, a panel for each kind of client, the activations marked.
pub(crate) fn page(activations: &[Activation], reports: &[Report]) -> String {
    let chapter = Chapter { title: "", activations, reports };
    let (sent, lost) = chapter.counts();
    let mut page = head(&format!("{sent} requests, {lost} lost"));
    chapter.write(&mut page).expect("a string can be written to");
    page
}

/// The same of several runs, one below the other.
pub(crate) fn chapters(title: &str, chapters: &[Chapter<'_>]) -> String {
    let mut page = head(title);
    for chapter in chapters {
        chapter.write(&mut page).expect("a string can be written to");
    }
    page
}

impl Chapter<'_> {
    /// How many requests were begun, and how many of them lost.
    fn counts(&self) -> (u64, u64) {
        (self.reports.iter().map(Report::sent).sum(), self.reports.iter().map(Report::lost).sum())
    }

    fn write(&self, page: &mut String) -> std::fmt::Result {
        let Self { title, activations, reports } = self;
        let all = || reports.iter().flat_map(|report| &report.requests);
        let from = all().map(|request| request.span.from).min().unwrap_or_default().as_secs_f64();
        let until = all().map(|request| request.span.until).max().unwrap_or_default().as_secs_f64();
        let x = |seconds: f64| (seconds - from) / (until - from).max(f64::EPSILON) * WIDTH;
        let ((sent, lost), count) = (self.counts(), activations.len());
        let verdict = if lost == 0 { "good" } else { "bad" };
        let colon = if title.is_empty() { "" } else { ": " };
        writeln!(
            page,
            "<h1>{title}{colon}{sent} requests over {count} activations, <span class=\"{verdict}\">{lost} lost</span></h1>\n\
             <p>Time from left to right, {:.0} s; latency upwards, each line ten times the one below. Dark: the median of each \
             moment; light: up to its longest. Orange lines: a release was activated. Red: a request was lost.</p>",
            until - from
        )?;
        reports.iter().try_for_each(|report| panel(page, report, activations, &x))
    }
}

fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>{STYLE}</style>\n"
    )
}

fn panel(page: &mut String, report: &Report, activations: &[Activation], x: &impl Fn(f64) -> f64) -> std::fmt::Result {
    writeln!(
        page,
        "<h2>{} <small>{} sent, lost: {}; p50 {:.1} ms, p99.9 {:.1} ms, longest {:.1} ms; {} connections closed</small>\
         </h2>\n<svg viewBox=\"-42 -10 {} {}\" role=\"img\">",
        report.mode,
        report.sent(),
        report.losses(),
        report.quantile(0.5),
        report.quantile(0.999),
        report.longest().as_secs_f64() * 1000.0,
        report.connections_closed,
        WIDTH + 44.0,
        HEIGHT + 14.0
    )?;
    for (power, label) in (-1..=4).zip(["0.1 ms", "1 ms", "10 ms", "0.1 s", "1 s", "10 s"]) {
        let y = y(10_f64.powi(power));
        writeln!(
            page,
            "<path class=\"grid\" d=\"M0 {y:.1}H{WIDTH}\"/><text x=\"-40\" y=\"{:.1}\">{label}</text>",
            y + 3.0
        )?;
    }
    for Activation { what, release, span } in activations {
        let x = x(span.from.as_secs_f64());
        writeln!(page, "<path class=\"mark\" d=\"M{x:.1} 0V{HEIGHT}\"><title>{what} to {release}</title></path>")?;
    }
    let mut columns: Vec<Vec<f64>> = vec![Vec::new(); COLUMNS];
    for Request { span, .. } in &report.requests {
        let column = x(span.from.as_secs_f64()) / WIDTH * COLUMNS as f64;
        columns[(column as usize).min(COLUMNS - 1)].push(milliseconds(*span));
    }
    let (mut bands, mut middles) = (String::new(), String::new());
    let width = WIDTH / COLUMNS as f64;
    for (column, times) in columns.iter_mut().enumerate().filter(|(_, times)| !times.is_empty()) {
        times.sort_by(f64::total_cmp);
        let (middle, top) = (y(times[times.len() / 2]), y(times[times.len() - 1]));
        let left = column as f64 * width;
        write!(bands, "M{left:.1} {top:.1}h{width}V{:.1}h-{width}z", middle.max(top + 1.0))?;
        write!(middles, "M{left:.1} {middle:.1}h{width}v1.6h-{width}z")?;
    }
    writeln!(page, "<path class=\"band\" d=\"{bands}\"/><path class=\"middle\" d=\"{middles}\"/>")?;
    for Request { span, outcome } in report.requests.iter().filter(|request| !request.outcome.is_answered()) {
        let (x, y) = (x(span.from.as_secs_f64()), y(milliseconds(*span)));
        writeln!(page, "<circle class=\"lost\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{outcome}</title></circle>")?;
    }
    writeln!(page, "</svg>")
}

fn milliseconds(span: Span) -> f64 {
    span.length().as_secs_f64() * 1000.0
}

fn y(milliseconds: f64) -> f64 {
    let share = (milliseconds.max(f64::MIN_POSITIVE).log10() - LEAST) / (MOST - LEAST);
    HEIGHT * (1.0 - share.clamp(0.0, 1.0))
}
