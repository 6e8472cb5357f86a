//! A bar for each figure.

use std::fmt::Write;

use super::{
    super::{figure::Figure, page::escape},
    WIDTH, is_ours,
};

/// Names are left of the bars, figures right of them.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 640.0;
const ROW: f64 = 22.0;
/// So many times the next one.
const FAR: f64 = 20.0;

/// A bar for each, ours darker, with its whisker. Their unit is told above them.
pub(in super::super) fn bars(figures: &[Figure]) -> String {
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\">\n", height(figures));
    let most = scale(figures);
    let x = |value: f64| LEFT + (value.max(0.0) / most).min(1.0) * (RIGHT - LEFT);
    for (n, figure) in figures.iter().enumerate() {
        bar(&mut svg, figure, ROW * n as f64, (most, &x)).expect("a string can be written to");
    }
    svg + "</svg>"
}

/// What reaches to the right. One that is far beyond all others is cut off, or of those nothing would be seen.
fn scale(figures: &[Figure]) -> f64 {
    let mut all: Vec<f64> = figures.iter().map(Figure::most).collect();
    all.sort_by(f64::total_cmp);
    match all[..] {
        [.., second, longest] if second > 0.0 && longest > second * FAR => second * 1.5,
        [.., longest] => longest.max(f64::MIN_POSITIVE),
        [] => f64::MIN_POSITIVE,
    }
}

/// Of all the bars.
pub(in super::super) fn height(figures: &[Figure]) -> f64 {
    ROW * figures.len() as f64 + 4.0
}

fn bar(svg: &mut String, figure: &Figure, top: f64, (scale, x): (f64, &impl Fn(f64) -> f64)) -> std::fmt::Result {
    let [least, median, most] = [figure.least(), figure.median(), figure.most()].map(x);
    let (middle, text) = (top + 11.0, top + 15.0);
    let class = if is_ours(&figure.whose) { "bar ours" } else { "bar" };
    let (whose, value) = (escape(&figure.whose), escape(&figure.values()));
    writeln!(svg, "<text x=\"{:.0}\" y=\"{text}\" text-anchor=\"end\">{whose}</text>", LEFT - 8.0)?;
    writeln!(svg, "<path class=\"{class}\" d=\"M{LEFT} {:.0}H{median:.1}v14H{LEFT}z\"/>", top + 4.0)?;
    if figure.most() > scale {
        writeln!(svg, "<path class=\"cut\" d=\"M{:.0} {:.0}l6 -18\"/>", RIGHT - 24.0, top + 20.0)?;
    }
    writeln!(svg, "<path class=\"whisker\" d=\"M{least:.1} {middle}H{most:.1}\"/>")?;
    writeln!(svg, "<text x=\"{:.1}\" y=\"{text}\">{value}</text>", most + 8.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_only_text_and_ours_is_marked() {
        let svg = bars(&[Figure::new("a", "ours", "", vec![1.0]), Figure::new("a", "<script>", "", vec![0.0])]);
        assert!(!svg.contains("<script>") && svg.contains("&lt;script&gt;"));
        assert_eq!(svg.matches("bar ours").count(), 1);
    }

    #[test]
    fn one_far_beyond_all_others_is_cut_off_and_they_are_seen() {
        let of = |values: [f64; 3]| bars(&values.map(|value| Figure::new("a", "a", "", vec![value])));
        assert_eq!(of([1.0, 2.0, 30.0]).matches("\"cut\"").count(), 0);
        let svg = of([1.0, 2.0, 300.0]);
        assert_eq!(svg.matches("\"cut\"").count(), 1);
        assert!(svg.contains("H380.0v") && svg.contains("H510.0v") && svg.contains(">300<"), "{svg}");
    }
}
