//! ublk: a block device whose driver is this process.
