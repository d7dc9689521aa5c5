//! Vital product data pages (SPC-4 7.8, SBC-3 6.5).

use super::ascii_field;
use crate::error::Malformed;
use crate::reader::Reader;

/// Supported VPD pages.
pub const SUPPORTED_PAGES: u8 = 0x00;
/// Unit serial number.
pub const UNIT_SERIAL_NUMBER: u8 = 0x80;
/// Device identification.
pub const DEVICE_IDENTIFICATION: u8 = 0x83;
/// Extended INQUIRY data.
pub const EXTENDED_INQUIRY: u8 = 0x86;
/// Mode page policy.
pub const MODE_PAGE_POLICY: u8 = 0x87;
/// SCSI ports.
pub const SCSI_PORTS: u8 = 0x88;
/// Third-party copy.
pub const THIRD_PARTY_COPY: u8 = 0x8f;
/// Block limits.
pub const BLOCK_LIMITS: u8 = 0xb0;
/// Block device characteristics.
pub const BLOCK_CHARACTERISTICS: u8 = 0xb1;
/// Logical block provisioning.
pub const LOGICAL_BLOCK_PROVISIONING: u8 = 0xb2;

/// Vendor specific, of Corbel's target: 16 bytes that name the boot of the host that serves the
/// unit, then 16 that name the process.
pub const INSTANCE: u8 = 0xc0;

/// A whole page: header and `body`. Bodies here are far below 64 KiB; a longer one is cut.
pub fn page(peripheral: u8, code: u8, mut body: Vec<u8>) -> Vec<u8> {
    body.truncate(usize::from(u16::MAX));
    let [high, low] = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut out = vec![peripheral, code, high, low];
    out.append(&mut body);
    out
}

/// The body of a whole page, where `bytes` are one; for initiators.
pub fn body(bytes: &[u8], code: u8) -> Result<&[u8], Malformed> {
    const SECTION: &str = "SPC-4 7.8.1";
    let mut reader = Reader::new(bytes, "VPD page", SECTION);
    reader.u8()?;
    if reader.u8()? != code {
        return Err(Malformed::new("VPD page", "another page than asked for", SECTION));
    }
    let len = reader.u16()?;
    reader.take(usize::from(len))
}

/// One way to name a unit or its port (SPC-4 7.8.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Designator {
    /// Vendor and a vendor's own name, of the unit.
    T10Vendor {
        /// T10 vendor identification.
        vendor: String,
        /// The vendor's name for the unit.
        id: String,
    },
    /// An eight-byte NAA name of the unit (NAA 2, 3 or 5).
    Naa(u64),
    /// The sixteen-byte NAA 6 name of the unit.
    NaaExtended(u128),
    /// An EUI-64 of the unit.
    Eui64(u64),
    /// The number of the port that was asked, one up.
    RelativeTargetPort(u16),
    /// The port group of the port that was asked.
    TargetPortGroup(u16),
    /// The SCSI name of the port that was asked: `iqn.….,t,0x0001`.
    TargetPortName(String),
}

/// The descriptors' PROTOCOL IDENTIFIER: iSCSI (SPC-4 table 477).
const PROTOCOL_ISCSI: u8 = 0x5;
/// PIV and ASSOCIATION 01b, target port.
const PORT: u8 = 0x80 | 0x10;

