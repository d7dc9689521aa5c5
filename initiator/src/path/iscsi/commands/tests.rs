use super::super::unit::WriteSame;
use super::*;
use corbel_proto::scsi::capacity::Capacity;
use corbel_proto::scsi::cdb::{self, Command};
use corbel_proto::scsi::mode::Told;
use corbel_proto::scsi::vpd::BlockLimits;

const BLOCK: u64 = 512;
const WRITE: Operation = Operation::Write { fua: false };
const FUA: Operation = Operation::Write { fua: true };

fn unit() -> Unit {
    Unit {
        capacity: Capacity {
            last_lba: (1 << 40) - 1,
            block_bytes: 512,
            physical_exponent: 0,
            thin: true,
            thin_zeroes: true,
        },
        limits: BlockLimits {
            transfer_max: 64,
            unmap_blocks_max: 100,
            unmap_extents_max: 1,
            write_same_max: 1000,
            ..BlockLimits::default()
        },
        mode: Some(Told { write_protected: false, fua: true, write_cache: Some(true) }),
        ..Unit::default()
    }
}

fn blocks(lba: u64, count: u64) -> Extent {
    Extent { offset: lba * BLOCK, len: count * BLOCK }
}

/// All commands of a request: what the target reads, and how many bytes each takes care of.
fn all(unit: &Unit, operation: Operation, extent: Extent) -> Vec<(Command, u64)> {
    let (mut done, mut pieces) = (0, Vec::new());
    loop {
        let piece = piece(unit, operation, extent, done).unwrap();
        done += piece.bytes;
        pieces.push((cdb::parse(&piece.cdb).unwrap().0, piece.bytes));
        if done >= extent.len {
            return pieces;
        }
    }
}

fn cdb_extent(lba: u64, blocks: u32, count_at: u8) -> cdb::Extent {
    cdb::Extent { lba, blocks, count_at }
}

#[test]
fn requests_are_cut_to_what_the_unit_takes() {
    let pieces = all(&unit(), WRITE, blocks(5, 130));
    let write = |lba, blocks| Command::Write { extent: cdb_extent(lba, blocks, 7), fua: false };
    let expected =
        [(write(5, 64), 64 * BLOCK), (write(69, 64), 64 * BLOCK), (write(133, 2), 2 * BLOCK)];
    assert_eq!(pieces, expected);
}

#[test]
fn addresses_and_counts_beyond_ten_bytes_take_sixteen() {
    let mut unit = unit();
    unit.limits.transfer_max = 0;
    let code = |extent| piece(&unit, Operation::Read, extent, 0).unwrap().cdb[0];
    assert_eq!(code(blocks(0, 0xffff)), 0x28);
    assert_eq!(code(blocks(0, 0x1_0000)), 0x88);
    assert_eq!(code(blocks(0xffff_ffff, 1)), 0x28);
    assert_eq!(code(blocks(0xffff_ffff, 2)), 0x88);
    let far = all(&unit, FUA, blocks(1 << 33, 8));
    let extent = cdb_extent(1 << 33, 8, 10);
    assert_eq!(far, [(Command::Write { extent, fua: true }, 8 * BLOCK)]);
}

#[test]
fn fua_is_a_bit_where_the_unit_takes_it_and_a_flush_where_it_does_not() {
    let mut unit = unit();
    assert!(!needs_flush(&unit, FUA));
    unit.mode = Some(Told { write_protected: false, fua: false, write_cache: Some(true) });
    assert_eq!(piece(&unit, FUA, blocks(0, 1), 0).unwrap().cdb[1], 0);
    assert!(needs_flush(&unit, FUA) && !needs_flush(&unit, WRITE));
    let zeroes = Operation::WriteZeroes { unmap: false, fua: true };
    assert!(needs_flush(&unit, zeroes), "WRITE SAME has no such bit");
    unit.mode = Some(Told { write_protected: false, fua: false, write_cache: Some(false) });
    assert!(!needs_flush(&unit, FUA) && !needs_flush(&unit, zeroes));
    unit.mode = None;
    assert!(needs_flush(&unit, FUA), "who does not say may have a cache");
}

#[test]
fn discards_use_unmap_or_write_same_or_are_refused() {
    let mut unit = unit();
    let refused = piece(&unit, Operation::Discard, blocks(0, 8), 0);
    assert_eq!(refused, Err(IoError::Unsupported));
    unit.unmap_by_write_same = true;
    let same = piece(&unit, Operation::Discard, blocks(7, 8), 0).unwrap();
    assert_eq!((same.cdb[0], same.cdb[1]), (0x93, 0x08));
    assert_eq!(same.data, Data::Parameters(vec![0; 512]));
    unit.unmap = true;
    let pieces = all(&unit, Operation::Discard, blocks(7, 250));
    assert_eq!(pieces.iter().map(|(_, bytes)| bytes / BLOCK).collect::<Vec<_>>(), [100, 100, 50]);
    let second = piece(&unit, Operation::Discard, blocks(7, 250), 100 * BLOCK).unwrap();
    let Data::Parameters(list) = second.data else { panic!("UNMAP has a list") };
    assert_eq!(unmap::parse(&list, 1).unwrap(), [unmap::Extent { lba: 107, blocks: 100 }]);
    assert_eq!(usize::from(second.cdb[8]), list.len());
}

#[test]
fn zeroes_are_written_without_sending_them_where_that_works() {
    let zeroes = Operation::WriteZeroes { unmap: true, fua: false };
    let mut unit = unit();
    unit.limits.write_same_max = 0;
    assert_eq!(piece(&unit, zeroes, blocks(0, 8), 0), Err(IoError::Unsupported));
    unit.write_same = Some(WriteSame { no_payload: true });
    let same = piece(&unit, zeroes, blocks(3, 8), 0).unwrap();
    assert_eq!((same.cdb[0], same.cdb[1], same.data), (0x93, 0x01, Data::None));
    unit.unmap_by_write_same = true;
    assert_eq!(piece(&unit, zeroes, blocks(3, 8), 0).unwrap().cdb[1], 0x09);
    let kept = Operation::WriteZeroes { unmap: false, fua: false };
    assert_eq!(piece(&unit, kept, blocks(3, 8), 0).unwrap().cdb[1], 0x01);
    unit.capacity.thin_zeroes = false;
    assert_eq!(piece(&unit, zeroes, blocks(3, 8), 0).unwrap().cdb[1], 0x01);
    let long = all(&unit, zeroes, blocks(0, 0xffff + 5));
    assert_eq!(long.iter().map(|(_, bytes)| bytes / BLOCK).collect::<Vec<_>>(), [0xffff, 5]);
}

#[test]
fn what_is_not_whole_blocks_inside_the_unit_does_not_fit() {
    let unit = unit();
    let end = 1 << 40;
    for (extent, data, right) in [
        (blocks(0, 8), Some(4096), true),
        (blocks(end - 8, 8), Some(4096), true),
        (blocks(end - 7, 8), Some(4096), false),
        (blocks(0, 8), Some(512), false),
        (blocks(0, 8), None, false),
        (Extent { offset: 1, len: 512 }, Some(512), false),
        (Extent { offset: 0, len: 511 }, Some(511), false),
        (Extent { offset: 0, len: 0 }, Some(0), false),
        (Extent { offset: u64::MAX - 511, len: 512 }, Some(512), false),
    ] {
        assert_eq!(fits(&unit, WRITE, extent, data), right, "{extent:?} {data:?}");
    }
    assert!(fits(&unit, Operation::Flush, Extent::NONE, None));
}
