//! Login Request and Login Response, RFC 7143 11.12 and 11.13.
//!
//! Only the 48-byte basic header segment is read and written here. The data segment holds text
//! keys and is handed on beside it. Neither PDU may have an additional header segment.

use crate::error::Malformed;

/// Opcode of a Login Request, without the I bit (11.12).
pub const REQUEST_OPCODE: u8 = 0x03;
/// Opcode of a Login Response (11.13).
pub const RESPONSE_OPCODE: u8 = 0x23;

/// The stages of a login that a PDU can name (11.12.3, 11.12.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// SecurityNegotiation, 0.
    Security,
    /// LoginOperationalNegotiation, 1.
    Operational,
    /// FullFeaturePhase, 3. Only ever a next stage.
    FullFeature,
}

impl Stage {
    /// The stage of a two-bit CSG or NSG field; 2 is reserved.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 3 {
            0 => Some(Self::Security),
            1 => Some(Self::Operational),
            3 => Some(Self::FullFeature),
            _ => None,
        }
    }

    /// The two-bit field of this stage.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Security => 0,
            Self::Operational => 1,
            Self::FullFeature => 3,
        }
    }
}

/// The initiator's half of a session's identity, six bytes (11.12.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Isid(pub [u8; 6]);

/// Fields of a Login Request header (11.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginRequest {
    /// T: the initiator is ready to leave `current` for `next` (11.12.1).
    pub transit: bool,
    /// C: the text of this PDU goes on in the next one (11.12.2).
    pub continues: bool,
    /// CSG.
    pub current: Stage,
    /// NSG; present exactly when `transit` is set.
    pub next: Option<Stage>,
    /// Highest protocol version the initiator speaks; 0 is RFC 7143.
    pub version_max: u8,
    /// Lowest protocol version the initiator speaks.
    pub version_min: u8,
    /// Bytes of text that follow, padding not counted.
    pub data_len: u32,
    /// Initiator part of the session identifier.
    pub isid: Isid,
    /// Target part of the session identifier; zero asks for a new session (11.12.6).
    pub tsih: u16,
    /// Initiator task tag, the same in every request of one login.
    pub task_tag: u32,
    /// Connection identifier (11.12.7).
    pub cid: u16,
    /// Command sequence number; every Login Request is immediate, so it is not consumed.
    pub cmd_sn: u32,
    /// Status number the initiator expects next.
    pub exp_stat_sn: u32,
}

impl LoginRequest {
    /// Reads the header of a Login Request.
    ///
    /// # Errors
    /// If it is not one, if it carries an AHS, if T and C are both set, if a stage is the
    /// reserved one or the next is not after the current.
    pub fn parse(bhs: &[u8; 48]) -> Result<Self, Malformed> {
        const WHAT: &str = "Login Request";
        let refuse = |why, section| Err(Malformed::new(WHAT, why, section));
        if bhs[0] & 0x3f != REQUEST_OPCODE {
            return refuse("another opcode", "RFC 7143 11.12");
        }
        if bhs[4] != 0 {
            return refuse("an additional header segment", "RFC 7143 11.12");
        }
        let (transit, continues) = (bhs[1] & 0x80 != 0, bhs[1] & 0x40 != 0);
        if transit && continues {
            return refuse("T and C are both set", "RFC 7143 11.12.2");
        }
        let Some(current) = Stage::from_bits(bhs[1] >> 2) else {
            return refuse("a reserved current stage", "RFC 7143 11.12.3");
        };
        let next = if transit { Stage::from_bits(bhs[1]) } else { None };
        if transit && next.is_none_or(|next| next <= current) {
            return refuse("the next stage is not after the current", "RFC 7143 11.12.4");
        }
        if current == Stage::FullFeature {
            return refuse("the current stage is the full feature phase", "RFC 7143 11.12.3");
        }
        Ok(Self {
            transit,
            continues,
            current,
            next,
            version_max: bhs[2],
            version_min: bhs[3],
            data_len: be24(bhs),
            isid: isid(bhs),
            tsih: be16(bhs, 14),
            task_tag: be32(bhs, 16),
            cid: be16(bhs, 20),
            cmd_sn: be32(bhs, 24),
            exp_stat_sn: be32(bhs, 28),
        })
    }

