//! The report for people: one page that needs nothing else.

use std::fmt::Write;

use super::{
    chapter::{Chapter, Goal},
    figure::Figure,
    machine::Machine,
    plot,
};

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2rem auto; padding: 0 1rem; color: #1c2430;
  background: #fff } h1 { font-size: 1.4rem } h2 { font-size: 1.15rem; margin-top: 2.2rem } h3 { font-size: .95rem;
  margin: 1.4rem 0 .2rem } small, .about { color: #667 } svg { width: 100%; height: auto; display: block }
.met { color: #1c7a3d } .missed { color: #c21f1f }
@media (prefers-color-scheme: dark) { body { color: #dde3ec; background: #14181f } small, .about { color: #98a2b3 } }";

/// All chapters, their plots, goals and notes.
pub(super) fn page(machine: &Machine, chapters: &[Chapter]) -> String {
    let Machine { date, processor, cores, memory_gib, kernel, system, versions } = machine;
    let versions: Vec<String> = versions.iter().map(|(name, version)| escape(&format!("{name}: {version}"))).collect();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Measured beside its peers, {date}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>{STYLE}\n{}</style>\n\
         <h1>Measured beside its peers, {date}</h1>\n<p class=\"about\">{}, {cores} cores, {memory_gib} GiB; Linux {}, {}. \
         {}. A bar is a median, its whisker reaches from the least to the most; what stands beside each other was measured \
         in turn.</p>\n",
        plot::STYLE,
        escape(processor),
        escape(kernel),
        escape(system),
        versions.join("; "),
    );
    for chapter in chapters {
        add(&mut page, chapter).expect("a string can be written to");
    }
    page
}

fn add(page: &mut String, chapter: &Chapter) -> std::fmt::Result {
    writeln!(page, "<h2>{}</h2>\n<p class=\"about\">{}</p>", escape(chapter.title), escape(&chapter.about))?;
    if !chapter.goals.is_empty() {
        let goals: String = chapter.goals.iter().map(goal).collect();
        writeln!(page, "<ul>\n{goals}</ul>")?;
    }
    for figures in chapter.figures.chunk_by(|one, next| one.what == next.what && one.unit == next.unit) {
        let Figure { what, unit, .. } = &figures[0];
        writeln!(page, "<h3>{} <small>{unit}</small></h3>\n{}", escape(what), plot::bars(figures))?;
    }
    for curve in &chapter.curves {
        let unit = curve.points.first().map_or("", |(_, figure)| figure.unit);
        let title = format!("<h3>{} <small>{unit}, over {}</small></h3>", escape(&curve.what), curve.over);
        writeln!(page, "{title}\n{}", plot::curve(curve))?;
    }
    chapter.notes.iter().try_for_each(|note| writeln!(page, "<p>{}</p>", escape(note)))
}

fn goal(goal: &Goal) -> String {
    let class = if goal.is_met() { "met" } else { "missed" };
    format!("<li class=\"{class}\">{}</li>\n", escape(&goal.to_string()))
}

/// For the text of HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
