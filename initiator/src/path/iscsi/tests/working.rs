use corbel_proto::memory::{Buffer, HeapBuffer, Slice};
use corbel_proto::scsi::sense::Key;
use corbel_proto::scsi::vpd::BlockLimits;
use corbel_proto::time::Instant;

use super::super::config::Config;
use super::bench::{Bench, config, ms};
use super::peer::{BLOCK, Disk, Trick};
use crate::path::{PathEvent, PathFault, Try, TryId, Verdict};
use crate::request::{Extent, IoError, Operation};

#[test]
fn what_was_written_is_read() {
    let mut bench = Bench::up(config(), Disk::new(4096));
    let write = bench.write(8, 512, 7);
    assert_eq!(bench.verdict(write), Some(Verdict::Done));
    let read = bench.read(8, 512);
    assert_eq!(bench.end(read), Some((Verdict::Done, vec![7; 512 * BLOCK])));
    assert!(bench.disk.bytes[..8 * BLOCK].iter().all(|byte| *byte == 0));
    assert_eq!(bench.disk.log, [0x2a, 0x28]);
}

#[test]
fn what_a_unit_says_is_acted_on() {
    let cases = [
        (Trick::Sense(Key::MediumError, 0x11, 0), Verdict::Device(IoError::Medium)),
        (Trick::Sense(Key::DataProtect, 0x27, 7), Verdict::Device(IoError::NoSpace)),
        (Trick::Sense(Key::UnitAttention, 0x29, 0), Verdict::Done),
        (Trick::Deferred(Key::MediumError, 0x0c, 0), Verdict::Done),
        (Trick::Status(0x18), Verdict::Device(IoError::Conflict)),
        (Trick::Status(0x08), Verdict::Later(ms(10))),
        (Trick::Short, Verdict::Done),
    ];
    for (trick, verdict) in cases {
        let mut bench = Bench::up(config(), Disk::new(64));
        bench.disk.play(0x28, trick);
        let read = bench.read(0, 1);
        assert_eq!(bench.verdict(read), Some(verdict), "{trick:?}");
    }
}

#[test]
fn a_long_request_on_a_modest_unit_is_done_piece_by_piece() {
    let limits = BlockLimits { transfer_max: 64, ..BlockLimits::default() };
    let mut bench = Bench::up(config(), Disk { limits, ..Disk::new(4096) });
    let write = bench.write(10, 500, 7);
    assert_eq!(bench.end(write), Some((Verdict::Done, vec![7; 500 * BLOCK])));
    assert_eq!(bench.disk.count(0x2a), 8);
    let read = bench.read(0, 520);
    let (verdict, data) = bench.end(read).unwrap();
    assert_eq!(verdict, Verdict::Done);
    assert_eq!(data, bench.disk.bytes[..520 * BLOCK]);
    assert_eq!(data[10 * BLOCK..510 * BLOCK], vec![7; 500 * BLOCK]);
}

#[test]
fn a_request_whose_later_piece_fails_fails_and_sends_no_more() {
    let limits = BlockLimits { transfer_max: 8, ..BlockLimits::default() };
    let mut bench = Bench::up(config(), Disk { limits, ..Disk::new(64) });
    bench.disk.play(0x2a, Trick::Sense(Key::UnitAttention, 0x38, 7));
    bench.disk.play(0x2a, Trick::Sense(Key::HardwareError, 0x44, 0));
    let write = bench.write(0, 32, 7);
    assert_eq!(bench.end(write), Some((Verdict::Device(IoError::Target), vec![7; 32 * BLOCK])));
    assert_eq!(bench.disk.count(0x2a), 2, "the first piece, and its repetition");
}

#[test]
fn what_does_not_fit_the_unit_is_not_sent() {
    let mut bench = Bench::up(config(), Disk::new(64));
    for id in [bench.write(60, 5, 1), bench.read(64, 1), bench.read(0, 0)] {
        assert_eq!(bench.verdict(id), Some(Verdict::Device(IoError::Invalid)));
    }
    assert!(bench.disk.log.is_empty());
}

