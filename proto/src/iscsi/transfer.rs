//! Write data on its way into a command's buffer (RFC 7143 11.7, 11.8).
//!
//! A transfer owns the command's pieces of memory, hands out R2Ts for what it has memory for, and
//! lets no byte in that does not lie inside an open burst: in order, or, where DataPDUInOrder=No
//! was agreed, anywhere in it, but no byte twice. What was lost on the way is asked for again
//! (7.7: recovery R2T). Pieces lie on a grid of [`SEGMENT_BYTES_MAX`], so that each is a whole
//! number of blocks however the data was cut on the wire.

use smallvec::SmallVec;

use super::bhs::TAG_NONE;
use super::pdu::data::DataOut;
use crate::error::Violation;
use crate::memory::{Arena, Buffer, SEGMENT_BYTES_MAX, Segments, Slice};

/// The grid as the wire counts.
const PIECE: u32 = 256 * 1024;
const _: () = assert!(PIECE as usize == SEGMENT_BYTES_MAX);

const fn wrong(why: &'static str, section: &'static str) -> Violation {
    Violation::new("Data-Out", why, section)
}

/// Separate ranges kept of a burst whose PDUs come in any order: beyond, the write fails.
const HOLES_MAX: usize = 64;
/// Times that lost data of one command is asked for again.
const RECOVERIES_MAX: u8 = 32;

/// Bytes from the first up to the second.
type Range = (u32, u32);

/// Data-Out PDUs that belong together: one unsolicited burst, or the answer to one R2T.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Burst {
    ttt: u32,
    start: u32,
    /// Where the next byte belongs; of a burst in any order, the end of what has come.
    next: u32,
    /// Where it ends at the latest (unsolicited) or exactly (solicited).
    end: u32,
    data_sn: u32,
    /// R2TSN of what asked for it.
    r2t_sn: u32,
    /// What has come of a burst in any order. Not there where order is kept, so that a burst is
    /// small.
    come: Option<Box<Come>>,
}

/// Ranges, ascending and apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Come(Vec<Range>);

impl Burst {
    fn new(ttt: u32, start: u32, end: u32) -> Self {
        Self { ttt, start, next: start, end, data_sn: 0, r2t_sn: 0, come: None }
    }

    /// Notes a range of a burst in any order. An error if part of it has come, or there are too
    /// many holes.
    fn note(&mut self, from: u32, to: u32) -> Result<(), Violation> {
        let Come(come) = &mut **self.come.get_or_insert_default();
        let at = come.partition_point(|&(_, end)| end <= from);
        if come.get(at).is_some_and(|&(start, _)| start < to) {
            return Err(wrong("some of it has come already", "RFC 7143 13.18"));
        }
        if from < to {
            let joins_left = at > 0 && come[at - 1].1 == from;
            let joins_right = come.get(at).is_some_and(|&(start, _)| start == to);
            match (joins_left, joins_right) {
                (true, true) => come[at - 1].1 = come.remove(at).1,
                (true, false) => come[at - 1].1 = to,
                (false, true) => come[at].0 = from,
                (false, false) if come.len() == HOLES_MAX => {
                    return Err(wrong(
                        "more holes between its PDUs than are kept",
                        "RFC 7143 13.18",
                    ));
                }
                (false, false) => come.insert(at, (from, to)),
            }
        }
        self.next = come.last().map_or(self.start, |&(_, end)| end);
        Ok(())
    }

    /// No byte before `next` is missing.
    fn is_whole(&self) -> bool {
        self.holes().next().is_none()
    }

    /// What is missing before `next`.
    fn holes(&self) -> impl Iterator<Item = Range> + '_ {
        let come = self.come.as_ref().map_or(&[][..], |come| &come.0);
        let starts = core::iter::once(self.start).chain(come.iter().map(|range| range.1));
        let ends = come.iter().map(|range| range.0);
        starts.zip(ends).filter(|(start, end)| start < end)
    }
}

/// A range to ask for with an R2T.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// First byte.
    pub offset: u32,
    /// Bytes.
    pub bytes: u32,
    /// R2TSN.
    pub r2t_sn: u32,
}

/// An R2T that was sent and is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenR2t {
    /// Its Target Transfer Tag.
    pub ttt: u32,
    /// What it asks for.
    pub ask: Ask,
}

/// The write data of one command.
#[derive(Debug)]
pub struct Transfer<B> {
    pieces: SmallVec<[Option<B>; 2]>,
    /// What the initiator announced; nothing is ever placed behind it.
    announced: u32,
    /// What the command takes; unknown until the CDB was looked at.
    wanted: Option<u32>,
    bursts: SmallVec<[Burst; 4]>,
    /// All before this has come, is part of a burst that is open, or is lost.
    asked: u32,
    r2t_sn: u32,
    /// After a restart, the first R2TSN that was not answered with all of its data.
    unanswered: u32,
    /// DataPDUInOrder.
    in_order: bool,
    /// To be asked for again.
    lost: Vec<Range>,
    recoveries: u8,
}

