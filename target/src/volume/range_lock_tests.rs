use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn waiter(id: u64) -> Waiter {
    Waiter { shard: 0, id }
}

fn now(grant: Grant) -> Ticket {
    match grant {
        Grant::Now(ticket) => ticket,
        Grant::Later(_) => panic!("should be free"),
    }
}

fn later(grant: Grant) -> Ticket {
    match grant {
        Grant::Later(ticket) => ticket,
        Grant::Now(_) => panic!("should be taken"),
    }
}

fn release(lock: &RangeLock, ticket: Ticket) -> Vec<u64> {
    let mut woken = Vec::new();
    lock.release(ticket, &mut woken);
    woken.into_iter().map(|w| w.id).collect()
}

#[test]
fn readers_share_and_writers_exclude() {
    let lock = RangeLock::default();
    let a = now(lock.acquire(0, 4096, Access::Shared, waiter(1)));
    let b = now(lock.acquire(0, 4096, Access::Shared, waiter(2)));
    let c = later(lock.acquire(512, 1024, Access::Exclusive, waiter(3)));
    assert!(release(&lock, a).is_empty());
    assert_eq!(release(&lock, b), [3]);
    assert!(release(&lock, c).is_empty());
    assert!(lock.is_empty());
}

#[test]
fn neighbours_do_not_conflict() {
    let lock = RangeLock::default();
    let a = now(lock.acquire(0, 512, Access::Exclusive, waiter(1)));
    let b = now(lock.acquire(512, 1024, Access::Exclusive, waiter(2)));
    assert!(release(&lock, a).is_empty());
    assert!(release(&lock, b).is_empty());
}

#[test]
fn a_reader_does_not_overtake_a_waiting_writer() {
    let lock = RangeLock::default();
    let a = now(lock.acquire(0, 512, Access::Shared, waiter(1)));
    let w = later(lock.acquire(0, 512, Access::Exclusive, waiter(2)));
    let r = later(lock.acquire(0, 512, Access::Shared, waiter(3)));
    assert_eq!(release(&lock, a), [2]);
    assert_eq!(release(&lock, w), [3]);
    assert!(release(&lock, r).is_empty());
}

#[test]
fn the_first_copy_goes_before_the_second_before_the_newer_write() {
    let lock = RangeLock::default();
    let copy1 = now(lock.acquire(0, 4096, Access::Exclusive, waiter(1)));
    let copy2 = later(lock.acquire(0, 4096, Access::Exclusive, waiter(2)));
    let newer = later(lock.acquire(0, 4096, Access::Exclusive, waiter(3)));
    assert_eq!(release(&lock, copy1), [2]);
    assert_eq!(release(&lock, copy2), [3]);
    assert!(release(&lock, newer).is_empty());
}

#[test]
fn a_wide_range_waits_for_all_and_holds_all() {
    let lock = RangeLock::default();
    let a = now(lock.acquire(MIB, MIB + 512, Access::Exclusive, waiter(1)));
    let b = now(lock.acquire(900 * MIB, 900 * MIB + 512, Access::Exclusive, waiter(2)));
    let wide = later(lock.acquire(0, 1000 * MIB, Access::Exclusive, waiter(3)));
    let c = later(lock.acquire(500 * MIB, 500 * MIB + 512, Access::Shared, waiter(4)));
    assert!(release(&lock, a).is_empty());
    assert_eq!(release(&lock, b), [3]);
    assert_eq!(release(&lock, wide), [4]);
    assert!(release(&lock, c).is_empty());
    assert!(lock.is_empty());
}

#[test]
fn one_who_leaves_the_queue_lets_the_next_pass() {
    let lock = RangeLock::default();
    let a = now(lock.acquire(0, 2 * MIB, Access::Shared, waiter(1)));
    let w = later(lock.acquire(0, 512, Access::Exclusive, waiter(2)));
    let r = later(lock.acquire(0, 512, Access::Shared, waiter(3)));
    assert_eq!(release(&lock, w), [3]);
    assert!(release(&lock, a).is_empty());
    assert!(release(&lock, r).is_empty());
}

