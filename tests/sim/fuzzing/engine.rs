//! The engine: any requests, cancelled at any time, completed in any order, with or without
//! errors, on two shards.
//!
//! Every request gets exactly one outcome; in the end nothing is locked, lent or left at the
//! device. Nothing is written over what the store has lent, however long that is on its way.
//! Where nothing failed and memory was plenty, results and contents are those of the same requests
//! performed one after another.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use corbel_proto::memory::{Buffer, HeapBuffer, Segments, Slice};
use corbel_target::host::{BlockError, BlockOp, BlockToken, Message};
use corbel_target::volume::engine::{Engine, Owner, RequestId};
use corbel_target::volume::{Kind, Options, Outcome, Request, Volume};

use super::host::{ERRORS, FuzzHost, Lender, SECTOR, Store, volume};
use super::script::Script;

const SIZE_BYTES: u64 = 8 << 20;
const REQUESTS_MAX: usize = 96;

/// One request as the model remembers it.
#[derive(Debug, Clone)]
enum Wish {
    Read { offset: u64, len: u64 },
    Verify { offset: u64, expected: Option<Vec<u8>>, len: u64 },
    Write { offset: u64, data: Vec<u8> },
    Fill { offset: u64, len: u64, byte: u8 },
    Compare { offset: u64, expected: Vec<u8>, new: Vec<u8> },
    Or { offset: u64, data: Vec<u8> },
    Zero { offset: u64, len: u64 },
    Flush,
}

#[derive(Debug)]
struct Bench {
    volume: Arc<Volume>,
    shards: Vec<(Engine<HeapBuffer>, FuzzHost)>,
    store: Rc<RefCell<Store>>,
    wishes: Vec<(Wish, usize, RequestId)>,
    outcomes: BTreeMap<u64, Outcome<HeapBuffer>>,
    /// What the store has lent: shard, token, first byte and end.
    lent: Vec<(usize, BlockToken, u64, u64)>,
    /// The same, on its way to clients.
    on_way: Vec<Slice<HeapBuffer>>,
    /// Results can be foretold.
    exact: bool,
}

/// See the head of this file.
pub(super) fn engine(input: &[u8]) {
    let mut script = Script::new(input);
    let mode = script.u8();
    let exact = mode & 1 == 0;
    let budget = if exact { 1 << 30 } else { 1 << 20 };
    let shards = if mode & 2 == 0 { 1 } else { 2 };
    let hosts = (0..shards).map(|s| FuzzHost::new(s, shards, budget, SIZE_BYTES));
    let mut bench = Bench {
        volume: Arc::new(volume(SIZE_BYTES, Options::default())),
        shards: hosts.map(|host| (Engine::default(), host)).collect(),
        store: Rc::default(),
        wishes: Vec::new(),
        outcomes: BTreeMap::new(),
        lent: Vec::new(),
        on_way: Vec::new(),
        exact,
    };
    while !script.is_over() && bench.wishes.len() < REQUESTS_MAX {
        bench.step(&mut script);
    }
    bench.drain();
    if exact {
        bench.compare();
    }
    bench.outcomes.clear();
    for (_, host) in &bench.shards {
        assert_eq!(host.arena.in_use(), 0, "memory is still lent");
    }
}

impl Bench {
    fn step(&mut self, script: &mut Script<'_>) {
        let operation = script.u8();
        let shard = usize::from(operation >> 7) % self.shards.len();
        match operation & 7 {
            0..=3 => self.submit(shard, operation, script),
            4 if !self.wishes.is_empty() => {
                let (_, shard, id) = self.wishes[script.index(self.wishes.len())];
                let (engine, host) = &mut self.shards[shard];
                engine.cancel(host, id);
            }
            5 if operation & 0x40 != 0 && !self.exact => self.volume.mark_gone(),
            _ => self.complete(shard, script),
        }
        let (engine, host) = &mut self.shards[shard];
        engine.tick(host);
        self.collect();
    }

    fn submit(&mut self, shard: usize, operation: u8, script: &mut Script<'_>) {
        let (durable, lend) = (operation & 0x40 != 0, operation & 0x20 != 0);
        let (lends, refuses) = (operation & 0x10 == 0, operation & 8 != 0);
        let wish = wish(script);
        let number = self.wishes.len() as u64;
        let request = Request { volume: self.volume.clone(), kind: wish.kind(), durable, lend };
        let (engine, host) = &mut self.shards[shard];
        let lender = || Lender { store: self.store.clone(), lent: Vec::new(), refuses };
        host.lender = lends.then(lender);
        let id = engine.submit(host, Owner::Iscsi(number), request);
        self.wishes.push((wish, shard, id));
        self.note_loans();
    }

