//! The same promises as `order.rs` and `power.rs`, through the front doors: the whole target, AoE
//! and iSCSI clients at once, retransmissions, several shards.

use std::collections::HashMap;

use corbel_proto::time::Duration;
use corbel_target::ata::Acknowledge;
use corbel_tests::checker::{Action, Command, Fault, History, Ledger, Work, stamp};
use corbel_tests::disk::SECTOR_BYTES;
use corbel_tests::for_seeds;
use corbel_tests::house::{Done, House, News};
use corbel_tests::rng::Rng;
use corbel_tests::world::Weather;

const SECTORS: u64 = 32;
const SHARDS: u16 = 2;

fn cdb(opcode: u8, lba: u64, blocks: u64, fua: bool) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = u8::from(fua) << 3;
    cdb[5] = u8::try_from(lba).unwrap();
    cdb[8] = u8::try_from(blocks).unwrap();
    cdb
}
const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;
const SYNCHRONIZE_CACHE_10: u8 = 0x35;

/// Tags of an AoE command's copies, and back.
fn tags(number: u64, copies: u32) -> Vec<u32> {
    let number = u32::try_from(number).unwrap();
    (0..copies).map(|copy| number << 2 | copy).collect()
}

#[derive(Debug, Clone)]
struct Sent {
    blocks: std::ops::Range<u64>,
    began: u64,
    write: bool,
    aoe: bool,
}

/// Random overlapping commands of both protocols, AoE writes with late second copies.
fn order(seed: u64) -> Result<(), Fault> {
    let mut rng = Rng::new(seed);
    let weather = Weather::default();
    let mut house = House::new(rng.fork(), SHARDS, 32, weather, Acknowledge::Stable);
    let sessions = [house.log_in(0), house.log_in(1)];
    let mut history = History::new();
    let mut sent: HashMap<u64, Sent> = HashMap::new();
    let mut number = 0;
    loop {
        while sent.len() < 10 && number < 140 {
            number += 1;
            let first = rng.below(SECTORS - 8);
            let count = 1 + rng.below(6);
            let (write, aoe) = (rng.percent(50), rng.percent(50));
            let bytes = stamp::filled(count, SECTOR_BYTES, number, first);
            let blocks = first..first + count;
            sent.insert(number, Sent { blocks, began: house.now().as_nanos(), write, aoe });
            if aoe {
                let copies = 1 + u32::from(rng.percent(40));
                let sectors = u8::try_from(count).unwrap();
                house.aoe(&tags(number, copies), first, sectors, write.then_some(&bytes[..]));
            } else {
                let session = sessions[usize::try_from(rng.below(2)).unwrap()];
                let opcode = if write { WRITE_10 } else { READ_10 };
                let data = if write { Ok(bytes) } else { Err(bytes.len()) };
                house.iscsi(session, number, cdb(opcode, first, count, rng.percent(30)), data);
            }
        }
        let (number, good, data) = match house.advance() {
            None => break,
            Some(News::Alarm(_)) => unreachable!("none was set"),
            Some(News::Aoe { tag, good, data }) => (u64::from(tag >> 2), good, data),
            Some(News::Iscsi(Done { id, good, data, .. })) => (id, good, data),
        };
        // A second copy's reply comes after the first has ended the command.
        let Some(command) = sent.remove(&number) else { continue };
        assert!(good, "{command:?} failed without a fault");
        let action = if command.write {
            Action::Write(number)
        } else {
            let bytes = (command.blocks.end - command.blocks.start) * SECTOR_BYTES as u64;
            let data = &data[..usize::try_from(bytes).unwrap()];
            Action::Read(stamp::read_all(data, SECTOR_BYTES, command.blocks.start))
        };
        let ended = Some(house.now().as_nanos());
        let Sent { blocks, began, aoe, .. } = command;
        history.push(Command { client: aoe.into(), blocks, began, ended, action });
    }
    assert_eq!((sent.len(), house.in_flight()), (0, 0), "every command ends");
    history.check()
}

#[test]
fn both_protocols_see_one_device() {
    for_seeds(150, |seed| {
        if let Err(fault) = order(seed) {
            panic!("{fault}");
        }
    });
}

/// Load until a random instant, then the power fails.
fn power(seed: u64, acknowledge: Acknowledge) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let mut house = House::new(rng.fork(), SHARDS, 32, Weather::default(), acknowledge);
    let sessions = [house.log_in(0), house.log_in(1)];
    let mut ledger = Ledger::new(32);
    let mut works: HashMap<u64, Work> = HashMap::new();
    let mut number = 0;
    house.alarm(Duration::from_micros(1 + rng.below(80_000)), 1);
    loop {
        while works.len() < 8 {
            number += 1;
            let session = sessions[usize::try_from(rng.below(2)).unwrap()];
            let (first, count) = (rng.below(SECTORS - 4), 1 + rng.below(4));
            if rng.percent(15) || ledger.is_busy(first, count) {
                works.insert(number, ledger.flush());
                let sync = cdb(SYNCHRONIZE_CACHE_10, 0, 0, false);
                house.iscsi(session, number, sync, Ok(Vec::new()));
                continue;
            }
            let bytes = stamp::filled(count, SECTOR_BYTES, number, first);
            let (aoe, fua) = (rng.percent(50), rng.percent(50));
            works.insert(number, ledger.write(number, first, count, aoe || fua));
            if aoe {
                let sectors = u8::try_from(count).unwrap();
                house.aoe(&tags(number, 1), first, sectors, Some(&bytes));
            } else {
                house.iscsi(session, number, cdb(WRITE_10, first, count, fua), Ok(bytes));
            }
        }
        let (number, good) = match house.advance().expect("the alarm is still to ring") {
            News::Alarm(_) => break,
            News::Aoe { tag, good, .. } => (u64::from(tag >> 2), good),
            News::Iscsi(Done { id, good, .. }) => (id, good),
        };
        assert!(good, "command {number} failed without a fault");
        ledger.acknowledged(number, works.remove(&number).expect("sent once"));
    }
    house.world.power_cut();
    ledger.judge(&house.read_disk())
}

#[test]
fn what_both_protocols_promised_survives_hundreds_of_power_cuts() {
    for_seeds(300, |seed| power(seed, Acknowledge::Stable).unwrap());
}

#[test]
fn acknowledging_aoe_writes_from_the_cache_is_seen_to_lose_some() {
    assert!((0..20).any(|seed| power(seed, Acknowledge::Cached).is_err()));
}
