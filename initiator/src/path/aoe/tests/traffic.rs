//! Tries on a path that works, more or less.

use super::*;
use crate::request::IoError;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 512).to_le_bytes()[0]).collect()
}

#[test]
fn what_is_written_is_read_again_in_pieces_that_fit() {
    for (mtu, most) in [(1500, 2), (4200, 8), (9000, 16)] {
        let mut farm = Farm::ready(Config::new(7, 1), mtu);
        let data = pattern(64 * 1024);
        farm.write(1, 512 * 3, data.clone());
        farm.run(1000);
        farm.read(2, 512 * 3, data.len());
        farm.run(1000);
        assert_eq!(farm.verdicts(), [(1, Verdict::Done), (2, Verdict::Done)]);
        let read = farm.tried().last().unwrap().1.data.as_ref().unwrap().bytes().to_vec();
        assert_eq!(read, data);
        let extents = std::mem::take(&mut farm.server.extents);
        assert!(extents.iter().all(|(_, count)| *count <= most));
        if most >= 8 {
            let straddles = extents.iter().filter(|(first, _)| first % 8 != 0).count();
            assert_eq!(straddles, 2, "only the first of each try is not aligned to 4 KiB");
        }
    }
}

#[test]
fn no_more_than_the_server_can_queue_is_under_way() {
    for (depth, most) in [(128, 16), (4, 4)] {
        let mut farm = Farm::ready(Config { depth, ..Config::new(7, 1) }, 1500);
        farm.fate = Box::new(|_| (Some(Duration::ZERO), Some(10 * MS)));
        for id in 0..8 {
            farm.read(id, id * 65536, 65536);
        }
        farm.run(10);
        let mut longest = 0;
        for _ in 0..100 {
            farm.run(1);
            longest = longest.max(farm.coming.len());
        }
        assert_eq!(longest, most);
        farm.run(5000);
        assert_eq!(farm.verdicts().len(), 8);
    }
}

#[test]
fn a_flush_is_done_at_once_if_nothing_is_cached() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.submit(1, Operation::Flush, 0, None, 0);
    assert_eq!(farm.verdicts(), [(1, Verdict::Done)]);
    assert!(farm.server.seen.is_empty());
}

#[test]
fn a_server_with_a_cache_is_flushed_and_fua_is_a_write_and_a_flush() {
    let mut farm = Farm::started(Config::new(7, 1), 1500);
    farm.server.identify.write_cache = true;
    farm.run(100);
    assert!(farm.took_ready().unwrap().1.volatile_cache);
    farm.forget();
    farm.submit(1, Operation::Write { fua: true }, 0, Some(pattern(2048)), 2048);
    farm.run(100);
    assert_eq!(farm.server.seen, [0x34, 0x34, 0xea]);
    farm.submit(2, Operation::Flush, 0, None, 0);
    farm.run(100);
    assert_eq!(farm.server.seen[3..], [0xea]);
    assert_eq!(farm.verdicts(), [(1, Verdict::Done), (2, Verdict::Done)]);
}

#[test]
fn a_server_that_knows_only_the_short_flush_is_sent_that() {
    let mut farm = Farm::ready(Config { server_caches: true, ..Config::new(7, 1) }, 1500);
    farm.server.instead.insert(0xea, Ok((0x41, 4)));
    farm.submit(1, Operation::Write { fua: true }, 0, Some(pattern(512)), 512);
    farm.run(100);
    farm.submit(2, Operation::Flush, 0, None, 0);
    farm.run(100);
    assert_eq!(farm.server.seen, [0x34, 0xea, 0xe7, 0xe7]);
    assert_eq!(farm.verdicts(), [(1, Verdict::Done), (2, Verdict::Done)]);
    farm.server.instead.insert(0xe7, Ok((0x41, 4)));
    farm.submit(3, Operation::Flush, 0, None, 0);
    farm.run(100);
    assert_eq!(farm.verdicts()[2], (3, Verdict::Device(IoError::Unsupported)));
}

#[test]
fn discards_are_trims_that_name_every_sector_once() {
    let mut farm = Farm::new(Config::new(7, 1));
    farm.server.identify.sectors = 1 << 32;
    farm.path.start(farm.now);
    farm.path.link(farm.now, Link { mac: LOCAL, mtu: 1500, up: true });
    farm.run(100);
    farm.submit(1, Operation::Discard, 4096, None, 1 << 30);
    farm.run(1000);
    assert_eq!(farm.verdicts(), [(1, Verdict::Done)]);
    let mut next = 8;
    for &(lba, sectors) in &farm.server.trimmed {
        assert_eq!(lba, next);
        next += u64::from(sectors);
    }
    assert_eq!(next, 8 + (1 << 30) / 512);
}

