//! One command from registers to a request, and from its outcome back to registers.

use std::sync::Arc;

use corbel_proto::aoe;
use corbel_proto::ata::command::{Extent, Feature, Smart, TrimRanges};
use corbel_proto::ata::{Command, Fault, Identify, Registers, SECTOR_BYTES};
use corbel_proto::memory::{Buffer, Segments, Slice};

use super::{Acknowledge, smart};
use crate::host::BlockError;
use crate::volume::identity::{REVISION, VENDOR};
use crate::volume::{Kind, Outcome, Request, Volume};

/// Most 512-byte blocks of TRIM ranges in one command: 512 ranges.
const TRIM_BLOCKS_MAX: u32 = 8;

/// CHECK POWER MODE: active or idle (ACS-3 7.3).
const POWER_ACTIVE: u8 = 0xff;

/// A volume in the shape of an ATA disk.
#[derive(Debug, Clone)]
pub struct Disk {
    volume: Arc<Volume>,
    acknowledge: Acknowledge,
}

/// What a command comes to.
#[derive(Debug)]
pub enum Execution<B> {
    /// Answered at once.
    Respond {
        /// Status registers.
        registers: Registers,
        /// Data for the client.
        data: Option<Box<[u8; 512]>>,
    },
    /// Something for the volume to do; its outcome goes to [`Pending::finish`].
    Request(Request<B>, Pending),
    /// The frame contradicts itself: its data are not as long as its registers say, or the reply
    /// would not fit a frame. Not an ATA matter.
    BadFrame,
}

/// A command whose request is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    registers: Registers,
    kind: PendingKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PendingKind {
    /// Of what was read, the client asked for `len` bytes from `skip` on.
    Read {
        skip: u32,
        len: u32,
    },
    Verify,
    /// Writes, TRIM, flushes.
    Change,
}

/// A command that is over.
#[derive(Debug)]
pub struct Finished<B> {
    /// Status registers.
    pub registers: Registers,
    /// Data for the client.
    pub data: Segments<B>,
    /// How it failed, if it did.
    pub fault: Option<Fault>,
}

impl Disk {
    /// The disk on `volume`.
    pub const fn new(volume: Arc<Volume>, acknowledge: Acknowledge) -> Self {
        Self { volume, acknowledge }
    }

    /// The volume behind it.
    pub const fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// When writes are acknowledged.
    pub const fn acknowledge(&self) -> Acknowledge {
        self.acknowledge
    }

    /// Decides on one command. `payload` is all that came after the registers; `sectors_max` is
    /// what fits a reply.
    pub fn execute<B: Buffer>(
        &self,
        registers: Registers,
        payload: &Slice<B>,
        sectors_max: u32,
    ) -> Execution<B> {
        match Command::parse(&registers) {
            Command::Read(extent) if extent.sectors > sectors_max => Execution::BadFrame,
            Command::Read(extent) => self.read(registers, extent),
            Command::Write(extent) => self.write(registers, extent, payload),
            Command::Verify(extent) => self.verify(registers, extent),
            Command::Trim { blocks } => self.trim(registers, blocks, payload),
            Command::Flush | Command::StandbyImmediate => {
                self.request(registers, Kind::Flush, PendingKind::Change)
            }
            Command::Identify => {
                let data = Some(Box::new(self.identify().emit()));
                Execution::Respond { registers: registers.done(), data }
            }
            Command::CheckPowerMode => done(Registers { count: POWER_ACTIVE, ..registers }),
            Command::IdleImmediate => done(registers),
            Command::Smart(what) => self.smart(registers, what),
            Command::SetFeatures(feature) => self.set_features(registers, feature),
            Command::Unsupported(_) => fail(registers, Fault::Aborted),
        }
    }