    /// Writes the header. Login Requests are always immediate (11.12).
    pub fn emit(&self) -> [u8; 48] {
        let mut bhs = [0; 48];
        bhs[0] = 0x40 | REQUEST_OPCODE;
        bhs[1] = stage_flags(self.transit, self.continues, self.current, self.next);
        bhs[2] = self.version_max;
        bhs[3] = self.version_min;
        put24(&mut bhs, self.data_len);
        bhs[8..14].copy_from_slice(&self.isid.0);
        bhs[14..16].copy_from_slice(&self.tsih.to_be_bytes());
        bhs[16..20].copy_from_slice(&self.task_tag.to_be_bytes());
        bhs[20..22].copy_from_slice(&self.cid.to_be_bytes());
        bhs[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        bhs[28..32].copy_from_slice(&self.exp_stat_sn.to_be_bytes());
        bhs
    }
}

/// Fields of a Login Response header (11.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginResponse {
    /// T: the target agrees to leave `current` for `next`.
    pub transit: bool,
    /// C: the text of this PDU goes on in the next one.
    pub continues: bool,
    /// CSG.
    pub current: Stage,
    /// NSG; present exactly when `transit` is set.
    pub next: Option<Stage>,
    /// Highest protocol version the target speaks.
    pub version_max: u8,
    /// Version in use.
    pub version_active: u8,
    /// Bytes of text that follow, padding not counted.
    pub data_len: u32,
    /// Copied from the request.
    pub isid: Isid,
    /// Zero until the final response of a new session, then the target's handle.
    pub tsih: u16,
    /// Copied from the request.
    pub task_tag: u32,
    /// Status number of this response.
    pub stat_sn: u32,
    /// Command number the target expects next.
    pub exp_cmd_sn: u32,
    /// Highest command number the target takes.
    pub max_cmd_sn: u32,
    /// Status class and detail (11.13.5).
    pub status: Status,
}

impl LoginResponse {
    /// Reads the header of a Login Response.
    ///
    /// # Errors
    /// As [`LoginRequest::parse`]; stages are not judged when the status is not success.
    pub fn parse(bhs: &[u8; 48]) -> Result<Self, Malformed> {
        const WHAT: &str = "Login Response";
        let refuse = |why, section| Err(Malformed::new(WHAT, why, section));
        if bhs[0] & 0x3f != RESPONSE_OPCODE {
            return refuse("another opcode", "RFC 7143 11.13");
        }
        if bhs[4] != 0 {
            return refuse("an additional header segment", "RFC 7143 11.13");
        }
        let status = Status::from_code(be16(bhs, 36));
        let (mut transit, continues) = (bhs[1] & 0x80 != 0, bhs[1] & 0x40 != 0);
        let mut current = Stage::from_bits(bhs[1] >> 2);
        let mut next = if transit { Stage::from_bits(bhs[1]) } else { None };
        if status != Status::SUCCESS {
            (transit, next) = (false, None);
            current = current.or(Some(Stage::Security));
        }
        if transit && continues {
            return refuse("T and C are both set", "RFC 7143 11.13.2");
        }
        let Some(current) = current else {
            return refuse("a reserved current stage", "RFC 7143 11.13.3");
        };
        if transit && next.is_none_or(|next| next <= current) {
            return refuse("the next stage is not after the current", "RFC 7143 11.13.4");
        }
        Ok(Self {
            transit,
            continues,
            current,
            next,
            version_max: bhs[2],
            version_active: bhs[3],
            data_len: be24(bhs),
            isid: isid(bhs),
            tsih: be16(bhs, 14),
            task_tag: be32(bhs, 16),
            stat_sn: be32(bhs, 24),
            exp_cmd_sn: be32(bhs, 28),
            max_cmd_sn: be32(bhs, 32),
            status,
        })
    }

