//! Registers in, requests or registers out.

use std::sync::Arc;

use corbel_proto::ata::{Fault, Identify, Registers};
use corbel_proto::memory::{HeapBuffer, Segments, Slice};
use proptest::prelude::*;

use super::*;
use crate::host::BlockError;
use crate::volume::{Facts, Identity, Kind, Options, Outcome, Volume, VolumeId};

const MIB: u64 = 1 << 20;

fn facts(block_bytes: u32) -> Facts {
    Facts { physical_bytes: 4096, discard_granularity_bytes: 4096, ..Facts::volatile(block_bytes) }
}

fn disk_with(block_bytes: u32, options: Options, acknowledge: Acknowledge) -> Disk {
    let identity = Identity::from_source("test");
    let facts = facts(block_bytes);
    let volume = Volume::new(VolumeId(0), "test".into(), identity, facts, options, MIB);
    Disk::new(Arc::new(volume), acknowledge)
}

fn disk() -> Disk {
    disk_with(512, Options::default(), Acknowledge::Stable)
}

fn registers(command: u8, count: u8, lba: u64) -> Registers {
    Registers { command_status: command, count, ..Registers::default() }.with_lba(lba)
}

fn payload(len: usize) -> Slice<HeapBuffer> {
    Slice::whole(HeapBuffer::new(len))
}

fn fault(execution: &Execution<HeapBuffer>) -> Option<Fault> {
    match execution {
        Execution::Respond { registers, .. } => Fault::from_registers(registers),
        other => panic!("expected a reply at once, got {other:?}"),
    }
}

fn request(execution: Execution<HeapBuffer>) -> (Kind<HeapBuffer>, bool, Pending) {
    match execution {
        Execution::Request(request, pending) => (request.kind, request.durable, pending),
        other => panic!("expected a request, got {other:?}"),
    }
}

#[test]
fn a_read_reads_and_a_write_writes_durably() {
    let (kind, _, pending) = request(disk().execute(registers(0x24, 2, 8), &payload(0), 2));
    assert!(matches!(kind, Kind::Read { offset: 4096, len: 1024 }));
    let mut data = Segments::new();
    data.push(payload(1024));
    let finished = pending.finish(Outcome::Data(data));
    assert_eq!((finished.registers.command_status, finished.data[0].len), (0x40, 1024));

    let (kind, durable, pending) =
        request(disk().execute(registers(0x34, 2, 8), &payload(1024), 2));
    assert!(matches!(kind, Kind::Write { offset: 4096, ref data } if data[0].len == 1024));
    assert!(durable);
    assert_eq!(pending.finish::<HeapBuffer>(Outcome::Done).registers.command_status, 0x40);
}

#[test]
fn cached_acknowledgement_is_not_durable_and_identify_says_so() {
    let cached = disk_with(512, Options::default(), Acknowledge::Cached);
    let (_, durable, _) = request(cached.execute(registers(0x34, 1, 0), &payload(512), 2));
    assert!(!durable);
    assert!(cached.identify().write_cache);
    assert!(!disk().identify().write_cache);
}

#[test]
fn both_flushes_and_standby_flush() {
    for op in [0xe7, 0xea, 0xe0] {
        let (kind, ..) = request(disk().execute(registers(op, 0, 0), &payload(0), 2));
        assert!(matches!(kind, Kind::Flush));
    }
}

#[test]
fn past_the_end_is_id_not_found() {
    let last = MIB / 512 - 1;
    for op in [0x20, 0x24, 0x40, 0x42] {
        let reply = disk().execute(registers(op, 2, last), &payload(0), 2);
        assert_eq!(fault(&reply), Some(Fault::IdNotFound), "{op:#x}");
        request(disk().execute(registers(op, 1, last), &payload(0), 2));
    }
    let reply = disk().execute(registers(0x34, 1, 0xffff_ffff_ffff), &payload(512), 2);
    assert_eq!(fault(&reply), Some(Fault::IdNotFound));
}

