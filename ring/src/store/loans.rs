//! Memory of a store, lent to what is sent instead of being copied there first.
//!
//! The kernel copies it into the socket, and nobody else looks at it. So it is the engine's range
//! lock that keeps a write from coming in between: the range of a lent read is given back when the
//! loan has come back, which is what [`Returned`] tells. A socket that is full must not hold a
//! range for its peer's sake: what it has not taken at once is copied then
//! ([`Message`](crate::Message)).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::Store;
use crate::memory::{Buf, Home, Region};

/// Loans of one store that one reactor has out at a time. Beyond that, reads are copied.
const LOANS_MAX: u32 = 256;

/// Tags of the reads whose loans came back.
pub(crate) type Returned = Rc<RefCell<Vec<u64>>>;

/// One reactor's loans of one store.
#[derive(Debug)]
pub(crate) struct Loans {
    region: Rc<Region>,
    desk: Rc<Desk>,
}

#[derive(Debug)]
struct Desk {
    store: Arc<Store>,
    free: RefCell<Vec<u32>>,
    /// By loan: the read's tag.
    tags: Box<[Cell<u64>]>,
    returned: Returned,
}

impl Home for Desk {
    fn released(&self, slot: u32) {
        self.free.borrow_mut().push(slot);
        self.returned.borrow_mut().push(self.tags[slot as usize].get());
    }

    fn fetch(&self, offset: usize, data: &mut [u8]) -> Result<u32, i32> {
        self.store.read_memory(offset as u64, data)
    }

    fn unreadable(&self) {
        self.store.lend_no_more();
    }
}

impl Loans {
    /// `None` if the store's memory is not for lending.
    pub(crate) fn of(store: &Arc<Store>, returned: &Returned) -> Option<Self> {
        let mapping = store.lendable()?;
        let desk = Rc::new(Desk {
            store: store.clone(),
            free: RefCell::new((0..LOANS_MAX).rev().collect()),
            tags: (0..LOANS_MAX).map(|_| Cell::new(0)).collect(),
            returned: returned.clone(),
        });
        Some(Self { region: Region::foreign(mapping, LOANS_MAX, desk.clone()), desk })
    }

    /// Lends `len` bytes from `offset` on; `tag` is told when they come back. `None`: copy them.
    pub(crate) fn lend(&self, offset: u64, len: u32, tag: u64) -> Option<Buf> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(len as usize)?;
        if end > self.region.mapping().len() || !self.desk.store.lends() {
            return None;
        }
        let slot = self.desk.free.borrow_mut().pop()?;
        self.desk.tags[slot as usize].set(tag);
        Some(Region::lend_foreign(&self.region, slot, offset, len as usize))
    }
}