#[test]
fn flush_fua_discard_and_zeroes_reach_the_unit() {
    let limits = BlockLimits {
        unmap_blocks_max: 1 << 20,
        unmap_extents_max: 1,
        write_same_max: 1 << 20,
        ..BlockLimits::default()
    };
    let disk = Disk { limits, thin: true, tells_opcodes: true, ..Disk::new(64) };
    let mut bench = Bench::new(config(), disk);
    bench.path.start(bench.now);
    bench.run();
    let facts = bench.take_ready().unwrap();
    assert!(facts.discard && facts.write_zeroes);
    bench.disk.log.clear();
    bench.disk.bytes.fill(9);
    let zeroes = Operation::WriteZeroes { unmap: false, fua: true };
    let tries = [
        bench.submit(Operation::Write { fua: true }, 0, 1, 7),
        bench.submit(Operation::Flush, 0, 0, 0),
        bench.submit(Operation::Discard, 8, 8, 0),
        bench.submit(zeroes, 32, 8, 0),
    ];
    assert!(tries.into_iter().all(|id| bench.verdict(id) == Some(Verdict::Done)));
    assert_eq!(bench.disk.log, [0x2a, 0x35, 0x42, 0x93, 0x35]);
    assert!(bench.disk.bytes[8 * BLOCK..16 * BLOCK].iter().all(|byte| *byte == 0));
    assert!(bench.disk.bytes[32 * BLOCK..40 * BLOCK].iter().all(|byte| *byte == 0));
    assert_eq!(bench.disk.bytes[16 * BLOCK], 9);
}

#[test]
fn a_unit_that_says_it_can_and_cannot_is_believed_the_second_time() {
    let limits = BlockLimits { write_same_max: 1 << 20, ..BlockLimits::default() };
    let mut bench = Bench::up(config(), Disk { limits, ..Disk::new(64) });
    bench.disk.play(0x93, Trick::Sense(Key::IllegalRequest, 0x20, 0));
    let zeroes = bench.submit(Operation::WriteZeroes { unmap: true, fua: false }, 0, 8, 0);
    assert_eq!(bench.verdict(zeroes), Some(Verdict::Device(IoError::Unsupported)));
    assert!(!bench.take_ready().unwrap().write_zeroes);
}

#[test]
fn a_unit_without_a_cache_need_not_know_how_to_flush() {
    for (write_cache, verdict) in
        [(false, Verdict::Done), (true, Verdict::Device(IoError::Unsupported))]
    {
        let mut bench = Bench::up(config(), Disk { write_cache, ..Disk::new(64) });
        bench.disk.play(0x35, Trick::Sense(Key::IllegalRequest, 0x20, 0));
        let flush = bench.submit(Operation::Flush, 0, 0, 0);
        assert_eq!(bench.verdict(flush), Some(verdict));
    }
}

#[test]
fn an_acknowledged_write_that_was_lost_fails_the_next_flush_once() {
    for trick in
        [Trick::Deferred(Key::MediumError, 0x0c, 0), Trick::Sense(Key::UnitAttention, 0x29, 0x01)]
    {
        let mut bench = Bench::up(config(), Disk::new(64));
        let write = bench.write(0, 1, 1);
        assert_eq!(bench.verdict(write), Some(Verdict::Done));
        bench.disk.play(0x28, trick);
        let read = bench.read(0, 1);
        assert_eq!(bench.verdict(read), Some(Verdict::Done));
        for verdict in [Verdict::Device(IoError::Io), Verdict::Done] {
            let flush = bench.submit(Operation::Flush, 0, 0, 0);
            assert_eq!(bench.verdict(flush), Some(verdict));
        }
    }
    // A power cut after a flush loses nothing.
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.write(0, 1, 1);
    bench.submit(Operation::Flush, 0, 0, 0);
    bench.disk.play(0x28, Trick::Sense(Key::UnitAttention, 0x29, 0x01));
    bench.read(0, 1);
    let flush = bench.submit(Operation::Flush, 0, 0, 0);
    assert_eq!(bench.verdict(flush), Some(Verdict::Done));
}

#[test]
fn another_size_write_cache_or_protection_is_told() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.disk.bytes.resize(128 * BLOCK, 0);
    bench.disk.play(0x28, Trick::Sense(Key::UnitAttention, 0x2a, 0x09));
    let read = bench.read(0, 1);
    assert_eq!(bench.verdict(read), Some(Verdict::Done), "it is repeated");
    assert_eq!(bench.take_ready().unwrap().identity.size_bytes, 128 * 512);

    bench.disk.write_cache = false;
    bench.disk.play(0x28, Trick::Sense(Key::UnitAttention, 0x2a, 0x01));
    bench.read(0, 1);
    assert!(!bench.take_ready().unwrap().volatile_cache);

    bench.disk.write_protected = true;
    bench.disk.play(0x2a, Trick::Sense(Key::DataProtect, 0x27, 0));
    let write = bench.write(0, 1, 1);
    assert_eq!(bench.verdict(write), Some(Verdict::Device(IoError::ReadOnly)));
    assert!(bench.take_ready().unwrap().read_only);
    assert_eq!(bench.take_down(), None);
}

#[test]
fn news_that_come_with_a_question_are_heard_too() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.disk.bytes.resize(128 * BLOCK, 0);
    bench.disk.play(0x00, Trick::Sense(Key::UnitAttention, 0x2a, 0x09));
    bench.path.check(bench.now);
    bench.run();
    assert_eq!(bench.take_ready().unwrap().identity.size_bytes, 128 * 512);
    assert!(bench.events.iter().any(|event| matches!(event, PathEvent::Checked)));
}

