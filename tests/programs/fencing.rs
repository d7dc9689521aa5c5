//! Persistent reservations fence, and outlive the process.
//!
//! A victim floods a device with writes until another initiator preempts it with PREEMPT AND ABORT:
//! once that is answered, no block changes any more, and the victim meets nothing but conflicts.
//! An AoE client that floods is shut out by what an iSCSI initiator reserves, with the same
//! promise. Then the target is killed at random instants while registrations under APTPL change:
//! what comes up again is the last change that was acknowledged, or the one under way.
//!
//! The program starts the target itself: `fencing … -- corbel-target serve …`.
//!
//! Exit code 0: so it was; 1: it was not; 2: wrong usage.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use clap::Parser;
use corbel_initiator::blocking::now;
use corbel_proto::iscsi::initiator::Transfer;
use corbel_tests::checker::stamp;
use corbel_tests::drive::{AnyError, Disk, IscsiDisk, Operation, PATIENCE, Places, end};
use corbel_tests::rng::Rng;

const BLOCK_BYTES: usize = 512;
/// Where the victim writes: writes of 8 blocks side by side.
const WRITES: u64 = 32;
const RESERVATION_CONFLICT: u8 = 0x18;
/// Service actions of PERSISTENT RESERVE OUT.
const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const CLEAR: u8 = 3;
const PREEMPT_AND_ABORT: u8 = 5;
const REGISTER_AND_IGNORE: u8 = 6;
/// Types.
const WRITE_EXCLUSIVE: u8 = 1;
const WRITE_EXCLUSIVE_REGISTRANTS: u8 = 5;

#[derive(Debug, Parser)]
#[command(about = "Persistent reservations fence, and outlive the process")]
struct Arguments {
    #[command(flatten)]
    places: Places,
    /// How often the victim is fenced off.
    #[arg(long, default_value_t = 50)]
    fences: u32,
    /// How often the target is killed.
    #[arg(long, default_value_t = 25)]
    kills: u32,
    /// Seed of the random instants.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The target's program and arguments.
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

/// The target, which ends with us.
struct Target(Child);

impl Drop for Target {
    fn drop(&mut self) {
        // KILL, as this program wants it; if it has ended by itself, nothing is left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Target {
    /// The kernel gives a killed process's rings back, and with them its port, some time after the
    /// process is gone; so one that ends at once is started again for a while.
    fn start(program: &[String]) -> Result<Self, AnyError> {
        let deadline = now() + PATIENCE;
        loop {
            match Self::try_start(program) {
                Err(_) if now() < deadline => thread::sleep(Duration::from_millis(50)),
                done => return done,
            }
        }
    }

    fn try_start(program: &[String]) -> Result<Self, AnyError> {
        let (program, rest) = program.split_first().ok_or("no program")?;
        let mut child = Command::new(program).args(rest).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let target = Self(child);
        let mut lines = BufReader::new(output).lines();
        while lines.next().ok_or("the target ended before it was ready")?? != "ready" {}
        Ok(target)
    }
}

fn main() -> ExitCode {
    end("fencing", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), AnyError> {
    let mut rng = Rng::new(arguments.seed);
    let mut target = Target::start(&arguments.program)?;
    for round in 0..arguments.fences {
        fence(&arguments.places, round, &mut rng)?;
    }
    println!("{} times no write of the victim landed after it was preempted", arguments.fences);
    for round in 0..arguments.fences {
        shut_out_a_flood(&arguments.places, round, &mut rng)?;
    }
    println!("{} times no AoE write landed after it was shut out", arguments.fences);
    shut_out_aoe(&arguments.places)?;
    println!("AoE clients are shut out while an initiator has a reservation");
    for _ in 0..arguments.kills {
        target = kill(arguments, target, &mut rng)?;
    }
    println!("{} times the state outlived the process, whole", arguments.kills);
    Ok(())
}

/// PERSISTENT RESERVE OUT; its status.
fn out(
    disk: &mut IscsiDisk,
    action: u8,
    kind: u8,
    (key, action_key): (u64, u64),
    persist: bool,
) -> Result<u8, AnyError> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[2], cdb[8]) = (0x5f, action, kind, 24);
    let mut list = vec![0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&action_key.to_be_bytes());
    list[20] = u8::from(persist);
    let lun = disk.lun();
    let (answer, _) = disk.session().run(lun, cdb, Transfer::Write(list), PATIENCE)?;
    Ok(answer.status)
}

fn good(what: &str, status: u8) -> Result<(), AnyError> {
    if status == 0 { Ok(()) } else { Err(format!("{what} ended with status {status:#04x}").into()) }
}

/// PERSISTENT RESERVE IN: READ KEYS (0) or READ RESERVATION (1), as one key.
fn first_key(disk: &mut IscsiDisk, action: u8) -> Result<Option<u64>, AnyError> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[8]) = (0x5e, action, 24);
    let lun = disk.lun();
    let read = Transfer::Read(vec![0; 24]);
    let (answer, transfer) = disk.session().run(lun, cdb, read, PATIENCE)?;
    good("PERSISTENT RESERVE IN", answer.status)?;
    let Transfer::Read(data) = transfer else { return Err("no data".into()) };
    let there = data[7] > 0;
    Ok(there.then(|| u64::from_be_bytes(data[8..16].try_into().expect("eight bytes"))))
}

