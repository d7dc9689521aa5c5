//! What the driver and its server say to each other: numbers and layouts of `linux/ublk_cmd.h`.
//!
//! Only the ioctl-encoded commands (kernel 6.4); the older plain numbers may be compiled out.

use std::fmt;

use crate::request::IoError;

/// The driver's block unit, whatever the device's.
pub(super) const SECTOR_BYTES: u64 = 512;
/// Most requests a queue may hold.
pub(super) const DEPTH_MAX: u16 = 4096;
/// One [`Descriptor`] as it lies in memory.
pub(super) const DESCRIPTOR_BYTES: usize = 24;

/// `_IOC(direction, 'u', number, bytes)`.
const fn ioctl(direction: u32, number: u32, bytes: u32) -> u32 {
    direction << 30 | bytes << 16 | (b'u' as u32) << 8 | number
}
const READ: u32 = 2;
const READ_WRITE: u32 = 3;
/// sizeof(struct ublksrv_ctrl_cmd)
const CONTROL_BYTES: u32 = 32;
/// sizeof(struct ublksrv_io_cmd)
const IO_BYTES: u32 = 16;

pub(super) const GET_DEV_INFO: u32 = ioctl(READ, 0x02, CONTROL_BYTES);
pub(super) const ADD_DEV: u32 = ioctl(READ_WRITE, 0x04, CONTROL_BYTES);
pub(super) const DEL_DEV: u32 = ioctl(READ_WRITE, 0x05, CONTROL_BYTES);
pub(super) const START_DEV: u32 = ioctl(READ_WRITE, 0x06, CONTROL_BYTES);
pub(super) const STOP_DEV: u32 = ioctl(READ_WRITE, 0x07, CONTROL_BYTES);
pub(super) const SET_PARAMS: u32 = ioctl(READ_WRITE, 0x08, CONTROL_BYTES);
pub(super) const GET_PARAMS: u32 = ioctl(READ, 0x09, CONTROL_BYTES);
pub(super) const START_USER_RECOVERY: u32 = ioctl(READ_WRITE, 0x10, CONTROL_BYTES);
pub(super) const END_USER_RECOVERY: u32 = ioctl(READ_WRITE, 0x11, CONTROL_BYTES);
pub(super) const GET_FEATURES: u32 = ioctl(READ, 0x13, CONTROL_BYTES);
pub(super) const UPDATE_SIZE: u32 = ioctl(READ_WRITE, 0x15, CONTROL_BYTES);
pub(super) const TRY_STOP_DEV: u32 = ioctl(READ_WRITE, 0x17, CONTROL_BYTES);

pub(super) const FETCH_REQ: u32 = ioctl(READ_WRITE, 0x20, IO_BYTES);
pub(super) const COMMIT_AND_FETCH_REQ: u32 = ioctl(READ_WRITE, 0x21, IO_BYTES);

const F_USER_RECOVERY: u64 = 1 << 3;
const F_USER_RECOVERY_REISSUE: u64 = 1 << 4;
const F_CMD_IOCTL_ENCODE: u64 = 1 << 6;
const F_UPDATE_SIZE: u64 = 1 << 10;
const F_SAFE_STOP_DEV: u64 = 1 << 17;

/// What this kernel's driver can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features(pub(super) u64);

impl Features {
    /// What we cannot do without, in words; `None` if all is there.
    pub(super) fn missing(self) -> Option<&'static str> {
        let needed = [
            (F_CMD_IOCTL_ENCODE, "ioctl-encoded commands"),
            (F_USER_RECOVERY, "recovery after a crash of this process"),
            (F_USER_RECOVERY_REISSUE, "repetition of requests that a crash interrupted"),
        ];
        needed.iter().find(|(bit, _)| self.0 & bit == 0).map(|(_, words)| *words)
    }

    /// The size of a device in use can be changed (Linux 6.16).
    pub fn can_resize(self) -> bool {
        self.0 & F_UPDATE_SIZE != 0
    }

    /// The driver itself can refuse to stop a device that somebody has open (Linux 7.0).
    pub fn can_stop_unused(self) -> bool {
        self.0 & F_SAFE_STOP_DEV != 0
    }

    /// The flags a device of ours is made with.
    pub(super) const FLAGS: u64 = F_USER_RECOVERY | F_USER_RECOVERY_REISSUE | F_CMD_IOCTL_ENCODE;
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |able, words| if able { words } else { "" };
        let resize = words(self.can_resize(), ", resize while in use");
        let stop = words(self.can_stop_unused(), ", sees every user of a device");
        write!(f, "recovery{resize}{stop}")
    }
}