impl Designator {
    fn emit(&self, out: &mut Vec<u8>) {
        let (code_set, kind, name) = match self {
            Self::T10Vendor { vendor, id } => {
                let name = [&ascii_field::<8>(vendor), id.as_bytes()].concat();
                (0x02, 0x01, name)
            }
            Self::Naa(naa) => (0x01, 0x03, naa.to_be_bytes().to_vec()),
            Self::NaaExtended(naa) => (0x01, 0x03, naa.to_be_bytes().to_vec()),
            Self::Eui64(eui) => (0x01, 0x02, eui.to_be_bytes().to_vec()),
            Self::RelativeTargetPort(n) => {
                (0x01, PORT | 0x04, u32::from(*n).to_be_bytes().to_vec())
            }
            Self::TargetPortGroup(n) => (0x01, PORT | 0x05, u32::from(*n).to_be_bytes().to_vec()),
            Self::TargetPortName(name) => (0x03, PORT | 0x08, scsi_name(name)),
        };
        let protocol = if kind & PORT != 0 { PROTOCOL_ISCSI << 4 } else { 0 };
        let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[protocol | code_set, kind, 0, len]);
        out.extend_from_slice(&name[..usize::from(len)]);
    }

    pub(super) fn parse(kind: u8, name: &[u8]) -> Option<Self> {
        let association = kind >> 4 & 0b11;
        let text = |b: &[u8]| String::from_utf8_lossy(b).trim_end_matches(['\0', ' ']).to_owned();
        Some(match (association, kind & 0x0f, name) {
            (0, 0x1, name) if name.len() >= 8 => {
                Self::T10Vendor { vendor: text(&name[..8]), id: text(&name[8..]) }
            }
            (0, 0x2, name) if name.len() == 8 => {
                Self::Eui64(u64::from_be_bytes(name.try_into().ok()?))
            }
            (0, 0x3, name) if name.len() == 8 => {
                Self::Naa(u64::from_be_bytes(name.try_into().ok()?))
            }
            (0, 0x3, name) if name.len() == 16 => {
                Self::NaaExtended(u128::from_be_bytes(name.try_into().ok()?))
            }
            (1, 0x4, [_, _, high, low]) => {
                Self::RelativeTargetPort(u16::from_be_bytes([*high, *low]))
            }
            (1, 0x5, [_, _, high, low]) => Self::TargetPortGroup(u16::from_be_bytes([*high, *low])),
            (1, 0x8, name) => Self::TargetPortName(text(name)),
            _ => return None,
        })
    }
}

/// A SCSI name string: UTF-8, ended by NUL, padded to four bytes (SPC-4 7.8.6.11).
fn scsi_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.truncate(251); // so that NUL and padding stay below the 255 of the length byte
    bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    bytes
}

/// The body of page 83.
pub fn identification(designators: &[Designator]) -> Vec<u8> {
    let mut out = Vec::new();
    for designator in designators {
        designator.emit(&mut out);
    }
    out
}

/// Reads the body of page 83; designators of kinds not known here are left out.
pub fn parse_identification(body: &[u8]) -> Result<Vec<Designator>, Malformed> {
    let mut reader = Reader::new(body, "Device Identification VPD page", "SPC-4 7.8.6");
    let mut out = Vec::new();
    while reader.left() > 0 {
        let [_, kind, _, len] = reader.array()?;
        out.extend(Designator::parse(kind, reader.take(usize::from(len))?));
    }
    Ok(out)
}

/// Page B0, in logical blocks (SBC-3 6.5.3). Zero means "not told" or "not supported".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockLimits {
    /// WSNZ: WRITE SAME of no blocks is refused, rather than meaning "to the end".
    pub write_same_nonzero: bool,
    /// MAXIMUM COMPARE AND WRITE LENGTH.
    pub compare_and_write_max: u8,
    /// OPTIMAL TRANSFER LENGTH GRANULARITY.
    pub granularity: u16,
    /// MAXIMUM TRANSFER LENGTH.
    pub transfer_max: u32,
    /// OPTIMAL TRANSFER LENGTH.
    pub transfer_optimal: u32,
    /// MAXIMUM UNMAP LBA COUNT.
    pub unmap_blocks_max: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
    pub unmap_extents_max: u32,
    /// OPTIMAL UNMAP GRANULARITY.
    pub unmap_granularity: u32,
    /// MAXIMUM WRITE SAME LENGTH.
    pub write_same_max: u64,
    /// MAXIMUM ATOMIC TRANSFER LENGTH (SBC-4 6.6.4).
    pub atomic_max: u32,
}

