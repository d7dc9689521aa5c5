//! A status as figures for Prometheus (OpenMetrics text).

use std::collections::BTreeMap;
use std::fmt::Error;

use corbel_daemon::metrics::{Figure, alone, families, page};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Status;
use super::status::{AoePort, Export, IsnsServer};

/// The text of a scrape.
pub(super) fn text(status: Status) -> String {
    page("corbel", Snapshot(status))
}

#[derive(Debug)]
struct Snapshot(Status);

const EXPORT_COUNTERS: [Figure<Export>; 5] = [
    ("export_reads", "Reads that succeeded", |e| e.reads),
    ("export_writes", "Writes that succeeded", |e| e.writes),
    ("export_read_bytes", "Bytes read", |e| e.read_bytes),
    ("export_written_bytes", "Bytes written", |e| e.written_bytes),
    ("export_errors", "Commands that failed at the store", |e| e.errors),
];

const EXPORT_GAUGES: [Figure<Export>; 2] = [
    ("export_size_bytes", "Exported bytes", |e| e.size_bytes),
    ("export_in_flight", "Commands being carried out", |e| e.in_flight),
];

const PORT_COUNTERS: [Figure<AoePort>; 2] = [
    ("aoe_port_received", "AoE frames that arrived", |p| p.received),
    ("aoe_port_dropped", "AoE frames lost for want of room", |p| p.dropped),
];

const PORT_GAUGES: [Figure<AoePort>; 2] = [
    ("aoe_port_up", "1 while frames can pass", |p| u64::from(p.up)),
    ("aoe_port_mtu_bytes", "Largest payload of a frame", |p| p.mtu.into()),
];

const ISNS_GAUGES: [Figure<IsnsServer>; 1] =
    [("isns_registered", "1 while the targets are registered there", |s| u64::from(s.registered))];

const COUNTERS: [Figure<Status>; 2] = [
    ("memory_refused", "Requests that found no payload memory", |s| s.memory.refused),
    ("flush_failures", "Flushes that failed at a store", |s| s.flush_failures),
];

const GAUGES: [Figure<Status>; 4] = [
    ("uptime_seconds", "Time since the start", |s| s.uptime_seconds),
    ("memory_max_bytes", "Payload memory that may be used", |s| s.memory.bytes_max),
    ("memory_mapped_bytes", "Payload memory taken from the system", |s| s.memory.bytes_mapped),
    ("memory_lent_bytes", "Payload memory in use", |s| s.memory.bytes_lent),
];

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(status) = self;
        let encoder = &mut encoder;
        alone(encoder, MetricType::Counter, status, &COUNTERS)?;
        alone(encoder, MetricType::Gauge, status, &GAUGES)?;
        let name = |e: &Export| vec![("export", e.name.clone())];
        families(encoder, MetricType::Counter, &status.exports, &EXPORT_COUNTERS, name)?;
        families(encoder, MetricType::Gauge, &status.exports, &EXPORT_GAUGES, name)?;
        let name = |p: &AoePort| vec![("interface", p.interface.clone())];
        families(encoder, MetricType::Counter, &status.aoe_ports, &PORT_COUNTERS, name)?;
        families(encoder, MetricType::Gauge, &status.aoe_ports, &PORT_GAUGES, name)?;
        let name = |s: &IsnsServer| vec![("server", s.server.clone())];
        families(encoder, MetricType::Gauge, &status.isns, &ISNS_GAUGES, name)?;
        // By target, not by initiator: its name is whatever a stranger says it is.
        let mut sessions = BTreeMap::<&str, u64>::new();
        for session in &status.sessions {
            *sessions.entry(&session.target).or_default() += 1;
        }
        let sessions: Vec<_> = sessions.into_iter().collect();
        let figure: Figure<(&str, u64)> = ("sessions", "iSCSI sessions", |(_, count)| *count);
        let name = |(target, _): &(&str, u64)| vec![("target", (*target).to_owned())];
        families(encoder, MetricType::Gauge, &sessions, &[figure], name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::Session;

    #[test]
    fn a_scrape_has_every_export_by_name() {
        let export = |name: &str, reads| Export { name: name.into(), reads, ..Export::default() };
        let session = Session { target: "iqn.2026-11.org.example:a".into(), ..Session::default() };
        let isns = |server: &str, registered| {
            let server = server.to_owned();
            IsnsServer { server, registered, ..IsnsServer::default() }
        };
        let status = Status {
            isns: vec![isns("10.0.0.9:3205", true), isns("[fd00::9]:3205", false)],
            exports: vec![export("md3", 7), export("a\"b", 1)],
            sessions: vec![session.clone(), session],
            flush_failures: 2,
            ..Status::default()
        };
        let text = text(status);
        for line in [
            "# TYPE corbel_export_reads counter",
            "corbel_export_reads_total{export=\"md3\"} 7",
            "corbel_export_reads_total{export=\"a\\\"b\"} 1",
            "corbel_flush_failures_total 2",
            "corbel_sessions{target=\"iqn.2026-11.org.example:a\"} 2",
            "corbel_isns_registered{server=\"10.0.0.9:3205\"} 1",
            "corbel_isns_registered{server=\"[fd00::9]:3205\"} 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
    }
}
