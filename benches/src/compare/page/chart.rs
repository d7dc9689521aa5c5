//! Plots as SVG text. Colours and fonts come from the page's style sheet, so a plot is readable in
//! light and dark.

use std::fmt::Write as _;

const WIDTH: f64 = 560.0;
/// Room for names of rows, and of lines at their right end.
const NAMES: f64 = 150.0;
const RIGHT: f64 = 70.0;

/// Makes text safe inside HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Round steps from 0 to at least `max`, four to eight of them.
fn ticks(max: f64) -> Vec<f64> {
    let max = if max > 0.0 { max } else { 1.0 };
    let power = 10_f64.powf((max / 8.0).log10().floor());
    let nice = [1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 25.0];
    let step = nice.map(|n| n * power).into_iter().find(|step| max / step <= 6.0);
    let step = step.unwrap_or(max);
    (0_u8..=8).map(|n| f64::from(n) * step).take_while(|tick| tick - step < max).collect()
}

/// One line of a plot, or one colour of bars. `class` is its colour.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) class: usize,
    /// By place on the x axis, what is told when pointed at, and the value.
    pub(crate) points: Vec<(usize, String, f64)>,
}

fn open(height: f64, label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", escape(label))
}

/// Lines over named places, evenly apart; `axis` says what the places are.
pub(crate) fn lines(
    label: &str,
    places: &[String],
    series: &[Series],
    axis: &str,
    show: fn(f64) -> String,
) -> String {
    let (top, bottom, left, right) = (14.0, 250.0, 56.0, WIDTH - RIGHT);
    let max = series.iter().flat_map(|s| &s.points).map(|point| point.2).fold(0.0, f64::max);
    let ticks = ticks(max);
    let highest = ticks.last().copied().unwrap_or(1.0);
    let y = |value: f64| bottom - (bottom - top) * value / highest;
    let step =
        (right - left - 20.0) / f64::from(u32::try_from(places.len()).unwrap_or(2).max(2) - 1);
    let x = |place: usize| left + 10.0 + step * f64::from(u32::try_from(place).unwrap_or(0));
    let mut svg = open(290.0, label);
    for tick in &ticks {
        let (at, text) = (y(*tick), show(*tick));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
            left - 6.0,
            at + 4.0
        );
    }
    for (place, name) in places.iter().enumerate() {
        let at = x(place);
        let name = escape(name);
        let _ = write!(svg, "<text class=\"mid\" x=\"{at:.1}\" y=\"268\">{name}</text>");
    }
    let axis = escape(axis);
    let _ = write!(svg, "<text class=\"mid\" x=\"280\" y=\"286\">{axis}</text>");
    let mut ends = Vec::new();
    for line in series {
        let at: Vec<_> = line.points.iter().map(|(p, _, v)| (x(*p), y(*v))).collect();
        let path: Vec<_> = at.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let class = line.class;
        let _ = write!(svg, "<polyline class=\"line s{class}\" points=\"{}\"/>", path.join(" "));
        for ((x, y), (_, told, _)) in at.iter().zip(&line.points) {
            let _ = write!(
                svg,
                "<circle class=\"fill{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}\
                 </title></circle>",
                escape(told)
            );
        }
        ends.extend(at.last().map(|(x, y)| (*x, *y, line.name)));
    }
    names_at_ends(&mut svg, ends);
    svg + "</svg>"
}

/// Names beside the last points, moved apart where they would cover each other.
fn names_at_ends(svg: &mut String, mut ends: Vec<(f64, f64, &'static str)>) {
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut lowest = f64::MIN;
    for (x, y, name) in ends {
        let y = (y + 4.0).max(lowest + 14.0);
        lowest = y;
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{y:.1}\">{name}</text>", x + 9.0);
    }
}

/// One row of a range plot: from the first to the last of three values.
pub(crate) struct Range {
    pub(crate) name: String,
    pub(crate) class: usize,
    pub(crate) values: [f64; 3],
    pub(crate) told: String,
}

