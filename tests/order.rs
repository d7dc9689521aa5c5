//! Overlapping requests from several shards behave as if one after the other.

use corbel_proto::time::Duration;
use corbel_target::host::ShardId;
use corbel_target::volume::{Kind, Outcome};
use corbel_tests::checker::{Action, Command, Fault, History, stamp};
use corbel_tests::disk::SECTOR_BYTES;
use corbel_tests::farm::{Farm, News, Sent, joined, pieces};
use corbel_tests::for_seeds;
use corbel_tests::rng::Rng;
use corbel_tests::world::Weather;

const SECTORS: u64 = 24;
const SHARDS: ShardId = 3;
const REQUESTS: u64 = 160;
const DEPTH: usize = 12;

/// One run: random overlapping reads and writes, judged by the checker.
fn run(seed: u64, broken: bool) -> Result<(), Fault> {
    let mut rng = Rng::new(seed);
    let mut farm = Farm::new(rng.fork(), SHARDS, 24, Weather::default());
    if broken {
        farm.forget_other_shards();
    }
    let mut history = History::new();
    let mut sent: Sent<(std::ops::Range<u64>, u64, bool)> = Sent::new();
    let mut number = 0;
    loop {
        while sent.len() < DEPTH && number < REQUESTS {
            number += 1;
            let first = rng.below(SECTORS - 6);
            let blocks = first..first + 1 + rng.below(6);
            let offset = blocks.start * SECTOR_BYTES as u64;
            let write = rng.percent(50);
            let kind = if write {
                let bytes =
                    stamp::filled(blocks.end - blocks.start, SECTOR_BYTES, number, blocks.start);
                Kind::Write { offset, data: pieces(&bytes, &mut rng) }
            } else {
                let len = (blocks.end - blocks.start) * SECTOR_BYTES as u64;
                Kind::Read { offset, len }
            };
            sent.insert(number, (blocks, farm.now().as_nanos(), write));
            let shard = ShardId::try_from(rng.below(SHARDS.into())).unwrap();
            farm.submit(shard, number, kind, rng.percent(30));
        }
        match farm.advance() {
            None => break,
            Some(News::Alarm(_)) => unreachable!("none was set"),
            Some(News::Outcome(number, outcome)) => {
                let (blocks, began, write) = sent.remove(&number).expect("sent, and not answered");
                let action = match outcome {
                    Outcome::Done if write => Action::Write(number),
                    Outcome::Data(data) if !write => {
                        Action::Read(stamp::read_all(&joined(&data), SECTOR_BYTES, blocks.start))
                    }
                    other => panic!("no faults were planned, but {number} ended as {other:?}"),
                };
                let ended = Some(farm.now().as_nanos());
                history.push(Command { client: 0, blocks, began, ended, action });
            }
        }
    }
    assert_eq!((sent.len(), farm.in_flight()), (0, 0), "every request ends");
    history.check()
}

#[test]
fn every_history_has_an_order() {
    for_seeds(60, |seed| {
        if let Err(fault) = run(seed, false) {
            panic!("{fault}");
        }
    });
}

#[test]
fn without_order_between_shards_the_checker_complains_within_ten_seeds() {
    let caught = (0..10).any(|seed| run(seed, true).is_err());
    assert!(caught, "a target that lets shards race passed ten seeds");
}

#[test]
fn failing_disks_end_requests_with_errors_and_leave_nothing_locked() {
    for_seeds(20, |seed| {
        let mut rng = Rng::new(seed);
        let weather = Weather { error_percent: 20, ..Weather::default() };
        let mut farm = Farm::new(rng.fork(), SHARDS, 24, weather);
        for number in 0..60 {
            let offset = rng.below(SECTORS - 4) * SECTOR_BYTES as u64;
            let bytes = vec![7; 3 * SECTOR_BYTES];
            let kind = match rng.below(4) {
                0 => Kind::Read { offset, len: 1536 },
                1 => Kind::Flush,
                2 => Kind::Discard(vec![(offset, 512), (0, 1024)]),
                _ => Kind::Write { offset, data: pieces(&bytes, &mut rng) },
            };
            farm.submit(ShardId::try_from(number % 3).unwrap(), number, kind, true);
        }
        let mut ended = 0;
        farm.alarm(Duration::from_secs(60), 1);
        while let Some(news) = farm.advance() {
            ended += u64::from(matches!(news, News::Outcome(..)));
        }
        assert_eq!((ended, farm.in_flight()), (60, 0));
    });
}
