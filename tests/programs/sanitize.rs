//! One step of a volume's life around SANITIZE, over both protocols; a script kills and restarts
//! the target between the steps.
//!
//! Exit code 0: all is as it should be; 1: something is not; 2: wrong usage.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use corbel_initiator::blocking::iscsi::Session;
use corbel_initiator::blocking::login::{Options, connect};
use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::iscsi::initiator::Transfer;
use corbel_proto::scsi::{Condition, Sense};
use corbel_tests::drive::{AnyError, Disk, Operation, PATIENCE, Places, end, options};

const BLOCK_BYTES: usize = 512;
/// Blocks that are looked at, at each end of the volume.
const BLOCKS: u32 = 64;

/// What OVERWRITE writes, by its service action and a pattern of one byte.
const PATTERN: u8 = 0xa5;
const OVERWRITE: u8 = 0x01;
const CRYPTO_ERASE: u8 = 0x03;
const IMMEDIATE: u8 = 0x80;

#[derive(Debug, Parser)]
#[command(about = "One step of a volume's life around SANITIZE")]
struct Arguments {
    #[command(flatten)]
    places: Places,
    /// What is done and checked.
    step: Step,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Step {
    /// Known text is written over iSCSI at one end, over AoE at the other, and read over both.
    Write,
    /// It is still there.
    Read,
    /// OVERWRITE begins, and everybody is shut out.
    Begin,
    /// Everybody is shut out, for an attempt did not come to its end.
    Closed,
    /// OVERWRITE, to its end: both protocols read the pattern.
    Overwrite,
    /// CRYPTOGRAPHIC ERASE: neither reads what was written.
    CryptoErase,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    end("sanitize", run(&arguments))
}

/// Text that is found on a store that is not encrypted.
fn text() -> Vec<u8> {
    let line = *b"corbel sanitize: plain text that a store keeps as it came. 01234";
    line.repeat(BLOCKS as usize * BLOCK_BYTES / line.len())
}

fn run(arguments: &Arguments) -> Result<(), AnyError> {
    match arguments.step {
        Step::Write => write(&arguments.places),
        Step::Read => ends_hold(&arguments.places, &text()),
        Step::Begin => {
            let mut session = Unit::open(&arguments.places)?;
            session.sanitize(OVERWRITE | IMMEDIATE, &[1, 0, 0, 1, PATTERN])?;
            shut_out(&arguments.places, Condition::SANITIZE_IN_PROGRESS)
        }
        Step::Closed => shut_out(&arguments.places, Condition::SANITIZE_COMMAND_FAILED),
        Step::Overwrite => {
            Unit::open(&arguments.places)?.sanitize(OVERWRITE, &[1, 0, 0, 1, PATTERN])?;
            ends_hold(&arguments.places, &text().iter().map(|_| PATTERN).collect::<Vec<_>>())
        }
        Step::CryptoErase => {
            Unit::open(&arguments.places)?.sanitize(CRYPTO_ERASE, &[])?;
            match ends_hold(&arguments.places, &text()) {
                Ok(()) => Err("what was erased can be read".into()),
                Err(_) => write(&arguments.places),
            }
        }
    }
}

/// First block of either end.
fn ends(disk: &mut dyn Disk) -> Result<[u64; 2], AnyError> {
    Ok([0, disk.blocks()? - u64::from(BLOCKS)])
}

/// A few blocks at a time: AoE frames hold no more.
fn read(disk: &mut dyn Disk, first: u64) -> Result<Vec<u8>, AnyError> {
    let mut data = Vec::new();
    for at in (0..BLOCKS).step_by(2) {
        data.extend(disk.run(Operation::Read { first: first + u64::from(at), blocks: 2 })?);
    }
    Ok(data)
}

fn write(places: &Places) -> Result<(), AnyError> {
    let (mut iscsi, mut aoe) = (places.iscsi().connect(1)?, places.aoe.connect(1)?);
    let [near, far] = ends(&mut iscsi)?;
    iscsi.run(Operation::Write { first: near, data: text() })?;
    for (at, piece) in (far..).step_by(2).zip(text().chunks(2 * BLOCK_BYTES)) {
        aoe.run(Operation::Write { first: at, data: piece.to_vec() })?;
    }
    ends_hold(places, &text())
}

fn ends_hold(places: &Places, data: &[u8]) -> Result<(), AnyError> {
    let (mut iscsi, mut aoe) = (places.iscsi().connect(1)?, places.aoe.connect(1)?);
    let ends = ends(&mut iscsi)?;
    let disks: [(&str, &mut dyn Disk); 2] = [("iSCSI", &mut iscsi), ("AoE", &mut aoe)];
    for (name, disk) in disks {
        for first in ends {
            if read(disk, first)? != data {
                return Err(format!("other data at block {first} over {name}").into());
            }
        }
    }
    Ok(())
}

/// Nobody reads or writes, over either protocol, and is told why where the protocol has words.
fn shut_out(places: &Places, why: Condition) -> Result<(), AnyError> {
    let mut unit = Unit::open(places)?;
    let block = || vec![0; BLOCK_BYTES];
    let tries = [
        ("TEST UNIT READY", [0x00, 0], Transfer::None),
        ("READ", [0x28, 1], Transfer::Read(block())),
        ("WRITE", [0x2a, 1], Transfer::Write(block())),
    ];
    for (name, [opcode, blocks], transfer) in tries {
        let mut cdb = [0; 16];
        (cdb[0], cdb[8]) = (opcode, blocks);
        let told = unit.run(cdb, transfer)?;
        if told != Some(why) {
            return Err(format!("{name} was told {told:?}, not {why:?}").into());
        }
    }
    let mut aoe = places.aoe.connect(1)?;
    for operation in
        [Operation::Read { first: 0, blocks: 1 }, Operation::Write { first: 0, data: block() }]
    {
        if aoe.run(operation.clone()).is_ok() {
            return Err(format!("{operation:?} over AoE went well").into());
        }
    }
    Ok(())
}

/// A unit that need not be ready.
struct Unit {
    session: Session,
    lun: Lun,
}

impl Unit {
    fn open(places: &Places) -> Result<Self, AnyError> {
        let place = places.iscsi();
        let options = Options { target: Some(place.target.clone()), ..options(2) };
        let (session, lun) = (connect(place.portal, &options)?, Lun::new(place.lun));
        let mut unit = Self { session, lun };
        // The attention that awaits every new session.
        unit.run([0; 16], Transfer::None)?;
        Ok(unit)
    }

    /// `None` is GOOD.
    fn run(
        &mut self,
        cdb: [u8; 16],
        transfer: Transfer<Vec<u8>>,
    ) -> Result<Option<Condition>, AnyError> {
        let (answer, _) = self.session.run(self.lun, cdb, transfer, PATIENCE)?;
        if answer.status == 0 {
            return Ok(None);
        }
        let sense = Sense::parse(&answer.sense).ok_or("a refusal without sense data")?;
        Ok(Some(sense.condition))
    }

    fn sanitize(&mut self, action: u8, list: &[u8]) -> Result<(), AnyError> {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (0x48, action);
        cdb[7..9].copy_from_slice(&u16::try_from(list.len())?.to_be_bytes());
        let transfer =
            if list.is_empty() { Transfer::None } else { Transfer::Write(list.to_vec()) };
        match self.run(cdb, transfer)? {
            None => Ok(()),
            Some(told) => Err(format!("SANITIZE was told {told:?}").into()),
        }
    }
}
