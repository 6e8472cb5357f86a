//! A line for each program.

use std::fmt::Write;

use super::{
    super::{chapter::Curve, figure::short, page::escape},
    LINES, WIDTH,
    axis::Axis,
};

const HEIGHT: f64 = 220.0;
/// Names are right of it.
const RIGHT: f64 = 500.0;
/// Room for what is marked, left of the lines and below them.
const MARGIN: f64 = 60.0;

/// A line for each program; both axes are logarithmic, so that what is linear is straight.
pub(in super::super) fn curve(curve: &Curve) -> String {
    let mut svg = format!("<svg viewBox=\"-{MARGIN} -10 {WIDTH} {:.0}\" role=\"img\">\n", HEIGHT + MARGIN);
    draw(&mut svg, curve).expect("a string can be written to");
    svg + "</svg>"
}

fn draw(svg: &mut String, curve: &Curve) -> std::fmt::Result {
    let across = Axis::over(curve.points.iter().map(|(count, _)| *count as f64));
    let up = Axis::over(curve.points.iter().map(|(_, figure)| figure.median()));
    let (x, y) = (|value: f64| across.share(value) * RIGHT, |value: f64| HEIGHT * (1.0 - up.share(value)));
    for mark in up.marks() {
        let (y, label) = (y(mark), short(mark));
        writeln!(svg, "<path class=\"grid\" d=\"M0 {y:.1}H{RIGHT}\"/>")?;
        writeln!(svg, "<text class=\"faint\" x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", y + 3.0)?;
    }
    for mark in across.marks() {
        let (x, label) = (x(mark), short(mark));
        writeln!(svg, "<text class=\"faint\" x=\"{x:.1}\" y=\"{:.0}\">{label}</text>", HEIGHT + 16.0)?;
    }
    for (n, name) in names(curve).into_iter().enumerate() {
        let of_it = curve.points.iter().filter(|(_, figure)| figure.whose == name);
        let points: Vec<String> =
            of_it.map(|(count, figure)| format!("{:.1} {:.1}", x(*count as f64), y(figure.median()))).collect();
        let (class, row) = (format!("line l{}", n % LINES), 14.0 + 16.0 * n as f64);
        writeln!(svg, "<path class=\"{class}\" d=\"M{}\"/>", points.join("L"))?;
        writeln!(svg, "<path class=\"{class}\" d=\"M{:.0} {:.0}h18\"/>", RIGHT + 20.0, row - 4.0)?;
        writeln!(svg, "<text x=\"{:.0}\" y=\"{row}\">{}</text>", RIGHT + 44.0, escape(name))?;
    }
    Ok(())
}

/// In the order in which they come.
fn names(curve: &Curve) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (_, figure) in &curve.points {
        if !names.contains(&figure.whose.as_str()) {
            names.push(&figure.whose);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{super::super::figure::Figure, *};

    fn drawn(points: &[(usize, f64)]) -> Vec<[f64; 2]> {
        let figure = |value| Figure::new("", "ours", "ms", vec![value]);
        let points = points.iter().map(|(count, value)| (*count, figure(*value))).collect();
        let svg = curve(&Curve { what: String::new(), over: "releases", points });
        let line = svg.split("class=\"line l0\" d=\"M").nth(1).unwrap().split('"').next().unwrap();
        let point = |text: &str| {
            let (x, y) = text.split_once(' ').unwrap();
            [x, y].map(|text| text.parse().unwrap())
        };
        line.split('L').map(point).collect()
    }

    #[test]
    fn what_grows_linearly_is_drawn_straight() {
        let points = drawn(&[(1, 2.0), (10, 20.0), (100, 200.0)]);
        let step = |n: usize, axis: usize| points[n + 1][axis] - points[n][axis];
        for axis in [0, 1] {
            assert!((step(0, axis) - step(1, axis)).abs() <= 0.2 && step(0, axis).abs() > 1.0, "{points:?}");
        }
    }

    #[test]
    fn nothing_has_a_place_of_its_own_below_all_else() {
        let points = drawn(&[(1, 0.0), (10, 0.001), (100, 1_000.0)]);
        assert!((points[0][1] - HEIGHT).abs() < 0.1 && points[1][1] < HEIGHT - 10.0, "{points:?}");
        assert!(drawn(&[(1, 0.0)])[0].iter().all(|at| at.is_finite()));
    }
}
