//! One iSCSI path, against a target that answers as the script says: well, badly, late, never, or
//! with bytes that are no answer at all, on a clock that runs or jumps.
//!
//! Every try ends exactly once, and all that were taken have ended before the path is said to be
//! down; every doubt is quiet in the end, and not before its life was named; timers that were heard
//! do not ask to be heard again at once, for ever.

mod peer;

use std::collections::BTreeSet;

use corbel_initiator::path::iscsi::IscsiPath;
use corbel_initiator::path::iscsi::config::{Chap, Config, Digests, Reinstatement};
use corbel_initiator::path::iscsi::wire::{StreamId, Wire};
use corbel_initiator::path::{PathEvent, PathFault, Try, TryId, Verdict};
use corbel_initiator::request::{Extent, Operation};
use corbel_proto::iscsi::chap::{Credentials, Secret};
use corbel_proto::memory::{Buffer, HeapBuffer, Slice};
use corbel_proto::time::{Duration, Instant};

use super::script::Script;
use peer::Peer;

const STEPS_MAX: usize = 400;

struct Bench {
    now: Instant,
    path: IscsiPath<HeapBuffer>,
    peer: Option<(StreamId, Peer)>,
    /// Tries that have not ended.
    open: BTreeSet<u64>,
    next: u64,
    /// Lives in doubt that are not quiet.
    doubts: BTreeSet<u64>,
    quiet: Option<u64>,
    ready: bool,
    connects: bool,
}

/// See the head of this file.
pub(super) fn iscsi_path(input: &[u8]) {
    let mut script = Script::new(input);
    let mut bench = Bench::new(&mut script);
    bench.path.start(bench.now);
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        bench.step(&mut script);
        bench.run(&mut script);
    }
    bench.finish();
}

fn config(script: &mut Script<'_>) -> Config {
    let how = script.u8();
    let name = |text: &str| text.parse().expect("a name like any other");
    let target = name("iqn.2026-11.org.example:md3");
    let portal = ([10, 0, 0, 1], 3260).into();
    let initiator = name("iqn.2026-11.org.example:dom0");
    let mut config = Config::new(initiator, [0x80, 0, 0, 0, 0, 1], target, 0, portal);
    config.recovering = how & 1 != 0;
    if how & 2 != 0 {
        config.reinstatement = Reinstatement::Nothing;
    }
    config.depth = if how & 4 == 0 { 64 } else { 2 };
    let digests = if how & 8 == 0 { Digests::None } else { Digests::Prefer };
    (config.header_digest, config.data_digest) = (digests, digests);
    if how & 0x30 == 0x30 {
        let ours = Credentials { name: "dom0".into(), secret: Secret::new(b"secret".to_vec()) };
        config.chap = Some(Chap { ours, theirs: None });
    }
    config
}

impl Bench {
    fn new(script: &mut Script<'_>) -> Self {
        Self {
            now: Instant::ZERO + Duration::from_secs(1),
            path: IscsiPath::new(config(script), 7),
            peer: None,
            open: BTreeSet::new(),
            next: 0,
            doubts: BTreeSet::new(),
            quiet: None,
            ready: false,
            connects: true,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let now = self.now;
        match script.u8() & 31 {
            0..=9 => self.submit(script),
            10 => self.path.abort(now, TryId(u64::from(script.u8()))),
            11 => self.path.check(now),
            12 => self.path.link(now, script.u8() & 3 != 0),
            13 => self.path.stop(now, PathFault::Disabled),
            14 | 15 => self.path.start(now),
            16 => {
                if let Some((stream, _)) = self.peer.take() {
                    self.path.closed(now, stream, "reset".into());
                }
            }
            17 => {
                let len = usize::from(script.u8());
                let bytes = script.bytes(len).to_vec();
                if let Some((stream, _)) = &self.peer {
                    self.path.received(now, *stream, &bytes);
                }
            }
            18 => self.connects = script.u8() & 3 != 0,
            19..=22 => {
                if let Some((_, peer)) = &mut self.peer {
                    peer.act(now, script);
                }
            }
            23 => {
                // The clock jumps, and the timer is late.
                self.now = now + Duration::from_millis(u64::from(script.u16()));
                self.path.handle_timeout(self.now);
            }
            24 if self.path.need().is_some() => {
                self.path.prove(now, ([10, 0, 0, 2], 3260).into());
            }
            _ => self.pass(Duration::from_millis(u64::from(script.u8()) * 4), script),
        }
    }

    fn submit(&mut self, script: &mut Script<'_>) {
        let (what, block, blocks) = (script.u8(), script.u8(), u64::from(script.u8() & 15));
        let extent = Extent { offset: u64::from(block) * 512, len: blocks * 512 };
        let operation = match what & 7 {
            0 | 1 => Operation::Read,
            2 => Operation::Write { fua: true },
            3 => Operation::Flush,
            4 => Operation::Discard,
            5 => Operation::WriteZeroes { unmap: what & 8 != 0, fua: what & 16 != 0 },
            _ => Operation::Write { fua: false },
        };
        let has_data = matches!(operation, Operation::Read | Operation::Write { .. });
        let len = usize::try_from(extent.len).expect("a few blocks");
        let data = (has_data && len > 0).then(|| Slice::whole(HeapBuffer::new(len)));
        self.next += 1;
        self.open.insert(self.next);
        self.path.submit(self.now, Try { id: TryId(self.next), operation, extent, data });
    }

    fn pass(&mut self, time: Duration, script: &mut Script<'_>) {
        let end = self.now + time;
        let mut turns = 0;
        while let Some(due) = self.path.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.path.handle_timeout(self.now);
            self.run(script);
            turns += 1;
            assert!(turns < 100_000, "the timer asks for ever");
        }
        self.now = end;
    }

