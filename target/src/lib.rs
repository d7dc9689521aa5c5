//! The target: block devices in, AoE shelves and iSCSI LUNs out.
//!
//! The pure core is a set of state machines that are handed bytes, completions and the time:
//!
//! ```text
//! host.rs     what a machine may ask of its surroundings: memory, block I/O, frames, time
//! volume/     one exported device: geometry, identity, range lock, durability, requests
//! ata/        the ATA disk that AoE clients see
//! aoe/        shelves and slots: config string, MAC mask, reservation; frames to requests
//! reservation/ who may touch a volume, decided for all protocols
//! scsi/       the logical unit that iSCSI initiators see; blind to its transport
//! iscsi/      portals, targets, sessions; the wire machine of corbel-proto to logical units
//! sealed.rs   state files that are believed whole or not at all
//! shard.rs    one core's share of all of it
//! ```
//!
//! Around it stands the shell: `config/` and `cli/` read what people write, `shell/` drives shards
//! on io_uring, `admin/` is the control plane (tokio).
#![forbid(unsafe_code)]

pub mod admin;
pub mod aoe;
pub mod ata;
pub mod cli;
pub mod config;
pub mod host;
pub mod iscsi;
pub mod reservation;
pub mod scsi;
mod sealed;
pub mod shard;
pub mod shell;
pub mod volume;
