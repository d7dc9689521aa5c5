//! The client side: finds AoE shelves and iSCSI LUNs and speaks to them.
//!
//! The path clients themselves are pure and live in `corbel_proto` (`aoe::initiator`,
//! `iscsi::initiator`). Here is what surrounds them:
//!
//! ```text
//! identity.rs   what a device says it is, the same words for both protocols
//! request.rs    what users of a device ask, and what they are told
//! path/         one way to a device: the words that engine and path clients share
//! multipath/    the engine: many paths, one device
//! device.rs     an engine and its paths together: what the shell and the simulator drive
//! config/       initiator.toml
//! import/       other programs' configuration, read as it stands
//! present/      the local block device: ublk, NBD
//! shell/        threads and rings: drives devices, presenters and the network
//! admin/        the daemon's control plane
//! discover.rs   what is there: targets, shelves, and the identity of each device
//! cli/          the command line
//! blocking/     one path on one thread and plain sockets: for tools and tests, not for data paths
//! ```
#![deny(unsafe_code)]

pub mod admin;
pub mod blocking;
pub mod cli;
pub mod config;
pub mod device;
pub mod discover;
pub mod identity;
pub mod import;
pub mod multipath;
pub mod path;
pub mod present;
pub mod request;
pub mod shell;
