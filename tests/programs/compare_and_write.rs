//! Two sessions on different shards, one block, COMPARE AND WRITE: exactly one wins each round.
//!
//! Both know what stands in the block, and both want to write something of their own over it at
//! the same time. One is told GOOD; the other MISCOMPARE, and where the winner's block differs from
//! what it expected. The next round begins with the winner's block, so a write that got lost, or
//! one of the loser's, would be a round without a winner.
//!
//! Exit code 0: so it was; 1: it was not; 2: wrong usage.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use clap::Parser;
use corbel_proto::iscsi::initiator::{Answer, Transfer};
use corbel_proto::scsi::Sense;
use corbel_proto::scsi::sense::Key;
use corbel_target::admin::{Request, Response, ask};
use corbel_tests::drive::{AnyError, Disk, IscsiDisk, Operation, PATIENCE, Places, end, options};

const BLOCK_BYTES: usize = 512;
/// The block they fight for.
const LBA: u64 = 7;
/// Sessions that are tried until two are on different shards: the kernel spreads them by port.
const SESSIONS_MAX: u32 = 64;

#[derive(Debug, Parser)]
#[command(about = "Two sessions hammer COMPARE AND WRITE on one block; one wins each round")]
struct Arguments {
    #[command(flatten)]
    places: Places,
    /// The target's control socket, which says on which shard a session is.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Rounds.
    #[arg(long, default_value_t = 100_000)]
    rounds: u64,
}

fn main() -> ExitCode {
    end("compare-and-write", run(&Arguments::parse()))
}

/// What a contender was told, as a number that the other can read.
mod told {
    pub(super) const WON: u64 = u64::MAX;
    pub(super) const BROKEN: u64 = u64::MAX - 1;
    // Anything below is the offset of a miscompare.
}

/// What both contenders share.
struct Ring {
    barrier: Barrier,
    told: [AtomicU64; 2],
    wins: [AtomicU64; 2],
    rounds: u64,
}

fn run(arguments: &Arguments) -> Result<(), AnyError> {
    let mut disks = contenders(arguments)?;
    disks[0].run(Operation::Write { first: LBA, data: block(0, 0) })?;
    let ring = Ring {
        barrier: Barrier::new(2),
        told: Default::default(),
        wins: Default::default(),
        rounds: arguments.rounds,
    };
    let [first, second] = disks;
    let began = Instant::now();
    let ends = thread::scope(|scope| {
        let other = scope.spawn(|| contend(1, second, &ring));
        let one = contend(0, first, &ring);
        [one, other.join().unwrap_or_else(|_| Err("a contender panicked".into()))]
    });
    let [one, other] = ends;
    let (mut disk, last) = one?;
    other?;
    if disk.run(Operation::Read { first: LBA, blocks: 1 })? != last {
        return Err("the last winner's block is not there".into());
    }
    let [wins, others] = [0, 1].map(|at| ring.wins[at].load(Ordering::Relaxed));
    let seconds = began.elapsed().as_secs();
    println!("{} rounds, one winner each ({wins} and {others}), in {seconds} s", ring.rounds);
    // A contender that never won was never close to winning: nothing was shown.
    if wins == 0 || others == 0 {
        return Err("one contender won every round; they did not meet".into());
    }
    Ok(())
}

/// Two sessions that different shards serve.
fn contenders(arguments: &Arguments) -> Result<[IscsiDisk; 2], AnyError> {
    let place = arguments.places.iscsi();
    let first = place.connect(1)?;
    let first_shard = shard(arguments, 1)?;
    for number in 2..=SESSIONS_MAX {
        let second = place.connect(number)?;
        let second_shard = shard(arguments, number)?;
        if second_shard != first_shard {
            println!("sessions on shards {first_shard} and {second_shard}");
            return Ok([first, second]);
        }
    }
    Err(format!("{SESSIONS_MAX} sessions, all on shard {first_shard}").into())
}

fn shard(arguments: &Arguments, number: u32) -> Result<u16, AnyError> {
    let isid: String = options(number).isid.iter().map(|byte| format!("{byte:02x}")).collect();
    let (Response::Status { status }, _) = ask(&arguments.socket, Request::Status)? else {
        return Err("the target tells no status".into());
    };
    let session = status.sessions.iter().find(|session| session.isid == isid);
    Ok(session.ok_or("the target does not know our session")?.shard)
}

/// What the winner of `round` leaves behind. Two differ somewhere in the block, not always at its
/// beginning.
fn block(round: u64, winner: usize) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    let at = 16 * usize::try_from(round % 32).expect("below 32");
    block[at..at + 8].copy_from_slice(&round.to_be_bytes());
    block[at + 8] = 1 + u8::try_from(winner).expect("0 or 1");
    block
}

/// Fights every round. Both contenders come to the same verdict, so both end with the same round.
fn contend(me: usize, mut disk: IscsiDisk, ring: &Ring) -> Result<(IscsiDisk, Vec<u8>), AnyError> {
    let mut there = block(0, 0);
    for round in 1..=ring.rounds {
        let mine = block(round, me);
        ring.barrier.wait();
        let answer = compare_and_write(&mut disk, &there, &mine);
        let verdict = answer.as_ref().map_or(told::BROKEN, judge);
        ring.told[me].store(verdict, Ordering::Release);
        ring.barrier.wait();
        let verdicts = [0, 1].map(|at| ring.told[at].load(Ordering::Acquire));
        let (winner, miscompare) = match verdicts {
            [told::WON, miscompare] if miscompare < told::BROKEN => (0, miscompare),
            [miscompare, told::WON] if miscompare < told::BROKEN => (1, miscompare),
            _ => return Err(format!("round {round}: {verdicts:x?}; told {answer:02x?}").into()),
        };
        ring.wins[winner].fetch_add(u64::from(winner == me), Ordering::Relaxed);
        let next = block(round, winner);
        let differs = next.iter().zip(&there).position(|(a, b)| a != b).map(|at| at as u64);
        if differs != Some(miscompare) {
            let what = format!("blocks differ at {differs:?}, told was {miscompare}");
            return Err(format!("round {round}: {what}").into());
        }
        there = next;
    }
    Ok((disk, there))
}

fn compare_and_write(disk: &mut IscsiDisk, old: &[u8], new: &[u8]) -> Result<Answer, AnyError> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[13]) = (0x89, 1);
    cdb[2..10].copy_from_slice(&LBA.to_be_bytes());
    let lun = disk.lun();
    let transfer = Transfer::Write([old, new].concat());
    Ok(disk.session().run(lun, cdb, transfer, PATIENCE)?.0)
}

fn judge(answer: &Answer) -> u64 {
    match answer.status {
        0 => told::WON,
        _ => Sense::parse(&answer.sense)
            .filter(|sense| sense.condition.key == Key::Miscompare)
            .and_then(|sense| sense.information)
            .filter(|offset| *offset < told::BROKEN)
            .unwrap_or(told::BROKEN),
    }
}
