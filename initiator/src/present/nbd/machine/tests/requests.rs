//! What is asked of the device, and what clients are told.

use super::*;

#[test]
fn the_kernel_reads_and_writes_at_once_without_a_handshake() {
    let mut bench = Bench::kernel(export());
    let mut write = request(cmd::WRITE, cmd_flag::FUA, 4096, 1024);
    write.extend([0xab; 1024]);
    bench.gets(&write);
    assert_eq!(bench.sent(), simple(0));
    assert_eq!(bench.log, ["Write { fua: true } 4096+1024"]);
    let mut expected = simple(0);
    expected.extend(&bench.disk[3584..5632]);
    assert_eq!(bench.asks(cmd::READ, 0, 3584, 2048), expected);
    assert_eq!(bench.asks(cmd::FLUSH, 0, 0, 0), simple(0));
    assert_eq!(bench.connection.memory_bytes(), 0);
}

#[test]
fn a_long_simple_read_is_split_and_joined_in_order_whatever_comes_first() {
    let mut bench = Bench::kernel(export());
    bench.gets(&request(cmd::READ, 0, 512, 1 << 20));
    bench.take_requests();
    assert_eq!(bench.requests.len(), 4);
    for at in [3, 1, 0] {
        bench.perform(at);
        assert!(bench.connection.transmit().is_none(), "errors must come before data");
    }
    bench.perform(0);
    let mut expected = simple(0);
    expected.extend(&bench.disk[512..512 + (1 << 20)]);
    assert_eq!(bench.sent(), expected);
    assert_eq!((bench.connection.memory_bytes(), bench.arena.in_use()), (0, 0));
}

#[test]
fn a_piece_that_fails_fails_the_whole_simple_read() {
    let mut bench = Bench::kernel(export());
    bench.gets(&request(cmd::READ, 0, 0, 1 << 20));
    bench.take_requests();
    bench.perform(2);
    bench.fails = Some(IoError::Medium);
    bench.perform(0);
    bench.fails = None;
    assert_eq!(bench.sent(), simple(5));
    assert_eq!((bench.connection.memory_bytes(), bench.arena.in_use()), (0, 0));
}

#[test]
fn a_structured_read_is_answered_piece_by_piece() {
    let mut bench = Bench::structured(export());
    bench.gets(&request(cmd::READ, 0, 0, 600 << 10));
    bench.take_requests();
    bench.perform(2);
    bench.fails = Some(IoError::Medium);
    bench.perform(1);
    bench.fails = None;
    let got = chunks(&bench.sent());
    assert_eq!(
        got.iter().map(|c| (c.0, c.1)).collect::<Vec<_>>(),
        [(0, 1), (0, 1 << 15 | 2), (1, 1)]
    );
    assert_eq!(got[0].2[..8], (512u64 << 10).to_be_bytes());
    assert_eq!(got[0].2.len(), 8 + (88 << 10));
    let mut error = vec![0, 0, 0, 5, 0, 12];
    error.extend(b"medium error");
    error.extend((256u64 << 10).to_be_bytes());
    assert_eq!(got[1].2, error);
    assert_eq!(got[2].2[8..], bench.disk[..256 << 10]);
    assert_eq!((bench.connection.memory_bytes(), bench.arena.in_use()), (0, 0));
}

#[test]
fn df_gets_one_chunk() {
    let mut bench = Bench::structured(export());
    let got = chunks(&bench.asks(cmd::READ, cmd_flag::DF, 0, 1 << 20));
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].2[8..], bench.disk[..1 << 20]);
    let mut simple_only = Bench::kernel(export());
    assert_eq!(simple_only.asks(cmd::READ, cmd_flag::DF, 0, 512), simple(22));
}

