//! Text Request and Text Response, RFC 7143 11.10 and 11.11.
//!
//! Only the 48-byte basic header segment is read and written here.

use super::login::{be24, be32, put24};
use crate::error::Malformed;

/// Opcode of a Text Request, without the I bit (11.10).
pub const REQUEST_OPCODE: u8 = 0x04;
/// Opcode of a Text Response (11.11).
pub const RESPONSE_OPCODE: u8 = 0x24;
/// The target transfer tag that means "none".
pub const NO_TAG: u32 = 0xffff_ffff;

/// Fields of a Text Request header (11.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRequest {
    /// I: deliver at once, out of command order.
    pub immediate: bool,
    /// F: the initiator has no more to say in this negotiation (11.10.1).
    pub last: bool,
    /// C: the text of this PDU goes on in the next one (11.10.2).
    pub continues: bool,
    /// Bytes of text that follow, padding not counted.
    pub data_len: u32,
    /// Logical unit number; only meaningful with a transfer tag, and echoed then.
    pub lun: u64,
    /// Initiator task tag, the same in every request of one negotiation.
    pub task_tag: u32,
    /// [`NO_TAG`] in the first request, then the target's own tag (11.10.4).
    pub transfer_tag: u32,
    /// Command sequence number.
    pub cmd_sn: u32,
    /// Status number the initiator expects next.
    pub exp_stat_sn: u32,
}

impl TextRequest {
    /// Reads the header of a Text Request.
    ///
    /// # Errors
    /// If it is not one, if it carries an AHS or if F and C are both set.
    pub fn parse(bhs: &[u8; 48]) -> Result<Self, Malformed> {
        let (last, continues) =
            flags(bhs, REQUEST_OPCODE, Malformed::new("Text Request", "", "RFC 7143 11.10"))?;
        Ok(Self {
            immediate: bhs[0] & 0x40 != 0,
            last,
            continues,
            data_len: be24(bhs),
            lun: lun(bhs),
            task_tag: be32(bhs, 16),
            transfer_tag: be32(bhs, 20),
            cmd_sn: be32(bhs, 24),
            exp_stat_sn: be32(bhs, 28),
        })
    }

    /// Writes the header.
    pub fn emit(&self) -> [u8; 48] {
        let mut bhs = [0; 48];
        bhs[0] = REQUEST_OPCODE | (u8::from(self.immediate) << 6);
        bhs[1] = u8::from(self.last) << 7 | u8::from(self.continues) << 6;
        put24(&mut bhs, self.data_len);
        bhs[8..16].copy_from_slice(&self.lun.to_be_bytes());
        bhs[16..20].copy_from_slice(&self.task_tag.to_be_bytes());
        bhs[20..24].copy_from_slice(&self.transfer_tag.to_be_bytes());
        bhs[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        bhs[28..32].copy_from_slice(&self.exp_stat_sn.to_be_bytes());
        bhs
    }
}

/// Fields of a Text Response header (11.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextResponse {
    /// F: the target has no more to say; `transfer_tag` is then [`NO_TAG`] (11.11.1).
    pub last: bool,
    /// C: the text of this PDU goes on in the next one (11.11.2).
    pub continues: bool,
    /// Bytes of text that follow, padding not counted.
    pub data_len: u32,
    /// Logical unit number; only meaningful with a transfer tag.
    pub lun: u64,
    /// Copied from the request.
    pub task_tag: u32,
    /// Names the negotiation in the initiator's next request (11.11.4).
    pub transfer_tag: u32,
    /// Status number of this response.
    pub stat_sn: u32,
    /// Command number the target expects next.
    pub exp_cmd_sn: u32,
    /// Highest command number the target takes.
    pub max_cmd_sn: u32,
}

impl TextResponse {
    /// Reads the header of a Text Response.
    ///
    /// # Errors
    /// As [`TextRequest::parse`].
    pub fn parse(bhs: &[u8; 48]) -> Result<Self, Malformed> {
        let (last, continues) =
            flags(bhs, RESPONSE_OPCODE, Malformed::new("Text Response", "", "RFC 7143 11.11"))?;
        Ok(Self {
            last,
            continues,
            data_len: be24(bhs),
            lun: lun(bhs),
            task_tag: be32(bhs, 16),
            transfer_tag: be32(bhs, 20),
            stat_sn: be32(bhs, 24),
            exp_cmd_sn: be32(bhs, 28),
            max_cmd_sn: be32(bhs, 32),
        })
    }

    /// Writes the header.
    pub fn emit(&self) -> [u8; 48] {
        let mut bhs = [0; 48];
        bhs[0] = RESPONSE_OPCODE;
        bhs[1] = u8::from(self.last) << 7 | u8::from(self.continues) << 6;
        put24(&mut bhs, self.data_len);
        bhs[8..16].copy_from_slice(&self.lun.to_be_bytes());
        bhs[16..20].copy_from_slice(&self.task_tag.to_be_bytes());
        bhs[20..24].copy_from_slice(&self.transfer_tag.to_be_bytes());
        bhs[24..28].copy_from_slice(&self.stat_sn.to_be_bytes());
        bhs[28..32].copy_from_slice(&self.exp_cmd_sn.to_be_bytes());
        bhs[32..36].copy_from_slice(&self.max_cmd_sn.to_be_bytes());
        bhs
    }
}

/// F and C of a header that must have `opcode`.
fn flags(bhs: &[u8; 48], opcode: u8, refusal: Malformed) -> Result<(bool, bool), Malformed> {
    let refuse = |why| Err(Malformed { why, ..refusal });
    if bhs[0] & 0x3f != opcode {
        return refuse("another opcode");
    }
    if bhs[4] != 0 {
        return refuse("an additional header segment");
    }
    match (bhs[1] & 0x80 != 0, bhs[1] & 0x40 != 0) {
        (true, true) => refuse("F and C are both set"),
        pair => Ok(pair),
    }
}

fn lun(bhs: &[u8; 48]) -> u64 {
    u64::from(be32(bhs, 8)) << 32 | u64::from(be32(bhs, 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_written_and_read_back() {
        let request = TextRequest {
            immediate: true,
            last: true,
            continues: false,
            data_len: 16,
            lun: 0x0102_0304_0506_0708,
            task_tag: 1,
            transfer_tag: NO_TAG,
            cmd_sn: 2,
            exp_stat_sn: 3,
        };
        let bhs = request.emit();
        assert_eq!(bhs[..8], [0x44, 0x80, 0, 0, 0, 0, 0, 16]);
        assert_eq!(bhs[20..24], [0xff; 4]);
        assert_eq!(TextRequest::parse(&bhs), Ok(request));
    }

    #[test]
    fn response_is_written_and_read_back() {
        let response = TextResponse {
            last: false,
            continues: true,
            data_len: 8192,
            lun: 0,
            task_tag: 1,
            transfer_tag: 9,
            stat_sn: 2,
            exp_cmd_sn: 3,
            max_cmd_sn: 4,
        };
        let bhs = response.emit();
        assert_eq!(bhs[..8], [0x24, 0x40, 0, 0, 0, 0, 0x20, 0]);
        assert_eq!(TextResponse::parse(&bhs), Ok(response));
    }

    #[test]
    fn last_and_continues_exclude_each_other() {
        let mut bhs = [0; 48];
        (bhs[0], bhs[1]) = (0x04, 0xc0);
        assert!(TextRequest::parse(&bhs).is_err());
        bhs[0] = 0x24;
        assert!(TextResponse::parse(&bhs).is_err());
    }
}
