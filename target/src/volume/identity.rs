//! One backing device, one identity: over AoE and iSCSI, on every head, across restarts and moves.

/// What clients recognise a device by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// 64-bit name, NAA 3 (locally assigned): VPD 0x83 designator and ATA IDENTIFY words 108-111.
    pub naa: u64,
    /// Printable ASCII, 1 to 20 characters: VPD 0x80 and ATA IDENTIFY words 10-19.
    pub serial: String,
    /// Printable ASCII, 1 to 16 characters: INQUIRY product and the ATA model.
    pub model: String,
}

/// INQUIRY vendor identification and the head of the ATA model, 8 characters at most.
pub const VENDOR: &str = "CORBEL";

/// INQUIRY product revision and ATA firmware revision, 4 characters.
pub const REVISION: &str = "0001";

/// NAA 3, "locally assigned", in the top four bits (SPC-4 7.8.6.6.4).
const NAA_LOCAL: u64 = 0x3 << 60;

impl Identity {
    /// The identity of the device that `source` names for ever: a dm or md UUID, a disk's WWID, an
    /// image file's own UUID. The same source gives the same identity everywhere.
    pub fn from_source(source: &str) -> Self {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(source.as_bytes());
        let head: [u8; 8] = digest[..8].try_into().expect("SHA-256 has 32 bytes");
        let naa = NAA_LOCAL | (u64::from_be_bytes(head) >> 4);
        Self { naa, serial: format!("{:016x}", naa), model: "VOLUME".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_source_is_the_same_device_and_another_is_not() {
        let a = Identity::from_source("md-uuid-1");
        assert_eq!(a, Identity::from_source("md-uuid-1"));
        assert_ne!(a.naa, Identity::from_source("md-uuid-2").naa);
        assert_eq!(a.naa >> 60, 3);
        assert_eq!(a.serial.len(), 16);
    }
}
