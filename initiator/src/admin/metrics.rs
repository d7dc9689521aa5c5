//! A status as figures for Prometheus (OpenMetrics text).

use std::fmt::Error;

use corbel_daemon::metrics::{Figure, alone, families, page};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::status::{Known, Status};
use crate::multipath::status::{DeviceStatus, PathState, PathStatus};

/// The text of a scrape.
pub(super) fn text(status: Status) -> String {
    page("corbel_initiator", Snapshot(status))
}

#[derive(Debug)]
struct Snapshot(Status);

const COUNTERS: [Figure<Status>; 2] = [
    ("events_dropped", "Events the hook was not told of", |s| s.events_dropped),
    ("hook_failures", "Times the event hook failed", |s| s.hook_failures),
];

const GAUGES: [Figure<Status>; 1] =
    [("uptime_seconds", "Time since the start", |s| s.uptime_seconds)];

const KNOWN_GAUGES: [Figure<Known>; 1] =
    [("device_answers", "1 if it answered in time", |known| {
        u64::from(matches!(known, Known::Report(_)))
    })];

const DEVICE_COUNTERS: [Figure<DeviceStatus>; 9] = [
    ("device_completed", "Requests that ended well", |d| d.counters.completed),
    ("device_failed", "Requests that ended with an error", |d| d.counters.failed),
    ("device_read_bytes", "Bytes read", |d| d.counters.read_bytes),
    ("device_written_bytes", "Bytes written", |d| d.counters.written_bytes),
    ("device_retries", "Tries beyond the first", |d| d.counters.retries),
    ("device_group_switches", "Changes of the path group", |d| d.counters.group_switches),
    ("device_all_paths_down", "Times the last path was lost", |d| d.counters.all_paths_down),
    ("device_held", "Requests that waited for a doubt", |d| d.counters.held),
    ("device_hedged", "Reads asked for a second time", |d| d.counters.hedged),
];

const DEVICE_GAUGES: [Figure<DeviceStatus>; 9] = [
    ("device_size_bytes", "Size", |d| d.size_bytes.unwrap_or(0)),
    ("device_paths", "Paths", |d| d.groups.iter().map(|group| group.paths.len() as u64).sum()),
    ("device_paths_ready", "Paths that take requests", |d| d.paths_ready.into()),
    ("device_queued_requests", "Requests that wait", |d| d.queued_requests),
    ("device_queued_bytes", "Their bytes", |d| d.queued_bytes),
    ("device_queued_oldest_ms", "Age of the oldest of them", |d| d.queued_oldest_ms),
    ("device_in_flight", "Requests on paths", |d| d.in_flight),
    ("device_doubts", "Ranges whose old copy may still land", |d| d.doubts),
    ("device_no_path_ms", "Time without a path", |d| d.no_path_since_ms.unwrap_or(0)),
];

/// A path of a device.
struct Placed {
    device: String,
    path: PathStatus,
}

const PATH_COUNTERS: [Figure<Placed>; 3] = [
    ("path_completed", "Tries that ended well", |p| p.path.completed),
    ("path_failures", "Times it failed", |p| p.path.failures),
    ("path_bytes", "Bytes moved, both ways", |p| p.path.bytes),
];

const PATH_GAUGES: [Figure<Placed>; 3] = [
    ("path_ready", "1 while it takes requests", |p| u64::from(p.path.state == PathState::Ready)),
    ("path_in_flight", "Tries under way", |p| p.path.in_flight),
    ("path_latency_us", "Smoothed time of a try", |p| p.path.latency_us.unwrap_or(0)),
];

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(status) = self;
        let encoder = &mut encoder;
        alone(encoder, MetricType::Counter, status, &COUNTERS)?;
        alone(encoder, MetricType::Gauge, status, &GAUGES)?;
        let name = |known: &Known| vec![("device", known.name().to_owned())];
        families(encoder, MetricType::Gauge, &status.devices, &KNOWN_GAUGES, name)?;
        let devices: Vec<DeviceStatus> = status
            .devices
            .iter()
            .filter_map(|known| match known {
                Known::Report(report) => Some(report.device.clone()),
                Known::Silent { .. } => None,
            })
            .collect();
        let name = |device: &DeviceStatus| vec![("device", device.name.clone())];
        families(encoder, MetricType::Counter, &devices, &DEVICE_COUNTERS, name)?;
        families(encoder, MetricType::Gauge, &devices, &DEVICE_GAUGES, name)?;
        let state = |device: &DeviceStatus| {
            vec![("device", device.name.clone()), ("state", word(&device.state))]
        };
        let figures: [Figure<DeviceStatus>; 1] =
            [("device_state", "1 for the state it is in", |_| 1)];
        families(encoder, MetricType::Gauge, &devices, &figures, state)?;
        let placed = |device: &DeviceStatus| {
            let paths = device.groups.iter().flat_map(|group| group.paths.clone());
            let device = device.name.clone();
            paths.map(|path| Placed { device: device.clone(), path }).collect::<Vec<_>>()
        };
        let paths: Vec<Placed> = devices.iter().flat_map(placed).collect();
        let name = |placed: &Placed| {
            vec![("device", placed.device.clone()), ("path", placed.path.path.clone())]
        };
        families(encoder, MetricType::Counter, &paths, &PATH_COUNTERS, name)?;
        families(encoder, MetricType::Gauge, &paths, &PATH_GAUGES, name)?;
        let state = |placed: &Placed| {
            let mut labels = name(placed);
            labels.push(("state", word(&placed.path.state)));
            labels
        };
        let figures: [Figure<Placed>; 1] = [("path_state", "1 for the state it is in", |_| 1)];
        families(encoder, MetricType::Gauge, &paths, &figures, state)
    }
}

/// A state as JSON has it.
pub(super) fn word<T: serde::Serialize>(state: &T) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::sample;
    use crate::multipath::status::DeviceState;

    #[test]
    fn a_scrape_has_every_device_and_path_by_name() {
        let text = text(sample::status());
        for line in [
            "corbel_initiator_device_paths_ready{device=\"vmstore\"} 2",
            "corbel_initiator_device_state{device=\"vmstore\",state=\"degraded\"} 1",
            "corbel_initiator_device_answers{device=\"stuck\"} 0",
            "corbel_initiator_device_retries_total{device=\"vmstore\"} 3",
            "corbel_initiator_path_ready{device=\"vmstore\",path=\"aoe:0.0@eth1\"} 1",
            "corbel_initiator_path_state{device=\"vmstore\",path=\"aoe:0.0@eth2\",state=\"down\"} \
            1",
            "corbel_initiator_events_dropped_total 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn a_device_that_does_not_answer_has_no_figures_of_its_own() {
        let text = text(sample::status());
        assert!(!text.contains("corbel_initiator_device_state{device=\"stuck\""), "{text}");
        assert_eq!(word(&DeviceState::Queueing), "queueing");
    }
}
