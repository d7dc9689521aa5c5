//! What a client can make us hold.

use super::*;

fn tight(requests_max: u32, bytes_max: u64) -> Bench {
    Bench::new(export(), Mode::Transmission, Bounds { requests_max, bytes_max })
}

#[test]
fn no_more_requests_are_begun_than_may_be_unanswered() {
    let mut bench = tight(4, 1 << 20);
    let many: Vec<u8> = (0..20).flat_map(|_| request(cmd::READ, 0, 0, 512)).collect();
    bench.gets(&many);
    bench.take_requests();
    assert_eq!(bench.requests.len(), 4);
    assert!(!bench.connection.wants_read() && !bench.connection.wants_resume());
    while !bench.requests.is_empty() {
        bench.perform(0);
    }
    // The replies were not taken: the client does not read.
    assert!(!bench.connection.wants_resume());
    assert_eq!(bench.sent().len(), 20 * (16 + 512));
    assert!(bench.connection.wants_read());
}

#[test]
fn refused_requests_count_too() {
    let mut bench = tight(4, 1 << 20);
    bench.gets(&(0..20).flat_map(|_| request(99, 0, 0, 0)).collect::<Vec<u8>>());
    assert!(!bench.connection.wants_read());
    assert_eq!(bench.sent().len(), 20 * 16);
}

#[test]
fn no_more_memory_is_held_than_agreed() {
    let mut bench = tight(100, 600 << 10);
    bench.gets(&(0..5).flat_map(|_| request(cmd::READ, 0, 0, 256 << 10)).collect::<Vec<u8>>());
    assert_eq!(bench.arena.in_use(), 512 << 10);
    assert_eq!(bench.sent().len(), 5 * (16 + (256 << 10)));
    let mut write = request(cmd::WRITE, 0, 0, 600 << 10);
    write.extend(vec![1; 600 << 10]);
    bench.gets(&write);
    bench.gets(&write);
    assert!(bench.arena.in_use() <= 600 << 10);
    assert!(!bench.connection.wants_read());
    assert_eq!(bench.sent(), [simple(0), simple(0)].concat());
    assert_eq!((bench.connection.memory_bytes(), bench.arena.in_use()), (0, 0));
}

#[test]
fn a_request_longer_than_all_memory_is_refused() {
    let mut bench = tight(100, 600 << 10);
    assert_eq!(bench.asks(cmd::READ, 0, 0, 601 << 10), simple(22));
    let mut write = request(cmd::WRITE, 0, 0, 601 << 10);
    write.extend(vec![1; 601 << 10]);
    bench.gets(&write);
    assert_eq!(bench.sent(), simple(22));
    assert!(bench.log.is_empty());
}

#[test]
fn who_gets_no_memory_waits_and_holds_none() {
    let mut bench = tight(100, 1 << 20);
    bench.arena = HeapArena::new(600 << 10);
    let other = corbel_proto::memory::Arena::alloc(&mut bench.arena, 256 << 10);
    bench.gets(&request(cmd::READ, 0, 0, 512 << 10));
    assert!(bench.connection.is_starved() && !bench.connection.wants_read());
    assert_eq!(bench.arena.in_use(), 256 << 10);
    drop(other);
    bench.connection.resume(&mut bench.arena).unwrap();
    assert!(!bench.connection.is_starved());
    assert_eq!(bench.sent().len(), 16 + (512 << 10));
}

#[test]
fn payload_waits_for_memory_where_it_is() {
    let mut bench = tight(100, 1 << 20);
    bench.arena = HeapArena::new(256 << 10);
    let mut write = request(cmd::WRITE, 0, 0, 1 << 20);
    write.extend((0..1 << 20).map(|at: u32| (at >> 8) as u8));
    bench.gets(&write);
    assert!(bench.connection.is_starved());
    assert_eq!(bench.sent(), simple(0));
    assert!(bench.disk.iter().take(1 << 20).zip(0u32..).all(|(byte, at)| *byte == (at >> 8) as u8));
}

#[test]
fn zeroes_wait_for_memory_to_be_written_from() {
    let mut bench = Bench::kernel(Export { write_zeroes: false, ..export() });
    bench.arena = HeapArena::new(4096);
    bench.gets(&request(cmd::WRITE_ZEROES, 0, 0, 8192));
    assert!(bench.connection.is_starved());
    bench.arena = HeapArena::new(8192);
    bench.connection.resume(&mut bench.arena).unwrap();
    assert_eq!(bench.sent(), simple(0));
}

#[test]
fn zeroes_are_written_from_no_more_memory_than_agreed() {
    let bounds = Bounds { requests_max: 9, bytes_max: 64 << 10 };
    let mut bench = Bench::new(export(), Mode::Transmission, bounds);
    bench.gets(&request(cmd::WRITE_ZEROES, 0, 0, 256 << 10));
    bench.take_requests();
    bench.fails = Some(IoError::Unsupported);
    bench.perform(0);
    bench.fails = None;
    bench.connection.resume(&mut bench.arena).unwrap();
    assert_eq!(bench.connection.memory_bytes(), 64 << 10);
    assert_eq!(bench.sent(), simple(0));
    bench.gets(&request(cmd::WRITE_ZEROES, 0, 0, 256 << 10));
    assert_eq!(bench.arena.in_use(), 64 << 10);
    assert_eq!(bench.sent(), simple(0));
    assert!(bench.disk[..256 << 10].iter().all(|byte| *byte == 0));
}
