//! The packet socket and the receive ring that the kernel shares with us.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use corbel_proto::memory::Slice;

use super::Share;
use crate::memory::{Buf, Home, Mapping, Region};

/// Where the Ethernet header of a frame lies in its slot, without a reserve: the slot's header
/// (52 bytes), room for a link header (16), rounded up to 16, less the 14 bytes of Ethernet.
const MAC_OFFSET: usize = 66;
/// Slots lie in blocks of contiguous memory of this size, and do not cross their borders.
const BLOCK_BYTES: usize = 256 * 1024;
/// Direct I/O wants memory aligned so.
pub(super) const ALIGNMENT: usize = 512;

/// How frames lie in the ring's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) reserve: u32,
    pub(super) frame_bytes: usize,
    pub(super) frames_per_block: usize,
    pub(super) blocks: usize,
}

impl Geometry {
    /// Room for `frames` frames of `frame_bytes_max`, so that their byte `payload_offset` is
    /// aligned for direct I/O.
    pub(super) fn new(frames: usize, frame_bytes_max: usize, payload_offset: usize) -> Self {
        let reserve = (ALIGNMENT - (MAC_OFFSET + payload_offset) % ALIGNMENT) % ALIGNMENT;
        let frame_bytes =
            (MAC_OFFSET + reserve + frame_bytes_max).next_multiple_of(ALIGNMENT).min(BLOCK_BYTES);
        let frames_per_block = BLOCK_BYTES / frame_bytes;
        Self {
            reserve: u32::try_from(reserve).expect("below the alignment"),
            frame_bytes,
            frames_per_block,
            blocks: frames.div_ceil(frames_per_block).clamp(1, 1024),
        }
    }

    pub(super) fn frames(&self) -> usize {
        self.frames_per_block * self.blocks
    }

    fn bytes(&self) -> usize {
        self.blocks * BLOCK_BYTES
    }

    fn offset_of(&self, slot: usize) -> usize {
        slot / self.frames_per_block * BLOCK_BYTES + slot % self.frames_per_block * self.frame_bytes
    }
}

/// A packet socket with a receive ring, bound to one interface.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    region: Rc<Region>,
    slots: Rc<Slots>,
    geometry: Geometry,
    head: Rc<Cell<usize>>,
}

/// The place where the next frame of a ring appears. Keeps no ring alive.
#[derive(Debug)]
pub(crate) struct Ahead {
    region: Weak<Region>,
    slots: Weak<Slots>,
    head: Rc<Cell<usize>>,
}

impl Ahead {
    /// True if there is one to take.
    pub(crate) fn has_frame(&self) -> bool {
        let (Some(region), Some(slots)) = (self.region.upgrade(), self.slots.upgrade()) else {
            return false;
        };
        let slot = self.head.get();
        let status = slots.status(slot).load(Ordering::Relaxed);
        status & libc::TP_STATUS_USER != 0
            && !region.is_lent(u32::try_from(slot).expect("rings are below 4 GiB"))
    }
}

/// The slots of a ring, as they are given back.
#[derive(Debug)]
pub(super) struct Slots {
    mapping: Arc<Mapping>,
    geometry: Geometry,
}

/// What lies in the next slot of the ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// When the kernel took the frame: nanoseconds of the wall clock.
    pub(super) time: u64,
    /// False if the frame was cut off, or belongs to a VLAN.
    pub(super) fit: bool,
    mac: usize,
    len: usize,
}

