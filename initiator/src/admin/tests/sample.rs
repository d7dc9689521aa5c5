//! A status with one of everything.

use crate::admin::{Known, Presented, Report, Status};
use crate::multipath::policy::{NoPath, Policy};
use crate::multipath::status::{
    DeviceCounters, DeviceState, DeviceStatus, GroupStatus, Limit, PathState, PathStatus,
};
use crate::path::PathFault;

pub(in crate::admin) fn limit(name: &'static str, ms: u64, from: &str) -> Limit {
    Limit { name, ms, from: from.into() }
}

pub(in crate::admin) fn path(name: &str, state: PathState) -> PathStatus {
    PathStatus {
        path: name.into(),
        state,
        fault: None,
        why: None,
        since_ms: 723_000,
        next: None,
        in_flight: 0,
        completed: 10,
        failures: 0,
        bytes: 40_960,
        latency_us: None,
        limits: vec![
            limit("ping_after", 2000, "default"),
            limit("answer_within", 3000, "[defaults]"),
        ],
    }
}

/// A device without paths that has just begun.
pub(in crate::admin) fn device(name: &str) -> DeviceStatus {
    DeviceStatus {
        name: name.into(),
        wwid: None,
        model: None,
        size_bytes: None,
        block_bytes: None,
        read_only: false,
        state: DeviceState::Starting,
        policy: Policy::default(),
        paths_ready: 0,
        queued_requests: 0,
        queued_bytes: 0,
        queued_oldest_ms: 0,
        in_flight: 0,
        doubts: 0,
        no_path_since_ms: None,
        next: None,
        counters: DeviceCounters::default(),
        groups: Vec::new(),
    }
}

fn degraded() -> Report {
    let ready = PathStatus {
        in_flight: 2,
        latency_us: Some(412),
        ..path("aoe:0.0@eth1", PathState::Ready)
    };
    let down = PathStatus {
        fault: Some(PathFault::LinkDown),
        why: Some("eth2 has no carrier".into()),
        next: Some("is tried again when the link is up".into()),
        since_ms: 4200,
        failures: 1,
        ..path("aoe:0.0@eth2", PathState::Down)
    };
    let other = path("iscsi:iqn.2026-11.org.example:md3/0@10.0.0.1:3260", PathState::Ready);
    Report {
        device: DeviceStatus {
            wwid: Some("6001405aabbccddeeff001122334455a".into()),
            model: Some("CORBEL md3".into()),
            size_bytes: Some(3 << 39),
            block_bytes: Some(512),
            state: DeviceState::Degraded,
            paths_ready: 2,
            doubts: 1,
            counters: DeviceCounters { completed: 10, retries: 3, ..DeviceCounters::default() },
            groups: vec![
                GroupStatus { priority: 50, active: true, paths: vec![ready, down] },
                GroupStatus { priority: 10, active: false, paths: vec![other] },
            ],
            ..device("vmstore")
        },
        limits: vec![limit("fast_io_fail", 5000, "default")],
        presented: Some(Presented {
            by: "ublk",
            at: "/dev/ublkb0".into(),
            link: Some("/dev/corbel/vmstore".into()),
        }),
    }
}

fn queueing() -> Report {
    let lost = PathStatus {
        fault: Some(PathFault::Silent),
        why: Some("no answer\u{1b}[2J for 3 s".into()),
        next: Some("connects again in 0.8 s".into()),
        since_ms: 64_000,
        failures: 3,
        limits: vec![limit("ping_after", 1000, "[[device]]")],
        ..path("iscsi:iqn.2026-11.org.example:md4/0@10.0.0.2:3260", PathState::Down)
    };
    let wrong = PathStatus {
        fault: Some(PathFault::Mismatch),
        why: Some("it is 6001405… of 10 bytes, 6002… was expected".into()),
        ..path("iscsi:iqn.2026-11.org.example:md4/0@10.0.0.3:3260", PathState::Quarantined)
    };
    let policy =
        Policy { no_path: NoPath::For(std::time::Duration::from_secs(80)), ..Policy::default() };
    Report {
        device: DeviceStatus {
            state: DeviceState::Queueing,
            policy,
            size_bytes: Some(1 << 30),
            read_only: true,
            queued_requests: 7,
            queued_bytes: 28_672,
            queued_oldest_ms: 57_600,
            no_path_since_ms: Some(64_000),
            next: Some("requests fail in 16.0 s".into()),
            groups: vec![GroupStatus { priority: 50, active: true, paths: vec![lost, wrong] }],
            ..device("other")
        },
        limits: vec![limit("no_path_retry", 80_000, "command")],
        presented: Some(Presented {
            by: "nbd",
            at: "nbd+unix:///?socket=/run/corbel/other.nbd".into(),
            link: None,
        }),
    }
}

/// A device that works in part, one that waits, one that does not answer.
pub(in crate::admin) fn status() -> Status {
    Status {
        version: "0.0.0",
        pid: 7,
        uptime_seconds: 60,
        events_dropped: 0,
        hook_failures: 0,
        devices: vec![
            Known::Report(Box::new(degraded())),
            Known::Report(Box::new(queueing())),
            Known::Silent { name: "stuck".into(), error: "device `stuck` is busy".into() },
        ],
    }
}