impl BlockLimits {
    /// The page's body.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![0; 60];
        out[0] = u8::from(self.write_same_nonzero);
        out[1] = self.compare_and_write_max;
        out[2..4].copy_from_slice(&self.granularity.to_be_bytes());
        out[4..8].copy_from_slice(&self.transfer_max.to_be_bytes());
        out[8..12].copy_from_slice(&self.transfer_optimal.to_be_bytes());
        out[16..20].copy_from_slice(&self.unmap_blocks_max.to_be_bytes());
        out[20..24].copy_from_slice(&self.unmap_extents_max.to_be_bytes());
        out[24..28].copy_from_slice(&self.unmap_granularity.to_be_bytes());
        out[32..40].copy_from_slice(&self.write_same_max.to_be_bytes());
        out[40..44].copy_from_slice(&self.atomic_max.to_be_bytes());
        out
    }

    /// Reads the body; old units send 12 bytes, whose missing fields are zero.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body, "Block Limits VPD page", "SBC-3 6.5.3");
        let mut limits = Self {
            write_same_nonzero: reader.u8()? & 1 != 0,
            compare_and_write_max: reader.u8()?,
            granularity: reader.u16()?,
            transfer_max: reader.u32()?,
            transfer_optimal: reader.u32()?,
            ..Self::default()
        };
        if reader.left() >= 28 {
            reader.u32()?; // MAXIMUM PREFETCH LENGTH
            limits.unmap_blocks_max = reader.u32()?;
            limits.unmap_extents_max = reader.u32()?;
            limits.unmap_granularity = reader.u32()?;
            reader.u32()?; // UNMAP GRANULARITY ALIGNMENT
            limits.write_same_max = reader.u64()?;
        }
        if reader.left() >= 4 {
            limits.atomic_max = reader.u32()?;
        }
        Ok(limits)
    }
}

/// The body of page B1: does it spin (SBC-3 6.5.2). The rate of a disk that does is not known.
/// `erasable`: SANITIZE BLOCK ERASE is there, `encrypted`: CRYPTOGRAPHIC ERASE is. What either
/// erased can be read.
pub fn characteristics(rotational: bool, erasable: bool, encrypted: bool) -> Vec<u8> {
    let mut out = vec![0; 60];
    out[1] = u8::from(!rotational); // MEDIUM ROTATION RATE: 0 not reported, 1 does not rotate
    out[3] = u8::from(erasable) << 6 | u8::from(encrypted) << 4; // WABEREQ, WACEREQ 01b
    out
}

/// The body of page B2 (SBC-3 6.5.4): deallocation by WRITE SAME, and by UNMAP if it `unmaps`;
/// `zeroes`: what was deallocated reads as zeros; `exponent`: log2 of the blocks of a threshold
/// set, 0 without thresholds.
pub fn provisioning(thin: bool, unmaps: bool, zeroes: bool, exponent: u8) -> Vec<u8> {
    if !thin {
        return vec![0; 4];
    }
    let lbprz = u8::from(zeroes) << 2;
    let lbpu = u8::from(unmaps) << 7;
    vec![exponent, lbpu | 0x60 | lbprz, 0x02, 0] // LBPWS, LBPWS10; thin provisioned
}

/// The body of page 86: no protection, simple, ordered and head-of-queue tasks, and no volatile
/// cache promise beyond the caching mode page.
pub fn extended_inquiry(volatile_cache: bool) -> Vec<u8> {
    let mut out = vec![0; 60];
    out[1] = 0x07; // HEADSUP, ORDSUP, SIMPSUP
    out[2] = u8::from(volatile_cache); // V_SUP
    out[3] = 0x01; // LUICLR: each nexus clears its own unit attentions
    out
}

/// The body of page 87 (SPC-4 7.8.10): all mode pages are the unit's, for all initiators.
pub fn mode_page_policy() -> Vec<u8> {
    vec![ALL_PAGES, ALL_SUBPAGES, 0, 0]
}

/// In page 87, all mode pages and all their subpages.
const ALL_PAGES: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

