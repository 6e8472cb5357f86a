//! The headline: what a release costs the clients, drawn and told for the README.

use std::fmt::Write;

use super::{
    chapter::{Chapter, Goal},
    figure::{Figure, short},
    losing::{CLOSED, LOST, RELEASES, SHOWN},
    machine::Machine,
    page::escape,
    plot,
};

/// Above a panel's bars, and a line of the chart's own.
const TITLE: f64 = 24.0;

/// Two panels, as a file that needs nothing else; nothing where the chapter was not measured.
pub(super) fn svg(chapters: &[Chapter]) -> Option<String> {
    let [title, seen] = titles(chapters)?;
    let (mut panels, mut top) = (String::new(), 2.0 * TITLE);
    writeln!(panels, "<text x=\"4\" y=\"16\" font-weight=\"bold\">{}</text>", escape(&title)).ok()?;
    writeln!(panels, "<text x=\"4\" y=\"34\">{}</text>", escape(&seen)).ok()?;
    for what in [LOST, CLOSED] {
        let figures: Vec<Figure> = figures(chapters, what).cloned().collect();
        let bars = (!figures.is_empty()).then(|| plot::bars(&figures))?;
        let height = plot::height(&figures);
        writeln!(panels, "<text x=\"4\" y=\"{:.0}\" font-weight=\"bold\">{}</text>", top + 16.0, escape(what)).ok()?;
        writeln!(
            panels,
            "<svg y=\"{:.0}\" width=\"{}\" height=\"{height:.0}\"{}",
            top + TITLE,
            plot::WIDTH,
            bars.strip_prefix("<svg")?
        )
        .ok()?;
        top += TITLE + height + 12.0;
    }
    let (width, style) = (plot::WIDTH, plot::STYLE);
    let size = format!("width=\"{width}\" height=\"{top:.0}\" viewBox=\"0 0 {width} {top:.0}\"");
    let title = escape(&format!("{title}. {seen}"));
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" {size} role=\"img\">\n<title>{title}</title>\n\
         <style>{style}\n</style>\n{panels}</svg>\n"
    ))
}

/// Who the clients are, and how many releases each way came to.
fn titles(chapters: &[Chapter]) -> Option<[String; 2]> {
    let most = figures(chapters, RELEASES).map(Figure::median).reduce(f64::max)?;
    let fewer = figures(chapters, RELEASES).filter(|figure| figure.median() < most);
    let fewer: String = fewer.map(|figure| format!("; {}: {}", figure.whose, short(figure.median()))).collect();
    let clients = SHOWN.clients();
    Some([
        format!(
            "What a release costs {clients} clients that keep their connections, with 10 ms on the wire each way (c3b)"
        ),
        format!("Releases that each way came to: {}{fewer}", short(most)),
    ])
}

/// The chart, what it was measured on, and each goal.
pub(super) fn markdown(machine: &Machine, chapters: &[Chapter]) -> String {
    let Machine { date, processor, cores, memory_gib, kernel, system, versions } = machine;
    let versions: Vec<String> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let goals: String = chapters.iter().flat_map(|chapter| &chapter.goals).map(line).collect();
    format!(
        "![Requests lost and connections closed in 100 releases, beside other ways](crates/rig/bench/lost.svg)\n\n\
         {date}, {processor}, {cores} cores, {memory_gib} GiB, Linux {kernel}, {system}; {}. All figures:\n\
         [report.html](crates/rig/bench/report.html) (one file, to be downloaded), [report.json](crates/rig/bench/report.json).\n\n{goals}",
        versions.join(", ")
    )
}

fn line(goal: &Goal) -> String {
    format!("- {goal}\n")
}

fn figures<'a>(chapters: &'a [Chapter], what: &'a str) -> impl Iterator<Item = &'a Figure> {
    chapters.iter().flat_map(|chapter| &chapter.figures).filter(move |figure| figure.what == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chapter(figures: Vec<Figure>) -> Chapter {
        let (title, about) = ("Losing nothing", String::new());
        Chapter { title, about, figures, curves: Vec::new(), goals: Vec::new(), notes: Vec::new() }
    }

    #[test]
    fn the_chart_has_a_bar_for_each_in_both_panels_and_is_none_without_them() {
        let all = [RELEASES, LOST, CLOSED].into_iter().flat_map(|what| {
            [("ours", 110.0), ("nginx", 7.0)].map(|(whose, value)| Figure::new(what, whose, "", vec![value]))
        });
        let svg = svg(&[chapter(all.collect())]).unwrap();
        assert_eq!((svg.matches("bar ours").count(), svg.matches(">nginx<").count()), (2, 2));
        assert!(svg.contains("costs 50 clients") && svg.contains("came to: 110; nginx: 7</title>"), "{svg}");
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
        assert!(super::svg(&[chapter(Vec::new())]).is_none());
    }
}
