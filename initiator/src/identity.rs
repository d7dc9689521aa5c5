//! What a device says it is, in the same words for both protocols.
//!
//! Two paths lead to the same device if [`Identity::same_device`] says so; that is what lets an AoE
//! path and an iSCSI path stand under one device.

use corbel_proto::ata::Identify;
use corbel_proto::scsi::capacity::Capacity;
use corbel_proto::scsi::inquiry::InquiryData;
use corbel_proto::scsi::vpd::{self, Designator};
use serde::Serialize;

/// Who a device is, and how large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// World-wide name in hexadecimal: ATA words 108-111, or the NAA or EUI-64 designator of VPD
    /// page 83. `None` if the device has none.
    pub wwn: Option<String>,
    /// Serial number: ATA words 10-19, or VPD page 80. May be empty.
    pub serial: String,
    /// ATA model, or SCSI vendor and product.
    pub model: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Bytes in a logical block.
    pub block_bytes: u32,
}

impl Identity {
    /// From an IDENTIFY DEVICE block.
    pub fn from_ata(identify: &Identify) -> Self {
        Self {
            wwn: (identify.naa != 0).then(|| format!("{:016x}", identify.naa)),
            serial: identify.serial.clone(),
            model: identify.model.clone(),
            size_bytes: identify.sectors.saturating_mul(512),
            block_bytes: 512,
        }
    }

    /// From INQUIRY data, the bodies of VPD pages 83 and 80 (empty if there are none), and the
    /// capacity.
    pub fn from_scsi(
        inquiry: &InquiryData,
        page_83: &[u8],
        page_80: &[u8],
        capacity: &Capacity,
    ) -> Self {
        let designators = vpd::parse_identification(page_83).unwrap_or_default();
        let naa = designators.iter().find_map(|designator| match designator {
            Designator::Naa(name) => Some(format!("{name:016x}")),
            Designator::NaaExtended(name) => Some(format!("{name:032x}")),
            _ => None,
        });
        let eui = designators.iter().find_map(|designator| match designator {
            Designator::Eui64(name) => Some(format!("{name:016x}")),
            _ => None,
        });
        let blocks = capacity.last_lba.saturating_add(1);
        Self {
            wwn: naa.or(eui),
            serial: String::from_utf8_lossy(page_80).trim().to_owned(),
            model: format!("{} {}", inquiry.vendor, inquiry.product).trim().to_owned(),
            size_bytes: blocks.saturating_mul(u64::from(capacity.block_bytes)),
            block_bytes: capacity.block_bytes,
        }
    }

    /// True if both are certainly the same device: one world-wide name and one size. Serial numbers
    /// alone prove nothing; targets repeat them.
    pub fn same_device(&self, other: &Self) -> bool {
        self.wwn.is_some() && self.wwn == other.wwn && self.size_bytes == other.size_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ata() -> Identify {
        Identify {
            serial: "3000000000000001".into(),
            firmware: "0001".into(),
            model: "CORBEL VOLUME".into(),
            naa: 0x3000_0000_0000_0001,
            sectors: 2048,
            physical_exponent: 3,
            write_cache: false,
            trim_blocks: 0,
            trim_zeroes: false,
            rotational: false,
        }
    }

    fn scsi(naa: u64) -> Identity {
        let inquiry = InquiryData {
            peripheral: 0,
            removable: false,
            vendor: "CORBEL".into(),
            product: "VOLUME".into(),
            revision: "0001".into(),
        };
        let page_83 = vpd::identification(&[Designator::Naa(naa)]);
        let capacity = Capacity {
            last_lba: 255,
            block_bytes: 4096,
            physical_exponent: 0,
            thin: false,
            thin_zeroes: false,
        };
        Identity::from_scsi(&inquiry, &page_83, b"3000000000000001    ", &capacity)
    }

    #[test]
    fn one_device_over_both_protocols_is_one_device() {
        let (ata, scsi) = (Identity::from_ata(&ata()), scsi(0x3000_0000_0000_0001));
        assert!(ata.same_device(&scsi));
        assert_eq!((&ata.serial, &ata.model), (&scsi.serial, &scsi.model));
    }

    #[test]
    fn sixteen_byte_names_are_names() {
        let page_83 = vpd::identification(&[Designator::NaaExtended(6 << 124 | 5)]);
        let inquiry = InquiryData {
            peripheral: 0,
            removable: false,
            vendor: "LIO-ORG".into(),
            product: "block0".into(),
            revision: "4.0".into(),
        };
        let capacity = Capacity {
            last_lba: 0,
            block_bytes: 512,
            physical_exponent: 0,
            thin: false,
            thin_zeroes: false,
        };
        let identity = Identity::from_scsi(&inquiry, &page_83, b"", &capacity);
        assert_eq!(identity.wwn.as_deref(), Some("60000000000000000000000000000005"));
    }

    #[test]
    fn another_name_another_size_or_no_name_is_not_the_same_device() {
        let one = Identity::from_ata(&ata());
        assert!(!one.same_device(&scsi(0x3000_0000_0000_0002)));
        let grown = Identity::from_ata(&Identify { sectors: 4096, ..ata() });
        assert!(!one.same_device(&grown));
        let nameless = Identity::from_ata(&Identify { naa: 0, ..ata() });
        assert!(!nameless.same_device(&nameless.clone()));
    }
}
