//! Raw Ethernet: frames of one ethertype on one interface, received into a ring that the kernel
//! shares with us and handed up where they lie.
//!
//! A frame occupies its slot of the ring until its last handle is dropped; the kernel fills
//! slots strictly in order and drops frames while the next one is occupied. The ring is
//! therefore sized for the frames that wait for the disk at one time. One that waits for very
//! long stops the ring once the kernel comes round to its slot ([`Port::blocked_by`]). The port
//! is then replaced ([`Port::fresh`]) by one that keeps nothing in its ring but copies payload
//! out, until the last frame of the old ring is dropped; so it cannot be stopped in turn.

mod link;
mod sys;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};

use corbel_proto::memory::{Buffer, SEGMENT_BYTES_MAX, Slice};

use crate::memory::{Arena, Buf, Region};
pub use link::{Interface, LinkEvent, Links, interfaces};
pub(crate) use sys::Ahead;
use sys::{ALIGNMENT, Geometry, Slots, Socket};

/// Ethernet header, and a VLAN tag that hardware may leave in.
const LINK_BYTES: usize = 18;

/// How a port is set up.
#[derive(Debug, Clone, Copy)]
pub struct PortConfig {
    /// The frames to receive and send, by the type field of their Ethernet header.
    pub ethertype: u16,
    /// The byte of a frame, counted from its destination address, that is to be aligned for
    /// direct I/O (512 bytes).
    pub payload_offset: usize,
    /// Frames that the receive ring holds; rounded up to whole blocks of memory.
    pub frames: usize,
    /// Which of the frames this port is for, if not for all.
    pub share: Option<Share>,
}

/// One shard's share of an interface's frames. Each frame has a key, the sum of some of its
/// bytes, and belongs to shard number key modulo `shards`: on every interface, whenever its port
/// was opened. Frames that end before the key belong to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// First byte of the key, counted from the frame's destination address.
    pub key_offset: u16,
    /// Bytes of the key.
    pub key_bytes: u8,
    /// All shards; not 0.
    pub shards: u16,
    /// This one, from 0.
    pub shard: u16,
}

/// A raw Ethernet port. Belongs to one shard.
#[derive(Debug)]
pub struct Port {
    socket: Socket,
    interface: Interface,
    config: PortConfig,
    /// The ring before this one, while a frame of it is alive.
    old: Weak<Slots>,
    statistics: PortStatistics,
}

/// What a port has seen since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStatistics {
    /// Frames that reached the ring or were dropped before it.
    pub received: u64,
    /// Frames the kernel dropped since the ring was full.
    pub dropped: u64,
    /// Frames left out since they were longer than the MTU at opening, or of some VLAN.
    pub unfit: u64,
    /// Frames left out since the ring before was held up and there was no memory for a copy.
    pub no_memory: u64,
}

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No such interface.
    #[error("there is no interface `{name}` here; there are: {present}")]
    Absent {
        /// The name asked for.
        name: String,
        /// Those that exist.
        present: String,
    },
    /// Not Ethernet.
    #[error("`{name}` is not an Ethernet interface")]
    NotEthernet {
        /// The name asked for.
        name: String,
    },
    /// No right to raw sockets.
    #[error(
        "raw Ethernet on `{name}` needs CAP_NET_RAW: run as root, or grant it (systemd: \
         AmbientCapabilities=CAP_NET_RAW; else: setcap cap_net_raw+ep on the program)"
    )]
    Permission {
        /// The name asked for.
        name: String,
    },
    /// Anything else.
    #[error("raw Ethernet on `{name}`: {error}")]
    Io {
        /// The name asked for.
        name: String,
        /// What the system said.
        error: io::Error,
    },
}

impl Port {
    /// Opens a port on the interface called `name`. To be opened again when the interface got
    /// another MTU, or vanished and came back (see [`LinkEvent`]).
    pub fn open(name: &str, config: PortConfig) -> Result<Self, PortError> {
        let io = |error| PortError::Io { name: name.to_owned(), error };
        let all = interfaces().map_err(io)?;
        let Some(interface) = all.iter().find(|i| i.name == name) else {
            let present: Vec<_> = all.iter().map(|i| i.name.as_str()).collect();
            let (name, present) = (name.to_owned(), present.join(", "));
            return Err(PortError::Absent { name, present });
        };
        if !interface.ethernet {
            return Err(PortError::NotEthernet { name: name.to_owned() });
        }
        let socket = socket(interface, config)?;
        let (interface, statistics) = (interface.clone(), PortStatistics::default());
        Ok(Self { socket, interface, config, old: Weak::new(), statistics })
    }

