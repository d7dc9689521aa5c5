//! Shelves and slots: which volume a frame means, what may be answered, and the three things a
//! slot remembers for its clients: config string, MAC mask, reservation.
//!
//! ```text
//! server.rs     one shard's share: frames in, requests to the engine, frames out
//! commands.rs   Query Config, MAC Mask, Reserve
//! reply.rs      frames to be sent, and how they are put together
//! slot.rs       one shelf.slot, shared by all shards
//! snapshot.rs   what of it survives a restart
//! map.rs        which slots stand on which ports
//! local.rs      a shard's own copy of what the hot path asks of a slot
//! ```
//!
//! What is never answered: frames with R set, frames for others, senders that the allow list or
//! the mask leaves out, tests that do not match, and broadcasts of anything but harmless
//! questions. An ATA command or a change sent to "every shelf" would strike disks its sender
//! never meant, so it is not performed, whatever the standard's silence permits.
//!
//! A retransmitted frame is a new command: clients change the tag, so nobody can tell. That is
//! safe since the engine performs overlapping requests in the order of their arrival.

mod commands;
mod fence;
mod local;
mod map;
mod reply;
mod server;
mod slot;
mod snapshot;
#[cfg(test)]
mod tests;

pub use local::Stats;
pub use map::{MapError, PortId, ShelfMap};
pub use reply::Frame;
pub use server::{AoeServer, Counters, Options, Submit};
pub use slot::{Address, AddressError, Slot};
pub use snapshot::{Contents, RestoreError};
