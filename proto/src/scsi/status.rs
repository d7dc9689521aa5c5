//! The status byte (SAM-5 5.3.1).

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Good = 0x00,
    /// Not done, or done with something to tell; sense data says what.
    CheckCondition = 0x02,
    /// PRE-FETCH found room for all blocks in the cache.
    ConditionMet = 0x04,
    /// Try again later; nothing was done.
    Busy = 0x08,
    /// A reservation of another initiator forbids it.
    ReservationConflict = 0x18,
    /// The task set has no room; try again when a command has ended.
    TaskSetFull = 0x28,
    /// Aborted by another initiator, where the control mode page's TAS asks for this answer.
    TaskAborted = 0x40,
}

impl Status {
    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The status that `code` stands for; `None` for obsolete and reserved ones.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0x00 => Self::Good,
            0x02 => Self::CheckCondition,
            0x04 => Self::ConditionMet,
            0x08 => Self::Busy,
            0x18 => Self::ReservationConflict,
            0x28 => Self::TaskSetFull,
            0x40 => Self::TaskAborted,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_survives_the_wire() {
        let known = (0..=u8::MAX).filter_map(Status::from_code).inspect(|s| {
            assert_eq!(Status::from_code(s.code()), Some(*s));
        });
        assert_eq!(known.count(), 7);
    }
}