    /// Until nothing moves.
    fn run(&mut self, script: &mut Script<'_>) {
        for turn in 0.. {
            assert!(turn < 100_000, "path and target talk for ever");
            let mut moved = false;
            while let Some(wire) = self.path.poll_wire() {
                moved = true;
                self.wire(wire);
            }
            while let Some((stream, chunk)) = self.path.transmit() {
                moved = true;
                let mut bytes = Vec::new();
                chunk.write_to(&mut bytes);
                if let Some((theirs, peer)) = &mut self.peer {
                    assert_eq!(*theirs, stream, "bytes for a stream that is closed");
                    peer.hear(self.now, &bytes, script);
                }
            }
            if let Some((stream, peer)) = &mut self.peer {
                let bytes = peer.say();
                let stream = *stream;
                moved |= !bytes.is_empty();
                let (first, second) = bytes.split_at(bytes.len() / 2);
                self.path.received(self.now, stream, first);
                self.path.received(self.now, stream, second);
            }
            while let Some(event) = self.path.poll_event() {
                self.event(event);
            }
            if !moved {
                return;
            }
        }
    }

    fn wire(&mut self, wire: Wire) {
        match wire {
            Wire::Connect { stream, .. } if self.connects => {
                self.peer = Some((stream, Peer::new(self.now)));
                self.path.connected(self.now, stream);
            }
            Wire::Connect { stream, .. } => {
                self.path.connect_failed(self.now, stream, "refused".into());
            }
            Wire::Close { stream } => drop(self.peer.take_if(|(theirs, _)| *theirs == stream)),
        }
    }

    fn event(&mut self, event: PathEvent<HeapBuffer>) {
        match event {
            PathEvent::Tried(tried) => {
                assert!(self.open.remove(&tried.id.0), "a try ends once");
                if let Some(mut data) = tried.data {
                    assert_eq!(data.start, 0);
                    assert_eq!(data.len as usize, data.buffer.len(), "all of its memory is back");
                    data.bytes_mut().fill(1);
                }
                if let Verdict::InDoubt(_, life) = tried.verdict {
                    assert!(self.quiet < Some(life.0), "a doubt of a life that was quiet");
                    self.doubts.insert(life.0);
                }
            }
            PathEvent::Ready(facts) => {
                self.ready = true;
                assert!(facts.identity.block_bytes >= 512 && facts.identity.size_bytes > 0);
            }
            PathEvent::Down(_) => {
                self.ready = false;
                assert!(self.open.is_empty(), "tries end before the path is down");
            }
            PathEvent::Quiet(life) => {
                assert!(self.quiet < Some(life.0), "lives are quiet in their order");
                self.quiet = Some(life.0);
                self.doubts.retain(|doubt| *doubt > life.0);
            }
            PathEvent::Haunted(life) => drop(self.doubts.insert(life.0)),
            PathEvent::Checked | PathEvent::Settled(_) => {}
        }
    }

    /// Stopped, and given the time that all doubts take.
    fn finish(&mut self) {
        let mut silence = Script::new(&[]);
        self.peer = None;
        self.path.stop(self.now, PathFault::Disabled);
        self.run(&mut silence);
        self.pass(Duration::from_secs(30), &mut silence);
        assert!(self.open.is_empty(), "tries have not ended: {:?}", self.open);
        assert!(self.doubts.is_empty() && self.path.is_quiet(), "doubts: {:?}", self.doubts);
        assert!(self.path.poll_timeout().is_none(), "a stopped path wants nothing");
    }
}