/// What a block device is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Size in bytes, a multiple of `block_bytes`.
    pub size_bytes: u64,
    /// Logical block, a power of two from 512 to 4096.
    pub block_bytes: u32,
    /// Physical block, a power of two, not below `block_bytes`.
    pub physical_block_bytes: u32,
    /// What one request is best long; 0 is unknown. Told to the kernel if a power of two.
    pub optimal_bytes: u32,
    /// Writes are refused by the kernel.
    pub read_only: bool,
    /// Acknowledged writes may be lost before a flush: the kernel sends flushes and FUA writes.
    pub volatile_cache: bool,
    /// Discard works.
    pub discard: bool,
    /// Write zeroes works without sending them.
    pub write_zeroes: bool,
}

/// Longest discard, bytes. Paths cut it as their targets like it.
const DISCARD_BYTES_MAX: u64 = 1 << 30;
/// Longest write of zeroes, bytes: short, for targets that write them one by one.
const WRITE_ZEROES_BYTES_MAX: u64 = 32 << 20;

const ATTR_READ_ONLY: u32 = 1 << 0;
const ATTR_VOLATILE_CACHE: u32 = 1 << 2;
const ATTR_FUA: u32 = 1 << 3;
const PARAM_BASIC: u32 = 1 << 0;
const PARAM_DISCARD: u32 = 1 << 1;

/// `struct ublk_params` up to and with the discard limits.
pub(super) const PARAMS_BYTES: usize = 60;
const BLOCK_SHIFT_AT: usize = 12;
const SECTORS_AT: usize = 24;

impl Shape {
    /// Why the kernel would not have it.
    pub(super) fn fault(&self) -> Option<String> {
        let Self { size_bytes, block_bytes, physical_block_bytes, .. } = *self;
        if !block_bytes.is_power_of_two() || !(512..=4096).contains(&block_bytes) {
            return Some(format!(
                "logical blocks of {block_bytes} bytes: not 512, 1024, 2048, 4096"
            ));
        }
        if !physical_block_bytes.is_power_of_two() || physical_block_bytes < block_bytes {
            return Some(format!("physical blocks of {physical_block_bytes} bytes"));
        }
        let whole = size_bytes > 0 && size_bytes.is_multiple_of(u64::from(block_bytes));
        (!whole).then(|| format!("a size of {size_bytes} bytes with blocks of {block_bytes}"))
    }

    /// As `struct ublk_params`, for requests of at most `io_bytes`.
    pub(super) fn params(&self, io_bytes: u32) -> [u8; PARAMS_BYTES] {
        let shift = |bytes: u32| u8::try_from(bytes.trailing_zeros()).expect("at most 32");
        let sectors = |bytes: u64| u32::try_from(bytes / SECTOR_BYTES).expect("limits are small");
        let cache = if self.volatile_cache { ATTR_VOLATILE_CACHE | ATTR_FUA } else { 0 };
        let attributes = cache | if self.read_only { ATTR_READ_ONLY } else { 0 };
        let physical = shift(self.physical_block_bytes);
        let optimal = self.optimal_bytes;
        let better = optimal.is_power_of_two() && optimal >= self.physical_block_bytes;
        let optimal = if better { shift(optimal) } else { physical };
        let able = |able, bytes| if able { sectors(bytes) } else { 0 };
        let extras = self.discard || self.write_zeroes;
        let mut out = Writer::<PARAMS_BYTES>::default();
        out.put(&u32::try_from(PARAMS_BYTES).expect("small").to_ne_bytes());
        out.put(&(PARAM_BASIC | if extras { PARAM_DISCARD } else { 0 }).to_ne_bytes());
        out.put(&attributes.to_ne_bytes());
        out.put(&[shift(self.block_bytes), physical, optimal, physical]);
        out.put(&sectors(io_bytes.into()).to_ne_bytes());
        out.put(&0u32.to_ne_bytes()); // chunk_sectors
        out.put(&(self.size_bytes / SECTOR_BYTES).to_ne_bytes());
        out.put(&0u64.to_ne_bytes()); // virt_boundary_mask
        out.put(&0u32.to_ne_bytes()); // discard_alignment
        out.put(&self.physical_block_bytes.to_ne_bytes()); // discard_granularity
        out.put(&able(self.discard, DISCARD_BYTES_MAX).to_ne_bytes());
        out.put(&able(self.write_zeroes, WRITE_ZEROES_BYTES_MAX).to_ne_bytes());
        out.put(&1u16.to_ne_bytes()); // max_discard_segments
        out.bytes
    }
}

