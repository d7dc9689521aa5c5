//! EXTENDED COPY (LID1) and RECEIVE COPY RESULTS (SPC-4 6.4, 6.22 ff., 5.17).

use super::sense::{Condition, Sense};
use super::token;
use super::vpd::Designator;

/// What one command may ask for; told in advance by [`operating_parameters`] and VPD page 8F.
pub const CSCDS_MAX: u16 = 16;
/// Segments of one command.
pub const SEGMENTS_MAX: u16 = 64;
/// Bytes of all descriptors together.
pub const DESCRIPTORS_BYTES_MAX: u16 = (CSCDS_MAX + 1) * 32 + (SEGMENTS_MAX + 1) * 28;
/// The most that a segment's count of blocks can say, 65,535 of them.
const SEGMENT_BYTES_MAX: u32 = u32::MAX;
/// Copies of one initiator whose state is kept, and which are known by a list identifier.
pub const IDENTIFIED_MAX: u8 = 16;
/// Copies that a unit has under way at most, as far as it is worth telling: each is a command in
/// its session's window.
const CONCURRENT_MAX: u16 = 256;

const HEADER_BYTES: usize = 16;
const CSCD_BYTES: usize = 32;
const IDENTIFICATION: u8 = 0xe4;
const BLOCK_TO_BLOCK: u8 = 0x02;
/// As a segment's CSCD descriptor ID: the unit that was given the command.
const THIS_UNIT: u16 = 0xffff;

/// A list of copies to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// LIST IDENTIFIER, by which RECEIVE COPY RESULTS asks; none if LIST ID USAGE says so.
    pub id: Option<u8>,
    /// Units by their names: [`Segment`] counts them.
    pub units: Vec<Cscd>,
    /// What is copied, in order.
    pub segments: Vec<Segment>,
}

/// One copy source or destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cscd {
    /// Its name; none of a kind that is understood.
    pub name: Option<Designator>,
    /// PAD, where blocks of different lengths do not fit.
    pub pad: bool,
}

/// Which unit a segment means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The one that was given the command.
    Here,
    /// One of the list.
    Listed(u16),
}

/// One block to block segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// From.
    pub source: Place,
    /// To.
    pub destination: Place,
    /// DC: `blocks` are the destination's.
    pub by_destination: bool,
    /// BLOCK DEVICE NUMBER OF BLOCKS.
    pub blocks: u16,
    /// SOURCE BLOCK DEVICE LOGICAL BLOCK ADDRESS.
    pub source_lba: u64,
    /// DESTINATION BLOCK DEVICE LOGICAL BLOCK ADDRESS.
    pub destination_lba: u64,
    /// The byte of the list where it begins, to point at.
    pub at: u16,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl List {
    /// Reads a parameter list of at least one byte. Lengths first, then how many there are, then
    /// what they are.
    pub fn parse(list: &[u8]) -> Result<Self, Sense> {
        let short = || Sense::from(Condition::PARAMETER_LIST_LENGTH_ERROR);
        let (header, rest) = list.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
        let cscds = usize::from(u16_at(header, 2));
        let segments = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let segments = usize::try_from(segments).map_err(|_| short())?;
        let all = cscds.checked_add(segments).ok_or_else(short)?;
        if all > usize::from(DESCRIPTORS_BYTES_MAX) {
            return Err(short());
        }
        if header[12..16] != [0; 4] {
            return Err(Condition::INLINE_DATA_LENGTH_EXCEEDED.into());
        }
        let descriptors = rest.get(..all).ok_or_else(short)?;
        let (cscds, segments) = descriptors.split_at(cscds);
        if cscds.len() % CSCD_BYTES != 0 {
            return Err(Sense::invalid_parameter(2, None));
        }
        if cscds.len() / CSCD_BYTES > usize::from(CSCDS_MAX) {
            return Err(Condition::TOO_MANY_TARGET_DESCRIPTORS.into());
        }
        let units = cscds.chunks_exact(CSCD_BYTES).map(Cscd::parse).collect::<Result<_, _>>()?;
        let start = HEADER_BYTES + cscds.len();
        let id = match header[1] >> 3 & 0b11 {
            0b11 if header[0] != 0 => return Err(Sense::invalid_parameter(0, None)),
            0b11 => None,
            0b01 => return Err(Sense::invalid_parameter(1, Some(4))),
            _ => Some(header[0]),
        };
        Ok(Self { id, units, segments: Segment::parse_all(segments, start)? })
    }
}

impl Cscd {
    fn parse(bytes: &[u8]) -> Result<Self, Sense> {
        if bytes[0] != IDENTIFICATION {
            return Err(Condition::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE.into());
        }
        let len = usize::from(bytes[7]).min(20);
        // What is named must be a unit (ASSOCIATION 00b); LU ID TYPE is ignored, as SPC-4 wants.
        let name = Designator::parse(bytes[5] & 0x3f, &bytes[8..8 + len]);
        Ok(Self { name, pad: bytes[28] & 0x04 != 0 })
    }
}

