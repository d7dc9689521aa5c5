//! Sense data: what went wrong, in the device's own words (SPC-4 4.5).

/// SENSE KEY (SPC-4 table 48).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Key {
    NoSense = 0x0,
    RecoveredError = 0x1,
    NotReady = 0x2,
    MediumError = 0x3,
    HardwareError = 0x4,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    BlankCheck = 0x8,
    VendorSpecific = 0x9,
    CopyAborted = 0xa,
    AbortedCommand = 0xb,
    VolumeOverflow = 0xd,
    Miscompare = 0xe,
    Completed = 0xf,
}

impl Key {
    /// The key in the low four bits of `byte`; `None` for the reserved one (0xc).
    pub const fn from_code(byte: u8) -> Option<Self> {
        Some(match byte & 0x0f {
            0x0 => Self::NoSense,
            0x1 => Self::RecoveredError,
            0x2 => Self::NotReady,
            0x3 => Self::MediumError,
            0x4 => Self::HardwareError,
            0x5 => Self::IllegalRequest,
            0x6 => Self::UnitAttention,
            0x7 => Self::DataProtect,
            0x8 => Self::BlankCheck,
            0x9 => Self::VendorSpecific,
            0xa => Self::CopyAborted,
            0xb => Self::AbortedCommand,
            0xd => Self::VolumeOverflow,
            0xe => Self::Miscompare,
            0xf => Self::Completed,
            _ => return None,
        })
    }
}

/// A sense key with its additional sense code and qualifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// SENSE KEY.
    pub key: Key,
    /// ADDITIONAL SENSE CODE.
    pub asc: u8,
    /// ADDITIONAL SENSE CODE QUALIFIER.
    pub ascq: u8,
}

/// Names for the conditions that Corbel reports or acts on; the names are those of SPC-4 annex F.
macro_rules! conditions {
    ($($name:ident = $key:ident, $asc:literal, $ascq:literal;)*) => {
        impl Condition {
            $(
                #[doc = concat!(stringify!($name), ", ", stringify!($asc), "/", stringify!($ascq))]
                pub const $name: Self = Self { key: Key::$key, asc: $asc, ascq: $ascq };
            )*
        }
    };
}