    /// Writes the header.
    pub fn emit(&self) -> [u8; 48] {
        let mut bhs = [0; 48];
        bhs[0] = RESPONSE_OPCODE;
        bhs[1] = stage_flags(self.transit, self.continues, self.current, self.next);
        bhs[2] = self.version_max;
        bhs[3] = self.version_active;
        put24(&mut bhs, self.data_len);
        bhs[8..14].copy_from_slice(&self.isid.0);
        bhs[14..16].copy_from_slice(&self.tsih.to_be_bytes());
        bhs[16..20].copy_from_slice(&self.task_tag.to_be_bytes());
        bhs[24..28].copy_from_slice(&self.stat_sn.to_be_bytes());
        bhs[28..32].copy_from_slice(&self.exp_cmd_sn.to_be_bytes());
        bhs[32..36].copy_from_slice(&self.max_cmd_sn.to_be_bytes());
        bhs[36..38].copy_from_slice(&self.status.code().to_be_bytes());
        bhs
    }
}

/// Status-Class (high byte) and Status-Detail (low byte) of a Login Response (11.13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

impl Status {
    /// The login goes on, or has succeeded.
    pub const SUCCESS: Self = Self(0x0000);
    /// The target moved for now; TargetAddress says where.
    pub const MOVED_TEMPORARILY: Self = Self(0x0101);
    /// The target moved for good; TargetAddress says where.
    pub const MOVED_PERMANENTLY: Self = Self(0x0102);
    /// Some other fault of the initiator.
    pub const INITIATOR_ERROR: Self = Self(0x0200);
    /// The initiator could not be authenticated, or its method is not supported.
    pub const AUTHENTICATION_FAILURE: Self = Self(0x0201);
    /// The initiator may not use this target.
    pub const AUTHORIZATION_FAILURE: Self = Self(0x0202);
    /// No target of that name here.
    pub const NOT_FOUND: Self = Self(0x0203);
    /// The target was taken away for good.
    pub const TARGET_REMOVED: Self = Self(0x0204);
    /// None of the initiator's protocol versions is spoken.
    pub const UNSUPPORTED_VERSION: Self = Self(0x0205);
    /// The session has no room for another connection.
    pub const TOO_MANY_CONNECTIONS: Self = Self(0x0206);
    /// A key that must be there is not.
    pub const MISSING_PARAMETER: Self = Self(0x0207);
    /// The session cannot span to this connection.
    pub const CANNOT_INCLUDE_IN_SESSION: Self = Self(0x0208);
    /// The session type is not supported.
    pub const SESSION_TYPE_NOT_SUPPORTED: Self = Self(0x0209);
    /// TSIH names a session that is not there.
    pub const SESSION_DOES_NOT_EXIST: Self = Self(0x020a);
    /// A request that is not valid during login.
    pub const INVALID_DURING_LOGIN: Self = Self(0x020b);
    /// Some fault of the target.
    pub const TARGET_ERROR: Self = Self(0x0300);
    /// The target cannot serve now; try later.
    pub const SERVICE_UNAVAILABLE: Self = Self(0x0301);
    /// The target has no room for this session.
    pub const OUT_OF_RESOURCES: Self = Self(0x0302);

    /// The status of a wire code, known or not.
    pub const fn from_code(code: u16) -> Self {
        Self(code)
    }

    /// Class in the high byte, detail in the low one.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// 0 success, 1 redirection, 2 initiator error, 3 target error.
    pub const fn class(self) -> u8 {
        self.0.to_be_bytes()[0]
    }
}

const fn stage_flags(transit: bool, continues: bool, current: Stage, next: Option<Stage>) -> u8 {
    let next = match next {
        Some(next) if transit => next.bits(),
        _ => 0,
    };
    (transit as u8) << 7 | (continues as u8) << 6 | current.bits() << 2 | next
}