#[test]
fn a_long_write_goes_to_the_device_while_it_comes() {
    let mut bench = Bench::kernel(export());
    bench.gets(&request(cmd::WRITE, 0, 1024, 1 << 20));
    bench.gets(&vec![200; 300 << 10]);
    bench.take_requests();
    assert_eq!(bench.requests.len(), 1);
    assert!(bench.sent().is_empty());
    bench.gets(&vec![200; (1 << 20) - (300 << 10)]);
    assert_eq!(bench.sent(), simple(0));
    assert!(bench.disk[1024..1024 + (1 << 20)].iter().all(|byte| *byte == 200));
    assert_eq!(bench.disk[1023], 1, "as it was");
    assert_eq!(bench.disk[1024 + (1 << 20)], (2050 % 251) as u8, "as it was");
}

#[test]
fn payload_can_be_received_straight_to_its_place() {
    let mut bench = Bench::kernel(export());
    bench.gets(&request(cmd::WRITE, 0, 0, 600 << 10));
    bench.gets(&[9; 100]);
    let mut left = (600 << 10) - 100;
    while left > 0 {
        let mut place = bench.connection.poll_fill(&mut bench.arena).expect("a place");
        assert!(!bench.connection.wants_read());
        let len = place.len.min(70_000);
        place.bytes_mut()[..len as usize].fill(9);
        bench.connection.filled(place, len);
        left -= len;
        bench.work();
    }
    assert!(bench.connection.poll_fill(&mut bench.arena).is_none());
    assert_eq!(bench.sent(), simple(0));
    assert!(bench.disk[..600 << 10].iter().all(|byte| *byte == 9));
    assert_eq!(bench.disk[600 << 10], (1200 % 251) as u8);
}

#[test]
fn a_failed_write_is_told_after_all_of_its_payload() {
    let mut bench = Bench::kernel(export());
    bench.gets(&request(cmd::WRITE, 0, 0, 512 << 10));
    bench.gets(&vec![1; 256 << 10]);
    bench.fails = Some(IoError::NoSpace);
    assert!(bench.sent().is_empty());
    bench.fails = None;
    bench.gets(&vec![1; 256 << 10]);
    assert_eq!(bench.sent(), simple(28));
    assert_eq!(bench.asks(cmd::FLUSH, 0, 0, 0), simple(0));
}

#[test]
fn whatever_a_client_may_not_ask_is_refused_and_the_next_request_is_heard() {
    let mut bench = Bench::kernel(export());
    for (kind, flags, offset, len, errno) in [
        (cmd::READ, 0, SIZE, 512, 22),
        (cmd::READ, 0, u64::MAX - 511, 512, 22),
        (cmd::READ, 0, 100, 512, 22),
        (cmd::READ, 0, 0, 100, 22),
        (cmd::READ, 0, 0, 0, 22),
        (cmd::TRIM, 0, SIZE, 512, 22),
        (cmd::TRIM, 8, 0, 512, 22),
        (cmd::WRITE_ZEROES, 0, SIZE - 512, 1024, 28),
        (cmd::WRITE_ZEROES, 0, 1, 1024, 22),
        (5, 0, 0, 512, 22),
        (8, 0, 0, 512, 22),
        (99, 0, 0, 512, 22),
        (cmd::BLOCK_STATUS, 0, 0, 512, 22),
    ] {
        assert_eq!(bench.asks(kind, flags, offset, len), simple(errno), "{kind} {offset} {len}");
    }
    for (offset, len, errno) in [(SIZE, 512, 28), (1, 1024, 22), (0, 100, 22)] {
        bench.gets(&request(cmd::WRITE, 0, offset, len));
        bench.gets(&vec![1; len as usize]);
        assert_eq!(bench.sent(), simple(errno));
    }
    assert_eq!(bench.asks(cmd::WRITE, 0, 0, 0), simple(22));
    assert!(bench.log.is_empty());
    assert_eq!(bench.asks(cmd::READ, 0, 0, 512).len(), 16 + 512);
}