#[test]
fn a_read_only_disk_aborts_writes_and_trim() {
    let options = Options { read_only: true, ..Options::default() };
    let disk = disk_with(512, options, Acknowledge::Stable);
    let write = disk.execute(registers(0x34, 1, 0), &payload(512), 2);
    assert_eq!(fault(&write), Some(Fault::Aborted));
    let trim = Registers { feature_error: 1, ..registers(0x06, 1, 0) };
    assert_eq!(fault(&disk.execute(trim, &payload(512), 2)), Some(Fault::Aborted));
    assert_eq!(disk.identify().trim_blocks, 0);
}

#[test]
fn data_must_be_as_long_as_the_registers_say() {
    for (count, len) in [(1, 0), (1, 511), (1, 513), (2, 512), (0, 512)] {
        let write = disk().execute(registers(0x34, count, 0), &payload(len), 2);
        assert!(matches!(write, Execution::BadFrame), "{count} sectors, {len} bytes");
    }
    let read = disk().execute::<HeapBuffer>(registers(0x24, 3, 0), &payload(0), 2);
    assert!(matches!(read, Execution::BadFrame), "the reply would not fit");
}

#[test]
fn a_probe_read_with_a_payload_is_a_read() {
    request(disk().execute(registers(0x24, 2, 0), &payload(1024), 2));
}

#[test]
fn failures_are_ata_status() {
    let table = [
        (0x24, BlockError::Medium, Fault::Uncorrectable),
        (0x34, BlockError::Medium, Fault::DeviceFault),
        (0x34, BlockError::NoSpace, Fault::Aborted),
        (0x24, BlockError::Gone, Fault::DeviceFault),
        (0xe7, BlockError::Unsupported, Fault::Aborted),
    ];
    for (op, error, fault) in table {
        let payload = payload(if op == 0x34 { 512 } else { 0 });
        let (.., pending) = request(disk().execute(registers(op, 1, 7), &payload, 2));
        let finished = pending.finish::<HeapBuffer>(Outcome::Failed(error));
        assert_eq!(finished.fault, Some(fault), "{op:#x} {error:?}");
        assert_eq!(Fault::from_registers(&finished.registers), Some(fault));
        assert_eq!(finished.registers.lba48(), 7);
    }
}

#[test]
fn trim_discards_its_ranges_or_nothing() {
    let entry = |lba: u64, sectors: u64| (sectors << 48 | lba).to_le_bytes();
    let trim = Registers { feature_error: 1, ..registers(0x06, 1, 0) };
    let mut data = vec![0; 512];
    data[..8].copy_from_slice(&entry(8, 16));
    data[8..16].copy_from_slice(&entry(64, 1));
    let slice = Slice::whole(HeapBuffer::from_vec(data.clone()));
    let (kind, ..) = request(disk().execute(trim, &slice, 2));
    assert!(matches!(kind, Kind::Discard(r) if r == [(4096, 8192), (32_768, 512)]));

    data[8..16].copy_from_slice(&entry(MIB / 512, 1));
    let slice = Slice::whole(HeapBuffer::from_vec(data));
    assert_eq!(fault(&disk().execute(trim, &slice, 2)), Some(Fault::IdNotFound));
}

#[test]
fn large_blocks_widen_reads_refuse_ragged_writes_and_shrink_trim() {
    let disk = disk_with(4096, Options::default(), Acknowledge::Stable);
    let (kind, _, pending) = request(disk.execute(registers(0x24, 2, 7), &payload(0), 2));
    assert!(matches!(kind, Kind::Read { offset: 0, len: 8192 }));
    let mut data = Segments::new();
    data.push(Slice::whole(HeapBuffer::from_vec(vec![1; 4096])));
    data.push(Slice::whole(HeapBuffer::from_vec(vec![2; 4096])));
    let read = pending.finish(Outcome::Data(data)).data;
    let bytes: Vec<u8> = read.iter().flat_map(|s| s.bytes().to_vec()).collect();
    assert_eq!(bytes, [[1; 512], [2; 512]].concat());

    let write = disk.execute(registers(0x34, 2, 0), &payload(1024), 8);
    assert_eq!(fault(&write), Some(Fault::Aborted));
    request(disk.execute(registers(0x34, 8, 8), &payload(4096), 8));

    let trim = Registers { feature_error: 1, ..registers(0x06, 1, 0) };
    let mut data = vec![0; 512];
    data[..8].copy_from_slice(&(14u64 << 48 | 1).to_le_bytes());
    data[8..16].copy_from_slice(&(17u64 << 48 | 16).to_le_bytes());
    let slice = Slice::whole(HeapBuffer::from_vec(data));
    let (kind, ..) = request(disk.execute(trim, &slice, 2));
    assert!(matches!(kind, Kind::Discard(r) if r == [(8192, 8192)]));
    assert!(!disk.identify().trim_zeroes);
}