#[test]
fn what_the_device_cannot_do_or_does_not_hold_is_not_sent() {
    let mut farm = Farm::new(Config::new(7, 1));
    farm.server.identify.trim_blocks = 0;
    farm.path.start(farm.now);
    farm.path.link(farm.now, Link { mac: LOCAL, mtu: 1500, up: true });
    farm.run(100);
    assert!(!farm.took_ready().unwrap().1.discard);
    farm.forget();
    let end = 4096 * 512;
    farm.submit(1, Operation::Discard, 0, None, 4096);
    farm.submit(2, Operation::WriteZeroes { unmap: true, fua: false }, 0, None, 4096);
    farm.read(3, end - 512, 1024);
    farm.read(4, 5, 512);
    farm.submit(5, Operation::Read, u64::MAX - 511, Some(vec![0; 512]), 512);
    farm.submit(6, Operation::Read, 0, None, 512);
    let invalid = Verdict::Device(IoError::Invalid);
    let unsupported = Verdict::Device(IoError::Unsupported);
    let expected = [unsupported, unsupported, invalid, invalid, invalid, invalid];
    let verdicts: Vec<_> = farm.verdicts().into_iter().map(|(_, verdict)| verdict).collect();
    assert_eq!(verdicts, expected);
    assert!(farm.server.seen.is_empty());
}

#[test]
fn errors_of_the_device_end_the_try_at_once() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.server.instead.insert(0x24, Ok((0x41, 0x40)));
    farm.server.instead.insert(0x34, Err(Error::TargetReserved));
    farm.read(1, 0, 65536);
    farm.write(2, 0, pattern(65536));
    farm.run(20);
    let medium = Verdict::Device(IoError::Medium);
    let mut verdicts = farm.verdicts();
    verdicts.sort_by_key(|(id, _)| *id);
    assert_eq!(verdicts, [(1, medium), (2, Verdict::Device(IoError::Conflict))]);
    assert!(farm.downs().is_empty());
    assert!(farm.server.seen.len() < 100, "the rest of the try is not sent");
}

#[test]
fn a_device_that_is_gone_takes_the_path_down() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    for opcode in [0x24, 0xec] {
        farm.server.instead.insert(opcode, Err(Error::DeviceUnavailable));
    }
    farm.read(1, 0, 512);
    farm.run(20);
    assert_eq!(farm.verdicts(), [(1, Verdict::Elsewhere(PathFault::NoDevice))]);
    assert_eq!(farm.downs().len(), 1);
    assert_eq!(farm.downs()[0].1, PathFault::NoDevice);
    assert!(farm.path.why(farm.now).unwrap().contains("IDENTIFY"));
    farm.server.instead.clear();
    farm.run(3000);
    assert!(farm.took_ready().is_some());
}

#[test]
fn a_try_can_be_taken_back() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.fate = black_hole();
    farm.read(1, 0, 65536);
    farm.write(2, 0, pattern(512));
    farm.path.abort(farm.now, TryId(1));
    farm.path.abort(farm.now, TryId(1));
    farm.pass();
    let verdicts = farm.verdicts();
    assert_eq!(verdicts, [(1, Verdict::Elsewhere(PathFault::CommandTimeout))]);
    farm.fate = well();
    farm.run(100);
    assert_eq!(farm.verdicts()[1].0, 2);
}

#[test]
fn answers_of_others_and_broken_ones_change_nothing() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.fate = Box::new(|frame| if is_query(frame) { (None, None) } else { (Some(MS), None) });
    farm.read(1, 0, 512);
    let (_, request) = farm.sent.last().unwrap().clone();
    let reply = farm.server.answer(&request);
    for (byte, value) in [(5, 9), (11, 9), (14, 0x28), (14, 0x10), (17, 9), (18, 9), (19, 7)] {
        let mut other = reply.clone();
        other[byte] = value;
        farm.path.frame(farm.now, &other);
    }
    for len in 0..reply.len() {
        farm.path.frame(farm.now, &reply[..len]);
    }
    farm.pass();
    assert!(farm.verdicts().is_empty());
    farm.path.frame(farm.now, &reply);
    farm.pass();
    assert_eq!(farm.verdicts(), [(1, Verdict::Done)]);
}

#[test]
fn every_try_ends_once_and_data_is_right_whatever_is_lost() {
    for seed in 0..30 {
        let mut farm = Farm::ready(Config::new(7, 1), if seed % 2 == 0 { 1500 } else { 9000 });
        let mut random = Random(seed);
        let loss = seed % 5 * 8;
        farm.fate = Box::new(move |_| {
            let mut way = || {
                let lost = random.next() % 100 < loss;
                (!lost).then(|| MS * u32::try_from(random.next() % 30).unwrap())
            };
            (way(), way())
        });
        let mut written = BTreeMap::new();
        for id in 0..40u8 {
            let start = usize::from(id) * 16 * 1024;
            let data = vec![id + 1; 16 * 1024];
            written.insert(u64::from(id), (start, data.clone()));
            farm.write(u64::from(id), start as u64, data);
            farm.run(17);
        }
        farm.run(60_000);
        let mut verdicts = farm.verdicts();
        verdicts.sort_by_key(|(id, _)| *id);
        let ids: Vec<_> = verdicts.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (0..40).collect::<Vec<_>>());
        for (id, verdict) in verdicts {
            let (offset, data) = &written[&id];
            if matches!(verdict, Verdict::Done | Verdict::DoneInDoubt(_)) {
                assert_eq!(&farm.server.data[*offset..offset + data.len()], &data[..], "{id}");
            } else {
                assert!(loss > 0, "{verdict:?}");
            }
        }
        assert!(farm.path.is_quiet() && farm.path.tries.is_empty());
    }
}