    /// What IDENTIFY DEVICE says.
    pub fn identify(&self) -> Identify {
        let Volume { identity, facts, options, .. } = &*self.volume;
        let trim = self.volume.deallocates() && !options.read_only;
        let ratio = (facts.physical_bytes / SECTOR_BYTES).max(1);
        let trim_blocks = if trim { TRIM_BLOCKS_MAX } else { 0 };
        Identify {
            serial: identity.serial.clone(),
            firmware: REVISION.to_owned(),
            model: format!("{VENDOR} {}", identity.model),
            naa: identity.naa,
            sectors: self.volume.size_bytes() / u64::from(SECTOR_BYTES),
            physical_exponent: u8::try_from(ratio.ilog2().min(15)).expect("at most 15"),
            write_cache: self.has_cache(),
            trim_blocks: u16::try_from(trim_blocks).expect("a small constant"),
            // Ranges that are not whole blocks are trimmed in part only.
            trim_zeroes: trim && facts.discard_zeroes && facts.block_bytes == SECTOR_BYTES,
            rotational: facts.rotational,
        }
    }

    /// Does an acknowledged write possibly need a flush?
    fn has_cache(&self) -> bool {
        self.volume.facts.volatile_cache && self.acknowledge == Acknowledge::Cached
    }

    fn block_bytes(&self) -> u64 {
        u64::from(self.volume.facts.block_bytes)
    }

    fn request<B>(
        &self,
        registers: Registers,
        kind: Kind<B>,
        pending: PendingKind,
    ) -> Execution<B> {
        let volume = self.volume.clone();
        let durable = self.acknowledge == Acknowledge::Stable;
        let lend = matches!(kind, Kind::Read { .. });
        let request = Request { volume, kind, durable, lend };
        Execution::Request(request, Pending { registers, kind: pending })
    }

    /// First byte and length of sectors that lie inside the volume.
    fn bytes(&self, extent: Extent) -> Option<(u64, u64)> {
        // 48 bits of LBA and 17 of count: neither product can overflow.
        let offset = extent.lba * u64::from(SECTOR_BYTES);
        let len = u64::from(extent.sectors) * u64::from(SECTOR_BYTES);
        self.volume.contains(offset, len).then_some((offset, len))
    }

    /// The smallest range of whole logical blocks around a range, inside the volume if it is.
    fn widened(&self, offset: u64, len: u64) -> (u64, u64) {
        let start = offset - offset % self.block_bytes();
        let end = (offset + len).next_multiple_of(self.block_bytes());
        (start, end - start)
    }

    fn read<B>(&self, registers: Registers, extent: Extent) -> Execution<B> {
        let Some((offset, len)) = self.bytes(extent) else {
            return fail(registers, Fault::IdNotFound);
        };
        let (start, whole) = self.widened(offset, len);
        let narrow = |n: u64| u32::try_from(n).expect("a frame's worth of bytes");
        let pending = PendingKind::Read { skip: narrow(offset - start), len: narrow(len) };
        self.request(registers, Kind::Read { offset: start, len: whole }, pending)
    }

    fn verify<B>(&self, registers: Registers, extent: Extent) -> Execution<B> {
        let Some((offset, len)) = self.bytes(extent) else {
            return fail(registers, Fault::IdNotFound);
        };
        let (offset, len) = self.widened(offset, len);
        self.request(registers, Kind::Verify { offset, len, expected: None }, PendingKind::Verify)
    }

    fn write<B: Buffer>(
        &self,
        registers: Registers,
        extent: Extent,
        payload: &Slice<B>,
    ) -> Execution<B> {
        if u64::from(payload.len) != u64::from(extent.sectors) * u64::from(SECTOR_BYTES) {
            return Execution::BadFrame;
        }
        if self.volume.options.read_only {
            return fail(registers, Fault::Aborted);
        }
        let Some((offset, len)) = self.bytes(extent) else {
            return fail(registers, Fault::IdNotFound);
        };
        if (offset, len) != self.widened(offset, len) {
            return fail(registers, Fault::Aborted);
        }
        let mut data = Segments::new();
        data.push(payload.clone());
        self.request(registers, Kind::Write { offset, data }, PendingKind::Change)
    }

