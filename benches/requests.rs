//! What a request costs before it reaches a socket or a disk: a SCSI command told from its bytes,
//! and a path chosen for a request by the multipath engine, its answer included.
#![allow(missing_docs, reason = "criterion's macros make public functions without comment")]

use std::hint::black_box;

use corbel_initiator::identity::Identity;
use corbel_initiator::multipath::policy::{Grouping, Policy, Selector};
use corbel_initiator::multipath::rules::Rules;
use corbel_initiator::multipath::{Engine, Order, PathSpec};
use corbel_initiator::path::{Facts, PathEvent, PathId, Tried, Verdict};
use corbel_initiator::request::{Extent, Operation, Request, RequestId};
use corbel_proto::memory::{HeapBuffer, Slice};
use corbel_proto::scsi::cdb;
use corbel_proto::time::{Duration, Instant};
use criterion::{Criterion, criterion_group, criterion_main};

fn commands(c: &mut Criterion) {
    for (name, bytes) in [
        ("READ (16)", &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0][..]),
        ("WRITE (10)", &[0x2a, 0, 0, 0, 0, 8, 0, 0, 8, 0]),
        ("INQUIRY", &[0x12, 0, 0, 0, 96, 0]),
    ] {
        assert!(cdb::parse(bytes).is_ok());
        c.bench_function(&format!("{name}: what it asks"), |b| {
            b.iter(|| cdb::parse(black_box(bytes)));
        });
    }
}

fn facts() -> Facts {
    Facts {
        identity: Identity {
            wwn: Some("3000000000000001".into()),
            serial: "1".into(),
            model: "CORBEL VOLUME".into(),
            size_bytes: 1 << 40,
            block_bytes: 512,
        },
        physical_block_bytes: 4096,
        optimal_bytes: 0,
        read_only: false,
        volatile_cache: true,
        discard: true,
        write_zeroes: true,
        cache_domain: "node-a".into(),
        instance: Some("first".into()),
        priority: 50,
        group_serial: String::new(),
    }
}

/// An engine with `paths` ready paths in one group.
fn engine(paths: u16, selector: Selector) -> Engine<HeapBuffer> {
    let policy = Policy { grouping: Grouping::Multibus, selector, ..Policy::default() };
    let now = Instant::from_nanos(1);
    let mut engine = Engine::new(now, policy, Rules::SOUND);
    for id in 0..paths {
        let (name, limits) = (format!("path-{id}"), Vec::new());
        engine.add_path(now, PathId(id), PathSpec { name, limits, allow_weak: false });
        engine.path_event(now, PathId(id), PathEvent::Ready(Box::new(facts())));
    }
    while engine.poll_order().is_some() || engine.poll_notice().is_some() {}
    engine
}

fn selection(c: &mut Criterion) {
    let all = [
        ("service-time", Selector::ServiceTime),
        ("round-robin", Selector::RoundRobin),
        ("queue-length", Selector::QueueLength),
    ];
    for (name, selector) in all {
        for paths in [2, 8] {
            let mut engine = engine(paths, selector);
            let (mut id, mut now) = (0, Instant::from_nanos(1));
            let mut memory = Some(Slice::whole(HeapBuffer::new(4096)));
            c.bench_function(&format!("a 4 KiB read, {paths} paths, {name}"), |b| {
                b.iter(|| {
                    id += 1;
                    now = now + Duration::from_micros(10);
                    let extent = Extent { offset: id % 1024 * 4096, len: 4096 };
                    let (operation, data) = (Operation::Read, memory.take());
                    engine.submit(now, Request { id: RequestId(id), operation, extent, data });
                    let Some(Order::Start { path, attempt }) = engine.poll_order() else {
                        panic!("a path is free");
                    };
                    let tried =
                        Tried { id: attempt.id, data: attempt.data, verdict: Verdict::Done };
                    engine.path_event(now, path, PathEvent::Tried(tried));
                    memory = engine.poll_outcome().expect("it has ended").data;
                });
            });
        }
    }
}

criterion_group!(benches, commands, selection);
criterion_main!(benches);
