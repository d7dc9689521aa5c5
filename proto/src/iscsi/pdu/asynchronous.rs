//! Asynchronous Message (RFC 7143 11.9): something happened that no command asked about.

use super::Numbers;
use crate::iscsi::bhs::{Bhs, FINAL, Lun, Opcode, TAG_NONE};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsyncEvent {
    /// A SCSI event; sense data follows in the data segment.
    Scsi,
    /// Please log out, within `within_s` seconds.
    LogoutRequest {
        /// Parameter 3.
        within_s: u16,
    },
    /// The target will drop connection `cid`.
    DropConnection {
        /// Parameter 1.
        cid: u16,
        /// Parameter 2: seconds to wait before reconnecting.
        time_to_wait_s: u16,
        /// Parameter 3: seconds after that for which tasks are kept.
        time_to_retain_s: u16,
    },
    /// The target will drop all connections of the session.
    DropSession {
        /// Parameter 2: seconds to wait before reconnecting.
        time_to_wait_s: u16,
        /// Parameter 3: seconds after that for which tasks are kept.
        time_to_retain_s: u16,
    },
    /// Negotiate parameters again, within `within_s` seconds.
    Renegotiate {
        /// Parameter 3.
        within_s: u16,
    },
    /// All active tasks on the logical unit were terminated by another nexus (RFC 7144).
    TasksTerminated,
    /// An event this standard does not define.
    Other(u8),
}

/// Asynchronous Message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Async {
    /// Logical unit, for SCSI events.
    pub lun: Lun,
    /// What happened.
    pub event: AsyncEvent,
    /// Counters.
    pub numbers: Numbers,
}

impl Async {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Self {
        let (p1, p2, p3) = (bhs.u16_at(38), bhs.u16_at(40), bhs.u16_at(42));
        let event = match bhs.0[36] {
            0 => AsyncEvent::Scsi,
            1 => AsyncEvent::LogoutRequest { within_s: p3 },
            2 => AsyncEvent::DropConnection { cid: p1, time_to_wait_s: p2, time_to_retain_s: p3 },
            3 => AsyncEvent::DropSession { time_to_wait_s: p2, time_to_retain_s: p3 },
            4 => AsyncEvent::Renegotiate { within_s: p3 },
            5 => AsyncEvent::TasksTerminated,
            other => AsyncEvent::Other(other),
        };
        Self { lun: bhs.lun(), event, numbers: Numbers::parse(bhs) }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let (code, p1, p2, p3) = match self.event {
            AsyncEvent::Scsi => (0, 0, 0, 0),
            AsyncEvent::LogoutRequest { within_s } => (1, 0, 0, within_s),
            AsyncEvent::DropConnection { cid, time_to_wait_s, time_to_retain_s } => {
                (2, cid, time_to_wait_s, time_to_retain_s)
            }
            AsyncEvent::DropSession { time_to_wait_s, time_to_retain_s } => {
                (3, 0, time_to_wait_s, time_to_retain_s)
            }
            AsyncEvent::Renegotiate { within_s } => (4, 0, 0, within_s),
            AsyncEvent::TasksTerminated => (5, 0, 0, 0),
            AsyncEvent::Other(code) => (code, 0, 0, 0),
        };
        let bhs = Bhs::new(Opcode::Async, FINAL)
            .put(8, self.lun.0.to_be_bytes())
            .put_u32(16, TAG_NONE)
            .put(36, [code])
            .put(38, u16::to_be_bytes(p1))
            .put(40, u16::to_be_bytes(p2))
            .put(42, u16::to_be_bytes(p3));
        self.numbers.emit(bhs)
    }
}
