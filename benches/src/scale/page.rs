//! The curves as one page.

use std::fmt::Write as _;

use super::curve::Curve;
use super::server::Idle;
use crate::compare::page::STYLE;
use crate::compare::page::chart::{self, Series, escape};

/// The page.
pub(super) fn page(idle: &Idle, curves: &[Curve]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>corbel-bench scale</title>\n<style>\n{STYLE}</style></head><body>\n\
         <h1>Corbel as work grows</h1>\n<ul>\n<li>{}</li>\n",
        escape(&idle.to_string())
    );
    for said in curves.iter().flat_map(Curve::verdicts) {
        let _ = writeln!(html, "<li>{}</li>", escape(&said));
    }
    html.push_str("</ul>\n<div class=\"plots\">\n");
    for curve in curves {
        let _ = writeln!(
            html,
            "<figure><h3>Throughput over {}</h3>{}</figure>",
            escape(curve.axis()),
            plot(curve)
        );
    }
    html.push_str("</div>\n");
    for curve in curves {
        let _ = writeln!(html, "<pre>{}</pre>", escape(curve.table().trim()));
    }
    html + "</body></html>\n"
}

fn plot(curve: &Curve) -> String {
    let places: Vec<_> = curve.points.iter().map(|point| curve.show_size(point.size)).collect();
    let show = curve.show();
    let values = curve.points.iter().enumerate();
    let points = values.filter_map(|(place, point)| {
        let value = curve.throughput(point)?;
        let told = format!("{} {}: {}", places[place], curve.axis(), show(value));
        Some((place, told, value))
    });
    let series = Series { name: "corbel", class: 0, points: points.collect() };
    chart::lines(curve.axis(), &places, &[series], curve.axis(), show)
}

#[cfg(test)]
mod tests {
    use super::super::curve::tests::curve;
    use super::*;

    #[test]
    fn the_page_has_a_plot_for_each_curve_and_needs_nothing_else() {
        let idle = Idle { resident_bytes: 9 << 20, cpu_ns: 0, watched_ns: 3_000_000_000 };
        let curves = [curve("depth", &[(1, 1e4), (2, 2e4)]), curve("exports", &[(1, 1e4)])];
        let html = page(&idle, &curves);
        assert_eq!(html.matches("<svg").count(), 2);
        assert!(html.contains("requests at a time") && !html.contains("http"), "{html}");
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }
}
