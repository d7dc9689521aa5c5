//! The client side: finds AoE shelves and iSCSI LUNs and speaks to them.
//!
//! The path clients themselves are pure and live in `corbel_proto` (`aoe::initiator`,
//! `iscsi::initiator`). Here is what surrounds them:
//!
//! ```text
//! identity.rs   what a device says it is, the same words for both protocols
//! discover.rs   what is there: targets, shelves, and the identity of each device
//! blocking/     one path on one thread and plain sockets: for tools and tests, not for data paths
//! ```
#![forbid(unsafe_code)]

pub mod blocking;
pub mod discover;
pub mod identity;