impl Segment {
    fn parse_all(mut bytes: &[u8], mut at: usize) -> Result<Vec<Self>, Sense> {
        let mut out = Vec::new();
        while let [kind, _, high, low, ..] = *bytes {
            let len = 4 + usize::from(u16::from_be_bytes([high, low]));
            let point = u16::try_from(at).unwrap_or(u16::MAX);
            if out.len() == usize::from(SEGMENTS_MAX) {
                return Err(Condition::TOO_MANY_SEGMENT_DESCRIPTORS.into());
            }
            if kind != BLOCK_TO_BLOCK {
                return Err(Condition::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE.into());
            }
            if len != 28 {
                return Err(Sense::invalid_parameter(point.saturating_add(2), None));
            }
            let Some((segment, rest)) = bytes.split_at_checked(len) else { break };
            out.push(Self::parse(segment, point));
            (bytes, at) = (rest, at + len);
        }
        if bytes.is_empty() { Ok(out) } else { Err(Sense::invalid_parameter(8, None)) }
    }

    fn parse(bytes: &[u8], at: u16) -> Self {
        let place = |at| match u16_at(bytes, at) {
            THIS_UNIT => Place::Here,
            index => Place::Listed(index),
        };
        Self {
            source: place(4),
            destination: place(6),
            by_destination: bytes[1] & 0x02 != 0,
            blocks: u16_at(bytes, 10),
            source_lba: u64_at(bytes, 12),
            destination_lba: u64_at(bytes, 20),
            at,
        }
    }
}

/// RECEIVE COPY RESULTS, OPERATING PARAMETERS: nothing is held, and nothing inline.
pub fn operating_parameters() -> Vec<u8> {
    let mut out = vec![0; 46];
    out[3] = 42; // AVAILABLE DATA, without itself
    out[4] = 0x01; // SNLID: a list without identifier is fine
    out[8..10].copy_from_slice(&CSCDS_MAX.to_be_bytes());
    out[10..12].copy_from_slice(&SEGMENTS_MAX.to_be_bytes());
    out[12..16].copy_from_slice(&u32::from(DESCRIPTORS_BYTES_MAX).to_be_bytes());
    out[16..20].copy_from_slice(&SEGMENT_BYTES_MAX.to_be_bytes());
    out[34..36].copy_from_slice(&CONCURRENT_MAX.to_be_bytes());
    out[36] = IDENTIFIED_MAX;
    out[37] = 9; // DATA SEGMENT GRANULARITY: 2^9 bytes
    out[43] = 2;
    out[44..46].copy_from_slice(&[BLOCK_TO_BLOCK, IDENTIFICATION]);
    out
}

/// How a copy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    Running,
    /// It ended well.
    Done,
    /// It ended otherwise.
    Failed,
}

/// RECEIVE COPY RESULTS, COPY STATUS: after `segments` segments and `bytes` bytes.
pub fn status(standing: Standing, segments: u16, bytes: u64) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 8];
    out.push(match standing {
        Standing::Running => 0,
        Standing::Done => 1,
        Standing::Failed => 2,
    });
    out.extend(segments.to_be_bytes());
    // TRANSFER COUNT UNITS: bytes while they fit, then KiB, MiB, GiB.
    let units = (0..4u8).find(|unit| bytes >> (10 * unit) <= u64::from(u32::MAX)).unwrap_or(3);
    out.push(units);
    let count = u32::try_from(bytes >> (10 * units)).unwrap_or(u32::MAX);
    out.extend(count.to_be_bytes());
    out
}