/// The body of page 88 (SPC-4 7.8.14): relative target ports and their names.
pub fn scsi_ports(ports: impl Iterator<Item = (u16, String)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (relative, name) in ports {
        let mut designator = Vec::new();
        Designator::TargetPortName(name).emit(&mut designator);
        let len = u16::try_from(designator.len()).expect("at most 259");
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&relative.to_be_bytes());
        out.extend_from_slice(&[0; 6]); // no initiator port
        out.extend_from_slice(&len.to_be_bytes());
        out.append(&mut designator);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn designators_read_back_as_written() {
        let all = vec![
            Designator::T10Vendor { vendor: "CORBEL".into(), id: "3123".into() },
            Designator::Naa(0x3123_4567_89ab_cdef),
            Designator::NaaExtended(0x6000 << 112),
            Designator::Eui64(7),
            Designator::RelativeTargetPort(0x102),
            Designator::TargetPortGroup(3),
            Designator::TargetPortName("iqn.2026-11.org.example:a,t,0x0001".into()),
        ];
        let page = page(0, DEVICE_IDENTIFICATION, identification(&all));
        let body = body(&page, DEVICE_IDENTIFICATION).unwrap();
        assert_eq!(parse_identification(body), Ok(all));
    }

    #[test]
    fn a_naa_designator_is_binary_and_of_the_unit() {
        #[rustfmt::skip]
        assert_eq!(identification(&[Designator::Naa(0x3000_0000_0000_0001)]), [
            0x01, 0x03, 0, 8,           // binary; logical unit, NAA; length
            0x30, 0, 0, 0, 0, 0, 0, 1,
        ]);
        #[rustfmt::skip]
        assert_eq!(identification(&[Designator::TargetPortGroup(2)]), [
            0x51, 0x95, 0, 4,           // iSCSI, binary; PIV, target port, group; length
            0, 0, 0, 2,
        ]);
    }

    #[test]
    fn truncated_and_overlong_pages_are_refused() {
        let whole = page(0, DEVICE_IDENTIFICATION, identification(&[Designator::Naa(3 << 60)]));
        for len in 0..whole.len() {
            assert!(body(&whole[..len], DEVICE_IDENTIFICATION).is_err());
        }
        assert!(body(&whole, BLOCK_LIMITS).is_err());
        assert!(parse_identification(&[1, 3, 0, 9, 0]).is_err());
    }

    #[test]
    fn a_long_port_name_stays_inside_its_length_byte() {
        let long = Designator::TargetPortName("a".repeat(400));
        let body = identification(&[long]);
        assert_eq!(usize::from(body[3]) + 4, body.len());
    }

    #[test]
    fn block_limits_read_back_even_from_old_units() {
        let limits = BlockLimits {
            write_same_nonzero: true,
            compare_and_write_max: 255,
            granularity: 8,
            transfer_max: 8192,
            transfer_optimal: 128,
            unmap_blocks_max: 1 << 20,
            unmap_extents_max: 256,
            unmap_granularity: 8,
            write_same_max: 1 << 33,
            atomic_max: 256,
        };
        assert_eq!(BlockLimits::parse(&limits.emit()), Ok(limits));
        let old = BlockLimits::parse(&limits.emit()[..12]).unwrap();
        assert_eq!((old.transfer_max, old.unmap_blocks_max), (8192, 0));
    }

    #[test]
    fn ports_carry_their_number_and_name() {
        let name = "iqn.2026-11.org.example:a,t,0x0002";
        let body = scsi_ports([(2, name.to_owned())].into_iter());
        assert_eq!(body[..16], [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 40, 0x53, 0x98, 0, 36]);
        assert_eq!(&body[16..16 + name.len()], name.as_bytes());
    }

    #[test]
    fn provisioning_is_silent_unless_thin() {
        assert_eq!(provisioning(false, true, true, 11), [0; 4]);
        assert_eq!(provisioning(true, true, true, 11), [11, 0xe4, 2, 0]);
        assert_eq!(provisioning(true, true, false, 0), [0, 0xe0, 2, 0]);
        assert_eq!(provisioning(true, false, false, 0), [0, 0x60, 2, 0]);
    }
}