#[test]
fn a_change_while_the_unit_is_being_asked_begins_the_asking_again() {
    let mut bench = Bench::new(config(), Disk::new(64));
    for _ in 0..3 {
        bench.disk.play(0x00, Trick::Sense(Key::UnitAttention, 0x29, 0));
    }
    bench.disk.play(0x1a, Trick::Sense(Key::UnitAttention, 0x2a, 0x09));
    bench.path.start(bench.now);
    bench.run();
    assert!(bench.take_ready().is_some());
    assert_eq!((bench.disk.count(0x9e), bench.disk.count(0x1a)), (2, 2));
}

#[test]
fn nothing_is_sent_to_a_unit_that_may_have_become_another() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.disk.naa += 1;
    bench.disk.play(0x2a, Trick::Sense(Key::UnitAttention, 0x3f, 0x0e));
    let write = bench.write(0, 1, 1);
    assert_eq!(bench.verdict(write), Some(Verdict::Elsewhere(PathFault::Mismatch)));
    assert_eq!(bench.disk.count(0x2a), 1, "refused by the attention, never repeated");
    assert_eq!(bench.take_down(), Some(PathFault::Mismatch));
    let facts = bench.take_ready().unwrap();
    assert_eq!(facts.identity.wwn.as_deref(), Some("3000000000000002"), "the engine decides");
}

#[test]
fn port_groups_give_the_priority_and_their_change_is_told() {
    for (state, priority) in [(0x00, 50), (0x80, 130), (0x01, 10), (0x81, 90)] {
        let mut bench = Bench::new(config(), Disk { access: Some(state), ..Disk::new(64) });
        bench.path.start(bench.now);
        bench.run();
        assert_eq!(bench.take_ready().unwrap().priority, priority);
        bench.disk.access = Some(0x01);
        bench.disk.play(0x28, Trick::Sense(Key::UnitAttention, 0x2a, 0x06));
        bench.read(0, 1);
        let again = bench.take_ready().map(|facts| facts.priority);
        assert_eq!(again, (priority != 10).then_some(10));
    }
    let mut bench = Bench::new(
        Config { weight: Some(7), ..config() },
        Disk { access: Some(0), ..Disk::new(64) },
    );
    bench.path.start(bench.now);
    bench.run();
    assert_eq!(bench.take_ready().unwrap().priority, 7, "the administrator's word");
}

#[test]
fn a_path_on_standby_rests_until_its_group_is_active() {
    let mut bench = Bench::up(config(), Disk { access: Some(0), ..Disk::new(64) });
    bench.disk.access = Some(0x02);
    bench.disk.play(0x2a, Trick::Hang);
    let hung = bench.write(1, 1, 1);
    bench.disk.play(0x2a, Trick::Sense(Key::NotReady, 0x04, 0x0b));
    let write = bench.write(0, 1, 1);
    assert_eq!(bench.verdict(write), Some(Verdict::Elsewhere(PathFault::Standby)));
    assert_eq!(bench.take_down(), None, "a command is still under way");
    let itt = bench.peer().hanging[0];
    bench.peer().respond(itt, 0, &[], Vec::new(), 512);
    bench.run();
    assert_eq!(bench.verdict(hung), Some(Verdict::Done));
    assert_eq!(bench.take_down(), Some(PathFault::Standby));
    assert!(bench.path.next(bench.now).unwrap().starts_with("asks again in 0."));
    bench.pass(ms(5000));
    assert_eq!((bench.take_down(), bench.attempts.len()), (None, 1), "the session stands");
    bench.disk.access = Some(0x01);
    bench.pass(ms(700));
    assert_eq!(bench.take_ready().unwrap().priority, 10);
}

#[test]
fn a_unit_in_transition_is_waited_for_and_its_groups_are_asked() {
    let mut bench = Bench::up(config(), Disk { access: Some(0x80), ..Disk::new(64) });
    bench.disk.access = Some(0x00);
    bench.disk.play(0x2a, Trick::Sense(Key::NotReady, 0x04, 0x0a));
    let write = bench.write(0, 1, 1);
    assert_eq!(bench.verdict(write), Some(Verdict::Later(ms(500))));
    assert_eq!(bench.take_ready().unwrap().priority, 50);
}

