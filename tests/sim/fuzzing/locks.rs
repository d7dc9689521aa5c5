//! The range lock, against a list that is looked through from the start every time.

use corbel_target::volume::range_lock::{Access, Grant, RangeLock, Ticket, Waiter};

use super::script::Script;

/// Bytes in one of the lock's chunks; ranges near its ends are the interesting ones.
const CHUNK: u64 = 1 << 18;

#[derive(Debug)]
struct Entry {
    id: u64,
    start: u64,
    end: u64,
    exclusive: bool,
    granted: bool,
    ticket: Ticket,
}

/// Ranges are asked for and given back in any order; who has which is as the list says.
pub(super) fn range_lock(input: &[u8]) {
    let mut script = Script::new(input);
    let lock = RangeLock::default();
    let mut model: Vec<Entry> = Vec::new();
    let mut next_id = 0;
    while !script.is_over() {
        let operation = script.u8();
        if operation & 3 == 0 && !model.is_empty() {
            let index = script.index(model.len());
            release(&lock, &mut model, index);
            continue;
        }
        let start = u64::from(script.below(40)) * CHUNK + u64::from(script.below(4)) * 512;
        let len = match operation >> 2 & 3 {
            0 => 512,
            1 => 512 * u64::from(script.u8()) + 1,
            2 => CHUNK,
            _ => CHUNK * u64::from(script.below(40)) + 1,
        };
        let exclusive = operation & 0x10 == 0;
        let access = if exclusive { Access::Exclusive } else { Access::Shared };
        let (id, end) = (next_id, start + len);
        next_id += 1;
        let waiter = Waiter { shard: u16::from(operation >> 7), id };
        let (granted, ticket) = match lock.acquire(start, end, access, waiter) {
            Grant::Now(ticket) => (true, ticket),
            Grant::Later(ticket) => (false, ticket),
        };
        let entry = Entry { id, start, end, exclusive, granted, ticket };
        assert_eq!(granted, !is_blocked(&model, &entry), "{entry:?} after {model:?}");
        model.push(entry);
        assert_eq!(lock.len(), model.len());
    }
    while !model.is_empty() {
        let index = usize::try_from(next_id).expect("a short script") % model.len();
        release(&lock, &mut model, index);
    }
    assert_eq!(lock.len(), 0, "something is locked after the last release");
}

/// Does any of `earlier` conflict?
fn is_blocked(earlier: &[Entry], entry: &Entry) -> bool {
    earlier.iter().any(|other| {
        let overlap = other.start < entry.end && entry.start < other.end;
        overlap && (other.exclusive || entry.exclusive)
    })
}

fn release(lock: &RangeLock, model: &mut Vec<Entry>, index: usize) {
    let mut woken = Vec::new();
    lock.release(model.remove(index).ticket, &mut woken);
    let mut expected = Vec::new();
    for at in 0..model.len() {
        if !model[at].granted && !is_blocked(&model[..at], &model[at]) {
            model[at].granted = true;
            expected.push(model[at].id);
        }
    }
    let mut woken: Vec<u64> = woken.iter().map(|waiter| waiter.id).collect();
    woken.sort_unstable();
    assert_eq!(woken, expected, "who is told after a release");
}
