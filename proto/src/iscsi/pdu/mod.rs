//! One file per exchange (RFC 7143 section 11), request and response together.
//!
//! Every type has `parse(&Bhs)` and `emit() -> Bhs` and is the whole meaning of its header. Lengths
//! (TotalAHSLength, DataSegmentLength) belong to the framing: `emit` leaves them zero and the
//! sender sets them. `parse` trusts the caller to have looked at the opcode.

pub mod asynchronous;
pub mod data;
pub mod login;
pub mod logout;
pub mod nop;
pub mod r2t;
pub mod reject;
pub mod scsi;
pub mod snack;
pub mod task;
pub mod text;

use super::bhs::Bhs;

/// The counters that every response of a target carries (RFC 7143 11.4.8 to 11.4.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// Status sequence number of the connection.
    pub stat_sn: u32,
    /// The command the target expects next.
    pub exp_cmd_sn: u32,
    /// The last command the target would take.
    pub max_cmd_sn: u32,
}

impl Numbers {
    /// Reads bytes 24 to 35.
    pub fn parse(bhs: &Bhs) -> Self {
        Self { stat_sn: bhs.u32_at(24), exp_cmd_sn: bhs.u32_at(28), max_cmd_sn: bhs.u32_at(32) }
    }

    /// Writes bytes 24 to 35.
    pub fn emit(&self, bhs: Bhs) -> Bhs {
        bhs.put_u32(24, self.stat_sn).put_u32(28, self.exp_cmd_sn).put_u32(32, self.max_cmd_sn)
    }
}

/// A residual count (RFC 7143 11.4.5): what the command wanted against what the initiator expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Residual {
    /// Both are the same.
    #[default]
    None,
    /// The command would have moved this many bytes more (O bit).
    Overflow(u32),
    /// The command moved this many bytes less (U bit).
    Underflow(u32),
}

impl Residual {
    /// What results when `expected` bytes were announced and the command is about `actual`.
    pub fn between(expected: u32, actual: u64) -> Self {
        let clamp = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        match actual.cmp(&u64::from(expected)) {
            core::cmp::Ordering::Equal => Self::None,
            core::cmp::Ordering::Greater => Self::Overflow(clamp(actual - u64::from(expected))),
            core::cmp::Ordering::Less => Self::Underflow(clamp(u64::from(expected) - actual)),
        }
    }

    /// The flag bits O (04h) and U (02h), and the count.
    const fn to_wire(self) -> (u8, u32) {
        match self {
            Self::None => (0, 0),
            Self::Overflow(count) => (0x04, count),
            Self::Underflow(count) => (0x02, count),
        }
    }

    const fn from_wire(flags: u8, count: u32) -> Option<Self> {
        match flags & 0x06 {
            0x00 => Some(Self::None),
            0x04 => Some(Self::Overflow(count)),
            0x02 => Some(Self::Underflow(count)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