#[test]
fn a_read_only_export_refuses_to_be_changed() {
    let mut bench = Bench::kernel(Export { read_only: true, ..export() });
    let mut write = request(cmd::WRITE, 0, 0, 512);
    write.extend([1; 512]);
    bench.gets(&write);
    assert_eq!(bench.sent(), simple(1));
    assert_eq!(bench.asks(cmd::TRIM, 0, 0, 512), simple(1));
    assert_eq!(bench.asks(cmd::WRITE_ZEROES, 0, 0, 512), simple(1));
    assert!(bench.log.is_empty());
}

#[test]
fn errors_have_the_numbers_of_the_protocol() {
    for (error, errno) in [
        (IoError::Io, 5),
        (IoError::Medium, 5),
        (IoError::Target, 5),
        (IoError::NoSpace, 28),
        (IoError::Conflict, 5),
        (IoError::Unsupported, 95),
        (IoError::ReadOnly, 1),
        (IoError::TooOld, 5),
        (IoError::Fenced, 108),
        (IoError::Invalid, 22),
    ] {
        let mut bench = Bench::kernel(export());
        bench.fails = Some(error);
        assert_eq!(bench.asks(cmd::FLUSH, 0, 0, 0), simple(errno), "{error}");
    }
}

#[test]
fn trim_with_fua_is_flushed_before_it_is_acknowledged() {
    let mut bench = Bench::kernel(export());
    assert_eq!(bench.asks(cmd::TRIM, cmd_flag::FUA, 0, 4096), simple(0));
    assert_eq!(bench.log, ["Discard 0+4096", "Flush 0+0"]);
}

#[test]
fn zeroes_are_left_to_a_device_that_can() {
    let mut bench = Bench::kernel(export());
    let flags = cmd_flag::FUA | cmd_flag::NO_HOLE | cmd_flag::FAST_ZERO;
    assert_eq!(bench.asks(cmd::WRITE_ZEROES, flags, 0, 1 << 20), simple(0));
    assert_eq!(bench.asks(cmd::WRITE_ZEROES, 0, 0, 512), simple(0));
    let keep = "WriteZeroes { unmap: false, fua: false } 0+1048576";
    let unmap = "WriteZeroes { unmap: true, fua: false } 0+512";
    assert_eq!(bench.log, [keep, "Flush 0+0", unmap]);
}

#[test]
fn a_very_long_clear_goes_in_pieces_few_at_a_time() {
    let mut bench = Bench::kernel(export());
    bench.connection.resized(1 << 40);
    bench.gets(&request(cmd::TRIM, 0, 1 << 30, 1 << 31));
    bench.take_requests();
    let (mut most, mut next) = (0, 1 << 30);
    while let Some(request) = bench.requests.first().cloned() {
        most = most.max(bench.requests.len());
        assert_eq!(request.extent.offset, next);
        next = request.extent.end();
        bench.requests.remove(0);
        bench.connection.complete(Outcome { id: request.id, data: None, result: Ok(()) });
        bench.take_requests();
    }
    assert_eq!((most, next), (4, (1 << 30) + (1 << 31)));
    assert_eq!(bench.sent(), simple(0));
}

#[test]
fn zeroes_are_written_for_a_device_that_cannot() {
    let mut bench = Bench::kernel(Export { write_zeroes: false, ..export() });
    assert_eq!(bench.asks(cmd::WRITE_ZEROES, cmd_flag::FUA, 512, 2 << 18), simple(0));
    let written = "Write { fua: false }";
    let expected = [format!("{written} 512+262144"), format!("{written} 262656+262144")];
    assert_eq!(bench.log[..2], expected);
    assert_eq!(bench.log[2..], ["Flush 0+0"]);
    assert!(bench.disk[512..512 + (2 << 18)].iter().all(|byte| *byte == 0));
    assert_eq!((bench.connection.memory_bytes(), bench.arena.in_use()), (0, 0));
    let fast = cmd_flag::FAST_ZERO;
    assert_eq!(bench.asks(cmd::WRITE_ZEROES, fast, 0, 512), simple(95));
    assert_eq!(bench.log.len(), 3);
}