impl Socket {
    /// Opens a socket for frames of `ethertype` that others send to us or to all.
    pub(super) fn open(
        interface: u32,
        ethertype: u16,
        geometry: Geometry,
        share: Option<Share>,
    ) -> io::Result<Self> {
        // Protocol 0: nothing is received before the filter and the ring are in place.
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made, that nobody else knows.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let version = libc::tpacket_versions::TPACKET_V2 as i32;
        set(&fd, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        set(&fd, libc::SOL_PACKET, libc::PACKET_RESERVE, &geometry.reserve)?;
        // Since 4.20; the filter below drops our own frames where it is missing.
        let _ = set(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1i32);
        filter(&fd, &program(ethertype, share))?;
        let wide = |n: usize| u32::try_from(n).expect("rings are below 4 GiB");
        let request = libc::tpacket_req {
            tp_block_size: wide(BLOCK_BYTES),
            tp_block_nr: wide(geometry.blocks),
            tp_frame_size: wide(geometry.frame_bytes),
            tp_frame_nr: wide(geometry.frames()),
        };
        set(&fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let mapping = Arc::new(Mapping::shared(fd.as_fd(), geometry.bytes())?);
        bind(&fd, interface, ethertype)?;
        let slots = Rc::new(Slots { mapping: mapping.clone(), geometry });
        let region = Region::over(mapping, wide(geometry.frames()), slots.clone());
        Ok(Self { fd, region, slots, geometry, head: Rc::default() })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn slots(&self) -> usize {
        self.geometry.frames()
    }

    pub(super) fn region(&self) -> &Rc<Region> {
        &self.region
    }

    /// Lives as long as the socket or some frame of its ring.
    pub(super) fn life(&self) -> Weak<Slots> {
        Rc::downgrade(&self.slots)
    }

    /// Says what [`Self::head`] would, and can be kept elsewhere.
    pub(super) fn ahead(&self) -> Ahead {
        let (region, slots) = (Rc::downgrade(&self.region), Rc::downgrade(&self.slots));
        Ahead { region, slots, head: self.head.clone() }
    }

    fn number(&self) -> u32 {
        u32::try_from(self.head.get()).expect("rings are below 4 GiB")
    }

    /// The slot that comes next, if it is still lent from the round before: the kernel stands
    /// before it, too, and every frame it put into the ring was taken.
    pub(super) fn blocked_by(&self) -> Option<u32> {
        Some(self.number()).filter(|slot| self.region.is_lent(*slot))
    }

    /// What comes next, left where it is.
    pub(super) fn head(&self) -> Option<Head> {
        if self.blocked_by().is_some() {
            return None;
        }
        let status = self.slots.status(self.head.get()).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let at = self.slots.mapping.base().wrapping_add(self.geometry.offset_of(self.head.get()));
        // SAFETY: the slot is inside the mapping and ours, since its status says USER; its
        // header is initialised by the kernel and aligned (slots are 512-aligned).
        let header = unsafe { at.cast::<libc::tpacket2_hdr>().read() };
        let (mac, len) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        let tagged = status & libc::TP_STATUS_VLAN_VALID != 0 && header.tp_vlan_tci & 0xfff != 0;
        let whole = header.tp_len == header.tp_snaplen && mac + len <= self.geometry.frame_bytes;
        let time = u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec);
        Some(Head { time, fit: whole && !tagged, mac, len })
    }

    fn advance(&self) {
        self.head.set((self.head.get() + 1) % self.geometry.frames());
    }

    /// Gives the next slot back as it is.
    pub(super) fn skip(&mut self) {
        self.slots.released(self.number());
        self.advance();
    }

    /// Takes the next frame off the ring, from its destination address on.
    pub(super) fn take(&mut self) -> Option<Slice<Buf>> {
        let head = self.head().filter(|head| head.fit)?;
        let offset = self.geometry.offset_of(self.head.get()) + head.mac;
        // SAFETY: slots are disjoint; this one is not lent, and the kernel leaves it alone until
        // `released` sets its status to KERNEL.
        let buf = unsafe { Region::lend(&self.region, self.number(), offset, head.len) };
        self.advance();
        Some(Slice::whole(buf))
    }

    /// Frames received and dropped by the kernel since the last call.
    pub(super) fn take_statistics(&self) -> io::Result<(u32, u32)> {
        let mut counts = [0u32; 2];
        let mut len = libc::socklen_t::try_from(size_of_val(&counts)).expect("small");
        // SAFETY: `counts` has the length told, and is plain integers.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                counts.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((counts[0], counts[1]))
    }
}

impl Slots {
    fn status(&self, slot: usize) -> &AtomicU32 {
        let at = self.mapping.base().wrapping_add(self.geometry.offset_of(slot));
        // SAFETY: the first field of a slot's header, aligned, inside the mapping that we hold;
        // both sides access it atomically only.
        unsafe { AtomicU32::from_ptr(at.cast()) }
    }
}

impl Home for Slots {
    fn released(&self, slot: u32) {
        self.status(slot as usize).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

fn set<T: Copy>(fd: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
    // SAFETY: the kernel reads `len` bytes of `value` during the call and keeps nothing.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets through frames of `ethertype` addressed to us, to all, or to a group; not those to other
/// hosts (the interface may be promiscuous) and not our own; and of those, one shard's share.
///
/// The key is loaded by its place in the frame: on a raw socket the program sees the frame from
/// its destination address on, and these loads, unlike those relative to the link layer, also
/// find bytes that the driver left in a page fragment.
fn program(ethertype: u16, share: Option<Share>) -> Vec<libc::sock_filter> {
    let ancillary = |field: i32| (libc::SKF_AD_OFF + field).cast_unsigned();
    let op = |code: u32, k, jt, jf| {
        let code = u16::try_from(code).expect("BPF codes are 16 bits");
        libc::sock_filter { code, jt, jf, k }
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let jump = |kind| libc::BPF_JMP | libc::BPF_K | kind;
    let end = |bytes| op(libc::BPF_RET | libc::BPF_K, bytes, 0, 0);
    let mut program = vec![
        op(load, ancillary(libc::SKF_AD_PKTTYPE), 0, 0),
        op(jump(libc::BPF_JGT), u32::from(libc::PACKET_MULTICAST), 2, 0),
        op(load, ancillary(libc::SKF_AD_PROTOCOL), 0, 0),
        op(jump(libc::BPF_JEQ), ethertype.into(), 1, 0),
        end(0),
    ];
    if let Some(Share { key_offset, key_bytes, shards, shard }) = share {
        program.push(op(libc::BPF_LD | libc::BPF_IMM, 0, 0, 0));
        for byte in 0..u32::from(key_bytes) {
            let at = u32::from(key_offset) + byte;
            program.push(op(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0));
            program.push(op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at, 0, 0));
            program.push(op(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0, 0, 0));
        }
        program.push(op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, shards.into(), 0, 0));
        program.push(op(jump(libc::BPF_JEQ), shard.into(), 1, 0));
        program.push(end(0));
    }
    program.push(end(u32::MAX));
    program
}

fn filter(fd: &OwnedFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).expect("a program is short");
    // The kernel copies the program; it does not write to it.
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn bind(fd: &OwnedFd, interface: u32, ethertype: u16) -> io::Result<()> {
    // SAFETY: all zeros is a valid address of no interface.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("address families are small");
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = interface.cast_signed();
    let len = libc::socklen_t::try_from(size_of_val(&address)).expect("small");
    // SAFETY: the kernel reads the address during the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_aligned_wherever_the_frame_lies() {
        for mtu in [1500, 4132, 9000, 65535] {
            let g = Geometry::new(512, mtu + 18, 36);
            assert!(g.frames() >= 512 && g.frames() * g.frame_bytes <= g.bytes());
            for slot in [0, 1, g.frames_per_block, g.frames() - 1] {
                let payload = g.offset_of(slot) + MAC_OFFSET + g.reserve as usize + 36;
                assert_eq!(payload % ALIGNMENT, 0);
                assert!(g.offset_of(slot) + g.frame_bytes <= g.bytes());
            }
        }
    }
}
