//! AoE and ATA as they come from the wire or from a file.

use std::sync::Arc;

use corbel_proto::aoe::initiator::{CommandId, Config, Operation, Path, Timeouts, discover};
use corbel_proto::aoe::{self, Mac};
use corbel_proto::ata::{Command, Identify, Registers};
use corbel_proto::memory::{HeapBuffer, Slice};
use corbel_proto::time::{Duration, Instant};
use corbel_target::aoe::{Address, Contents, Slot};
use corbel_target::ata::{Acknowledge, Disk, Execution};
use corbel_target::volume::{Kind, Options, Outcome, Request, Volume};

use super::host::volume;
use super::script::Script;

/// A frame from the wire through every parser of its kind.
pub(super) fn aoe_frame(frame: &[u8]) {
    let local = Mac([2, 0, 0, 0, 0, 1]);
    let found = discover::parse(local, frame);
    assert!(found.is_none_or(|found| found.buffer_count > 0 && found.remote != local));
    let Ok(header) = aoe::HeaderPacket::new_checked(frame) else { return };
    let repr = aoe::HeaderRepr::parse(&header);
    let mut again = [0; aoe::HEADER_BYTES];
    repr.emit(&mut aoe::HeaderPacket::new_unwritten(&mut again[..]));
    let reparsed = aoe::HeaderPacket::new_checked(&again[..]).expect("we emit what we parse");
    assert_eq!(aoe::HeaderRepr::parse(&reparsed), repr);
    let argument = header.argument();
    if let Ok(ata) = aoe::AtaPacket::new_checked(argument) {
        let command = Command::parse(&ata.registers());
        assert!(!format!("{command:?}").is_empty());
        assert!(ata.data().len() <= argument.len());
    }
    if let Ok(config) = aoe::ConfigPacket::new_checked(argument) {
        let repr = aoe::ConfigRepr::parse(&config);
        assert!(repr.string.len() <= 1024);
    }
    if let Ok(mask) = aoe::MaskPacket::new_checked(argument) {
        assert!(mask.directives().count() <= 255);
    }
    if let Ok(reserve) = aoe::ReservePacket::new_checked(argument) {
        assert!(reserve.macs().count() <= 255);
    }
}

/// The 512 bytes that a disk says of itself.
pub(super) fn ata_identify(bytes: &[u8]) {
    let Ok(identify) = Identify::parse(bytes) else { return };
    let emitted = identify.emit();
    assert_eq!(Identify::parse(&emitted).as_ref(), Ok(&identify));
}

/// Registers and data of one command on a disk: what is asked of the volume lies inside it.
pub(super) fn ata_command(input: &[u8]) {
    const SIZE_BYTES: u64 = 1 << 30;
    let mut script = Script::new(input);
    let mode = script.u8();
    let options = Options { read_only: mode & 1 == 1, ..Options::default() };
    let mut volume = volume(SIZE_BYTES, options);
    volume.facts.block_bytes = if mode & 2 == 2 { 4096 } else { 512 };
    volume.facts.discard = mode & 4 == 0;
    let block = u64::from(volume.facts.block_bytes);
    let disk = Disk::new(Arc::new(volume), Acknowledge::Stable);
    let registers = Registers {
        feature_error: script.u8(),
        count: script.u8(),
        command_status: script.u8(),
        lba: [script.u8(), script.u8(), script.u8(), script.u8(), script.u8(), script.u8()],
    };
    let mut data = script.rest().to_vec();
    // A few bytes of input stand for whole sectors of data.
    data.resize(data.len().min(8 * 512).next_multiple_of(512) * usize::from(1 + (mode >> 4)), 0);
    let payload = match data.len() {
        0 => Slice { buffer: HeapBuffer::new(0), start: 0, len: 0 },
        _ => Slice::whole(HeapBuffer::from_vec(data)),
    };
    let outcomes = || {
        let read = Slice::whole(HeapBuffer::new(128 * 1024));
        [Outcome::Done, Outcome::Data([read].into_iter().collect()), Outcome::Cancelled]
    };
    if let Execution::Request(request, pending) = disk.execute(registers, &payload, 17) {
        check_request(&request, block, SIZE_BYTES);
        for outcome in outcomes() {
            let finished = pending.finish(outcome);
            assert!(finished.data.iter().all(|slice| slice.len > 0));
        }
    }
}

/// What the volume is asked lies inside it, in whole blocks of `block` bytes.
pub(super) fn check_request(request: &Request<HeapBuffer>, block: u64, size: u64) {
    let bytes = |pieces: &[Slice<HeapBuffer>]| pieces.iter().map(|p| u64::from(p.len)).sum();
    let ranges: Vec<(u64, u64)> = match &request.kind {
        Kind::Flush | Kind::Erase(_) => vec![],
        Kind::Discard(ranges) => ranges.clone(),
        Kind::Read { offset, len } | Kind::WriteSame { offset, len, .. } => vec![(*offset, *len)],
        Kind::Verify { offset, len, expected } => {
            assert!(expected.as_ref().is_none_or(|data| bytes(data) == *len));
            vec![(*offset, *len)]
        }
        Kind::Status { offset, .. } => vec![(*offset, block)],
        Kind::Write { offset, data }
        | Kind::Or { offset, data }
        | Kind::WriteAndVerify { offset, data, .. } => vec![(*offset, bytes(data))],
        Kind::CompareAndWrite { offset, expected, new } => {
            assert_eq!(bytes(expected), bytes(new));
            vec![(*offset, bytes(expected))]
        }
    };
    for (offset, len) in ranges {
        assert!(offset.checked_add(len).is_some_and(|end| end <= size), "{request:?}");
        assert!((offset | len).is_multiple_of(block), "{request:?}");
    }
}

