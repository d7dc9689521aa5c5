//! The local block device.

pub mod liveness;
pub mod nbd;
pub mod ublk;
pub mod zeroes;
