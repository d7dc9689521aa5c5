//! How much room a thin volume takes, and how much there is left for it (SBC-3 4.7.3.7).
//!
//! Whoever watches the store tells it from time to time. When less is left than the operator wants
//! to be warned of, every nexus is told once; and again after there has been more in between.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is known of a store's room, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What the volume takes.
    pub used: u64,
    /// What it can still take. Others may take it, too.
    pub available: u64,
}

/// See the module. Part of a volume.
#[derive(Debug, Default)]
pub struct Space {
    known: AtomicBool,
    used: AtomicU64,
    available: AtomicU64,
    low: AtomicBool,
    generation: AtomicU64,
}

impl Space {
    /// The last thing that was told; `None` if nothing ever was.
    pub fn room(&self) -> Option<Room> {
        self.known.load(Ordering::Acquire).then(|| Room {
            used: self.used.load(Ordering::Relaxed),
            available: self.available.load(Ordering::Relaxed),
        })
    }

    /// Counts the times that it became low.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Takes up what a store says, for a volume of which at least `warning` bytes should be
    /// available; 0 is never. `Some` if it has become low, or is not any more.
    ///
    /// To be called by one thread alone.
    pub fn tell(&self, room: Room, warning: u64) -> Option<bool> {
        self.used.store(room.used, Ordering::Relaxed);
        self.available.store(room.available, Ordering::Relaxed);
        self.known.store(true, Ordering::Release);
        let was_low = self.low.load(Ordering::Relaxed);
        // A sixteenth more, so that a store at the edge is not told of again and again.
        let enough = warning.saturating_add(warning / 16);
        let limit = if was_low { enough } else { warning };
        let low = warning > 0 && room.available <= limit;
        self.low.store(low, Ordering::Relaxed);
        if low && !was_low {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        (low != was_low).then_some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_room_is_told_once_until_there_was_more() {
        let space = Space::default();
        let tell = |available| space.tell(Room { used: 7, available }, 1600);
        assert_eq!(tell(5000), None);
        assert_eq!(tell(1600), Some(true));
        assert_eq!(tell(0), None);
        assert_eq!(tell(1700), None, "hardly more is not enough");
        assert_eq!(tell(1701), Some(false));
        assert_eq!(tell(1601), None);
        assert_eq!(tell(1599), Some(true));
        assert_eq!(space.generation(), 2);
        assert_eq!(space.room(), Some(Room { used: 7, available: 1599 }));
    }

    #[test]
    fn largest_limit_there_is_does_not_wrap() {
        let space = Space::default();
        let tell = |available| space.tell(Room { used: 0, available }, u64::MAX);
        assert_eq!(tell(u64::MAX / 2), Some(true));
        assert_eq!(tell(u64::MAX), None, "it is low still");
    }

    #[test]
    fn without_a_limit_nothing_is_ever_low() {
        let space = Space::default();
        assert_eq!(space.room(), None);
        assert_eq!(space.tell(Room { used: 0, available: 0 }, 0), None);
        assert_eq!(space.generation(), 0);
    }
}
