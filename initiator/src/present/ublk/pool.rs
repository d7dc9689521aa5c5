//! Memory for requests: taken when a device is attached, so that none is asked for when the
//! system is short of it.

use corbel_proto::memory::Buffer;
use corbel_ring::{Arena, Buf};

/// Buffers of one size, each for one request.
#[derive(Debug)]
pub(super) struct Pool {
    arena: Arena,
    bytes: usize,
    free: Vec<Buf>,
    /// Writes that ended while a slow path still held their memory: ours again when it drops it.
    parked: Vec<Buf>,
    /// Buffers out there, free and parked ones included.
    count: usize,
    target: usize,
}

impl Pool {
    /// `target` buffers of `bytes`. `None`: the arena has not so much.
    pub(super) fn new(arena: Arena, bytes: usize, target: usize) -> Option<Self> {
        let (free, parked) = (Vec::with_capacity(target), Vec::with_capacity(target));
        let mut pool = Self { arena, bytes, free, parked, count: 0, target };
        pool.refill();
        (pool.count == target).then_some(pool)
    }

    /// Asks the arena for what got lost. Cheap if nothing is.
    pub(super) fn refill(&mut self) {
        while self.count < self.target {
            let Some(buffer) = self.arena.lend(self.bytes) else { return };
            self.count += 1;
            self.free.push(buffer);
        }
    }

    /// A buffer that nobody else holds.
    pub(super) fn take(&mut self) -> Option<Buf> {
        if let Some(buffer) = self.free.pop() {
            return Some(buffer);
        }
        if let Some(at) = self.parked.iter().position(Buf::is_unique) {
            return Some(self.parked.swap_remove(at));
        }
        self.refill();
        self.free.pop()
    }

    /// Takes a buffer back, which others may still hold.
    pub(super) fn give(&mut self, buffer: Buf) {
        if buffer.len() != self.bytes {
            // A read's bytes came in other memory; its own is with a slow path, and returns to
            // the arena from there.
            self.count -= 1;
        } else if buffer.is_unique() {
            self.free.push(buffer);
        } else {
            self.parked.push(buffer);
        }
    }

    /// A buffer that was given out will not come back.
    pub(super) fn lost(&mut self) {
        self.count -= 1;
    }

    /// True if `buffer` can be fetched into as it is.
    pub(super) fn fits(&self, buffer: &Buf) -> bool {
        buffer.len() == self.bytes && buffer.is_unique()
    }
}

#[cfg(test)]
mod tests {
    use corbel_ring::ArenaConfig;

    use super::*;

    const BYTES: usize = 256 << 10;

    fn arena() -> Arena {
        Arena::unregistered(ArenaConfig { bytes_max: 8 << 20 })
    }

    #[test]
    fn memory_is_taken_in_advance_and_all_of_it() {
        let arena = arena();
        let pool = Pool::new(arena.clone(), BYTES, 32).unwrap();
        assert!(arena.lend(1).is_none());
        drop(pool);
        assert!(Pool::new(arena, BYTES, 33).is_none());
    }

    #[test]
    fn a_buffer_that_a_path_still_holds_is_not_given_out_again() {
        let mut pool = Pool::new(arena(), BYTES, 32).unwrap();
        let buffer = pool.take().unwrap();
        let on_a_path = buffer.clone();
        pool.give(buffer);
        let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(all.len(), 31);
        drop(on_a_path);
        assert!(pool.take().is_some());
        assert!(pool.take().is_none());
    }

    #[test]
    fn memory_lost_on_a_path_is_replaced_once_the_arena_has_it_again() {
        let arena = arena();
        let mut pool = Pool::new(arena.clone(), BYTES, 32).unwrap();
        let mut all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        let on_a_path = all.pop().unwrap();
        pool.lost();
        assert!(pool.take().is_none());
        drop(on_a_path);
        assert!(pool.take().is_some());
        assert!(pool.take().is_none());
    }

    #[test]
    fn short_memory_that_came_instead_is_not_kept() {
        let arena = Arena::unregistered(ArenaConfig { bytes_max: 16 << 20 });
        let mut pool = Pool::new(arena.clone(), BYTES, 2).unwrap();
        drop(pool.take());
        pool.give(arena.lend(4096).unwrap());
        let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert!(all.iter().all(|buffer| pool.fits(buffer)));
        assert_eq!(all.len(), 2);
    }
}
