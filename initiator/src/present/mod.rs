//! The local block device.

pub(crate) mod link;
pub mod liveness;
pub mod nbd;
pub mod ublk;
pub mod users;
pub mod zeroes;
