//! What an initiator can do wrong, and what it is told: one table.

use crate::error::{Malformed, Violation};
use crate::iscsi::pdu::reject::RejectReason;

/// Something wrong with what came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Header digest mismatch: the stream can no longer be cut into PDUs.
    HeaderDigest(Malformed),
    /// Data digest mismatch.
    DataDigest,
    /// A field that makes no sense.
    Malformed(Malformed),
    /// An opcode that RFC 7143 does not define, or that only targets send.
    UnknownOpcode,
    /// Conduct that is not allowed now.
    Violation(Violation),
    /// Write data where none may come.
    Data(Violation),
    /// SNACK at recovery level 0.
    Snack,
    /// More immediate commands than we hold.
    TooManyImmediate,
    /// Responses pile up that the initiator does not acknowledge (recovery level 1 and above).
    Unacknowledged,
    /// Anything but a login before the login is done, or a login that makes no sense.
    NotLogin,
}

/// What follows from a [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A Reject with this reason; the connection goes on.
    Reject(RejectReason),
    /// The same, and the task the PDU belongs to fails.
    RejectAndFail(RejectReason),
    /// The connection ends.
    Drop,
}

impl Fault {
    /// The whole table.
    pub const fn answer(self) -> Answer {
        match self {
            Self::HeaderDigest(_) | Self::NotLogin | Self::Unacknowledged => Answer::Drop,
            Self::DataDigest => Answer::RejectAndFail(RejectReason::DataDigestError),
            Self::Data(_) => Answer::RejectAndFail(RejectReason::ProtocolError),
            Self::Malformed(_) => Answer::Reject(RejectReason::InvalidPduField),
            Self::UnknownOpcode => Answer::Reject(RejectReason::CommandNotSupported),
            Self::Violation(_) => Answer::Reject(RejectReason::ProtocolError),
            Self::Snack => Answer::Reject(RejectReason::SnackReject),
            Self::TooManyImmediate => Answer::Reject(RejectReason::ImmediateCommandReject),
        }
    }
}

/// Why a command cannot be performed, though it was well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskFault {
    /// No memory for data that came unasked: TASK SET FULL.
    NoMemory,
    /// Data digest mismatch: ABORTED COMMAND, 47h/05h "protocol service CRC error".
    DataDigest,
    /// Write data against the rules: ABORTED COMMAND, 0Ch/0Dh "write error, not enough unsolicited
    /// data".
    Data,
    /// Its connection was lost, and what it had read is no longer there to be sent on another one:
    /// ABORTED COMMAND, 11h/13h "read error, failed retransmission request".
    ReadGone,
    /// It would read and write at once, which no command does that a unit of ours knows: ILLEGAL
    /// REQUEST, 20h/00h "invalid command operation code".
    Bidirectional,
}
