//! After a power cut, what was promised is there.

use corbel_proto::time::Duration;
use corbel_target::host::ShardId;
use corbel_target::volume::{Kind, Outcome};
use corbel_tests::checker::{Ledger, Work, stamp};
use corbel_tests::disk::SECTOR_BYTES;
use corbel_tests::farm::{Farm, News, Sent, pieces};
use corbel_tests::for_seeds;
use corbel_tests::rng::Rng;
use corbel_tests::world::Weather;

const SECTORS: u64 = 32;
const DEPTH: usize = 10;

/// Load until a random instant, then the power fails. `lie`: break the promise on purpose.
fn run(seed: u64, lie: bool) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let mut farm = Farm::new(rng.fork(), 2, 32, Weather::default());
    let mut ledger = Ledger::new(32);
    let mut sent: Sent<Work> = Sent::new();
    let mut number = 0;
    farm.alarm(Duration::from_micros(1 + rng.below(60_000)), 1);
    loop {
        while sent.len() < DEPTH {
            number += 1;
            let shard = ShardId::try_from(rng.below(2)).unwrap();
            let (work, kind, durable) = choose(&mut rng, &mut ledger, number);
            sent.insert(number, work);
            farm.submit(shard, number, kind, durable && !lie);
        }
        match farm.advance().expect("the alarm is still to ring") {
            News::Alarm(_) => break,
            News::Outcome(number, Outcome::Done) => {
                ledger.acknowledged(number, sent.remove(&number).expect("sent once"));
            }
            News::Outcome(number, other) => panic!("{number} ended as {other:?}"),
        }
    }
    farm.world.power_cut();
    ledger.judge(&farm.read_disk())
}

fn choose(
    rng: &mut Rng,
    ledger: &mut Ledger,
    number: u64,
) -> (Work, Kind<corbel_proto::memory::HeapBuffer>, bool) {
    let first = rng.below(SECTORS - 3);
    let blocks = 1 + rng.below(3);
    if rng.percent(15) || ledger.is_busy(first, blocks) {
        return (ledger.flush(), Kind::Flush, false);
    }
    let bytes = stamp::filled(blocks, SECTOR_BYTES, number, first);
    let durable = rng.percent(50);
    let offset = first * SECTOR_BYTES as u64;
    let kind = Kind::Write { offset, data: pieces(&bytes, rng) };
    (ledger.write(number, first, blocks, durable), kind, durable)
}

#[test]
fn everything_promised_survives_hundreds_of_power_cuts() {
    for_seeds(400, |seed| run(seed, false).unwrap());
}

#[test]
fn a_target_that_acknowledges_without_flushing_is_caught_within_ten_power_cuts() {
    assert!((0..10).any(|seed| run(seed, true).is_err()));
}