/// The logical block and the size in bytes that `params` tell.
pub(super) fn block_and_size(params: &[u8; PARAMS_BYTES]) -> (u32, u64) {
    let shift = u32::from(params[BLOCK_SHIFT_AT]);
    let sectors = u64::from_ne_bytes(array(params, SECTORS_AT));
    (1u32.checked_shl(shift).unwrap_or(0), sectors.saturating_mul(SECTOR_BYTES))
}

/// `struct ublksrv_ctrl_dev_info`: a device as the driver knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) depth: u16,
    pub(super) state: u16,
    pub(super) io_bytes: u32,
    pub(super) id: u32,
    pub(super) pid: i32,
    pub(super) flags: u64,
    /// Kept by the driver for us: whose device it is.
    pub(super) mark: u64,
}

/// Added, not started; or stopped.
pub(super) const STATE_DEAD: u16 = 0;
/// Waits for a new server after the old one has died.
pub(super) const STATE_QUIESCED: u16 = 2;

pub(super) const INFO_BYTES: usize = 64;

impl Info {
    pub(super) fn bytes(&self) -> [u8; INFO_BYTES] {
        let mut out = Writer::<INFO_BYTES>::default();
        out.put(&1u16.to_ne_bytes()); // nr_hw_queues
        out.put(&self.depth.to_ne_bytes());
        out.put(&self.state.to_ne_bytes());
        out.put(&0u16.to_ne_bytes());
        out.put(&self.io_bytes.to_ne_bytes());
        out.put(&self.id.to_ne_bytes());
        out.put(&self.pid.to_ne_bytes());
        out.put(&0u32.to_ne_bytes());
        out.put(&self.flags.to_ne_bytes());
        out.put(&self.mark.to_ne_bytes()); // ublksrv_flags
        out.bytes
    }

    pub(super) fn parse(bytes: &[u8; INFO_BYTES]) -> Self {
        Self {
            depth: u16::from_ne_bytes(array(bytes, 2)),
            state: u16::from_ne_bytes(array(bytes, 4)),
            io_bytes: u32::from_ne_bytes(array(bytes, 8)),
            id: u32::from_ne_bytes(array(bytes, 12)),
            pid: i32::from_ne_bytes(array(bytes, 16)),
            flags: u64::from_ne_bytes(array(bytes, 24)),
            mark: u64::from_ne_bytes(array(bytes, 32)),
        }
    }
}

/// `struct ublksrv_ctrl_cmd`, as it lies in a 128-byte submission.
pub(super) fn control(id: u32, inline: u64, address: u64, len: u16) -> [u8; 80] {
    let mut out = Writer::<80>::default();
    out.put(&id.to_ne_bytes());
    out.put(&u16::MAX.to_ne_bytes()); // not for a queue
    out.put(&len.to_ne_bytes());
    out.put(&address.to_ne_bytes());
    out.put(&inline.to_ne_bytes());
    out.bytes
}

/// `struct ublksrv_io_cmd` of queue 0.
pub(super) fn io(tag: u16, result: i32, address: u64) -> [u8; 16] {
    let mut out = Writer::<16>::default();
    out.put(&0u16.to_ne_bytes());
    out.put(&tag.to_ne_bytes());
    out.put(&result.to_ne_bytes());
    out.put(&address.to_ne_bytes());
    out.bytes
}

pub(super) const OP_READ: u8 = 0;
pub(super) const OP_WRITE: u8 = 1;
pub(super) const OP_FLUSH: u8 = 2;
pub(super) const OP_DISCARD: u8 = 3;
pub(super) const OP_WRITE_ZEROES: u8 = 5;
const IO_F_FUA: u32 = 1 << 13;
const IO_F_NOUNMAP: u32 = 1 << 15;

/// `struct ublksrv_io_desc`: a request as the driver tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) op: u8,
    pub(super) fua: bool,
    pub(super) no_unmap: bool,
    pub(super) sectors: u32,
    pub(super) sector: u64,
}

impl Descriptor {
    pub(super) fn parse(bytes: &[u8; DESCRIPTOR_BYTES]) -> Self {
        let flags = u32::from_ne_bytes(array(bytes, 0));
        Self {
            op: u8::try_from(flags & 0xff).expect("masked"),
            fua: flags & IO_F_FUA != 0,
            no_unmap: flags & IO_F_NOUNMAP != 0,
            sectors: u32::from_ne_bytes(array(bytes, 4)),
            sector: u64::from_ne_bytes(array(bytes, 8)),
        }
    }
}

