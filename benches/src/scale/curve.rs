//! Throughput and memory over what grows.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::compare::Spread;
use crate::units::{show_bytes, show_count, show_time};

/// How far throughput may be below its peak.
const FALL_MAX: f64 = 0.1;

/// One size of what grows.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Point {
    pub(super) size: u64,
    /// Resident memory when it served, and when all sessions were there, before the load.
    pub(super) start_bytes: u64,
    pub(super) ready_bytes: u64,
    sessions: u64,
    /// Reports of `corbel-bench run`.
    pub(super) samples: Vec<Value>,
}

/// Points over one thing that grows.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) points: Vec<Point>,
}

impl Point {
    pub(super) fn new(size: u64, start_bytes: u64, ready_bytes: u64, sessions: u64) -> Self {
        Self { size, start_bytes, ready_bytes, sessions, samples: Vec::new() }
    }

    /// The median of a figure of the reports.
    pub(super) fn figure(&self, pointer: &str) -> Option<f64> {
        let values = self.samples.iter().filter_map(|sample| sample.pointer(pointer)?.as_f64());
        Spread::of(values).map(|spread| spread.median)
    }
}

impl Curve {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, points: Vec::new() }
    }

    /// What grows, for a reader.
    pub(super) fn axis(&self) -> &'static str {
        match self.name {
            "depth" => "requests at a time",
            "block" => "bytes of a request",
            "sessions" => "sessions, of which 16 work at most, 8 requests each",
            _ => "exports",
        }
    }

    /// What should not fall: bytes where requests grow, requests otherwise.
    pub(super) fn throughput(&self, point: &Point) -> Option<f64> {
        point.figure(if self.name == "block" { "/bytes_per_second" } else { "/iops" })
    }

    pub(super) fn show(&self) -> fn(f64) -> String {
        if self.name == "block" { show_bytes } else { show_count }
    }

    pub(super) fn show_size(&self, size: u64) -> String {
        match (self.name, size) {
            ("block", 0..1024) => size.to_string(),
            ("block", 1024..0x10_0000) => format!("{}K", size >> 10),
            ("block", _) => format!("{}M", size >> 20),
            _ => size.to_string(),
        }
    }

    /// How far the lowest point after the peak is below it, as a share.
    pub(super) fn fall(&self) -> f64 {
        let (mut peak, mut fall) = (0.0_f64, 0.0_f64);
        for value in self.points.iter().filter_map(|point| self.throughput(point)) {
            peak = peak.max(value);
            fall = fall.max(1.0 - value / peak);
        }
        fall
    }

    /// Memory for each session or export more: name, bytes.
    #[expect(clippy::cast_precision_loss, reason = "memory fits")]
    pub(super) fn memory_each(&self) -> Option<f64> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        let each = |bytes: u64, count: u64| bytes as f64 / count.max(1) as f64;
        match self.name {
            "sessions" => {
                Some(each(last.ready_bytes.saturating_sub(last.start_bytes), last.sessions))
            }
            "exports" => {
                let more = last.start_bytes.saturating_sub(first.start_bytes);
                Some(each(more, last.size - first.size))
            }
            _ => None,
        }
    }

    /// What there is to say, in one sentence each.
    pub(super) fn verdicts(&self) -> Vec<String> {
        let fall = 100.0 * self.fall();
        let judged =
            if self.fall() > FALL_MAX { "MORE than a tenth" } else { "no more than a tenth" };
        let mut said = vec![format!(
            "over {}: throughput falls by {fall:.0} % after its peak, {judged}",
            self.axis()
        )];
        if let Some(each) = self.memory_each() {
            let what = if self.name == "sessions" { "idle session" } else { "export" };
            said.push(format!("memory for each {what}: {}", show_bytes(each)));
        }
        said
    }

    /// For a terminal.
    #[expect(clippy::cast_precision_loss, reason = "for the eye")]
    pub(super) fn table(&self) -> String {
        let mut text = format!("\n{}\n", self.axis());
        for point in &self.points {
            let time = |pointer: &str| point.figure(pointer).map_or_else(String::new, show_time);
            let _ = writeln!(
                text,
                "{:>8} {:>11} p99 {:>9} server CPU {:>9} a request, {:>9} resident",
                self.show_size(point.size),
                self.throughput(point).map_or_else(String::new, self.show()),
                time("/read/latency_ns/p99"),
                time("/cpu/server_ns_per_request"),
                show_bytes(point.ready_bytes as f64),
            );
        }
        text + &self.verdicts().join("\n")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn curve(name: &'static str, values: &[(u64, f64)]) -> Curve {
        let mut curve = Curve::new(name);
        for &(size, value) in values {
            let mut point = Point::new(size, size << 10, size << 14, size);
            point.samples.push(json!({ "iops": value, "bytes_per_second": value }));
            curve.points.push(point);
        }
        curve
    }

    #[test]
    fn a_fall_is_counted_from_the_peak_before_it() {
        assert_eq!(curve("depth", &[(1, 10.0), (2, 20.0), (4, 15.0), (8, 19.0)]).fall(), 0.25);
        assert_eq!(curve("depth", &[(1, 10.0), (2, 20.0)]).fall(), 0.0);
        let verdicts = curve("depth", &[(1, 10.0), (2, 8.0)]).verdicts();
        assert!(verdicts[0].contains("20 %") && verdicts[0].contains("MORE"), "{verdicts:?}");
    }

    #[test]
    fn memory_is_told_for_each() {
        let memory = |name| curve(name, &[(1, 1.0), (1024, 1.0)]).memory_each();
        assert_eq!(memory("sessions"), Some(15.0 * 1024.0));
        assert_eq!(memory("exports"), Some(1024.0));
        assert_eq!(memory("depth"), None);
    }

    #[test]
    fn a_table_has_a_line_for_each_point() {
        let table = curve("block", &[(512, 1e6), (4 << 20, 2e9)]).table();
        assert!(table.contains("     512") && table.contains("4M") && table.contains("2.00 GB"));
    }
}
