//! Curves, in SVG.

use std::fmt::Write;

use super::{Point, Report};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 760.0;
/// Of a panel, with room for its titles.
const PANEL: (f64, f64) = (490.0, 330.0);
/// Of what is inside its axes: left, top, right, bottom.
const INSIDE: (f64, f64, f64, f64) = (70.0, 40.0, 470.0, 275.0);
const COLORS: [&str; 3] = ["#0b6bcb", "#c2410c", "#15803d"];
const MARKS: [&str; 3] = ["circle", "square", "triangle"];

/// What a panel shows.
type Quantity = (&'static str, &'static str, fn(&Point) -> f64);

const PANELS: [Quantity; 4] = [
    ("Memory", "MiB", |point| point.resident_mib),
    ("The first configuration: processor time", "ms", |point| point.first_cpu_ms),
    ("One changed endpoint: processor time", "ms", |point| point.change_cpu_ms),
    ("One changed endpoint: time until it has requests", "ms", |point| point.change_ms),
];

/// The curves of a report.
pub fn svg(report: &Report) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for (index, series) in report.series.iter().enumerate() {
        let x = 30.0 + 320.0 * index as f64;
        mark(&mut out, index, (x, 26.0));
        text(&mut out, (x + 14.0, 31.0), "start", &series.name);
    }
    for (number, panel) in PANELS.iter().enumerate() {
        let left = 10.0 + PANEL.0 * (number % 2) as f64;
        let top = 50.0 + PANEL.1 * (number / 2) as f64;
        let _ = writeln!(out, "<g transform=\"translate({left} {top})\">");
        draw(&mut out, report, panel);
        out += "</g>\n";
    }
    let machine = format!("Measured on {}. Both axes are logarithmic.", report.machine);
    let _ = writeln!(out, "<g fill=\"#666\" font-size=\"12\">");
    text(&mut out, (WIDTH / 2.0, HEIGHT - 18.0), "middle", &machine);
    out += "</g>\n</svg>\n";
    out
}

fn draw(out: &mut String, report: &Report, (title, unit, value): &Quantity) {
    let (left, top, right, bottom) = INSIDE;
    let points = report.series.iter().flat_map(|series| &series.points);
    let sizes = decades(points.clone().map(|point| point.size as f64));
    let values = decades(points.map(value));
    let place = |size: f64, value: f64| {
        let share = |at: f64, (from, to): (i32, i32)| {
            (at.max(f64::MIN_POSITIVE).log10() - f64::from(from)) / f64::from(to - from)
        };
        (left + share(size, sizes) * (right - left), bottom - share(value, values) * (bottom - top))
    };
    text(out, ((left + right) / 2.0, 22.0), "middle", title);
    for decade in sizes.0..=sizes.1 {
        let (x, _) = place(10_f64.powi(decade), 1.0);
        line(out, (x, top), (x, bottom));
        text(out, (x, bottom + 18.0), "middle", &number(decade));
    }
    for decade in values.0..=values.1 {
        let (_, y) = place(1.0, 10_f64.powi(decade));
        line(out, (left, y), (right, y));
        text(out, (left - 8.0, y + 4.0), "end", &number(decade));
    }
    text(
        out,
        ((left + right) / 2.0, bottom + 38.0),
        "middle",
        "clusters, virtual hosts or services",
    );
    let middle = (top + bottom) / 2.0;
    let _ = writeln!(
        out,
        "<text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">{unit}</text>"
    );
    for (index, series) in report.series.iter().enumerate() {
        let places: Vec<_> =
            series.points.iter().map(|point| place(point.size as f64, value(point))).collect();
        let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
            path.join(" "),
            COLORS[index % COLORS.len()]
        );
        for at in places {
            mark(out, index, at);
        }
    }
}

/// Powers of ten around some numbers.
fn decades(numbers: impl Iterator<Item = f64>) -> (i32, i32) {
    let (mut least, mut most) = (f64::MAX, f64::MIN_POSITIVE);
    for number in numbers.filter(|number| *number > 0.0) {
        (least, most) = (least.min(number), most.max(number));
    }
    let from = least.min(most).log10().floor() as i32;
    (from, (most.log10().ceil() as i32).max(from + 1))
}

fn number(decade: i32) -> String {
    match decade {
        ..0 => format!("{:.*}", decade.unsigned_abs() as usize, 10_f64.powi(decade)),
        4.. => format!("{} 000", 10_i64.pow(decade.unsigned_abs() - 3)),
        _ => 10_i64.pow(decade.unsigned_abs()).to_string(),
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let safe = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{safe}</text>");
}

/// Told apart without colours too.
fn mark(out: &mut String, index: usize, (x, y): (f64, f64)) {
    let color = COLORS[index % COLORS.len()];
    let _ = match MARKS[index % MARKS.len()] {
        "circle" => writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{color}\"/>"),
        "square" => writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\" fill=\"{color}\"/>",
            x - 4.5,
            y - 4.5
        ),
        _ => writeln!(
            out,
            "<polygon points=\"{:.1},{:.1} {:.1},{:.1} {x:.1},{:.1}\" fill=\"{color}\"/>",
            x - 6.0,
            y + 5.0,
            x + 6.0,
            y + 5.0,
            y - 6.0
        ),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_powers_of_ten() {
        assert_eq!(decades([10.0, 10_000.0].into_iter()), (1, 4));
        assert_eq!(decades([0.03, 0.0, 7.0].into_iter()), (-2, 1));
        assert_eq!(decades([100.0].into_iter()), (2, 3));
        assert_eq!(["0.01", "1", "100", "10 000"], [-2, 0, 2, 4].map(number));
    }
}
