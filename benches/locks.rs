//! What the range lock costs when nothing overlaps, with none, 32 and 256 other requests under way.
#![allow(missing_docs, reason = "criterion's macros make public functions without comment")]

use corbel_target::volume::range_lock::{Access, Grant, RangeLock, Ticket, Waiter};
use criterion::{Criterion, criterion_group, criterion_main};

const BLOCK: u64 = 4096;

fn acquire(lock: &RangeLock, start: u64, len: u64, access: Access) -> Ticket {
    let waiter = Waiter { shard: 0, id: start };
    match lock.acquire(start, start + len, access, waiter) {
        Grant::Now(ticket) => ticket,
        Grant::Later(_) => panic!("nothing overlaps here"),
    }
}

fn uncontended(c: &mut Criterion) {
    for others in [0_u64, 32, 256] {
        let lock = RangeLock::default();
        // Spread as random I/O on a large device is: every 1 MiB and a bit.
        let held: Vec<_> = (1..=others)
            .map(|n| acquire(&lock, n * ((1 << 20) + 3 * BLOCK), BLOCK, Access::Exclusive))
            .collect();
        let mut woken = Vec::new();
        c.bench_function(&format!("4 KiB write beside {others}: acquire and release"), |b| {
            b.iter(|| {
                let ticket = acquire(&lock, 0, BLOCK, Access::Exclusive);
                lock.release(ticket, &mut woken);
            });
        });
        c.bench_function(&format!("1 MiB read beside {others}: acquire and release"), |b| {
            b.iter(|| {
                let ticket = acquire(&lock, 0, 1 << 20, Access::Shared);
                lock.release(ticket, &mut woken);
            });
        });
        held.into_iter().for_each(|ticket| lock.release(ticket, &mut woken));
        assert!(woken.is_empty(), "nobody waited");
    }
}

criterion_group!(benches, uncontended);
criterion_main!(benches);
