//! Token copies of block devices: POPULATE TOKEN, WRITE USING TOKEN (SBC-3 5.7, 5.41, 4.25) and
//! RECEIVE ROD TOKEN INFORMATION (SPC-4 6.26).
//!
//! A token names blocks as they are. It is of the type "point in time copy - change vulnerable":
//! whoever writes these blocks ends it.

use super::sense::{Condition, Sense};

/// Ranges of one command.
pub const RANGES_MAX: u16 = 64;
/// Bytes that one token names, or one command writes, at most. A command takes as long as its copy.
pub const BYTES_MAX: u64 = 64 << 20;
/// Seconds without a use after which a token ends: what may be asked for, and what is otherwise.
pub const INACTIVITY_MAX: u32 = 600;
/// See [`INACTIVITY_MAX`].
pub const INACTIVITY_DEFAULT: u32 = 60;

/// ROD TOKEN: bytes.
pub const TOKEN_BYTES: usize = 512;
const RANGE_BYTES: usize = 16;
const POPULATE_HEADER: usize = 16;
const WRITE_HEADER: usize = 536;

/// ROD types (SPC-4 5.17.6.2): ours, any point in time copy, and zeros.
pub(super) const CHANGE_VULNERABLE: u32 = 0x0080_0001;
const ANY_POINT_IN_TIME: u32 = 0x0080_ffff;

/// Blocks one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// LOGICAL BLOCK ADDRESS.
    pub lba: u64,
    /// NUMBER OF LOGICAL BLOCKS.
    pub blocks: u32,
}

/// POPULATE TOKEN's parameter list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Populate {
    /// INACTIVITY TIMEOUT in seconds, never more than [`INACTIVITY_MAX`].
    pub inactivity: u32,
    /// What the token names, none twice.
    pub ranges: Vec<Range>,
}

/// WRITE USING TOKEN's parameter list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// DEL_TKN: the token ends with the command.
    pub delete: bool,
    /// OFFSET INTO ROD, blocks.
    pub offset: u64,
    /// Whose blocks.
    pub token: Token,
    /// Where they go, none twice.
    pub ranges: Vec<Range>,
}

/// A ROD token, as far as it means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// COPY MANAGER ROD TOKEN IDENTIFIER.
    pub id: u64,
    /// The process that made it.
    pub process: [u8; 16],
    /// NAA name of the unit whose blocks it names.
    pub naa: u64,
    /// NUMBER OF BYTES REPRESENTED.
    pub bytes: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

/// The part of a list behind its header: its own length first, then that of the ranges, which
/// stands in the last two bytes of the header.
fn ranges(list: &[u8], header: usize) -> Result<Vec<Range>, Sense> {
    let short = || Sense::from(Condition::PARAMETER_LIST_LENGTH_ERROR);
    if usize::from(u16_at(list, 0)) + 2 < header {
        return Err(Sense::invalid_parameter(0, None));
    }
    let len_at = header - 2;
    let len = usize::from(u16_at(list, len_at));
    let point = u16::try_from(len_at).unwrap_or(u16::MAX);
    if len == 0 || len % RANGE_BYTES != 0 {
        return Err(Sense::invalid_parameter(point, None));
    }
    if len / RANGE_BYTES > usize::from(RANGES_MAX) {
        return Err(Condition::TOO_MANY_SEGMENT_DESCRIPTORS.into());
    }
    let all = list.get(header..header + len).ok_or_else(short)?;
    let mut out: Vec<Range> = Vec::with_capacity(len / RANGE_BYTES);
    for (index, range) in all.chunks_exact(RANGE_BYTES).enumerate() {
        let range = Range { lba: u64_at(range, 0), blocks: u32_at(range, 8) };
        let end = range.lba.checked_add(range.blocks.into());
        let end = end.ok_or(Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)?;
        let twice = out.iter().any(|other| {
            range.lba < other.lba + u64::from(other.blocks) && other.lba < end && range.blocks > 0
        });
        if twice {
            let at = u16::try_from(header + index * RANGE_BYTES).unwrap_or(u16::MAX);
            return Err(Sense::invalid_parameter(at, None));
        }
        out.push(range);
    }
    Ok(out)
}