#[test]
fn identify_carries_the_volume() {
    let Execution::Respond { data: Some(block), registers } =
        disk().execute(registers(0xec, 1, 0), &payload(0), 2)
    else {
        panic!("IDENTIFY is answered at once")
    };
    assert_eq!(registers.command_status, 0x40);
    let identify = Identify::parse(&block[..]).unwrap();
    assert_eq!(identify.sectors, 2048);
    assert_eq!(identify.naa, Identity::from_source("test").naa);
    assert_eq!(identify.physical_exponent, 3);
    assert_eq!(identify.model, "CORBEL VOLUME");
}

#[test]
fn power_mode_is_active_and_unknown_commands_abort() {
    let Execution::Respond { registers: reply, .. } =
        disk().execute(registers(0xe5, 0, 0), &payload(0), 2)
    else {
        panic!("answered at once")
    };
    assert_eq!(reply.count, 0xff);
    for op in [0x00, 0xa1, 0xc4, 0xfe] {
        let reply = disk().execute(registers(op, 0, 0), &payload(0), 2);
        assert_eq!(fault(&reply), Some(Fault::Aborted), "{op:#x}");
    }
}

#[test]
fn smart_reports_health_and_an_empty_table() {
    let smart = |feature| Registers { feature_error: feature, ..registers(0xb0, 1, 0xc2_4f00) };
    let Execution::Respond { registers: status, .. } = disk().execute(smart(0xda), &payload(0), 2)
    else {
        panic!("answered at once")
    };
    assert_eq!(status.lba[1..3], [0x4f, 0xc2]);
    let Execution::Respond { data: Some(table), .. } = disk().execute(smart(0xd0), &payload(0), 2)
    else {
        panic!("answered at once")
    };
    assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
}

#[test]
fn the_write_cache_cannot_be_switched_by_a_client() {
    let set = |feature| Registers { feature_error: feature, ..registers(0xef, 0, 0) };
    assert_eq!(fault(&disk().execute(set(0x82), &payload(0), 2)), None);
    assert_eq!(fault(&disk().execute(set(0x02), &payload(0), 2)), Some(Fault::Aborted));
}

proptest! {
    #[test]
    fn any_registers_stay_inside_the_volume(
        command: u8, feature: u8, count: u8, lba: [u8; 6], sectors in 0usize..4, large: bool,
    ) {
        let block = if large { 4096 } else { 512 };
        let disk = disk_with(block, Options::default(), Acknowledge::Stable);
        let registers = Registers { feature_error: feature, count, command_status: command, lba };
        let execution = disk.execute(registers, &payload(sectors * 512), 16);
        if let Execution::Request(request, _) = execution {
            let ranges = match request.kind {
                Kind::Read { offset, len } => vec![(offset, len)],
                Kind::Verify { offset, len, .. } => vec![(offset, len)],
                Kind::Write { offset, data } => vec![(offset, u64::from(data[0].len))],
                Kind::Discard(ranges) => ranges,
                _ => vec![],
            };
            for (offset, len) in ranges {
                prop_assert!(request.volume.contains(offset, len));
                prop_assert!(len > 0 && (offset | len) % u64::from(block) == 0);
            }
        }
    }
}
