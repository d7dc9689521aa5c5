//! A path and a peer on virtual time, with a cable between them that can be cut.

use corbel_proto::iscsi::name::Name;
use corbel_proto::memory::{HeapBuffer, Slice};
use corbel_proto::time::{Duration, Instant};

use super::super::IscsiPath;
use super::super::config::Config;
use super::super::wire::{StreamId, Wire};
use super::peer::{BLOCK, Disk, Peer};
use crate::path::{Facts, PathEvent, PathFault, Try, TryId, Verdict};
use crate::request::{Extent, Operation};

pub(super) const ISID: [u8; 6] = [0x80, 1, 2, 3, 4, 5];

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn config() -> Config {
    let target = name("iqn.2026-11.org.example:md3");
    let portal = ([10, 0, 0, 1], 3260).into();
    Config::new(name("iqn.2026-11.org.example:dom0"), ISID, target, 0, portal)
}

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Debug)]
pub(super) struct Bench {
    pub(super) now: Instant,
    pub(super) path: IscsiPath<HeapBuffer>,
    pub(super) disk: Disk,
    pub(super) peer: Option<(StreamId, Peer)>,
    /// Connections are accepted; if not, refused.
    pub(super) accepts: bool,
    /// Bytes get through, and connections are answered at all.
    pub(super) cable: bool,
    /// The peer takes connections, and hears nothing.
    pub(super) deaf: bool,
    /// Bytes to the peer are lost at a byte's worth: for broken digests.
    pub(super) garble: bool,
    pub(super) events: Vec<PathEvent<HeapBuffer>>,
    /// What was connected to, and when.
    pub(super) attempts: Vec<(Instant, std::net::SocketAddr)>,
    next: u64,
}

impl Bench {
    pub(super) fn new(config: Config, disk: Disk) -> Self {
        Self {
            now: Instant::ZERO + Duration::from_secs(1),
            path: IscsiPath::new(config, 1),
            disk,
            peer: None,
            accepts: true,
            cable: true,
            deaf: false,
            garble: false,
            events: Vec::new(),
            attempts: Vec::new(),
            next: 0,
        }
    }

    /// Started, and ready.
    pub(super) fn up(config: Config, disk: Disk) -> Self {
        let mut bench = Self::new(config, disk);
        bench.path.start(bench.now);
        bench.run();
        assert!(bench.take_ready().is_some(), "{:?}", bench.events);
        bench.disk.log.clear();
        bench.disk.cdbs.clear();
        bench
    }

    /// Until nothing moves any more.
    pub(super) fn run(&mut self) {
        while self.step() {}
    }

    /// Lets everything move once. False if nothing did.
    pub(super) fn step(&mut self) -> bool {
        let mut moved = false;
        while let Some(wire) = self.path.poll_wire() {
            moved = true;
            self.wire(wire);
        }
        while let Some((stream, chunk)) = self.path.transmit() {
            moved = true;
            let mut bytes = Vec::new();
            chunk.write_to(&mut bytes);
            assert_eq!(bytes.len(), chunk.len());
            if let Some((theirs, peer)) = &mut self.peer
                && *theirs == stream
                && self.cable
                && !self.deaf
            {
                peer.hear(self.now, &bytes, &mut self.disk);
            }
        }
        if let Some((stream, peer)) = &mut self.peer {
            let mut bytes = peer.say();
            if !bytes.is_empty() && self.cable {
                moved = true;
                if self.garble {
                    *bytes.last_mut().unwrap() ^= 1;
                }
                self.path.received(self.now, *stream, &bytes);
            }
        }
        self.events.extend(std::iter::from_fn(|| self.path.poll_event()));
        moved
    }

    fn wire(&mut self, wire: Wire) {
        match wire {
            Wire::Connect { stream, portal } => {
                assert!(self.peer.is_none(), "one stream at a time");
                self.attempts.push((self.now, portal));
                if !self.cable {
                    return;
                }
                if self.accepts {
                    self.peer = Some((stream, Peer::new(self.now, &self.disk)));
                    self.path.connected(self.now, stream);
                } else {
                    self.path.connect_failed(self.now, stream, "refused".into());
                }
            }
            Wire::Close { stream } => {
                self.peer.take_if(|(theirs, _)| *theirs == stream);
            }
        }
    }

    /// Lets time pass, timers firing when they want to.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.run();
        while let Some(due) = self.path.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.path.handle_timeout(self.now);
            self.run();
        }
        self.now = end;
    }

    /// The peer's process dies: the stream is reset.
    pub(super) fn reset(&mut self) {
        let (stream, _) = self.peer.take().unwrap();
        self.path.closed(self.now, stream, "connection reset by peer".into());
        self.run();
    }

    pub(super) fn peer(&mut self) -> &mut Peer {
        &mut self.peer.as_mut().unwrap().1
    }

    /// Submits; what is due happens at once.
    pub(super) fn submit(
        &mut self,
        operation: Operation,
        block: usize,
        blocks: usize,
        byte: u8,
    ) -> TryId {
        self.next += 1;
        let id = TryId(self.next);
        let (offset, len) = ((block * BLOCK) as u64, (blocks * BLOCK) as u64);
        let has_data = matches!(operation, Operation::Read | Operation::Write { .. });
        let data = has_data.then(|| Slice::whole(HeapBuffer::from_vec(vec![byte; blocks * BLOCK])));
        let attempt = Try { id, operation, extent: Extent { offset, len }, data };
        self.path.submit(self.now, attempt);
        self.run();
        id
    }

    pub(super) fn write(&mut self, block: usize, blocks: usize, byte: u8) -> TryId {
        self.submit(Operation::Write { fua: false }, block, blocks, byte)
    }

    pub(super) fn read(&mut self, block: usize, blocks: usize) -> TryId {
        self.submit(Operation::Read, block, blocks, 0)
    }

    /// The end of a try, if it has come; its memory too.
    pub(super) fn end(&mut self, id: TryId) -> Option<(Verdict, Vec<u8>)> {
        let is = |event: &PathEvent<HeapBuffer>| matches!(event, PathEvent::Tried(t) if t.id == id);
        let at = self.events.iter().position(is)?;
        let PathEvent::Tried(tried) = self.events.remove(at) else { unreachable!() };
        assert!(!self.events.iter().any(is), "a try ends once");
        let data = tried.data.map(|data| data.bytes().to_vec()).unwrap_or_default();
        Some((tried.verdict, data))
    }

    pub(super) fn verdict(&mut self, id: TryId) -> Option<Verdict> {
        self.end(id).map(|(verdict, _)| verdict)
    }

    /// The facts last told; none since asked before.
    pub(super) fn take_ready(&mut self) -> Option<Facts> {
        let mut facts = None;
        self.events.retain(|event| match event {
            PathEvent::Ready(told) => {
                facts = Some((**told).clone());
                false
            }
            _ => true,
        });
        facts
    }

    pub(super) fn take_down(&mut self) -> Option<PathFault> {
        let mut down = None;
        self.events.retain(|event| match event {
            PathEvent::Down(fault) => {
                down = Some(*fault);
                false
            }
            _ => true,
        });
        down
    }

    /// Lives that were said to be quiet.
    pub(super) fn take_quiet(&mut self) -> Vec<u64> {
        let mut lives = Vec::new();
        self.events.retain(|event| match event {
            PathEvent::Quiet(life) => {
                lives.push(life.0);
                false
            }
            _ => true,
        });
        lives
    }
}