#[test]
fn a_device_that_refuses_zeroes_after_all_has_them_written() {
    let mut bench = Bench::kernel(export());
    bench.gets(&request(cmd::WRITE_ZEROES, 0, 0, 4096));
    bench.take_requests();
    bench.fails = Some(IoError::Unsupported);
    bench.perform(0);
    bench.fails = None;
    assert!(bench.connection.wants_resume());
    bench.connection.resume(&mut bench.arena).unwrap();
    assert_eq!(bench.sent(), simple(0));
    assert!(bench.disk[..4096].iter().all(|byte| *byte == 0));
    assert_eq!(bench.asks(cmd::WRITE_ZEROES, cmd_flag::FAST_ZERO, 0, 512), simple(95));
    bench.asks(cmd::WRITE_ZEROES, 0, 0, 512);
    assert_eq!(bench.log.last().unwrap(), "Write { fua: false } 0+512");
}

#[test]
fn everything_is_allocated_and_fua_means_nothing_to_a_question() {
    let mut bench = Bench::structured(export());
    let flags = cmd_flag::REQ_ONE | cmd_flag::FUA;
    let got = chunks(&bench.asks(cmd::BLOCK_STATUS, flags, 512, 1024));
    assert_eq!(got, [(1, 5, vec![0, 0, 0, 1, 0, 0, 4, 0, 0, 0, 0, 0])]);
    let error = chunks(&bench.asks(cmd::BLOCK_STATUS, 0, SIZE, 512));
    assert_eq!((error[0].1, &error[0].2[..4]), (1 << 15 | 1, &[0, 0, 0, 22][..]));
}

#[test]
fn disconnect_waits_for_what_is_under_way() {
    let mut bench = Bench::kernel(export());
    bench.gets(&request(cmd::READ, 0, 0, 512));
    bench.gets(&request(cmd::DISC, 0, 0, 0));
    bench.gets(b"whatever comes then");
    assert!(!bench.connection.wants_read() && !bench.connection.is_over());
    assert_eq!(bench.sent().len(), 16 + 512);
    assert!(bench.connection.is_over());
}

#[test]
fn draining_answers_a_write_whose_payload_is_cut_off() {
    let mut bench = Bench::kernel(export());
    bench.gets(&request(cmd::WRITE, 0, 0, 512 << 10));
    bench.gets(&vec![1; 300 << 10]);
    bench.connection.drain();
    assert!(!bench.connection.is_over());
    assert_eq!(bench.sent(), simple(5));
    assert!(bench.connection.is_over());
    assert_eq!((bench.connection.memory_bytes(), bench.arena.in_use()), (0, 0));
}

#[test]
fn a_request_without_its_magic_ends_the_connection_and_not_what_is_under_way() {
    let mut bench = Bench::kernel(export());
    bench.gets(&request(cmd::READ, 0, 0, 512));
    assert!(matches!(bench.try_gets(&[0; 28]), Err(Refusal::Malformed(_))));
    assert_eq!(bench.connection.in_flight(), 1);
    bench.work();
    assert_eq!(bench.connection.in_flight(), 0);
}

#[test]
fn the_new_size_counts_for_the_next_request() {
    let mut bench = Bench::kernel(export());
    bench.connection.resized(SIZE - 512);
    assert_eq!(bench.asks(cmd::READ, 0, SIZE - 512, 512), simple(22));
}

#[test]
fn outcomes_of_others_change_nothing() {
    let mut bench = Bench::kernel(export());
    bench.gets(&request(cmd::FLUSH, 0, 0, 0));
    bench.take_requests();
    for id in [0, 7 << 32 | 5 << 16, 8 << 32] {
        let id = crate::request::RequestId(id);
        bench.connection.complete(Outcome { id, data: None, result: Ok(()) });
    }
    assert!(bench.connection.transmit().is_none());
    assert_eq!(bench.sent(), simple(0));
}