/// The errno that the block layer turns into the status that means this.
pub(super) fn errno(error: IoError) -> i32 {
    match error {
        IoError::Io => libc::EIO,
        IoError::Medium => libc::ENODATA,
        IoError::Target => libc::EREMOTEIO,
        IoError::NoSpace => libc::ENOSPC,
        IoError::Conflict => libc::EBADE,
        IoError::Unsupported => libc::EOPNOTSUPP,
        IoError::ReadOnly => libc::EROFS,
        IoError::TooOld => libc::ETIMEDOUT,
        IoError::Fenced => libc::ENODEV,
        IoError::Invalid => libc::EINVAL,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("as long as asked")
}

/// Fills a structure from its beginning; what is not put is zero.
struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Default for Writer<N> {
    fn default() -> Self {
        Self { bytes: [0; N], at: 0 }
    }
}

impl<const N: usize> Writer<N> {
    fn put(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        size_bytes: 1 << 30,
        block_bytes: 512,
        physical_block_bytes: 4096,
        optimal_bytes: 65536,
        read_only: false,
        volatile_cache: true,
        discard: true,
        write_zeroes: true,
    };

    #[test]
    fn commands_have_the_numbers_of_the_header() {
        assert_eq!(GET_DEV_INFO, 0x8020_7502);
        assert_eq!(ADD_DEV, 0xc020_7504);
        assert_eq!(GET_FEATURES, 0x8020_7513);
        assert_eq!(UPDATE_SIZE, 0xc020_7515);
        assert_eq!(FETCH_REQ, 0xc010_7520);
        assert_eq!(COMMIT_AND_FETCH_REQ, 0xc010_7521);
    }

    #[test]
    fn params_tell_limits_where_the_header_has_them() {
        let params = SHAPE.params(256 << 10);
        assert_eq!(u32::from_ne_bytes(array(&params, 4)), PARAM_BASIC | PARAM_DISCARD);
        assert_eq!(u32::from_ne_bytes(array(&params, 8)), ATTR_VOLATILE_CACHE | ATTR_FUA);
        assert_eq!(params[12..16], [9, 12, 16, 12]);
        assert_eq!(u32::from_ne_bytes(array(&params, 16)), 512);
        assert_eq!(u32::from_ne_bytes(array(&params, 44)), 4096);
        assert_eq!(u32::from_ne_bytes(array(&params, 48)), 1 << 21);
        assert_eq!(u32::from_ne_bytes(array(&params, 52)), 1 << 16);
        assert_eq!(block_and_size(&params), (512, 1 << 30));
    }

    #[test]
    fn a_device_that_cannot_discard_or_zero_tells_no_such_limits() {
        let shape = Shape { discard: false, write_zeroes: false, volatile_cache: false, ..SHAPE };
        let params = Shape { read_only: true, ..shape }.params(4096);
        assert_eq!(u32::from_ne_bytes(array(&params, 4)), PARAM_BASIC);
        assert_eq!(u32::from_ne_bytes(array(&params, 8)), ATTR_READ_ONLY);
    }

    #[test]
    fn an_optimal_length_that_is_no_power_of_two_is_not_told() {
        let params = Shape { optimal_bytes: 3 << 16, ..SHAPE }.params(4096);
        assert_eq!(params[14], 12);
    }

    #[test]
    fn shapes_that_no_kernel_takes_are_refused_in_words() {
        assert_eq!(SHAPE.fault(), None);
        let faulty = [
            Shape { block_bytes: 520, ..SHAPE },
            Shape { block_bytes: 8192, physical_block_bytes: 8192, ..SHAPE },
            Shape { physical_block_bytes: 256, ..SHAPE },
            Shape { size_bytes: 0, ..SHAPE },
            Shape { size_bytes: 1000, ..SHAPE },
        ];
        assert!(faulty.iter().all(|shape| shape.fault().is_some()));
    }

    #[test]
    fn device_info_round_trips() {
        let info = Info {
            depth: 64,
            state: STATE_QUIESCED,
            io_bytes: 1 << 18,
            id: 7,
            pid: -1,
            flags: 0x58,
            mark: u64::MAX - 1,
        };
        assert_eq!(Info::parse(&info.bytes()), info);
    }

    #[test]
    fn a_descriptor_tells_operation_flags_and_place() {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        let flags = u32::from(OP_WRITE) | IO_F_FUA;
        bytes[..4].copy_from_slice(&flags.to_ne_bytes());
        bytes[4..8].copy_from_slice(&8u32.to_ne_bytes());
        bytes[8..16].copy_from_slice(&4096u64.to_ne_bytes());
        let descriptor = Descriptor::parse(&bytes);
        let expected =
            Descriptor { op: OP_WRITE, fua: true, no_unmap: false, sectors: 8, sector: 4096 };
        assert_eq!(descriptor, expected);
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        assert_eq!(Features(0x1ff).missing(), None);
        assert!(!Features(0x1ff).can_resize());
        assert!(Features(0x1ff & !F_USER_RECOVERY_REISSUE).missing().is_some());
    }
}
