//! Write data on its way into a command's buffer (RFC 7143 11.7, 11.8).
//!
//! A transfer owns the command's pieces of memory, hands out R2Ts for what it has memory for, and
//! lets no byte in that does not lie inside an open burst, in order. Pieces lie on a grid of
//! [`SEGMENT_BYTES_MAX`], so that each is a whole number of blocks however the data was cut on the
//! wire.

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

/// Data-Out PDUs that belong together: one unsolicited burst, or the answer to one R2T.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Burst {
    ttt: u32,
    /// Where the next byte belongs.
    next: u32,
    /// Where it ends at the latest (unsolicited) or exactly (solicited).
    end: u32,
    data_sn: u32,
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

/// The write data of one command.
#[derive(Debug)]
pub struct Transfer<B> {
    pieces: SmallVec<[Option<B>; 2]>,
    /// What the initiator announced; nothing is ever placed behind it.
    announced: u32,
    /// What the command takes; unknown until the CDB was looked at.
    wanted: Option<u32>,
    bursts: SmallVec<[Burst; 4]>,
    /// All before this has come, or is part of a burst that is open.
    asked: u32,
    r2t_sn: u32,
}

impl<B: Buffer> Transfer<B> {
    /// A transfer of `announced` bytes, of which `immediate` come with the command and, if
    /// `more_unsolicited`, others up to `first_burst` in all without being asked for.
    pub fn new(announced: u32, immediate: u32, more_unsolicited: bool, first_burst: u32) -> Self {
        let mut bursts = SmallVec::new();
        let end = first_burst.min(announced);
        if more_unsolicited && immediate < end {
            bursts.push(Burst { ttt: TAG_NONE, next: immediate, end, data_sn: 0 });
        }
        Self {
            pieces: SmallVec::new(),
            announced,
            wanted: None,
            bursts,
            asked: immediate,
            r2t_sn: 0,
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
        self.bursts.is_empty() && self.wanted.is_some_and(|wanted| self.asked >= wanted)
    }

    /// The next range to ask for, if a burst more may be open and there is memory. It is open then,
    /// under `ttt`.
    pub fn ask(&mut self, ttt: u32, burst_max: u32, open_max: usize) -> Option<Ask> {
        let end = self.wanted?.min(self.held_bytes());
        let unsolicited_open = self.bursts.iter().any(|burst| burst.ttt == TAG_NONE);
        if unsolicited_open || self.bursts.len() >= open_max || self.asked >= end {
            return None;
        }
        let ask =
            Ask { offset: self.asked, bytes: burst_max.min(end - self.asked), r2t_sn: self.r2t_sn };
        self.asked += ask.bytes;
        self.r2t_sn += 1;
        self.bursts.push(Burst { ttt, next: ask.offset, end: self.asked, data_sn: 0 });
        Some(ask)
    }

    /// R2Ts sent so far.
    pub fn r2t_count(&self) -> u32 {
        self.r2t_sn
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
        if data.offset != burst.next {
            return Err(wrong("the offset is not the next one", "RFC 7143 11.7.6"));
        }
        let Some(next) = burst.next.checked_add(len).filter(|&next| next <= burst.end) else {
            return Err(wrong("longer than its burst", "RFC 7143 11.8"));
        };
        let full = next == burst.end;
        if data.ttt != TAG_NONE && full != data.is_final {
            return Err(wrong("the final bit is not where the burst ends", "RFC 7143 11.7.1"));
        }
        burst.next = next;
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
                self.asked = burst.next;
            }
        }
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

    /// The data, once it is complete.
    pub fn into_segments(self) -> Segments<B> {
        let mut left = self.wanted.unwrap_or(0);
        let mut segments = Segments::new();
        for buffer in self.pieces.into_iter().flatten() {
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
mod tests {
    use super::*;
    use crate::iscsi::bhs::Lun;
    use crate::memory::HeapArena;

    fn data(ttt: u32, data_sn: u32, offset: u32, is_final: bool) -> DataOut {
        DataOut { is_final, lun: Lun(0), itt: 1, ttt, exp_stat_sn: 0, data_sn, offset }
    }

    fn feed(
        t: &mut Transfer<crate::memory::HeapBuffer>,
        d: DataOut,
        len: u32,
    ) -> Result<(), Violation> {
        t.accept(&d, len)?;
        t.place(d.offset, &vec![u8::try_from(d.data_sn + 1).unwrap(); len as usize]);
        t.arrived(&d);
        Ok(())
    }

    #[test]
    fn unsolicited_burst_then_bursts_that_were_asked_for() {
        let mut arena = HeapArena::new(1 << 20);
        let mut t = Transfer::new(20_000, 1000, true, 4096);
        assert!(t.lend(&mut arena, 4096));
        t.want(20_000);
        assert_eq!(t.ask(7, 8192, 2), None, "not while unsolicited data may come");
        feed(&mut t, data(TAG_NONE, 0, 1000, false), 1000).unwrap();
        feed(&mut t, data(TAG_NONE, 1, 2000, true), 2096).unwrap();
        assert_eq!(t.ask(7, 8192, 2), Some(Ask { offset: 4096, bytes: 8192, r2t_sn: 0 }));
        assert_eq!(t.ask(8, 8192, 2), Some(Ask { offset: 12_288, bytes: 7712, r2t_sn: 1 }));
        assert_eq!(t.ask(9, 8192, 2), None);
        feed(&mut t, data(7, 0, 4096, true), 8192).unwrap();
        assert!(!t.is_complete());
        feed(&mut t, data(8, 0, 12_288, true), 7712).unwrap();
        assert!(t.is_complete());
        let segments = t.into_segments();
        assert_eq!(segments.iter().map(|s| s.len).sum::<u32>(), 20_000);
    }

    /// tgt placed a Data-Out wherever its header said, past the end of the heap buffer.
    #[test]
    fn no_byte_goes_outside_its_burst() {
        let mut arena = HeapArena::new(1 << 20);
        let mut t = Transfer::new(8192, 0, false, 65_536);
        assert!(t.lend(&mut arena, 8192));
        t.want(8192);
        t.ask(7, 4096, 1).unwrap();
        for (d, len) in [
            (data(TAG_NONE, 0, 0, true), 4096), // not asked for
            (data(8, 0, 0, true), 4096),        // another tag
            (data(7, 1, 0, true), 4096),        // DataSN
            (data(7, 0, 1, true), 4095),        // offset
            (data(7, 0, u32::MAX, true), 4096), // offset near the end of all numbers
            (data(7, 0, 0, true), 4097),        // too long
            (data(7, 0, 0, true), 4095),        // final, but short
            (data(7, 0, 0, false), 4096),       // full, but not final
        ] {
            assert!(t.accept(&d, len).is_err(), "{d:?}");
        }
        feed(&mut t, data(7, 0, 0, true), 4096).unwrap();
    }

    #[test]
    fn memory_is_lent_all_or_nothing_and_never_more_than_announced() {
        let mut arena = HeapArena::new(600_000);
        let mut t = Transfer::new(u32::MAX, 0, false, 0);
        assert!(!t.lend(&mut arena, 700_000));
        assert_eq!((t.held_bytes(), arena.in_use()), (0, 0));
        let mut t = Transfer::new(1000, 0, false, 0);
        assert!(t.lend(&mut arena, 1000));
        assert_eq!((t.held_bytes(), arena.in_use()), (1000, 1000));
    }
}