    /// A port with an empty ring that takes this one's place. To be attached instead of it when
    /// that one is blocked; every frame in its ring was taken then, so none is lost with it.
    /// While handles to frames of the old ring exist, the new port copies payload out of its
    /// ring.
    pub fn fresh(&mut self) -> Result<Self, PortError> {
        let statistics = self.statistics();
        let (interface, config) = (self.interface.clone(), self.config);
        let socket = socket(&interface, config)?;
        Ok(Self { socket, interface, config, old: self.socket.life(), statistics })
    }

    /// The slot that stops the ring: a frame taken from it one round ago is still held, and
    /// until it is dropped all frames are lost.
    pub fn blocked_by(&self) -> Option<u32> {
        self.socket.blocked_by()
    }

    /// True while frames of the ring before this one are still held, and payload is copied.
    pub fn is_copying(&self) -> bool {
        self.old.strong_count() > 0
    }

    /// The interface, as of when the port was opened.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// When the kernel took the frame that [`Self::receive`] gives next: nanoseconds of the wall
    /// clock. `None` until the port is readable again.
    pub fn next_time(&mut self) -> Option<u64> {
        loop {
            let head = self.socket.head()?;
            if head.fit {
                return Some(head.time);
            }
            self.socket.skip();
            self.statistics.unfit += 1;
        }
    }

    /// The next frame received, from its destination address on. A port that is copying takes
    /// memory for payload from `arena`, and gives frames without so much as a sector of payload
    /// as they lie: those are not to be kept.
    ///
    /// `None` if there is no frame, or if it was left out for want of memory: the one after it
    /// may have come later than another port's ([`Self::next_time`] tells).
    pub fn receive(&mut self, arena: &Arena) -> Option<Slice<Buf>> {
        self.next_time()?;
        let frame = self.socket.take()?;
        let has_payload = frame.len as usize >= self.config.payload_offset + ALIGNMENT;
        if !(self.is_copying() && has_payload) {
            return Some(frame);
        }
        let copy = self.copy(&frame, arena);
        self.statistics.no_memory += u64::from(copy.is_none());
        copy
    }

    /// A copy of a frame, its payload aligned as it was there.
    fn copy(&self, frame: &Slice<Buf>, arena: &Arena) -> Option<Slice<Buf>> {
        let start = ALIGNMENT - self.config.payload_offset % ALIGNMENT;
        let room = start + frame.len as usize;
        let mut copy = arena.lend(Some(room).filter(|room| *room <= SEGMENT_BYTES_MAX)?)?;
        copy.bytes_mut()[start..].copy_from_slice(frame.bytes());
        let start = u32::try_from(start).expect("at most the alignment");
        Some(Slice::part(copy, start, frame.len))
    }

    /// What it has seen. Asks the kernel.
    pub fn statistics(&mut self) -> PortStatistics {
        if let Ok((received, dropped)) = self.socket.take_statistics() {
            self.statistics.received += u64::from(received);
            self.statistics.dropped += u64::from(dropped);
        }
        self.statistics
    }

    /// Frames that the ring holds.
    pub fn slots(&self) -> usize {
        self.socket.slots()
    }

    /// The socket.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }

    /// Where its next frame appears.
    pub(crate) fn ahead(&self) -> Ahead {
        self.socket.ahead()
    }

    pub(crate) fn parts(&self) -> io::Result<(OwnedFd, &Rc<Region>)> {
        Ok((self.socket.fd().try_clone_to_owned()?, self.socket.region()))
    }
}

fn socket(interface: &Interface, config: PortConfig) -> Result<Socket, PortError> {
    let longest = interface.mtu as usize + LINK_BYTES;
    let geometry = Geometry::new(config.frames, longest, config.payload_offset);
    Socket::open(interface.index, config.ethertype, geometry, config.share).map_err(|error| {
        let name = interface.name.clone();
        match error.kind() {
            io::ErrorKind::PermissionDenied => PortError::Permission { name },
            _ => PortError::Io { name, error },
        }
    })
}

/// Which of several ports to take a frame from, so that frames come in the order in which the
/// kernel took them. `look` gives the earliest [`Port::next_time`] there is and the port's name;
/// it is asked until it says the same twice, since a port that it finds empty may get a frame
/// before another gets the later one that is found there.
pub fn first_received<K: PartialEq>(
    mut look: impl FnMut() -> Option<(u64, K)>,
) -> Option<(u64, K)> {
    let mut found = look()?;
    loop {
        let again = look()?;
        if again == found {
            return Some(found);
        }
        found = again;
    }
}