    /// Something that is under way ends: a block operation, or a message's journey.
    fn complete(&mut self, shard: usize, script: &mut Script<'_>) {
        let choice = script.u8();
        if choice & 0x80 != 0 && !self.on_way.is_empty() {
            let index = usize::from(choice) % self.on_way.len();
            self.on_way.swap_remove(index);
            return self.returned();
        }
        let (engine, host) = &mut self.shards[shard];
        if choice & 1 == 1
            && let Some((to, Message::RangeGranted { waiter })) = host.posts.pop_front()
        {
            let (engine, host) = &mut self.shards[usize::from(to)];
            return engine.message(host, waiter);
        }
        if host.blocks.is_empty() {
            return;
        }
        let index = usize::from(choice >> 1) % host.blocks.len();
        let fill = matches!(host.blocks[index].1, BlockOp::Zero { .. });
        let unknown = matches!(host.blocks[index].1, BlockOp::Status { .. });
        let result = match script.u8() {
            _ if unknown => Err(BlockError::Unsupported),
            // A store that cannot zero by itself is written to: the contents are the same.
            1 if fill => Err(BlockError::Unsupported),
            errs @ 1..16 if !self.exact => Err(ERRORS[usize::from(errs) % 4]),
            _ => Ok(()),
        };
        let (start, end) = match &host.blocks[index].1 {
            BlockOp::Read { offset, data, .. } | BlockOp::Write { offset, data } => {
                (*offset, *offset + u64::from(data.len))
            }
            BlockOp::Zero { offset, len, .. } | BlockOp::Discard { offset, len } => {
                (*offset, *offset + *len)
            }
            BlockOp::Flush | BlockOp::Status { .. } => (0, 0),
        };
        let reads = matches!(host.blocks[index].1, BlockOp::Read { .. });
        let clash = self.lent.iter().find(|(.., from, to)| *from < end && start < *to);
        assert!(reads || clash.is_none(), "{start} to {end} is written under {clash:?}");
        let (token, result, data) = host.complete(index, result, &mut self.store.borrow_mut());
        engine.block_done(host, token, result, data);
        self.note_loans();
    }

    /// What was lent within a call.
    fn note_loans(&mut self) {
        for (shard, (_, host)) in self.shards.iter_mut().enumerate() {
            let lent = host.lender.iter_mut().flat_map(|lender| lender.lent.drain(..));
            self.lent.extend(lent.map(|(token, start, end)| (shard, token, start, end)));
        }
    }

    /// The store has memory back.
    fn returned(&mut self) {
        self.note_loans();
        for (shard, (engine, host)) in self.shards.iter_mut().enumerate() {
            for tag in host.returned.take() {
                let token = BlockToken(tag);
                let before = self.lent.len();
                self.lent.retain(|(of, lent, ..)| (*of, *lent) != (shard, token));
                assert_eq!(self.lent.len() + 1, before, "what came back was lent once");
                engine.returned(host, token);
            }
        }
    }

    fn collect(&mut self) {
        self.returned();
        for (engine, _) in &mut self.shards {
            while let Some((Owner::Iscsi(number) | Owner::Aoe(number), mut outcome)) = engine.poll()
            {
                if let Outcome::Data(data) = &mut outcome {
                    for slice in data.iter_mut().filter(|slice| slice.buffer.is_loan()) {
                        let copy = slice.buffer.sent()[slice.range()].to_vec();
                        let copy = Slice::whole(HeapBuffer::from_vec(copy));
                        self.on_way.push(std::mem::replace(slice, copy));
                    }
                }
                let again = self.outcomes.insert(number, outcome);
                assert!(again.is_none(), "request {number} has two outcomes");
            }
        }
        if !self.exact {
            // What was read is memory that those who wait for some need.
            self.outcomes.values_mut().for_each(|outcome| *outcome = Outcome::Done);
        }
    }

    /// Lets everything end.
    fn drain(&mut self) {
        let zeros = [0; 2];
        loop {
            let mut moved = false;
            for shard in 0..self.shards.len() {
                let (engine, host) = &mut self.shards[shard];
                engine.tick(host);
                while let Some((to, Message::RangeGranted { waiter })) =
                    self.shards[shard].1.posts.pop_front()
                {
                    let (engine, host) = &mut self.shards[usize::from(to)];
                    engine.message(host, waiter);
                    moved = true;
                }
                while !self.shards[shard].1.blocks.is_empty() {
                    self.complete(shard, &mut Script::new(&zeros));
                    moved = true;
                }
            }
            self.collect();
            if !moved && self.on_way.pop().is_none() {
                break;
            }
            self.returned();
        }
        for (engine, host) in &self.shards {
            assert_eq!(engine.in_flight(), 0, "a request hangs");
            assert_eq!(engine.starved(), 0);
            assert!(host.blocks.is_empty() && host.posts.is_empty());
        }
        assert_eq!(self.outcomes.len(), self.wishes.len(), "every request has an outcome");
        assert_eq!(self.volume.ranges.len(), 0, "a range is still locked");
    }

    /// The same requests in their order, on a store of their own.
    fn compare(&self) {
        let mut store = Store::default();
        for (number, (wish, ..)) in (0..).zip(&self.wishes) {
            let outcome = &self.outcomes[&number];
            if !matches!(outcome, Outcome::Cancelled) {
                wish.perform(&mut store, outcome);
            }
        }
        assert_eq!(*self.store.borrow(), store, "contents after {:?}", self.wishes);
    }
}

