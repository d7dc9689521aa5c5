//! Raw Ethernet: frames of one ethertype on one interface, received into a ring that the kernel
//! shares with us and handed up where they lie.
//!
//! A frame occupies its slot of the ring until its last handle is dropped; the kernel fills
//! slots strictly in order and drops frames while the next one is occupied. The ring is
//! therefore sized for the frames that wait for the disk at one time. One that waits long stops
//! the whole port once the kernel comes round to its slot: a caller whose disk falls behind
//! takes frames out of the ring first ([`Port::copy_out`]).

mod link;
mod sys;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use corbel_proto::memory::{Buffer, SEGMENT_BYTES_MAX, Slice};

use crate::memory::{Arena, Buf, Region};
pub use link::{Interface, LinkEvent, Links, interfaces};
use sys::{ALIGNMENT, Geometry, Next, Socket};

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
    /// Several ports with the same number here share the interface's frames evenly: one for each
    /// shard. The number belongs to one interface and this process alone.
    pub fanout: Option<u16>,
}

/// A raw Ethernet port. Belongs to one shard.
#[derive(Debug)]
pub struct Port {
    socket: Socket,
    interface: Interface,
    payload_offset: usize,
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
        let longest = interface.mtu as usize + LINK_BYTES;
        let geometry = Geometry::new(config.frames, longest, config.payload_offset);
        let socket = Socket::open(interface.index, config.ethertype, geometry, config.fanout)
            .map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => PortError::Permission { name: name.to_owned() },
                _ => io(error),
            })?;
        let statistics = PortStatistics::default();
        let (interface, payload_offset) = (interface.clone(), config.payload_offset);
        Ok(Self { socket, interface, payload_offset, statistics })
    }

    /// The interface, as of when the port was opened.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The next frame received, from its destination address on; `None` until the port is
    /// readable again.
    pub fn receive(&mut self) -> Option<Slice<Buf>> {
        loop {
            match self.socket.next() {
                Next::Frame(frame) => return Some(frame),
                Next::Unfit => self.statistics.unfit += 1,
                Next::Nothing => return None,
            }
        }
    }

    /// Copies a frame out of the ring, its payload aligned as it was there, and gives its slot
    /// back (if no other handle keeps it). With no memory left, the frame comes back as it is.
    pub fn copy_out(&self, frame: Slice<Buf>, arena: &Arena) -> Result<Slice<Buf>, Slice<Buf>> {
        let start = ALIGNMENT - self.payload_offset % ALIGNMENT;
        let len = frame.len as usize;
        let room = Some(start + len).filter(|room| *room <= SEGMENT_BYTES_MAX);
        let Some(mut copy) = room.and_then(|room| arena.lend(room)) else { return Err(frame) };
        copy.bytes_mut()[start..].copy_from_slice(frame.bytes());
        let start = u32::try_from(start).expect("at most the alignment");
        Ok(Slice::part(copy, start, frame.len))
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

    pub(crate) fn parts(&self) -> io::Result<(OwnedFd, &Rc<Region>)> {
        Ok((self.socket.fd().try_clone_to_owned()?, self.socket.region()))
    }
}