/// Rows of three dots on a scale of powers of ten.
pub(crate) fn ranges(label: &str, rows: &[Range], show: fn(f64) -> String) -> String {
    let (left, right, row) = (NAMES, WIDTH - 44.0, 26.0);
    let all = || rows.iter().flat_map(|row| row.values).filter(|value| *value > 0.0);
    let low = all().fold(f64::MAX, f64::min).log10().floor();
    let high = all().fold(f64::MIN, f64::max).log10().ceil().max(low + 1.0);
    if !low.is_finite() || !high.is_finite() {
        return String::new();
    }
    let x = |value: f64| {
        let part = (value.max(1e-9).log10() - low) / (high - low);
        left + (right - left) * part.clamp(0.0, 1.0)
    };
    let bottom = row * f64::from(u32::try_from(rows.len()).unwrap_or(0)) + 8.0;
    let mut svg = open(bottom + 26.0, label);
    let mut tick = low;
    while tick <= high {
        let (at, text) = (x(10_f64.powf(tick)), show(10_f64.powf(tick)));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"4\" y2=\"{bottom:.1}\"/>\
             <text class=\"mid\" x=\"{at:.1}\" y=\"{:.1}\">{text}</text>",
            bottom + 18.0
        );
        tick += 1.0;
    }
    let mut y = row / 2.0 + 4.0;
    for Range { name, class, values, told } in rows {
        let [a, b, c] = values.map(x);
        let _ = write!(
            svg,
            "<g><title>{}</title><text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <line class=\"line s{class}\" x1=\"{a:.1}\" x2=\"{c:.1}\" y1=\"{y:.1}\" \
             y2=\"{y:.1}\"/>\
             <circle class=\"fill{class}\" cx=\"{a:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
             <circle class=\"fill{class}\" cx=\"{b:.1}\" cy=\"{y:.1}\" r=\"4\"/>\
             <circle class=\"ring s{class}\" cx=\"{c:.1}\" cy=\"{y:.1}\" r=\"4\"/></g>",
            escape(told),
            left - 10.0,
            y + 4.0,
            escape(name),
        );
        y += row;
    }
    svg + "</svg>"
}

/// One row of bars.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) class: usize,
    pub(crate) value: f64,
    /// A little room above: another group begins.
    pub(crate) first: bool,
}

/// Bars from the left, each with its value.
pub(crate) fn bars(label: &str, rows: &[Bar], show: fn(f64) -> String) -> String {
    let (left, right, row, gap) = (NAMES + 60.0, WIDTH - RIGHT, 18.0, 8.0);
    let max = rows.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let groups = rows.iter().filter(|bar| bar.first).count();
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(0));
    let mut svg = open(row * count(rows.len()) + gap * count(groups) + 8.0, label);
    let mut y = 0.0;
    for Bar { name, class, value, first } in rows {
        y += if *first { gap } else { 0.0 };
        let width = if max > 0.0 { ((right - left) * value / max).max(1.0) } else { 1.0 };
        let _ = write!(
            svg,
            "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text><rect class=\"fill{class}\" \
             x=\"{left}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"14\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left - 8.0,
            y + 13.0,
            escape(name),
            y + 2.0,
            left + width + 6.0,
            y + 13.0,
            show(*value),
        );
        y += row;
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_largest_value() {
        assert_eq!(ticks(95.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        for max in [0.0, 0.3, 1.0, 7.7, 950_000.0, 1e9] {
            let ticks = ticks(max);
            assert!((3..=9).contains(&ticks.len()), "{max}: {ticks:?}");
            assert!(*ticks.last().unwrap() >= max, "{max}: {ticks:?}");
        }
    }

    #[test]
    fn names_of_lines_do_not_cover_each_other() {
        let mut svg = String::new();
        names_at_ends(&mut svg, vec![(0.0, 100.0, "a"), (0.0, 101.0, "b")]);
        assert!(svg.contains("y=\"104.0\">a") && svg.contains("y=\"118.0\">b"), "{svg}");
    }

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