/// The victim reserves and floods; the other one cuts it off.
fn fence(places: &Places, round: u32, rng: &mut Rng) -> Result<(), AnyError> {
    let place = places.iscsi();
    let mut winner = place.connect(1)?;
    let mut victim = place.connect(2)?;
    let kind = WRITE_EXCLUSIVE_REGISTRANTS;
    good("REGISTER", out(&mut winner, REGISTER_AND_IGNORE, 0, (0, 1), false)?)?;
    good("CLEAR", out(&mut winner, CLEAR, 0, (1, 0), false)?)?;
    good("REGISTER", out(&mut winner, REGISTER_AND_IGNORE, 0, (0, 1), false)?)?;
    good("REGISTER", out(&mut victim, REGISTER_AND_IGNORE, 0, (0, 2), false)?)?;
    good("RESERVE", out(&mut victim, RESERVE, kind, (2, 0), false)?)?;
    let flood = begin_flood(victim, round, rng);
    good("PREEMPT AND ABORT", out(&mut winner, PREEMPT_AND_ABORT, kind, (1, 2), false)?)?;
    let read = || Operation::Read { first: 0, blocks: 8 * u32::try_from(WRITES).expect("few") };
    let before = winner.run(read())?;
    let mut victim = flood.join().map_err(|_| "the victim panicked")??;
    thread::sleep(Duration::from_millis(5));
    if winner.run(read())? != before {
        return Err(format!("a write landed after the preempt of round {round}").into());
    }
    // Before it is told of its lost registration (SAM-5 5.3.3).
    let mut cdb = [0; 16];
    (cdb[0], cdb[8]) = (0x2a, 1);
    let (lun, late) = (victim.lun(), Transfer::Write(vec![0xff; BLOCK_BYTES]));
    let (answer, _) = victim.session().run(lun, cdb, late, PATIENCE)?;
    match answer.status {
        RESERVATION_CONFLICT => Ok(()),
        status => Err(format!("the victim's later write ended with status {status:#04x}").into()),
    }
}

/// An AoE client floods; an initiator's reservation cuts it off.
fn shut_out_a_flood(places: &Places, round: u32, rng: &mut Rng) -> Result<(), AnyError> {
    let mut holder = places.iscsi().connect(1)?;
    let victim = places.aoe.connect(3)?;
    good("REGISTER", out(&mut holder, REGISTER_AND_IGNORE, 0, (0, 1), false)?)?;
    good("CLEAR", out(&mut holder, CLEAR, 0, (1, 0), false)?)?;
    good("REGISTER", out(&mut holder, REGISTER, 0, (0, 1), false)?)?;
    let flood = begin_flood(victim, round, rng);
    good("RESERVE", out(&mut holder, RESERVE, WRITE_EXCLUSIVE, (1, 0), false)?)?;
    let read = || Operation::Read { first: 0, blocks: 8 * u32::try_from(WRITES).expect("few") };
    let before = holder.run(read())?;
    flood.join().map_err(|_| "the victim panicked")??;
    thread::sleep(Duration::from_millis(5));
    if holder.run(read())? != before {
        return Err(format!("an AoE write landed after the reservation of round {round}").into());
    }
    good("CLEAR", out(&mut holder, CLEAR, 0, (1, 0), false)?)
}

