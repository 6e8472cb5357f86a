//! Bars and curves, as SVG.

use std::fmt::Write;

use super::{
    chapter::Curve,
    figure::{Figure, short},
    page::escape,
};

/// What the classes below look like, in a page or in a file of its own.
pub(super) const STYLE: &str = "\
svg text { font: 12px system-ui, sans-serif; fill: #1c2430 } .faint { font-size: 10px; fill: #667 } .bar { fill: #9db7dd }
.bar.ours { fill: #1d4f9c } .whisker { stroke: #d98b2b; stroke-width: 1.5; fill: none } .grid { stroke: #e4e7ec }
.line { fill: none; stroke-width: 1.8 }
@media (prefers-color-scheme: dark) { svg text { fill: #dde3ec } .faint { fill: #98a2b3 } .bar { fill: #35507a }
  .bar.ours { fill: #8db4f2 } .grid { stroke: #2a313c } }";
pub(super) const WIDTH: f64 = 860.0;
/// Names are left of the bars, figures right of them.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 640.0;
const ROW: f64 = 22.0;
const HEIGHT: f64 = 220.0;
const COLOURS: [&str; 6] = ["#1d4f9c", "#d98b2b", "#1c7a3d", "#a03d8f", "#c21f1f", "#667788"];

/// A bar for each, ours darker, with its whisker.
pub(super) fn bars(figures: &[Figure]) -> String {
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\">\n", height(figures));
    let most = figures.iter().map(Figure::most).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + value.max(0.0) / most * (RIGHT - LEFT);
    for (n, figure) in figures.iter().enumerate() {
        bar(&mut svg, figure, ROW * n as f64, &x).expect("a string can be written to");
    }
    svg + "</svg>"
}

/// Of all the bars.
pub(super) fn height(figures: &[Figure]) -> f64 {
    ROW * figures.len() as f64 + 4.0
}

fn bar(svg: &mut String, figure: &Figure, top: f64, x: &impl Fn(f64) -> f64) -> std::fmt::Result {
    let [least, median, most] = [figure.least(), figure.median(), figure.most()].map(x);
    let (middle, text) = (top + 11.0, top + 15.0);
    let class = if is_ours(&figure.whose) { "bar ours" } else { "bar" };
    let (whose, value) = (escape(&figure.whose), escape(&figure.to_string()));
    writeln!(svg, "<text x=\"{:.0}\" y=\"{text}\" text-anchor=\"end\">{whose}</text>", LEFT - 8.0)?;
    writeln!(svg, "<path class=\"{class}\" d=\"M{LEFT} {:.0}H{median:.1}v14H{LEFT}z\"/>", top + 4.0)?;
    writeln!(svg, "<path class=\"whisker\" d=\"M{least:.1} {middle}H{most:.1}\"/>")?;
    writeln!(svg, "<text x=\"{:.1}\" y=\"{text}\">{value}</text>", most + 8.0)
}

/// A line for each program; both axes are logarithmic, so that what is linear is straight.
pub(super) fn curve(curve: &Curve) -> String {
    let mut svg = format!("<svg viewBox=\"-60 -10 {WIDTH} {:.0}\" role=\"img\">\n", HEIGHT + 40.0);
    let counts = curve.points.iter().map(|(count, _)| *count as f64);
    let values = curve.points.iter().map(|(_, figure)| figure.median());
    let (across, up) = (Axis::over(counts), Axis::over(values));
    let x = |count: usize| across.share(count as f64) * 600.0;
    let y = |value: f64| HEIGHT * (1.0 - up.share(value));
    for power in up.powers() {
        let (y, label) = (y(power), short(power));
        let line =
            format!("<path class=\"grid\" d=\"M0 {y:.1}H600\"/><text class=\"faint\" x=\"-6\" y=\"{:.1}\"", y + 3.0);
        svg += &format!("{line} text-anchor=\"end\">{label}</text>\n");
    }
    for power in across.powers() {
        let (x, label) = (x(power as usize), short(power));
        svg += &format!("<text class=\"faint\" x=\"{x:.1}\" y=\"{:.0}\">{label}</text>\n", HEIGHT + 16.0);
    }
    let mut names: Vec<&str> = Vec::new();
    for (_, figure) in &curve.points {
        if !names.contains(&figure.whose.as_str()) {
            names.push(&figure.whose);
        }
    }
    for (n, name) in names.iter().enumerate() {
        let points: Vec<String> = curve
            .points
            .iter()
            .filter(|(_, figure)| figure.whose == *name)
            .map(|(count, figure)| format!("{:.1} {:.1}", x(*count), y(figure.median())))
            .collect();
        let (colour, row) = (COLOURS[n % COLOURS.len()], 14.0 + 16.0 * n as f64);
        svg += &format!("<path class=\"line\" stroke=\"{colour}\" d=\"M{}\"/>\n", points.join("L"));
        svg += &format!("<path class=\"line\" stroke=\"{colour}\" d=\"M620 {:.0}h18\"/>", row - 4.0);
        svg += &format!("<text x=\"644\" y=\"{row}\">{}</text>\n", escape(name));
    }
    svg + "</svg>"
}

fn is_ours(whose: &str) -> bool {
    whose.starts_with("ours")
}

/// From one power of ten to another.
struct Axis {
    from: f64,
    until: f64,
}

impl Axis {
    /// Wide enough for these. What is not above nothing has no logarithm, and is drawn at the edge.
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let logs: Vec<f64> = values.filter(|value| *value > 0.0).map(f64::log10).collect();
        let least = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if logs.is_empty() {
            return Self { from: 0.0, until: 1.0 };
        }
        Self { from: least.floor(), until: most.ceil().max(least.floor() + 1.0) }
    }

    fn share(&self, value: f64) -> f64 {
        let log = if value > 0.0 { value.log10() } else { self.from };
        (log - self.from) / (self.until - self.from)
    }

    fn powers(&self) -> impl Iterator<Item = f64> + use<> {
        (self.from as i32..=self.until as i32).map(|power| 10_f64.powi(power))
    }
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
    fn what_grows_linearly_is_drawn_straight() {
        let axis = Axis::over([1.0, 10.0, 1_000.0].into_iter());
        let [a, b, c] = [1.0, 10.0, 100.0].map(|value| axis.share(value));
        assert!((b - a - (c - b)).abs() < 1e-9);
        assert_eq!(axis.powers().count(), 4);
    }
}