conditions! {
    NO_ADDITIONAL_SENSE_INFORMATION = NoSense, 0x00, 0x00;
    CAUSE_NOT_REPORTABLE = NotReady, 0x04, 0x00;
    SANITIZE_IN_PROGRESS = NotReady, 0x04, 0x1b;
    INITIALIZING_COMMAND_REQUIRED = NotReady, 0x04, 0x02;
    ASYMMETRIC_ACCESS_STATE_TRANSITION = NotReady, 0x04, 0x0a;
    TARGET_PORT_IN_STANDBY_STATE = NotReady, 0x04, 0x0b;
    TARGET_PORT_IN_UNAVAILABLE_STATE = NotReady, 0x04, 0x0c;
    MEDIUM_NOT_PRESENT = NotReady, 0x3a, 0x00;
    WRITE_ERROR = MediumError, 0x0c, 0x00;
    UNRECOVERED_READ_ERROR = MediumError, 0x11, 0x00;
    SANITIZE_COMMAND_FAILED = MediumError, 0x31, 0x03;
    INTERNAL_TARGET_FAILURE = HardwareError, 0x44, 0x00;
    SET_TARGET_PORT_GROUPS_COMMAND_FAILED = HardwareError, 0x67, 0x0a;
    INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT = IllegalRequest, 0x0e, 0x03;
    PARAMETER_LIST_LENGTH_ERROR = IllegalRequest, 0x1a, 0x00;
    INVALID_COMMAND_OPERATION_CODE = IllegalRequest, 0x20, 0x00;
    LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE = IllegalRequest, 0x21, 0x00;
    INVALID_FIELD_IN_CDB = IllegalRequest, 0x24, 0x00;
    LOGICAL_UNIT_NOT_SUPPORTED = IllegalRequest, 0x25, 0x00;
    INVALID_FIELD_IN_PARAMETER_LIST = IllegalRequest, 0x26, 0x00;
    INVALID_RELEASE_OF_PERSISTENT_RESERVATION = IllegalRequest, 0x26, 0x04;
    TOO_MANY_TARGET_DESCRIPTORS = IllegalRequest, 0x26, 0x06;
    UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE = IllegalRequest, 0x26, 0x07;
    TOO_MANY_SEGMENT_DESCRIPTORS = IllegalRequest, 0x26, 0x08;
    UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE = IllegalRequest, 0x26, 0x09;
    INLINE_DATA_LENGTH_EXCEEDED = IllegalRequest, 0x26, 0x0b;
    OPERATION_IN_PROGRESS = IllegalRequest, 0x00, 0x16;
    INSUFFICIENT_REGISTRATION_RESOURCES = IllegalRequest, 0x55, 0x04;
    SAVING_PARAMETERS_NOT_SUPPORTED = IllegalRequest, 0x39, 0x00;
    MEDIUM_REMOVAL_PREVENTED = IllegalRequest, 0x53, 0x02;
    NOT_READY_TO_READY_CHANGE = UnitAttention, 0x28, 0x00;
    POWER_ON_OR_RESET_OCCURRED = UnitAttention, 0x29, 0x00;
    BUS_DEVICE_RESET_FUNCTION_OCCURRED = UnitAttention, 0x29, 0x03;
    I_T_NEXUS_LOSS_OCCURRED = UnitAttention, 0x29, 0x07;
    MODE_PARAMETERS_CHANGED = UnitAttention, 0x2a, 0x01;
    RESERVATIONS_PREEMPTED = UnitAttention, 0x2a, 0x03;
    RESERVATIONS_RELEASED = UnitAttention, 0x2a, 0x04;
    REGISTRATIONS_PREEMPTED = UnitAttention, 0x2a, 0x05;
    ASYMMETRIC_ACCESS_STATE_CHANGED = UnitAttention, 0x2a, 0x06;
    IMPLICIT_ASYMMETRIC_ACCESS_STATE_TRANSITION_FAILED = UnitAttention, 0x2a, 0x07;
    CAPACITY_DATA_HAS_CHANGED = UnitAttention, 0x2a, 0x09;
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR = UnitAttention, 0x2f, 0x00;
    REPORTED_LUNS_DATA_HAS_CHANGED = UnitAttention, 0x3f, 0x0e;
    WRITE_PROTECTED = DataProtect, 0x27, 0x00;
    LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED = DataProtect, 0x27, 0x02;
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT = DataProtect, 0x27, 0x07;
    COPY_ABORTED = CopyAborted, 0x00, 0x00;
    THIRD_PARTY_DEVICE_FAILURE = CopyAborted, 0x0d, 0x01;
    COPY_TARGET_DEVICE_NOT_REACHABLE = CopyAborted, 0x0d, 0x02;
    UNEXPECTED_INEXACT_SEGMENT = CopyAborted, 0x26, 0x0a;
    PROTOCOL_SERVICE_CRC_ERROR = AbortedCommand, 0x47, 0x05;
    FAILED_RETRANSMISSION_REQUEST = AbortedCommand, 0x11, 0x13;
    NOT_ENOUGH_UNSOLICITED_DATA = AbortedCommand, 0x0c, 0x0d;
    UNEXPECTED_UNSOLICITED_DATA = AbortedCommand, 0x0c, 0x0c;
    INITIATOR_RESPONSE_TIMEOUT = AbortedCommand, 0x4b, 0x06;
    COMMAND_ABORTED = AbortedCommand, 0x00, 0x00;
    MISCOMPARE_DURING_VERIFY_OPERATION = Miscompare, 0x1d, 0x00;
}

/// Which field was refused (SPC-4 4.5.2.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldPointer {
    /// In the CDB; otherwise in the parameter list.
    pub in_cdb: bool,
    /// First byte of the field.
    pub byte: u16,
    /// Most significant bit of the field, if it is less than a byte.
    pub bit: Option<u8>,
}

/// A condition with what is known beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    /// What happened.
    pub condition: Condition,
    /// INFORMATION: an LBA or the offset of a miscompare, as the command says.
    pub information: Option<u64>,
    /// The refused field.
    pub pointer: Option<FieldPointer>,
    /// PROGRESS INDICATION: how much is done, in 65,536ths. Only without a pointer.
    pub progress: Option<u16>,
}

impl From<Condition> for Sense {
    fn from(condition: Condition) -> Self {
        Self { condition, information: None, pointer: None, progress: None }
    }
}

impl Sense {
    /// INVALID FIELD IN CDB: the field that begins at `byte`, whose top bit is `bit`.
    pub const fn invalid_cdb(byte: u16, bit: Option<u8>) -> Self {
        Self {
            condition: Condition::INVALID_FIELD_IN_CDB,
            information: None,
            pointer: Some(FieldPointer { in_cdb: true, byte, bit }),
            progress: None,
        }
    }

    /// INVALID FIELD IN PARAMETER LIST: the field that begins at `byte`.
    pub const fn invalid_parameter(byte: u16, bit: Option<u8>) -> Self {
        Self {
            condition: Condition::INVALID_FIELD_IN_PARAMETER_LIST,
            information: None,
            pointer: Some(FieldPointer { in_cdb: false, byte, bit }),
            progress: None,
        }
    }

