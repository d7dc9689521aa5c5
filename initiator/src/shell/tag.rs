//! What an operation's tag says: which kind of thing it belongs to, and which one.

const KIND_SHIFT: u32 = 56;

pub(super) const LINKS: u64 = 1;
pub(super) const PORT_READABLE: u64 = 2;
pub(super) const FRAME_SENT: u64 = 3;
pub(super) const CONNECTED: u64 = 4;
pub(super) const RECEIVED: u64 = 5;
pub(super) const SENT: u64 = 6;
pub(super) const UBLK: u64 = 7;
pub(super) const NBD_LISTENER: u64 = 8;
pub(super) const NBD_RECEIVED: u64 = 9;
pub(super) const NBD_SENT: u64 = 10;

/// The tag of operation `kind` on thing number `index`.
pub(super) const fn of(kind: u64, index: usize) -> u64 {
    kind << KIND_SHIFT | index as u64
}

/// What [`of`] put together.
pub(super) fn parts(tag: u64) -> (u64, usize) {
    let index = tag & ((1 << KIND_SHIFT) - 1);
    (tag >> KIND_SHIFT, usize::try_from(index).unwrap_or(usize::MAX))
}
