//! After a power cut, what was promised is there.

use corbel_proto::time::Duration;
use corbel_target::host::ShardId;
use corbel_target::volume::{Kind, Outcome};
use corbel_tests::checker::{Content, stamp};
use corbel_tests::disk::SECTOR_BYTES;
use corbel_tests::farm::{Farm, News, Sent, pieces};
use corbel_tests::for_seeds;
use corbel_tests::rng::Rng;
use corbel_tests::world::Weather;

const SECTORS: u64 = 32;
const DEPTH: usize = 10;

/// What is known of one sector. Writes to it are sent one at a time, so their numbers grow.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The last write sent.
    sent: u64,
    /// The last write acknowledged.
    acknowledged: u64,
    /// The last write that was promised to be stable.
    promised: u64,
    busy: bool,
}

enum Work {
    Write {
        first: u64,
        blocks: u64,
        durable: bool,
    },
    /// What stood acknowledged when the flush was sent.
    Flush(Vec<u64>),
}

/// Load until a random instant, then the power fails. `lie`: break the promise on purpose.
fn run(seed: u64, lie: bool) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let mut farm = Farm::new(rng.fork(), 2, 32, Weather::default());
    let mut known = vec![Known::default(); 32];
    let mut sent: Sent<Work> = Sent::new();
    let mut number = 0;
    farm.alarm(Duration::from_micros(1 + rng.below(60_000)), 1);
    loop {
        while sent.len() < DEPTH {
            number += 1;
            let shard = ShardId::try_from(rng.below(2)).unwrap();
            let (work, kind, durable) = choose(&mut rng, &mut known, number);
            sent.insert(number, work);
            farm.submit(shard, number, kind, durable && !lie);
        }
        match farm.advance().expect("the alarm is still to ring") {
            News::Alarm(_) => break,
            News::Outcome(number, Outcome::Done) => {
                acknowledged(&mut known, sent.remove(&number).expect("sent once"), number);
            }
            News::Outcome(number, other) => panic!("{number} ended as {other:?}"),
        }
    }
    farm.world.power_cut();
    judge(&known, &farm.read_disk())
}

fn choose(
    rng: &mut Rng,
    known: &mut [Known],
    number: u64,
) -> (Work, Kind<corbel_proto::memory::HeapBuffer>, bool) {
    let first = rng.below(SECTORS - 3);
    let blocks = 1 + rng.below(3);
    let range = usize::try_from(first).unwrap()..usize::try_from(first + blocks).unwrap();
    if rng.percent(15) || known[range.clone()].iter().any(|k| k.busy) {
        let work = Work::Flush(known.iter().map(|k| k.acknowledged).collect());
        return (work, Kind::Flush, false);
    }
    for sector in &mut known[range] {
        (sector.sent, sector.busy) = (number, true);
    }
    let bytes = stamp::filled(blocks, SECTOR_BYTES, number, first);
    let durable = rng.percent(50);
    let offset = first * SECTOR_BYTES as u64;
    let kind = Kind::Write { offset, data: pieces(&bytes, rng) };
    (Work::Write { first, blocks, durable }, kind, durable)
}

fn acknowledged(known: &mut [Known], work: Work, number: u64) {
    match work {
        Work::Write { first, blocks, durable } => {
            for sector in first..first + blocks {
                let sector = &mut known[usize::try_from(sector).unwrap()];
                (sector.acknowledged, sector.busy) = (number, false);
                if durable {
                    sector.promised = number;
                }
            }
        }
        Work::Flush(covered) => {
            for (sector, covered) in known.iter_mut().zip(covered) {
                sector.promised = sector.promised.max(covered);
            }
        }
    }
}

fn judge(known: &[Known], disk: &[u8]) -> Result<(), String> {
    let contents = stamp::read_all(disk, SECTOR_BYTES, 0);
    for (sector, (known, content)) in known.iter().zip(contents).enumerate() {
        let Content::Of(number) = content else {
            return Err(format!("sector {sector} holds a mixture"));
        };
        if number < known.promised || number > known.sent {
            return Err(format!("sector {sector} holds write {number}, but {known:?}"));
        }
    }
    Ok(())
}

#[test]
fn everything_promised_survives_hundreds_of_power_cuts() {
    for_seeds(400, |seed| run(seed, false).unwrap());
}

#[test]
fn a_target_that_acknowledges_without_flushing_is_caught_within_ten_power_cuts() {
    assert!((0..10).any(|seed| run(seed, true).is_err()));
}