    /// The same with INFORMATION.
    pub const fn with_information(mut self, information: u64) -> Self {
        self.information = Some(information);
        self
    }

    /// The same with PROGRESS INDICATION (SPC-4 4.5.2.4.4), for NOT READY and NO SENSE.
    pub const fn with_progress(mut self, progress: u16) -> Self {
        self.progress = Some(progress);
        self
    }

    /// SENSE KEY SPECIFIC, if there is anything to say.
    fn specific(&self) -> Option<[u8; 3]> {
        let progress = |progress: u16| {
            let [high, low] = progress.to_be_bytes();
            [0x80, high, low] // SKSV
        };
        self.pointer.map(FieldPointer::sense_key_specific).or_else(|| self.progress.map(progress))
    }

    /// The bytes: descriptor format (0x72) if `descriptor`, else fixed format (0x70).
    ///
    /// Fixed format has four bytes for INFORMATION; a larger value leaves VALID at zero there, as
    /// SPC-4 4.5.3 demands, rather than being cut.
    pub fn encode(&self, descriptor: bool) -> SenseBytes {
        let mut out = SenseBytes { bytes: [0; SenseBytes::LEN_MAX], len: 0 };
        if descriptor {
            self.encode_descriptor(&mut out)
        } else {
            self.encode_fixed(&mut out)
        }
        out
    }

    fn encode_fixed(&self, out: &mut SenseBytes) {
        let b = &mut out.bytes;
        b[0] = 0x70;
        if let Some(information) = self.information.and_then(|i| u32::try_from(i).ok()) {
            b[0] |= 0x80; // VALID
            b[3..7].copy_from_slice(&information.to_be_bytes());
        }
        b[2] = self.condition.key as u8;
        b[7] = FIXED_BYTES - 8; // ADDITIONAL SENSE LENGTH
        b[12] = self.condition.asc;
        b[13] = self.condition.ascq;
        if let Some(specific) = self.specific() {
            b[15..18].copy_from_slice(&specific);
        }
        out.len = FIXED_BYTES;
    }

    fn encode_descriptor(&self, out: &mut SenseBytes) {
        let b = &mut out.bytes;
        b[0] = 0x72;
        b[1] = self.condition.key as u8;
        b[2] = self.condition.asc;
        b[3] = self.condition.ascq;
        let mut at = 8;
        if let Some(information) = self.information {
            b[at + 1] = 0x0a; // type 0: information
            b[at + 2] = 0x80; // VALID
            b[at + 4..at + 12].copy_from_slice(&information.to_be_bytes());
            at += 12;
        }
        if let Some(specific) = self.specific() {
            b[at] = 0x02; // sense key specific
            b[at + 1] = 0x06;
            b[at + 4..at + 7].copy_from_slice(&specific);
            at += 8;
        }
        let len = u8::try_from(at).expect("at most 28");
        b[7] = len - 8;
        out.len = len;
    }

    /// Reads either format (for initiators). `None` if the bytes are too short, of an unknown
    /// response code, or carry a reserved key. Deferred errors (0x71, 0x73) read like current ones.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? & 0x7f {
            0x70 | 0x71 => Self::parse_fixed(bytes),
            0x72 | 0x73 => Self::parse_descriptor(bytes),
            _ => None,
        }
    }

    fn parse_fixed(bytes: &[u8]) -> Option<Self> {
        let key = Key::from_code(*bytes.get(2)?)?;
        let valid = bytes[0] & 0x80 != 0;
        let information = bytes
            .get(3..7)
            .filter(|_| valid)
            .map(|b| u64::from(u32::from_be_bytes(b.try_into().expect("four bytes"))));
        let asc = bytes.get(12).copied().unwrap_or(0);
        let ascq = bytes.get(13).copied().unwrap_or(0);
        let mut sense = Self { information, ..Self::from(Condition { key, asc, ascq }) };
        sense.take_specific(bytes.get(15..).unwrap_or_default());
        Some(sense)
    }

    fn parse_descriptor(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; 8] = bytes.first_chunk()?;
        let key = Key::from_code(head[1])?;
        let mut sense = Self::from(Condition { key, asc: head[2], ascq: head[3] });
        let mut rest = &bytes[8..bytes.len().min(8 + usize::from(head[7]))];
        while let [kind, len, body @ ..] = rest {
            let Some((body, next)) = body.split_at_checked(usize::from(*len)) else { break };
            match (kind, body) {
                (0x00, [flags, _, information @ ..]) if flags & 0x80 != 0 => {
                    sense.information = information.first_chunk().map(|b| u64::from_be_bytes(*b));
                }
                (0x02, [_, _, specific @ ..]) => sense.take_specific(specific),
                _ => {}
            }
            rest = next;
        }
        Some(sense)
    }
}