#[test]
fn a_unit_that_is_gone_is_looked_for_until_it_is_back() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.disk.play(0x2a, Trick::Sense(Key::IllegalRequest, 0x25, 0));
    (0..3).for_each(|_| bench.disk.play(0x00, Trick::Sense(Key::IllegalRequest, 0x25, 0)));
    let write = bench.write(0, 1, 1);
    assert_eq!(bench.verdict(write), Some(Verdict::Elsewhere(PathFault::NoDevice)));
    assert_eq!(bench.take_down(), Some(PathFault::NoDevice));
    assert!(bench.path.why().unwrap().contains("25h/00h"));
    bench.pass(ms(4 * 700));
    assert!(bench.take_ready().is_some());
    assert_eq!(bench.attempts.len(), 1);
}

#[test]
fn a_busy_unit_is_given_ever_more_time_and_fewer_commands() {
    let mut bench = Bench::up(config(), Disk::new(4096));
    let mut waits = Vec::new();
    for _ in 0..9 {
        bench.disk.play(0x2a, Trick::Status(0x28));
        let write = bench.write(0, 1, 1);
        let Some(Verdict::Later(wait)) = bench.verdict(write) else { panic!("later") };
        waits.push(wait);
    }
    assert_eq!(waits[..3], [ms(10), ms(20), ms(40)]);
    assert_eq!(waits.last(), Some(&ms(1000)));
    // One at a time now; and one more after each round that went well.
    (0..2).for_each(|_| bench.disk.play(0x2a, Trick::Hang));
    bench.write(0, 1, 1);
    bench.write(1, 1, 1);
    assert_eq!(bench.peer().hanging.len(), 1);
    let itt = bench.peer().hanging[0];
    bench.peer().respond(itt, 0, &[], Vec::new(), 512);
    bench.run();
    bench.disk.play(0x2a, Trick::Hang);
    bench.write(2, 1, 1);
    assert_eq!(bench.peer().hanging.len(), 3);
}

#[test]
fn commands_that_another_host_cleared_are_not_waited_for_till_their_time_is_over() {
    for asc in [0x2f, 0x29] {
        let mut bench = Bench::up(config(), Disk::new(64));
        bench.disk.play(0x2a, Trick::Hang);
        let lost = bench.write(0, 1, 1);
        bench.disk.play(0x28, Trick::Sense(Key::UnitAttention, asc, 0));
        bench.read(0, 1);
        bench.pass(ms(2000));
        assert_eq!(bench.verdict(lost), Some(Verdict::Elsewhere(PathFault::CommandTimeout)));
    }
}

#[test]
fn a_command_is_repeated_as_often_as_the_table_says() {
    let mut bench = Bench::up(config(), Disk::new(64));
    for _ in 0..2 {
        bench.disk.play(0x2a, Trick::Status(0x40));
    }
    let write = bench.write(0, 1, 1);
    assert_eq!(bench.verdict(write), Some(Verdict::Elsewhere(PathFault::CommandsFail)));
    assert_eq!(bench.disk.count(0x2a), 2);
    for _ in 0..3 {
        bench.disk.play(0x2a, Trick::Sense(Key::MediumError, 0x0c, 0));
    }
    let write = bench.write(0, 1, 1);
    assert_eq!(bench.verdict(write), Some(Verdict::Device(IoError::Medium)));
}

#[test]
fn old_units_tell_their_size_in_the_old_way_and_may_have_no_pages() {
    let mut bench = Bench::new(config(), Disk::new(64));
    bench.disk.play(0x9e, Trick::Sense(Key::IllegalRequest, 0x20, 0));
    bench.disk.play(0x1a, Trick::Sense(Key::IllegalRequest, 0x20, 0));
    bench.path.start(bench.now);
    bench.run();
    let facts = bench.take_ready().unwrap();
    assert_eq!(facts.identity.size_bytes, 64 * 512);
    assert!(facts.volatile_cache, "who does not say may have a cache");
}

#[test]
fn a_check_is_answered_by_a_unit_that_others_have_reserved() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.disk.play(0x00, Trick::Status(0x18));
    bench.path.check(bench.now);
    bench.run();
    assert!(bench.events.iter().any(|event| matches!(event, PathEvent::Checked)));
}

#[test]
fn payload_is_sent_from_where_it_is() {
    let mut path = Bench::up(config(), Disk::new(4096)).path;
    let memory = HeapBuffer::from_vec(vec![5; 64 * BLOCK]);
    let data = Some(Slice::part(memory.clone(), 512, 8192));
    let extent = Extent { offset: 0, len: 8192 };
    let operation = Operation::Write { fua: false };
    path.submit(Instant::ZERO, Try { id: TryId(1), operation, extent, data });
    let (_, chunk) = path.transmit().unwrap();
    let sent = chunk.data.unwrap();
    assert!(std::ptr::eq(sent.buffer.bytes(), memory.bytes()));
    assert_eq!((sent.start, sent.len, chunk.head.len(), chunk.tail.len()), (512, 8192, 48, 0));
}
