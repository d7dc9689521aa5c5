//! ATA over Ethernet r11: frames and the rules of both roles.
//!
//! A frame is an Ethernet frame of type 0x88A2: a 24-byte header (which counts the Ethernet
//! header), then an argument whose shape depends on the command. One file per shape:
//!
//! ```text
//! header.rs    the 24 bytes in front of everything
//! ata.rs       command 0: 12 bytes of ATA registers, then data from byte 36
//! config.rs    command 1: a string of up to 1024 bytes; discovery is a broadcast of this
//! mask.rs      command 2: which MAC addresses may talk to a target at all
//! reserve.rs   command 3: which MAC addresses may use the disk now
//! mac.rs       a MAC address
//! initiator/   the client of one path: tags, copies, timers, window; discovery
//! ```
//!
//! Every file has the same shape: `Packet` is a view over bytes whose accessors cannot fail once
//! `Packet::new_checked` has said yes; `Repr` is the meaning; `parse` and `emit` go between them.
//! Multi-byte fields are big-endian, except the LBA. Trailing bytes are padding and ignored.

pub mod ata;
pub mod config;
pub mod header;
pub mod initiator;
pub mod mac;
pub mod mask;
pub mod reserve;

pub use ata::{Packet as AtaPacket, Repr as AtaRepr};
pub use config::{Packet as ConfigPacket, Repr as ConfigRepr};
pub use header::{Code, Error, Packet as HeaderPacket, Repr as HeaderRepr};
pub use mac::Mac;
pub use mask::{Packet as MaskPacket, Repr as MaskRepr};
pub use reserve::{Packet as ReservePacket, Repr as ReserveRepr};

/// The Ethernet type of AoE.
pub const ETHERTYPE: u16 = 0x88a2;

/// The one protocol version there is.
pub const VERSION: u8 = 1;

/// Ethernet and AoE header together; the argument starts here.
pub const HEADER_BYTES: usize = 24;

/// Where the data of an ATA command starts.
pub const ATA_DATA_OFFSET: usize = HEADER_BYTES + ata::ARGUMENT_BYTES;

/// The shortest frame Ethernet carries, without its checksum.
pub const FRAME_BYTES_MIN: usize = 60;

/// AoE counts in sectors of this size, whatever the device does.
pub const SECTOR_BYTES: usize = 512;

/// "Every shelf": only in requests.
pub const SHELF_BROADCAST: u16 = 0xffff;

/// "Every slot": only in requests.
pub const SLOT_BROADCAST: u8 = 0xff;

/// Bytes of the Ethernet header, which an MTU does not count.
const ETHERNET_BYTES: usize = 14;

/// Most sectors that a frame on a link with this MTU (bytes) can carry.
pub fn sectors_fitting(mtu: u32) -> u32 {
    let overhead = u32::try_from(ATA_DATA_OFFSET - ETHERNET_BYTES).expect("a small constant");
    mtu.saturating_sub(overhead) / 512
}

/// The sector count to advertise on a link with this MTU (bytes).
///
/// Clients reckon with (MTU − 36) / 512 and send every request in pieces of that many sectors. At
/// MTU 9000 that is 17: pieces that start at every 17th sector are almost never aligned to
/// 4 KiB, and each costs the disk a read-modify-write. So from 8 sectors on the count is rounded
/// down to a multiple of 8. 0 on a link too small for a single sector.
pub fn sectors_advertised(mtu: u32) -> u8 {
    let overhead = u32::try_from(ATA_DATA_OFFSET).expect("a small constant");
    let raw = mtu.saturating_sub(overhead) / 512;
    let aligned = if raw >= 8 { raw - raw % 8 } else { raw };
    u8::try_from(aligned).unwrap_or(u8::MAX - u8::MAX % 8)
}

#[cfg(test)]
mod tests;
