//! Standard INQUIRY data (SPC-4 6.6.2).

use super::ascii_field;

/// PERIPHERAL QUALIFIER and DEVICE TYPE of a disk that is there.
pub const DISK: u8 = 0x00;

/// PERIPHERAL QUALIFIER 011b with device type 1Fh: no unit here, and none possible.
pub const NO_UNIT: u8 = 0x7f;

/// Version descriptors (SPC-4 table 148): what the unit was built by.
const VERSION_DESCRIPTORS: [u16; 4] = [
    0x00a0, // SAM-5
    0x0960, // iSCSI
    0x0460, // SPC-4
    0x04c0, // SBC-3
];

/// Standard INQUIRY data of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inquiry<'a> {
    /// [`DISK`] or [`NO_UNIT`].
    pub peripheral: u8,
    /// RMB: the medium can be removed.
    pub removable: bool,
    /// T10 VENDOR IDENTIFICATION, 8 characters.
    pub vendor: &'a str,
    /// PRODUCT IDENTIFICATION, 16 characters.
    pub product: &'a str,
    /// PRODUCT REVISION LEVEL, 4 characters.
    pub revision: &'a str,
    /// MULTIP: it has more than one target port.
    pub several_ports: bool,
    /// Initiators, too, may say how good each way to it is.
    pub explicit_access: bool,
}

impl Inquiry<'_> {
    /// Length of the data.
    pub const LEN: usize = 74;

    /// The bytes: SPC-4, HiSup, CmdQue, 3PC, no protection. TPGS 01b or 11b: REPORT TARGET PORT
    /// GROUPS tells how good each way is; the target sets it, and perhaps initiators too.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![0; Self::LEN];
        out[0] = self.peripheral;
        out[1] = u8::from(self.removable) << 7;
        out[2] = 0x06; // VERSION: SPC-4
        out[3] = 0x12; // HISUP, RESPONSE DATA FORMAT 2
        out[4] = u8::try_from(Self::LEN - 5).expect("LEN is below 256"); // ADDITIONAL LENGTH
        out[5] = if self.explicit_access { 0x38 } else { 0x18 }; // TPGS, 3PC
        out[6] = u8::from(self.several_ports) << 4; // MULTIP
        out[7] = 0x02; // CMDQUE
        out[8..16].copy_from_slice(&ascii_field::<8>(self.vendor));
        out[16..32].copy_from_slice(&ascii_field::<16>(self.product));
        out[32..36].copy_from_slice(&ascii_field::<4>(self.revision));
        for (at, version) in (58..).step_by(2).zip(VERSION_DESCRIPTORS) {
            out[at..at + 2].copy_from_slice(&version.to_be_bytes());
        }
        out
    }
}

/// What an initiator reads from standard INQUIRY data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InquiryData {
    /// Byte 0: [`DISK`], [`NO_UNIT`] or something else.
    pub peripheral: u8,
    /// RMB.
    pub removable: bool,
    /// Vendor, without trailing spaces.
    pub vendor: String,
    /// Product, without trailing spaces.
    pub product: String,
    /// Revision, without trailing spaces.
    pub revision: String,
}

impl InquiryData {
    /// Reads the first 36 bytes; `None` if there are fewer.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; 36] = bytes.first_chunk()?;
        let text = |field: &[u8]| String::from_utf8_lossy(field).trim_end().to_owned();
        Some(Self {
            peripheral: b[0],
            removable: b[1] & 0x80 != 0,
            vendor: text(&b[8..16]),
            product: text(&b[16..32]),
            revision: text(&b[32..36]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK_DATA: Inquiry<'_> = Inquiry {
        peripheral: DISK,
        removable: true,
        vendor: "CORBEL",
        product: "VOLUME",
        revision: "0001",
        several_ports: false,
        explicit_access: false,
    };

    #[test]
    fn emitted_data_reads_back_and_counts_itself() {
        let bytes = DISK_DATA.emit();
        assert_eq!(usize::from(bytes[4]) + 5, bytes.len());
        let data = InquiryData::parse(&bytes).unwrap();
        assert_eq!((data.vendor.as_str(), data.product.as_str()), ("CORBEL", "VOLUME"));
        assert_eq!((data.peripheral, data.removable, data.revision.as_str()), (0, true, "0001"));
        assert_eq!(InquiryData::parse(&bytes[..35]), None);
    }

    #[test]
    fn response_format_is_two_and_commands_queue() {
        let bytes = DISK_DATA.emit();
        assert_eq!(bytes[3] & 0x0f, 2);
        assert_eq!(bytes[3] & 0x20, 0); // NORMACA: no ACA
        assert_eq!(bytes[7] & 0x02, 2);
    }

    #[test]
    fn multip_and_tpgs_speak_of_ports_and_of_who_may_set_their_states() {
        assert_eq!(DISK_DATA.emit()[6], 0);
        assert_eq!(Inquiry { several_ports: true, ..DISK_DATA }.emit()[6], 0x10);
        assert_eq!(DISK_DATA.emit()[5], 0x18);
        assert_eq!(Inquiry { explicit_access: true, ..DISK_DATA }.emit()[5], 0x38);
    }
}
