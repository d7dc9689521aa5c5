//! SCSI, SPC-4 and SBC-3: CDBs, sense data, VPD and mode pages; transport-blind.
//!
//! ```text
//! opcode.rs    the one table of commands: length, usage mask, what a command touches
//! cdb.rs       bytes to a typed Command, or the sense that refuses them
//! sense.rs     named conditions; fixed and descriptor format
//! inquiry.rs   standard INQUIRY data        vpd.rs       vital product data pages
//! provisioning.rs  pages of thin units' room
//! mode.rs      mode pages and headers       capacity.rs  READ CAPACITY data
//! alua.rs      REPORT TARGET PORT GROUPS data
//! lun.rs       the eight bytes that name a logical unit; REPORT LUNS data
//! copy.rs      the EXTENDED COPY parameter list, and what is told of copies
//! token.rs     parameter lists and tokens of token copies
//! unmap.rs, sanitize.rs, format.rs   parameter lists of UNMAP, SANITIZE and FORMAT UNIT
//! reservation.rs, transport_id.rs   PERSISTENT RESERVE IN and OUT, and how they name initiators
//! status.rs    the status byte
//! ```
//!
//! What comes from outside is read by checked access only; what is emitted is plain vectors of a
//! few hundred bytes, cut to the ALLOCATION LENGTH by [`truncate`].

pub mod alua;
pub mod capacity;
pub mod cdb;
pub mod copy;
pub mod format;
pub mod inquiry;
pub mod lun;
pub mod mode;
pub mod opcode;
pub mod provisioning;
pub mod reservation;
pub mod sanitize;
pub mod sense;
pub mod status;
pub mod token;
pub mod transport_id;
pub mod unmap;
pub mod vpd;

pub use cdb::Command;
pub use sense::{Condition, Sense, SenseBytes};
pub use status::Status;

/// Cuts parameter data to the CDB's ALLOCATION LENGTH (SPC-4 4.2.5.6): fewer bytes than there
/// are is not an error, and length fields inside the data keep telling the full length.
pub fn truncate(mut data: Vec<u8>, allocation: u32) -> Vec<u8> {
    data.truncate(allocation as usize);
    data
}

/// `text` in a field of `N` bytes: printable ASCII, left-aligned, padded with spaces (SPC-4 4.4.1).
/// Anything that is not printable ASCII becomes `?`; what does not fit is cut.
pub fn ascii_field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = if (0x20..0x7f).contains(&from) { from } else { b'?' };
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fields_are_padded_cut_and_printable() {
        assert_eq!(ascii_field::<4>("ab"), *b"ab  ");
        assert_eq!(ascii_field::<4>("abcdef"), *b"abcd");
        assert_eq!(ascii_field::<4>("a\nb"), *b"a?b ");
    }
}