/// What a slot had written down, as the disk gives it back after a restart.
pub(super) fn aoe_snapshot(bytes: &[u8]) {
    let volume = Arc::new(volume(1 << 20, Options::default()));
    let address = Address::new(7, 1).expect("no broadcast");
    // The checksum hides the rest from a fuzzer, so it is made right as well.
    let mut signed = bytes.to_vec();
    signed.extend(crc32(bytes).to_le_bytes());
    for bytes in [bytes, &signed] {
        let slot = Slot::new(address, Disk::new(volume.clone(), Acknowledge::Stable), vec![]);
        let restored = slot.restore(bytes).is_ok();
        let contents = slot.contents();
        assert!(contents.config.len() <= 1024);
        assert!(restored || contents == Contents::default());
        slot.restore(b"").expect_err("nothing is no state");
        assert_eq!(slot.contents(), contents, "a failed restore changes nothing");
    }
}

/// CRC-32 as in the state file, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// What was written down for a slot at `address` can be restored.
pub(super) fn restores(volume: &Arc<Volume>, address: Address, bytes: &[u8]) {
    let slot = Slot::new(address, Disk::new(volume.clone(), Acknowledge::Stable), vec![]);
    slot.restore(bytes).expect("a state file of our own");
}

/// The client's path: any frames come in, some of them answers, while time goes on.
pub(super) fn aoe_path(input: &[u8]) {
    let mut script = Script::new(input);
    let (local, remote) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let config = Config {
        local,
        remote,
        shelf: 7,
        slot: 1,
        sectors_max: 2,
        window_max: u16::from(script.u8()).max(1),
        give_up_after: Duration::from_secs(5),
        timeouts: Timeouts::DEFAULT,
        first_tag: script.u32(),
    };
    let mut path: Path<Vec<u8>> = Path::new(config);
    let mut now = Instant::from_nanos(1);
    let (mut submitted, mut ended) = (0u64, 0u64);
    let mut on_wire: Vec<Vec<u8>> = Vec::new();
    while !script.is_over() {
        let operation = script.u8();
        match operation & 7 {
            0 | 1 if submitted < 200 => {
                path.submit(now, CommandId(submitted), wish(operation));
                submitted += 1;
            }
            2..=4 if !on_wire.is_empty() => {
                let mut reply = on_wire.remove(script.index(on_wire.len()));
                answer(&mut reply, operation, &mut script);
                ended += u64::from(path.handle_frame(now, &reply).is_some());
            }
            5 => {
                let len = usize::from(script.u8());
                ended += u64::from(path.handle_frame(now, script.bytes(len)).is_some());
            }
            6 if operation & 8 == 8 => {
                let id = CommandId(u64::from(script.u8()));
                ended += u64::from(path.withdraw(id).is_some());
            }
            _ => {
                now = now + Duration::from_millis(u64::from(script.u16()));
                path.handle_timeout(now);
            }
        }
        while path.poll_failed().is_some() {
            ended += 1;
        }
        while let Some(frame) = path.poll_transmit(now) {
            on_wire.push(frame.head.to_vec());
        }
        assert_eq!(path.len() as u64, submitted - ended, "every command ends once");
    }
    // Without answers, everything is given up in the end.
    while let Some(due) = path.poll_timeout() {
        now = now.max(due);
        path.handle_timeout(now);
        while path.poll_failed().is_some() {
            ended += 1;
        }
        while path.poll_transmit(now).is_some() {}
    }
    assert_eq!(submitted, ended, "a command hangs");
    assert!(path.is_empty() && path.room() > 0, "the window leaks");
}

fn wish(operation: u8) -> Operation<Vec<u8>> {
    let lba = u64::from(operation >> 5);
    match operation >> 3 & 3 {
        0 if lba == 7 => Operation::Probe { lba, padding: vec![0; 1024] },
        1 if lba == 7 => Operation::Trim { ranges: vec![operation; 512] },
        2 if lba == 7 => Operation::FlushShort,
        0 => Operation::Read { lba, sectors: 2 },
        1 => Operation::Write { lba, data: vec![operation; 1024] },
        2 => Operation::Flush,
        _ => Operation::Identify,
    }
}

/// Makes a request its own answer, more or less.
fn answer(frame: &mut Vec<u8>, operation: u8, script: &mut Script<'_>) {
    let (to, from) = frame.split_at_mut(6);
    to.swap_with_slice(&mut from[..6]);
    frame[14] |= 0x08;
    if frame.len() >= aoe::ATA_DATA_OFFSET {
        frame[aoe::HEADER_BYTES + 3] = 0x40;
    }
    frame.resize(frame.len() + 512 * usize::from(operation >> 3 & 3), operation);
    if operation & 0x40 == 0x40 {
        let at = script.index(frame.len());
        frame[at] ^= script.u8();
    }
}