/// The body of VPD page 8F (SPC-4 7.8.17): the same once more, descriptor by descriptor, and what
/// token copies may ask for of a unit with blocks of `block_bytes`.
pub fn third_party_copy(block_bytes: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut descriptor = |kind: u16, body: &[u8]| {
        let len = body.len().next_multiple_of(4);
        out.extend(kind.to_be_bytes());
        out.extend(u16::try_from(len).expect("a few dozen bytes").to_be_bytes());
        out.extend(body);
        out.resize(out.len() + len - body.len(), 0);
    };
    let mut tokens = [0; 32];
    let blocks = token::BYTES_MAX / u64::from(block_bytes.max(1));
    tokens[6..8].copy_from_slice(&token::RANGES_MAX.to_be_bytes());
    tokens[8..12].copy_from_slice(&token::INACTIVITY_MAX.to_be_bytes());
    tokens[12..16].copy_from_slice(&token::INACTIVITY_DEFAULT.to_be_bytes());
    tokens[16..24].copy_from_slice(&blocks.to_be_bytes());
    tokens[24..32].copy_from_slice(&blocks.to_be_bytes());
    descriptor(0x0000, &tokens);
    // Supported commands: EXTENDED COPY(LID1), POPULATE TOKEN, WRITE USING TOKEN; COPY STATUS,
    // OPERATING PARAMETERS, ROD TOKEN INFORMATION.
    descriptor(0x0001, &[10, 0x83, 3, 0x00, 0x10, 0x11, 0x84, 3, 0x00, 0x03, 0x07]);
    let mut parameters = [0; 28];
    parameters[4..6].copy_from_slice(&CSCDS_MAX.to_be_bytes());
    parameters[6..8].copy_from_slice(&SEGMENTS_MAX.to_be_bytes());
    parameters[8..12].copy_from_slice(&u32::from(DESCRIPTORS_BYTES_MAX).to_be_bytes());
    descriptor(0x0004, &parameters);
    descriptor(0x0008, &[2, BLOCK_TO_BLOCK, IDENTIFICATION]);
    descriptor(0x000c, &[0, 2, 0xff, 0xff]);
    // Tokens are this process's alone (REMOTE TOKENS 0), and live as long as they are used.
    let mut features = [0; 44];
    features[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    features[20..24].copy_from_slice(&token::INACTIVITY_MAX.to_be_bytes());
    descriptor(0x0106, &features);
    let mut kinds = [0; 68];
    kinds[3] = 64;
    kinds[4..8].copy_from_slice(&token::CHANGE_VULNERABLE.to_be_bytes());
    kinds[8] = 0x03; // TOKEN_IN, TOKEN_OUT
    descriptor(0x0108, &kinds);
    let mut general = [0; 32];
    general[..4].copy_from_slice(&u32::from(CONCURRENT_MAX).to_be_bytes());
    general[4..8].copy_from_slice(&u32::from(IDENTIFIED_MAX).to_be_bytes());
    general[8..12].copy_from_slice(&SEGMENT_BYTES_MAX.to_be_bytes());
    general[12] = 9;
    descriptor(0x8001, &general);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One unit by its NAA name, and `segments` copies within it.
    fn list(segments: u8) -> Vec<u8> {
        let mut out = vec![7, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let len = u32::from(segments) * 28;
        out[8..12].copy_from_slice(&len.to_be_bytes());
        let mut cscd = vec![0xe4, 0, 0, 0, 0x01, 0x03, 0, 8];
        cscd.extend(0x3123_4567_89ab_cdef_u64.to_be_bytes());
        cscd.resize(32, 0);
        out.extend(cscd);
        for number in 0..segments {
            out.extend([0x02, 0x02, 0, 0x18, 0, 0, 0xff, 0xff, 0, 0, 0x08, 0x00]);
            out.extend([0, 0, 0, 0, 0, 0, 0, number, 0, 0, 0, 0, 0, 0, 1, number]);
        }
        out
    }

    #[test]
    fn units_and_segments_are_read_as_they_stand() {
        let read = List::parse(&list(2)).unwrap();
        assert_eq!(read.id, Some(7));
        assert_eq!(read.units[0].name, Some(Designator::Naa(0x3123_4567_89ab_cdef)));
        let second = Segment {
            source: Place::Listed(0),
            destination: Place::Here,
            by_destination: true,
            blocks: 2048,
            source_lba: 1,
            destination_lba: 257,
            at: 76,
        };
        assert_eq!(read.segments[1], second);
    }

    #[test]
    fn every_cut_is_a_list_length_error() {
        let whole = list(2);
        for len in 1..whole.len() {
            let cut = List::parse(&whole[..len]).unwrap_err().condition;
            assert_eq!(cut, Condition::PARAMETER_LIST_LENGTH_ERROR, "{len}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let refused = |at: usize, value: u8| {
            let mut list = list(1);
            list[at] = value;
            List::parse(&list).unwrap_err().condition
        };
        assert_eq!(refused(16, 0xe0), Condition::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE);
        assert_eq!(refused(48, 0x03), Condition::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE);
        assert_eq!(refused(15, 1), Condition::INLINE_DATA_LENGTH_EXCEEDED);
        assert_eq!(refused(1, 0x18), Condition::INVALID_FIELD_IN_PARAMETER_LIST);
        assert_eq!(refused(51, 0x17), Condition::INVALID_FIELD_IN_PARAMETER_LIST);
        let many = List::parse(&list(65)).unwrap_err().condition;
        assert_eq!(many, Condition::TOO_MANY_SEGMENT_DESCRIPTORS);
        let longer = List::parse(&list(100)).unwrap_err().condition;
        assert_eq!(longer, Condition::PARAMETER_LIST_LENGTH_ERROR);
    }

    #[test]
    fn status_counts_in_units_that_fit() {
        assert_eq!(status(Standing::Done, 2, 4096), [0, 0, 0, 8, 1, 0, 2, 0, 0, 0, 16, 0]);
        assert_eq!(status(Standing::Running, 0, 1 << 40)[7..], [1, 0x40, 0, 0, 0]);
        assert_eq!(status(Standing::Failed, 0, u64::MAX)[7], 3);
    }

    #[test]
    fn page_8f_is_a_chain_of_descriptors_in_fours() {
        let page = third_party_copy(512);
        let (mut rest, mut kinds) = (&page[..], Vec::new());
        while let [a, b, c, d, tail @ ..] = rest {
            let len = usize::from(u16::from_be_bytes([*c, *d]));
            assert_eq!(len % 4, 0);
            kinds.push(u16::from_be_bytes([*a, *b]));
            rest = &tail[len..];
        }
        assert_eq!(kinds, [0, 1, 4, 8, 12, 0x0106, 0x0108, 0x8001]);
        assert_eq!(operating_parameters()[..4], [0, 0, 0, 42]);
    }
}