impl<B: Buffer> Transfer<B> {
    /// A transfer of `announced` bytes, of which `immediate` come with the command and, if
    /// `more_unsolicited`, others up to `first_burst` in all without being asked for. `in_order` is
    /// what was agreed as DataPDUInOrder.
    pub fn new(
        announced: u32,
        immediate: u32,
        more_unsolicited: bool,
        first_burst: u32,
        in_order: bool,
    ) -> Self {
        let mut bursts = SmallVec::new();
        let end = first_burst.min(announced);
        if more_unsolicited && immediate < end {
            bursts.push(Burst::new(TAG_NONE, immediate, end));
        }
        Self {
            pieces: SmallVec::new(),
            announced,
            wanted: None,
            bursts,
            asked: immediate,
            r2t_sn: 0,
            unanswered: 0,
            in_order,
            lost: Vec::new(),
            recoveries: 0,
        }
    }

    /// Has memory for the bytes before `end`, or gets it: all or nothing. False: nothing.
    pub fn lend<A: Arena<Buf = B>>(&mut self, arena: &mut A, end: u32) -> bool {
        let before = self.pieces.len();
        while self.held_bytes() < end {
            let len = (self.announced - self.held_bytes()).min(PIECE);
            if let Some(piece) = arena.alloc(len as usize) {
                self.pieces.push(Some(piece));
            } else {
                self.pieces.truncate(before);
                return false;
            }
        }
        true
    }

    /// Bytes from the start that there is memory for.
    pub fn held_bytes(&self) -> u32 {
        let count = u32::try_from(self.pieces.len()).unwrap_or(u32::MAX);
        count.saturating_mul(PIECE).min(self.announced)
    }

    /// The command takes `wanted` bytes.
    pub fn want(&mut self, wanted: u64) {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        self.wanted = Some(wanted.min(self.announced));
    }

    /// How many bytes make it complete, once that is known.
    pub fn wanted(&self) -> Option<u32> {
        self.wanted
    }

    /// All that the command takes has come.
    pub fn is_complete(&self) -> bool {
        self.bursts.is_empty()
            && self.wanted.is_some_and(|wanted| {
                self.asked >= wanted && self.lost.iter().all(|&(start, _)| start >= wanted)
            })
    }

    /// The next range to ask for, if a burst more may be open and there is memory: first what was
    /// lost. It is open then, under `ttt`.
    pub fn ask(&mut self, ttt: u32, burst_max: u32, open_max: usize) -> Option<Ask> {
        let end = self.wanted?.min(self.held_bytes());
        let unsolicited_open = self.bursts.iter().any(|burst| burst.ttt == TAG_NONE);
        if unsolicited_open || self.bursts.len() >= open_max {
            return None;
        }
        let (offset, bytes) = match self.take_lost(burst_max, end) {
            Some(lost) => lost,
            None if self.asked >= end => return None,
            None => {
                let bytes = burst_max.min(end - self.asked);
                self.asked += bytes;
                (self.asked - bytes, bytes)
            }
        };
        let ask = Ask { offset, bytes, r2t_sn: self.r2t_sn };
        self.r2t_sn += 1;
        self.bursts.push(Burst { r2t_sn: ask.r2t_sn, ..Burst::new(ttt, offset, offset + bytes) });
        Some(ask)
    }

    fn take_lost(&mut self, burst_max: u32, end: u32) -> Option<(u32, u32)> {
        self.lost.retain(|&(start, _)| start < end);
        let first = self.lost.first_mut()?;
        let bytes = burst_max.min(first.1.min(end) - first.0);
        let offset = first.0;
        first.0 += bytes;
        if first.0 >= first.1.min(end) {
            self.lost.remove(0);
        }
        Some((offset, bytes))
    }

    /// R2Ts sent so far.
    pub fn r2t_count(&self) -> u32 {
        self.r2t_sn
    }