fn wish(script: &mut Script<'_>) -> Wish {
    let (shape, place, pattern) = (script.u8(), script.u8(), script.u8());
    // Near the borders of the range lock's chunks, which are 512 sectors long.
    let sector = u64::from(place >> 4) * 512 + u64::from(place & 15);
    let sectors = match shape & 0x70 {
        0x70 => 500 + u64::from(pattern),
        _ => 1 + u64::from(shape >> 4 & 7),
    };
    let (offset, len) = (sector * SECTOR as u64, sectors * SECTOR as u64);
    let data = |seed: u8| -> Vec<u8> {
        let byte = |at: u64| seed.wrapping_mul(31).wrapping_add((at / 100).to_le_bytes()[0]);
        (0..len).map(byte).collect()
    };
    match shape & 15 {
        0..=3 => Wish::Write { offset, data: data(pattern) },
        4..=6 => Wish::Read { offset, len },
        7 => Wish::Fill { offset, len, byte: pattern },
        8 => Wish::Verify { offset, expected: (pattern > 9).then(|| data(pattern)), len },
        9 | 10 => Wish::Compare { offset, expected: data(pattern), new: data(pattern ^ 1) },
        11 => Wish::Compare { offset, expected: vec![0; data(0).len()], new: data(pattern) },
        12 => Wish::Or { offset, data: data(pattern) },
        13 => Wish::Zero { offset, len },
        _ => Wish::Flush,
    }
}

impl Wish {
    fn kind(&self) -> Kind<HeapBuffer> {
        match self.clone() {
            Self::Read { offset, len } => Kind::Read { offset, len },
            Self::Verify { offset, expected, len } => {
                Kind::Verify { offset, len, expected: expected.map(|data| cut(&data)) }
            }
            Self::Write { offset, data } => Kind::Write { offset, data: cut(&data) },
            Self::Fill { offset, len, byte } => {
                let block = Some(Slice::whole(HeapBuffer::from_vec(vec![byte; SECTOR])));
                Kind::WriteSame { offset, len, block, unmap: byte & 1 == 1 }
            }
            Self::Compare { offset, expected, new } => {
                Kind::CompareAndWrite { offset, expected: cut(&expected), new: cut(&new) }
            }
            Self::Or { offset, data } => Kind::Or { offset, data: cut(&data) },
            Self::Zero { offset, len } => Kind::Discard(vec![(offset, len)]),
            Self::Flush => Kind::Flush,
        }
    }

    /// Performs it on `store` and checks that `outcome` is what comes of it.
    fn perform(&self, store: &mut Store, outcome: &Outcome<HeapBuffer>) {
        match self {
            Self::Read { offset, len } => {
                let Outcome::Data(data) = outcome else { panic!("{self:?}: {outcome:?}") };
                let read: Vec<u8> = data.iter().flat_map(|s| s.bytes().to_vec()).collect();
                assert!(read == contents(store, *offset, *len), "a read saw other contents");
                return;
            }
            Self::Verify { offset, expected: Some(expected), .. } => {
                return judge(store, *offset, expected, outcome);
            }
            Self::Compare { offset, expected, new } => {
                judge(store, *offset, expected, outcome);
                if matches!(outcome, Outcome::Done) {
                    store.write(*offset, new);
                }
                return;
            }
            Self::Write { offset, data } => store.write(*offset, data),
            Self::Fill { offset, len, byte } => {
                let len = usize::try_from(*len).expect("below the volume's size");
                store.write(*offset, &vec![*byte; len]);
            }
            Self::Or { offset, data } => {
                let mut now = contents(store, *offset, data.len() as u64);
                now.iter_mut().zip(data).for_each(|(byte, more)| *byte |= more);
                store.write(*offset, &now);
            }
            Self::Zero { offset, len } => store.zero(*offset, *len),
            Self::Verify { expected: None, .. } | Self::Flush => {}
        }
        assert!(matches!(outcome, Outcome::Done), "{self:?}: {outcome:?}");
    }
}

fn contents(store: &Store, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("below the volume's size")];
    store.read(offset, &mut bytes);
    bytes
}

fn judge(store: &Store, offset: u64, expected: &[u8], outcome: &Outcome<HeapBuffer>) {
    let stands = contents(store, offset, expected.len() as u64);
    let differs = stands.iter().zip(expected).position(|(a, b)| a != b);
    match (differs, outcome) {
        (None, Outcome::Done) => {}
        (Some(at), Outcome::Miscompare(told)) if at as u64 == *told => {}
        _ => panic!("first difference {differs:?}, told {outcome:?}"),
    }
}

/// A payload in pieces of unlike lengths.
fn cut(data: &[u8]) -> Segments<HeapBuffer> {
    let (mut rest, mut pieces, mut step) = (data, Segments::new(), 1);
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at((step * SECTOR).min(rest.len()));
        pieces.push(Slice::whole(HeapBuffer::from_vec(piece.to_vec())));
        (rest, step) = (tail, step * 3);
    }
    pieces
}