/// A client that floods, once its first write is done, and some time more.
fn begin_flood<D: Disk + Send + 'static>(
    victim: D,
    round: u32,
    rng: &mut Rng,
) -> thread::JoinHandle<Result<D, AnyError>> {
    let written = Arc::new(AtomicU64::new(0));
    let theirs = written.clone();
    let flood = thread::spawn(move || flood(victim, u64::from(round), &theirs));
    while written.load(Ordering::Relaxed) == 0 && !flood.is_finished() {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_micros(rng.below(20_000)));
    flood
}

/// Writes until it is refused, and waits for all answers. Counts the writes that were done.
fn flood<D: Disk>(mut disk: D, round: u64, written: &AtomicU64) -> Result<D, AnyError> {
    let blocks = u64::from(disk.blocks_max().min(8));
    let write = |number: u64| {
        let first = number % WRITES * 8;
        let id = round << 32 | (number + 1);
        Operation::Write { first, data: stamp::filled(blocks, BLOCK_BYTES, id, first) }
    };
    let (mut number, mut under_way, mut fenced) = (0, 0, false);
    loop {
        while under_way < WRITES && !fenced {
            disk.submit(1000 + number, write(number));
            (number, under_way) = (number + 1, under_way + 1);
        }
        if under_way == 0 {
            return Ok(disk);
        }
        let ended = disk.next(now() + PATIENCE)?.ok_or("a write of the victim hangs")?;
        under_way -= 1;
        match ended.result {
            Ok(_) => {
                written.fetch_add(1, Ordering::Relaxed);
            }
            // RESERVATION CONFLICT, or TASK ABORTED.
            Err(_) => fenced = true,
        }
    }
}

/// A reservation of an initiator, met by an AoE client.
fn shut_out_aoe(places: &Places) -> Result<(), AnyError> {
    let mut holder = places.iscsi().connect(1)?;
    let mut outsider = places.aoe.connect(3)?;
    let write = || Operation::Write { first: 0, data: vec![7; BLOCK_BYTES] };
    let read = || Operation::Read { first: 0, blocks: 1 };
    good("REGISTER", out(&mut holder, REGISTER_AND_IGNORE, 0, (0, 1), false)?)?;
    good("CLEAR", out(&mut holder, CLEAR, 0, (1, 0), false)?)?;
    outsider.run(write())?;
    good("REGISTER", out(&mut holder, REGISTER, 0, (0, 1), false)?)?;
    good("RESERVE", out(&mut holder, RESERVE, WRITE_EXCLUSIVE, (1, 0), false)?)?;
    outsider.run(read())?;
    if outsider.run(write()).is_ok() {
        return Err("an AoE client wrote over a reservation".into());
    }
    good("CLEAR", out(&mut holder, CLEAR, 0, (1, 0), false)?)?;
    outsider.run(write())?;
    Ok(())
}

/// Keys change as fast as they can; the target is killed meanwhile. Then it is started again.
fn kill(arguments: &Arguments, mut target: Target, rng: &mut Rng) -> Result<Target, AnyError> {
    let mut disk = arguments.places.iscsi().connect(1)?;
    let begin = 1 + rng.below(1 << 40);
    good("REGISTER", out(&mut disk, REGISTER_AND_IGNORE, 0, (0, begin), true)?)?;
    good("RESERVE", out(&mut disk, RESERVE, WRITE_EXCLUSIVE, (begin, 0), true)?)?;
    let changes = thread::spawn(move || {
        let mut key = begin;
        while let Ok(0) = out(&mut disk, REGISTER, 0, (key, key + 1), true) {
            key += 1;
        }
        key
    });
    thread::sleep(Duration::from_micros(rng.below(40_000)));
    target.0.kill()?;
    target.0.wait()?;
    let acknowledged = changes.join().map_err(|_| "the changing thread panicked")?;
    drop(target);
    let target = Target::start(&arguments.program)?;
    let mut other = arguments.places.iscsi().connect(4)?;
    let (registered, holder) = (first_key(&mut other, 0)?, first_key(&mut other, 1)?);
    let sound = registered == Some(acknowledged) || registered == Some(acknowledged + 1);
    if !sound || holder != registered {
        return Err(format!(
            "acknowledged was key {acknowledged}; after the kill {registered:?} is registered and \
             {holder:?} holds it"
        )
        .into());
    }
    match other.run(Operation::Write { first: 0, data: vec![1; BLOCK_BYTES] }) {
        Err(_) => Ok(target),
        Ok(_) => Err("an outsider wrote after the restart".into()),
    }
}