    fn trim<B: Buffer>(
        &self,
        registers: Registers,
        blocks: u32,
        payload: &Slice<B>,
    ) -> Execution<B> {
        if u64::from(payload.len) != u64::from(blocks) * u64::from(SECTOR_BYTES) {
            return Execution::BadFrame;
        }
        let options = &self.volume.options;
        if !self.volume.deallocates() || options.read_only || blocks > TRIM_BLOCKS_MAX {
            return fail(registers, Fault::Aborted);
        }
        let Ok(entries) = TrimRanges::parse(payload.bytes()) else { return Execution::BadFrame };
        let mut ranges = Vec::new();
        for extent in entries {
            let Some((offset, len)) = self.bytes(extent) else {
                return fail(registers, Fault::IdNotFound);
            };
            // TRIM is advice: what is not a whole block keeps its data.
            let start = offset.next_multiple_of(self.block_bytes());
            let end = (offset + len) / self.block_bytes() * self.block_bytes();
            if start < end {
                ranges.push((start, end - start));
            }
        }
        if ranges.is_empty() {
            return done(registers);
        }
        self.request(registers, Kind::Discard(ranges), PendingKind::Change)
    }

    fn smart<B>(&self, registers: Registers, what: Smart) -> Execution<B> {
        match what {
            Smart::Enable => done(registers),
            Smart::ReturnStatus => {
                let registers = smart::status(registers, !self.volume.is_gone());
                Execution::Respond { registers, data: None }
            }
            Smart::ReadData | Smart::ReadThresholds => {
                let data = Some(smart::empty_table());
                Execution::Respond { registers: registers.done(), data }
            }
        }
    }

    /// The cache is the operator's choice, not a client's: what is so already succeeds.
    fn set_features<B>(&self, registers: Registers, feature: Feature) -> Execution<B> {
        let granted = match feature {
            Feature::WriteCacheOn => self.has_cache(),
            Feature::WriteCacheOff => !self.has_cache(),
            Feature::TransferMode | Feature::LookAhead => true,
        };
        if granted { done(registers) } else { fail(registers, Fault::Aborted) }
    }
}

impl Pending {
    /// The reply to what came of the request.
    ///
    /// Every failure is told in ATA status, never as an AoE error: the Linux client ends the I/O
    /// at the first and repeats it for 180 seconds at the second.
    pub fn finish<B: Buffer>(self, outcome: Outcome<B>) -> Finished<B> {
        let fault = match (outcome, self.kind) {
            (Outcome::Data(read), PendingKind::Read { skip, len }) => {
                let data = cut(&read, skip, len);
                return Finished { registers: self.registers.done(), data, fault: None };
            }
            (Outcome::Done, PendingKind::Verify | PendingKind::Change) => {
                let data = Segments::new();
                return Finished { registers: self.registers.done(), data, fault: None };
            }
            (Outcome::Failed(BlockError::Medium), PendingKind::Change) => Fault::DeviceFault,
            (Outcome::Failed(BlockError::Medium), _) => Fault::Uncorrectable,
            (Outcome::Failed(BlockError::Gone | BlockError::Sanitizing), _) => Fault::DeviceFault,
            (Outcome::Failed(BlockError::NoSpace | BlockError::Unsupported), _)
            | (Outcome::Cancelled | Outcome::Miscompare(_), _)
            | (Outcome::Data(_) | Outcome::Extents(_) | Outcome::Done, _) => Fault::Aborted,
        };
        let registers = self.registers.failed(fault);
        Finished { registers, data: Segments::new(), fault: Some(fault) }
    }
}

/// `len` bytes of `pieces` from `skip` on, without copying.
fn cut<B: Buffer>(pieces: &[Slice<B>], mut skip: u32, mut len: u32) -> Segments<B> {
    let mut out = Segments::new();
    for piece in pieces {
        let start = skip.min(piece.len);
        let take = (piece.len - start).min(len);
        skip -= start;
        len -= take;
        if take > 0 {
            out.push(piece.sub(start, take));
        }
    }
    out
}

fn done<B>(registers: Registers) -> Execution<B> {
    Execution::Respond { registers: registers.done(), data: None }
}

fn fail<B>(registers: Registers, fault: Fault) -> Execution<B> {
    Execution::Respond { registers: registers.failed(fault), data: None }
}

// The disk counts as its transport does.
const _: () = assert!(SECTOR_BYTES as usize == aoe::SECTOR_BYTES);
