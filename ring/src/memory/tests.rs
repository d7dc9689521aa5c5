use super::*;
use corbel_proto::memory::{Buffer, SEGMENT_BYTES_MAX, Slice};

fn arena() -> Arena {
    Arena::unregistered(ArenaConfig { bytes_max: CHUNK_BYTES })
}

#[test]
fn memory_is_page_aligned_zeroed_and_as_long_as_asked() {
    let arena = arena();
    for len in [1, 512, 4097, 70_000, SEGMENT_BYTES_MAX] {
        let buf = arena.lend(len).unwrap();
        assert_eq!(buf.address() as usize % 4096, 0);
        assert_eq!(buf.len(), len);
        assert!(buf.bytes().iter().all(|b| *b == 0));
    }
}

#[test]
fn an_exhausted_arena_refuses_and_takes_back() {
    let arena = arena();
    let mut all: Vec<_> = std::iter::from_fn(|| arena.lend(SEGMENT_BYTES_MAX)).collect();
    assert_eq!(all.len() * SEGMENT_BYTES_MAX, CHUNK_BYTES);
    assert_eq!(arena.stats().refused, 1);
    let clone = all[3].clone();
    drop(all.remove(3));
    assert!(arena.lend(1).is_none(), "a clone keeps the memory");
    drop(clone);
    assert!(arena.lend(1).is_some());
    drop(all);
    assert_eq!(arena.stats().bytes_lent, 0);
}

#[test]
#[should_panic(expected = "shared payload is read-only")]
fn shared_payload_cannot_be_written() {
    let mut buf = arena().lend(10).unwrap();
    let _other = buf.clone();
    buf.bytes_mut()[0] = 1;
}

#[test]
fn a_buffer_outlives_its_arena() {
    let mut buf = arena().lend(4096).unwrap();
    buf.bytes_mut().fill(7);
    let slice = Slice::part(buf, 10, 20);
    assert_eq!(slice.bytes(), [7; 20]);
}

#[test]
fn memory_given_back_is_lent_again_before_more_is_taken() {
    let arena = Arena::unregistered(ArenaConfig { bytes_max: 4 * CHUNK_BYTES });
    for _ in 0..100 {
        drop(arena.lend(1024).unwrap());
    }
    assert_eq!(arena.stats().bytes_mapped, CHUNK_BYTES);
}
