//! Which pages of one chunk are free: a buddy allocator over bitmaps, no memory of its own per
//! allocation.

use std::cell::{Cell, RefCell};

/// The smallest block, and the alignment of every block.
pub(super) const PAGE_BYTES: usize = 4096;
/// Blocks are `PAGE_BYTES << order` long, with `order` below this: 4 KiB to 256 KiB.
pub(super) const ORDERS: usize = 7;

/// Free blocks of one chunk.
#[derive(Debug)]
pub(super) struct Buddy {
    free: RefCell<[Bitmap; ORDERS]>,
    /// Order of the block that starts at a page and is lent.
    lent: Box<[Cell<u8>]>,
    pages_free: Cell<u32>,
}

#[derive(Debug, Default)]
struct Bitmap {
    words: Vec<u64>,
    count: u32,
}

impl Bitmap {
    fn set(&mut self, index: u32) {
        self.words[index as usize / 64] |= 1 << (index % 64);
        self.count += 1;
    }

    /// Clears the bit and says whether it was set.
    fn take(&mut self, index: u32) -> bool {
        let mask = 1u64 << (index % 64);
        let word = &mut self.words[index as usize / 64];
        // An early return, and not `count -= u32::from(was)`: rustc 1.95 drops that decrement
        // when it inlines this into the loop of `give_back` (the tests, built with optimisation,
        // show it).
        if *word & mask == 0 {
            return false;
        }
        *word ^= mask;
        self.count -= 1;
        true
    }

    fn pop(&mut self) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let at = self.words.iter().position(|w| *w != 0)?;
        let bit = self.words[at].trailing_zeros();
        self.words[at] &= self.words[at] - 1;
        self.count -= 1;
        Some(u32::try_from(at).expect("few words") * 64 + bit)
    }
}

impl Buddy {
    /// All of `pages` (a multiple of the largest block) free.
    pub(super) fn new(pages: u32) -> Self {
        let top = ORDERS - 1;
        assert!(pages.is_multiple_of(1 << top), "a chunk is a whole number of largest blocks");
        let mut free: [Bitmap; ORDERS] = Default::default();
        for (order, map) in free.iter_mut().enumerate() {
            map.words = vec![0; (pages as usize >> order).div_ceil(64)];
        }
        for block in 0..pages >> top {
            free[top].set(block);
        }
        Self {
            free: RefCell::new(free),
            lent: (0..pages).map(|_| Cell::new(0)).collect(),
            pages_free: Cell::new(pages),
        }
    }

    /// Takes a block of `1 << order` pages; its first page.
    pub(super) fn take(&self, order: usize) -> Option<u32> {
        if self.pages_free.get() < 1 << order {
            return None;
        }
        let mut free = self.free.borrow_mut();
        let found = (order..ORDERS).find(|o| free[*o].count > 0)?;
        let mut block = free[found].pop()?;
        for split in (order..found).rev() {
            block *= 2;
            free[split].set(block + 1);
        }
        let page = block << order;
        self.lent[page as usize].set(u8::try_from(order).expect("orders are few"));
        self.pages_free.set(self.pages_free.get() - (1 << order));
        Some(page)
    }

    /// Takes back the block that starts at `page`, merged with its free neighbours.
    pub(super) fn give_back(&self, page: u32) {
        let mut order = usize::from(self.lent[page as usize].get());
        self.pages_free.set(self.pages_free.get() + (1 << order));
        let mut free = self.free.borrow_mut();
        let mut block = page >> order;
        while order < ORDERS - 1 && free[order].take(block ^ 1) {
            block /= 2;
            order += 1;
        }
        free[order].set(block);
    }

    /// Pages not lent.
    pub(super) fn pages_free(&self) -> u32 {
        self.pages_free.get()
    }
}

/// The order of the smallest block that holds `len` bytes.
pub(super) fn order_of(len: usize) -> usize {
    len.div_ceil(PAGE_BYTES).next_power_of_two().trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_round_up() {
        let got: Vec<_> = [1, 4096, 4097, 65536, 65537, 262_144].map(order_of).into();
        assert_eq!(got, [0, 0, 1, 4, 5, 6]);
    }

    #[test]
    fn everything_given_back_merges_into_largest_blocks_again() {
        let buddy = Buddy::new(128);
        let pages: Vec<_> = (0..128).map(|_| buddy.take(0).unwrap()).collect();
        assert!(buddy.take(0).is_none());
        // An order unlike the one of taking, so that merging happens in every direction.
        for page in pages.iter().step_by(2).chain(pages.iter().skip(1).step_by(2)) {
            buddy.give_back(*page);
        }
        assert_eq!(buddy.pages_free(), 128);
        assert!(buddy.take(6).is_some() && buddy.take(6).is_some());
        assert!(buddy.take(0).is_none());
    }

    #[test]
    fn blocks_never_overlap() {
        let buddy = Buddy::new(64);
        let mut used = [false; 64];
        for order in [0, 3, 1, 2, 0, 4] {
            let page = buddy.take(order).unwrap();
            assert_eq!(page % (1 << order), 0);
            for p in page..page + (1 << order) {
                assert!(!std::mem::replace(&mut used[p as usize], true));
            }
        }
    }
}