    /// R2Ts without their last data.
    pub fn open_r2ts(&self) -> impl Iterator<Item = OpenR2t> + '_ {
        self.bursts.iter().filter(|burst| burst.ttt != TAG_NONE).map(|burst| OpenR2t {
            ttt: burst.ttt,
            ask: Ask { offset: burst.start, bytes: burst.end - burst.start, r2t_sn: burst.r2t_sn },
        })
    }

    /// Judges a Data-Out of `len` bytes by its header. Its data belongs at its offset.
    pub fn accept(&mut self, data: &DataOut, len: u32) -> Result<(), Violation> {
        let Some(at) = self.bursts.iter().position(|burst| burst.ttt == data.ttt) else {
            return Err(wrong("nobody asked for it", "RFC 7143 11.7.4"));
        };
        let burst = &mut self.bursts[at];
        if data.data_sn != burst.data_sn {
            return Err(wrong("DataSN is not the next one", "RFC 7143 11.7.5"));
        }
        let end = data.offset.checked_add(len).filter(|&end| end <= burst.end);
        let Some(end) = end.filter(|_| data.offset >= burst.start) else {
            return Err(wrong("longer than its burst", "RFC 7143 11.8"));
        };
        let full = if self.in_order {
            if data.offset != burst.next {
                return Err(wrong("the offset is not the next one", "RFC 7143 11.7.6"));
            }
            end == burst.end
        } else {
            burst.note(data.offset, end)?;
            burst.next == burst.end && burst.is_whole()
        };
        if data.ttt != TAG_NONE && full != data.is_final {
            return Err(wrong("the final bit is not where the burst ends", "RFC 7143 11.7.1"));
        }
        burst.next = burst.next.max(end);
        burst.data_sn += 1;
        Ok(())
    }

    /// A Data-Out that was accepted has come whole.
    pub fn arrived(&mut self, data: &DataOut) {
        if let Some(at) = self.bursts.iter().position(|burst| burst.ttt == data.ttt)
            && data.is_final
        {
            let burst = self.bursts.remove(at);
            if burst.ttt == TAG_NONE {
                // What did not come in any order is missing, and asked for.
                self.lost.extend(burst.holes());
                self.asked = burst.next;
            }
        }
    }

    /// A Data-Out of `len` bytes that was accepted came damaged: it is asked for again. False if
    /// that has been done too often.
    pub fn lose(&mut self, data: &DataOut, len: u32) -> bool {
        if self.recoveries == RECOVERIES_MAX {
            return false;
        }
        self.recoveries += 1;
        if len > 0 {
            self.lost.push((data.offset, data.offset + len));
        }
        self.arrived(data);
        true
    }

    /// A Data-Out of `len` bytes that was accepted never comes whole: its connection is gone.
    /// Before [`Self::restart`].
    pub fn cut_off(&mut self, data: &DataOut, len: u32) {
        if len > 0 {
            self.lost.push((data.offset, data.offset + len));
        }
    }

    /// The connection that data came on is gone: what is open is asked for anew.
    pub fn restart(&mut self) {
        let open = self.open_r2ts().map(|open| open.ask.r2t_sn);
        self.unanswered = open.min().unwrap_or(self.r2t_sn);
        if self.pieces.iter().any(Option::is_none) {
            // Somebody still receives into one of them, on behalf of that connection.
            return self.start_over();
        }
        for burst in core::mem::take(&mut self.bursts) {
            let (start, next, end) = (burst.start, burst.next, burst.end);
            self.lost.extend(burst.holes());
            if burst.ttt == TAG_NONE {
                self.asked = next;
            } else if start.max(next) < end {
                self.lost.push((next, end));
            }
        }
        self.lost.sort_unstable();
    }

    /// Nothing has come: all of it is asked for (again), and its memory goes back.
    pub fn start_over(&mut self) {
        self.bursts.clear();
        self.lost.clear();
        self.pieces.clear();
        self.asked = 0;
    }

    /// It goes on after [`Self::restart`], on a connection where the initiator expects R2TSN
    /// `expected`; zero, or a number that makes no sense: the first that it has not answered.
    pub fn resume(&mut self, expected: u32) {
        let sound = expected > self.unanswered && expected <= self.r2t_sn;
        self.r2t_sn = if sound { expected } else { self.unanswered };
    }

    /// Copies bytes to `offset` on.
    pub fn place(&mut self, mut offset: u32, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let start = (offset % PIECE) as usize;
            let Some(Some(piece)) = self.pieces.get_mut((offset / PIECE) as usize) else { return };
            let part = bytes.len().min(piece.len() - start);
            piece.bytes_mut()[start..start + part].copy_from_slice(&bytes[..part]);
            bytes = &bytes[part..];
            offset += u32::try_from(part).expect("pieces are 256 KiB at most");
        }
    }

    /// Lends the place of up to `len` bytes from `offset` on: whose piece, and its part.
    pub fn take(&mut self, offset: u32, len: u32) -> Option<(usize, Slice<B>)> {
        let index = (offset / PIECE) as usize;
        let buffer = self.pieces.get_mut(index)?.take()?;
        let start = offset % PIECE;
        let room = u32::try_from(buffer.len()).expect("pieces are 256 KiB at most") - start;
        Some((index, Slice::part(buffer, start, len.min(room))))
    }

    /// Gives a piece back.
    pub fn give_back(&mut self, index: usize, buffer: B) {
        if let Some(place) = self.pieces.get_mut(index) {
            *place = Some(buffer);
        }
    }

    /// The data, once it is complete. It leaves the transfer.
    pub fn take_segments(&mut self) -> Segments<B> {
        let mut left = self.wanted.unwrap_or(0);
        let mut segments = Segments::new();
        for buffer in self.pieces.drain(..).flatten() {
            if left == 0 {
                break;
            }
            let len = u32::try_from(buffer.len()).expect("pieces are 256 KiB at most").min(left);
            segments.push(Slice::part(buffer, 0, len));
            left -= len;
        }
        segments
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
