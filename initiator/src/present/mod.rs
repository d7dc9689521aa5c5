//! The local block device.

pub mod nbd;
pub mod ublk;
pub mod zeroes;