fn isid(bhs: &[u8; 48]) -> Isid {
    Isid(bhs[8..14].try_into().expect("six bytes of forty-eight"))
}

fn be16(bhs: &[u8; 48], at: usize) -> u16 {
    u16::from_be_bytes([bhs[at], bhs[at + 1]])
}

pub(super) fn be24(bhs: &[u8; 48]) -> u32 {
    u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]])
}

pub(super) fn be32(bhs: &[u8; 48], at: usize) -> u32 {
    u32::from_be_bytes([bhs[at], bhs[at + 1], bhs[at + 2], bhs[at + 3]])
}

pub(super) fn put24(bhs: &mut [u8; 48], len: u32) {
    assert!(len < 1 << 24, "a data segment is below 16 MiB, not {len}");
    bhs[5..8].copy_from_slice(&len.to_be_bytes()[1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What open-iscsi sends first: immediate, T, security to operational.
    fn request_bytes() -> [u8; 48] {
        let mut bhs = [0; 48];
        bhs[..8].copy_from_slice(&[0x43, 0x81, 0, 0, 0, 0, 0x01, 0x9b]);
        bhs[8..16].copy_from_slice(&[0x00, 0x02, 0x3d, 0, 0, 0x01, 0, 0]);
        bhs[16..24].copy_from_slice(&[0, 0, 0, 7, 0, 3, 0, 0]);
        bhs[24..32].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 8]);
        bhs
    }

    #[test]
    fn request_is_read_field_by_field_and_written_back() {
        let request = LoginRequest::parse(&request_bytes()).unwrap();
        assert!(request.transit && !request.continues);
        assert_eq!(request.current, Stage::Security);
        assert_eq!(request.next, Some(Stage::Operational));
        assert_eq!((request.data_len, request.tsih, request.cid), (0x19b, 0, 3));
        assert_eq!(request.isid, Isid([0, 2, 0x3d, 0, 0, 1]));
        assert_eq!((request.task_tag, request.cmd_sn, request.exp_stat_sn), (7, 9, 8));
        assert_eq!(request.emit(), request_bytes());
    }

    #[test]
    fn impossible_stages_are_refused() {
        // T with C; NSG equal to CSG; NSG before CSG; reserved NSG; reserved CSG; CSG 3.
        for flags in [0xc1, 0x80, 0x84, 0x82, 0x88, 0x08, 0x8c, 0x0c] {
            let mut bhs = request_bytes();
            bhs[1] = flags;
            assert!(LoginRequest::parse(&bhs).is_err(), "{flags:#x}");
        }
    }

    #[test]
    fn additional_headers_are_refused() {
        let mut bhs = request_bytes();
        bhs[4] = 1;
        assert!(LoginRequest::parse(&bhs).is_err());
    }

    #[test]
    fn response_is_written_and_read_back() {
        let response = LoginResponse {
            transit: true,
            continues: false,
            current: Stage::Operational,
            next: Some(Stage::FullFeature),
            version_max: 0,
            version_active: 0,
            data_len: 0x012345,
            isid: Isid([1, 2, 3, 4, 5, 6]),
            tsih: 0x0708,
            task_tag: 0x090a_0b0c,
            stat_sn: 1,
            exp_cmd_sn: 2,
            max_cmd_sn: 3,
            status: Status::SUCCESS,
        };
        let bhs = response.emit();
        assert_eq!(bhs[..8], [0x23, 0x87, 0, 0, 0, 0x01, 0x23, 0x45]);
        assert_eq!(LoginResponse::parse(&bhs), Ok(response));
    }

    #[test]
    fn refusal_with_odd_stages_is_still_read() {
        let mut bhs = [0; 48];
        (bhs[0], bhs[1], bhs[36], bhs[37]) = (0x23, 0x08, 2, 1);
        assert_eq!(LoginResponse::parse(&bhs).unwrap().status, Status::AUTHENTICATION_FAILURE);
    }
}