proptest! {
    /// Against a model that knows nothing of stripes: the same grants, in the same order.
    #[test]
    fn behaves_as_a_list_of_ranges(
        steps in prop::collection::vec(
            (0u64..40, 1u64..12, any::<bool>(), any::<bool>()),
            1..120,
        ),
    ) {
        let lock = RangeLock::default();
        // (number, start, end, exclusive, granted, ticket)
        let mut model: Vec<(u64, u64, u64, bool, bool, Ticket)> = Vec::new();
        let mut number = 0;
        for (start, len, exclusive, leave) in steps {
            if leave && !model.is_empty() {
                let index = usize::try_from(start).unwrap() % model.len();
                let (.., ticket) = model.remove(index);
                let mut woken = release(&lock, ticket);
                woken.sort_unstable();
                let mut expected = Vec::new();
                for i in 0..model.len() {
                    let blocked = (0..i).any(|j| overlap(&model[j], &model[i]));
                    if !blocked && !model[i].4 {
                        model[i].4 = true;
                        expected.push(model[i].0);
                    }
                }
                prop_assert_eq!(woken, expected);
                continue;
            }
            number += 1;
            let (start, end) = (start * MIB / 8, (start + len) * MIB / 8);
            let access = if exclusive { Access::Exclusive } else { Access::Shared };
            let (granted, ticket) = match lock.acquire(start, end, access, waiter(number)) {
                Grant::Now(t) => (true, t),
                Grant::Later(t) => (false, t),
            };
            let entry = (number, start, end, exclusive, granted, ticket);
            let blocked = model.iter().any(|e| overlap(e, &entry));
            prop_assert_eq!(granted, !blocked);
            model.push(entry);
        }
    }
}

fn overlap(
    a: &(u64, u64, u64, bool, bool, Ticket),
    b: &(u64, u64, u64, bool, bool, Ticket),
) -> bool {
    a.1 < b.2 && b.1 < a.2 && (a.3 || b.3)
}

#[test]
fn threads_that_fight_over_few_blocks_never_share_a_written_one() {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;
    const THREADS: u16 = 4;
    const ROUNDS: u64 = 3000;
    let lock = RangeLock::default();
    let cells: Vec<AtomicU32> = (0..64).map(|_| AtomicU32::new(0)).collect();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..THREADS).map(|_| mpsc::channel::<u64>()).unzip();
    std::thread::scope(|scope| {
        for (shard, inbox) in (0..THREADS).zip(receivers) {
            let (lock, cells, senders) = (&lock, &cells, senders.clone());
            scope.spawn(move || {
                let mut seed = u64::from(shard) + 1;
                for id in 0..ROUNDS {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let start = (seed >> 33) % 60;
                    let end = start + 1 + (seed >> 40) % 4;
                    let me = Waiter { shard, id };
                    let (bytes, unit) = (start..end, MIB / 16);
                    let ticket = match lock.acquire(
                        bytes.start * unit,
                        bytes.end * unit,
                        Access::Exclusive,
                        me,
                    ) {
                        Grant::Now(ticket) => ticket,
                        Grant::Later(ticket) => {
                            assert_eq!(inbox.recv().unwrap(), id);
                            ticket
                        }
                    };
                    let held =
                        &cells[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
                    for cell in held {
                        assert_eq!(cell.fetch_add(1, Ordering::Relaxed), 0, "two writers");
                    }
                    for cell in held {
                        cell.fetch_sub(1, Ordering::Relaxed);
                    }
                    let mut woken = Vec::new();
                    lock.release(ticket, &mut woken);
                    for w in woken {
                        senders[usize::from(w.shard)].send(w.id).unwrap();
                    }
                }
            });
        }
    });
    assert!(lock.is_empty());
}
