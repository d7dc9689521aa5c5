use super::super::copy::Standing;
use super::*;

const TOKEN: Token = Token { id: 7, process: [9; 16], naa: 0x3123_4567_89ab_cdef, bytes: 8192 };

fn with_ranges(mut list: Vec<u8>, ranges: &[(u64, u32)]) -> Vec<u8> {
    let len = u16::try_from(ranges.len() * 16).unwrap().to_be_bytes();
    let at = list.len() - 2;
    list[at..].copy_from_slice(&len);
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    let len = u16::try_from(list.len() - 2).unwrap().to_be_bytes();
    list[..2].copy_from_slice(&len);
    list
}

fn populate(ranges: &[(u64, u32)]) -> Vec<u8> {
    with_ranges(vec![0; 16], ranges)
}

fn write(ranges: &[(u64, u32)]) -> Vec<u8> {
    let mut list = vec![0; 536];
    list[2] = 0x02;
    list[15] = 3;
    list[16..528].copy_from_slice(&TOKEN.emit());
    with_ranges(list, ranges)
}

#[test]
fn lists_are_read_as_they_stand() {
    let read = Populate::parse(&populate(&[(5, 2), (9, 1)])).unwrap();
    assert_eq!(read.inactivity, INACTIVITY_DEFAULT);
    assert_eq!(read.ranges, [Range { lba: 5, blocks: 2 }, Range { lba: 9, blocks: 1 }]);
    let read = Write::parse(&write(&[(1, 2)])).unwrap();
    assert_eq!((read.delete, read.offset, read.token), (true, 3, TOKEN));
    assert_eq!(read.ranges, [Range { lba: 1, blocks: 2 }]);
}

#[test]
fn every_cut_is_refused() {
    for whole in [populate(&[(5, 2)]), write(&[(5, 2)])] {
        for len in 0..whole.len() {
            let (cut, short) = (&whole[..len], Condition::PARAMETER_LIST_LENGTH_ERROR);
            let refused = if whole.len() == 32 {
                Populate::parse(cut).unwrap_err()
            } else {
                Write::parse(cut).unwrap_err()
            };
            assert_eq!(refused.condition, short, "{len}");
        }
    }
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    let refused = |ranges: &[(u64, u32)]| Populate::parse(&populate(ranges)).unwrap_err().condition;
    assert_eq!(refused(&[]), Condition::INVALID_FIELD_IN_PARAMETER_LIST);
    assert_eq!(refused(&[(5, 2), (6, 1)]), Condition::INVALID_FIELD_IN_PARAMETER_LIST);
    assert_eq!(refused(&[(u64::MAX, 2)]), Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
    let many: Vec<_> = (0..65).map(|lba| (lba, 1)).collect();
    assert_eq!(refused(&many), Condition::TOO_MANY_SEGMENT_DESCRIPTORS);
    assert!(Populate::parse(&populate(&many[1..])).is_ok());
}

#[test]
fn promises_that_are_not_kept_are_not_made() {
    let mut list = populate(&[(5, 2)]);
    list[2] = 0x02;
    for (kind, made) in
        [(0x0080_0001_u32, true), (0x0080_ffff, true), (0x0080_0000, false), (0x0080_0002, false)]
    {
        list[8..12].copy_from_slice(&kind.to_be_bytes());
        let refused = Populate::parse(&list).err().map(|sense| sense.condition);
        assert_eq!(refused, (!made).then_some(Condition::UNSUPPORTED_TOKEN_TYPE), "{kind:x}");
    }
    list[2] = 0;
    list[4..8].copy_from_slice(&601_u32.to_be_bytes());
    assert_eq!(Populate::parse(&list).unwrap_err(), Sense::invalid_parameter(4, None));
}

#[test]
fn token_with_any_bit_wrong_is_not_the_same() {
    let list = write(&[(1, 2)]);
    for bit in 0..TOKEN_BYTES * 8 {
        let mut other = list.clone();
        other[16 + bit / 8] ^= 1 << (bit % 8);
        assert!(Write::parse(&other).map_or(true, |read| read.token != TOKEN), "bit {bit}");
    }
}

#[test]
fn information_carries_the_token_where_there_is_one() {
    let mut told =
        Information { action: 0x10, standing: Standing::Done, blocks: 16, token: Some(TOKEN) };
    let data = told.emit();
    assert_eq!(data.len(), 32 + 4 + 2 + 512);
    assert_eq!(data[..6], [0, 0, 2, 0x22, 0x10, 0x01]);
    assert_eq!((data[13], data[15], data[23]), (0, 0xf1, 16));
    assert_eq!(data[32..38], [0, 0, 2, 2, 0, 0]);
    assert_eq!(data[38..], TOKEN.emit());
    (told.action, told.standing, told.token) = (0x11, Standing::Failed, None);
    let data = told.emit();
    assert_eq!((data.len(), data[3], data[5], data[12]), (36, 32, 0x02, 2));
}