impl Sense {
    /// Reads SENSE KEY SPECIFIC as the sense key has it.
    fn take_specific(&mut self, specific: &[u8]) {
        match (self.condition.key, specific) {
            (Key::IllegalRequest, _) => self.pointer = FieldPointer::parse(specific),
            (Key::NotReady | Key::NoSense, &[flags, high, low, ..]) if flags & 0x80 != 0 => {
                self.progress = Some(u16::from_be_bytes([high, low]));
            }
            _ => {}
        }
    }
}

/// Length of fixed format as emitted here (SPC-4 table 53, without vendor bytes).
const FIXED_BYTES: u8 = 18;

impl FieldPointer {
    fn sense_key_specific(self) -> [u8; 3] {
        let [high, low] = self.byte.to_be_bytes();
        let bit = self.bit.map_or(0, |bit| 0x08 | (bit & 0x07)); // BPV, BIT POINTER
        [0x80 | if self.in_cdb { 0x40 } else { 0 } | bit, high, low] // SKSV, C/D
    }

    fn parse(b: &[u8]) -> Option<Self> {
        let &[flags, high, low] = b.first_chunk()?;
        (flags & 0x80 != 0).then_some(Self {
            in_cdb: flags & 0x40 != 0,
            byte: u16::from_be_bytes([high, low]),
            bit: (flags & 0x08 != 0).then_some(flags & 0x07),
        })
    }
}

/// Encoded sense data, inline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SenseBytes {
    bytes: [u8; Self::LEN_MAX],
    len: u8,
}

impl SenseBytes {
    /// The longest sense data emitted here: descriptor format with both descriptors.
    pub const LEN_MAX: usize = 28;

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl core::fmt::Debug for SenseBytes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:02x?}", self.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_format_carries_key_code_and_field_pointer() {
        let bytes = Sense::invalid_cdb(1, Some(7)).encode(false);
        #[rustfmt::skip]
        assert_eq!(bytes.as_slice(), [
            0x70, 0x00, 0x05,       // current error, fixed; ILLEGAL REQUEST
            0, 0, 0, 0,             // INFORMATION, not valid
            10,                     // ADDITIONAL SENSE LENGTH
            0, 0, 0, 0,             // command-specific
            0x24, 0x00, 0x00,       // INVALID FIELD IN CDB, no FRU
            0xcf, 0x00, 0x01,       // SKSV, C/D, BPV, bit 7 of byte 1
        ]);
    }

    #[test]
    fn descriptor_format_carries_information_and_field_pointer() {
        let sense = Sense::invalid_parameter(0x0102, None).with_information(0x1_0000_0000);
        #[rustfmt::skip]
        assert_eq!(sense.encode(true).as_slice(), [
            0x72, 0x05, 0x26, 0x00, // current error, descriptor; 05/26/00
            0, 0, 0, 20,            // ADDITIONAL SENSE LENGTH
            0x00, 0x0a, 0x80, 0x00, // information, valid
            0, 0, 0, 1, 0, 0, 0, 0,
            0x02, 0x06, 0x00, 0x00, // sense key specific
            0x80, 0x01, 0x02, 0x00, // SKSV, parameter list, byte 0x102
        ]);
    }

    #[test]
    fn information_beyond_four_bytes_is_left_out_of_fixed_format_not_cut() {
        let sense = Sense::from(Condition::UNRECOVERED_READ_ERROR).with_information(1 << 32);
        let bytes = sense.encode(false);
        assert_eq!(bytes.as_slice()[0], 0x70);
        assert_eq!(bytes.as_slice()[3..7], [0; 4]);
    }

    #[test]
    fn both_formats_read_back_as_written() {
        let all = [
            Sense::from(Condition::MISCOMPARE_DURING_VERIFY_OPERATION).with_information(513),
            Sense::invalid_cdb(10, None),
            Sense::invalid_parameter(300, Some(3)),
            Sense::from(Condition::CAPACITY_DATA_HAS_CHANGED),
            Sense::from(Condition::SANITIZE_IN_PROGRESS).with_progress(0x1234),
        ];
        for sense in all {
            for descriptor in [false, true] {
                assert_eq!(Sense::parse(sense.encode(descriptor).as_slice()), Some(sense));
            }
        }
    }

    #[test]
    fn every_cut_of_sense_data_is_read_without_panic() {
        for descriptor in [false, true] {
            let whole = Sense::invalid_cdb(2, Some(1)).with_information(7).encode(descriptor);
            for len in 0..whole.as_slice().len() {
                let _ = Sense::parse(&whole.as_slice()[..len]);
            }
        }
        assert_eq!(Sense::parse(&[0x7f; 18]), None);
    }
}