impl Populate {
    /// Reads a list.
    pub fn parse(list: &[u8]) -> Result<Self, Sense> {
        if list.len() < POPULATE_HEADER {
            return Err(Condition::PARAMETER_LIST_LENGTH_ERROR.into());
        }
        // RTV: the type must be one that is kept to.
        let wanted = [CHANGE_VULNERABLE, ANY_POINT_IN_TIME].contains(&u32_at(list, 8));
        if list[2] & 0x02 != 0 && !wanted {
            return Err(Condition::UNSUPPORTED_TOKEN_TYPE.into());
        }
        let inactivity = match u32_at(list, 4) {
            0 => INACTIVITY_DEFAULT,
            more if more > INACTIVITY_MAX => return Err(Sense::invalid_parameter(4, None)),
            seconds => seconds,
        };
        Ok(Self { inactivity, ranges: ranges(list, POPULATE_HEADER)? })
    }
}

impl Write {
    /// Reads a list.
    pub fn parse(list: &[u8]) -> Result<Self, Sense> {
        if list.len() < WRITE_HEADER {
            return Err(Condition::PARAMETER_LIST_LENGTH_ERROR.into());
        }
        let token = Token::parse(&list[16..16 + TOKEN_BYTES])?;
        let ranges = ranges(list, WRITE_HEADER)?;
        Ok(Self { delete: list[2] & 0x02 != 0, offset: u64_at(list, 8), token, ranges })
    }
}

impl Token {
    /// Reads [`TOKEN_BYTES`].
    fn parse(bytes: &[u8]) -> Result<Self, Sense> {
        if u32_at(bytes, 0) != CHANGE_VULNERABLE {
            return Err(Condition::UNSUPPORTED_TOKEN_TYPE.into());
        }
        if usize::from(u16_at(bytes, 6)) != TOKEN_BYTES - 8 {
            return Err(Condition::INVALID_TOKEN_LENGTH.into());
        }
        let process = bytes[128..144].try_into().expect("sixteen bytes");
        let token = Self {
            id: u64_at(bytes, 8),
            process,
            naa: u64_at(bytes, 24),
            bytes: u64_at(bytes, 56),
        };
        // All of it must be as it was told.
        if token.emit() == bytes { Ok(token) } else { Err(Condition::TOKEN_CORRUPT.into()) }
    }

    /// The token as it is told.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![0; TOKEN_BYTES];
        out[..4].copy_from_slice(&CHANGE_VULNERABLE.to_be_bytes());
        out[6..8].copy_from_slice(&0x01f8_u16.to_be_bytes());
        out[8..16].copy_from_slice(&self.id.to_be_bytes());
        // CREATOR LOGICAL UNIT DESCRIPTOR, like a copy's.
        out[16..24].copy_from_slice(&[0xe4, 0, 0, 0, 0x01, 0x03, 0, 8]);
        out[24..32].copy_from_slice(&self.naa.to_be_bytes());
        out[56..64].copy_from_slice(&self.bytes.to_be_bytes());
        out[128..144].copy_from_slice(&self.process);
        out
    }
}

/// What RECEIVE ROD TOKEN INFORMATION is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Information {
    /// Service action of the command it asks about.
    pub action: u8,
    /// Ended well or otherwise; it has ended, since it is not answered before.
    pub standing: super::copy::Standing,
    /// Blocks that were named or written.
    pub blocks: u64,
    /// What POPULATE TOKEN made.
    pub token: Option<Token>,
}

impl Information {
    /// The parameter data.
    pub fn emit(&self) -> Vec<u8> {
        use super::copy::Standing;
        let mut out = vec![0; 32];
        out[4] = self.action;
        // COPY OPERATION STATUS, and the status that the command had.
        (out[5], out[12]) = match self.standing {
            Standing::Running => (0x11, 0),
            Standing::Done => (0x01, 0),
            Standing::Failed => (0x02, 2),
        };
        out[8..12].copy_from_slice(&0xffff_fffe_u32.to_be_bytes()); // nothing is estimated
        out[15] = 0xf1; // TRANSFER COUNT UNITS: blocks
        out[16..24].copy_from_slice(&self.blocks.to_be_bytes());
        let token = self.token.map(|token| token.emit()).unwrap_or_default();
        let descriptor = if token.is_empty() { 0 } else { 2 + token.len() };
        out.extend(u32::try_from(descriptor).expect("one token").to_be_bytes());
        if descriptor > 0 {
            out.extend([0, 0]);
            out.extend(token);
        }
        let len = u32::try_from(out.len() - 4).expect("below 1 KiB");
        out[..4].copy_from_slice(&len.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests;
