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

/// A bar for each, ours darker, with its whisker. Their unit is told above them.
pub(in super::super) fn bars(figures: &[Figure]) -> String {
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\">\n", height(figures));
    let most = figures.iter().map(Figure::most).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + value.max(0.0) / most * (RIGHT - LEFT);
    for (n, figure) in figures.iter().enumerate() {
        bar(&mut svg, figure, ROW * n as f64, &x).expect("a string can be written to");
    }
    svg + "</svg>"
}

/// Of all the bars.
pub(in super::super) fn height(figures: &[Figure]) -> f64 {
    ROW * figures.len() as f64 + 4.0
}

fn bar(svg: &mut String, figure: &Figure, top: f64, x: &impl Fn(f64) -> f64) -> std::fmt::Result {
    let [least, median, most] = [figure.least(), figure.median(), figure.most()].map(x);
    let (middle, text) = (top + 11.0, top + 15.0);
    let class = if is_ours(&figure.whose) { "bar ours" } else { "bar" };
    let (whose, value) = (escape(&figure.whose), escape(&figure.values()));
    writeln!(svg, "<text x=\"{:.0}\" y=\"{text}\" text-anchor=\"end\">{whose}</text>", LEFT - 8.0)?;
    writeln!(svg, "<path class=\"{class}\" d=\"M{LEFT} {:.0}H{median:.1}v14H{LEFT}z\"/>", top + 4.0)?;
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
}
