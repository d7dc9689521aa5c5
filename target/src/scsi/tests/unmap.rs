//! UNMAP at its limits: the last block, the largest sum, as many ranges as page B0 says.

use corbel_proto::scsi::unmap::{self, Extent};

use super::*;
use crate::scsi::limits::{UNMAP_BLOCKS_MAX, UNMAP_EXTENTS_MAX};

fn thin() -> Nexus {
    nexus(Options { thin: true, ..Options::default() })
}

/// A thin unit of 2^33 blocks.
fn large() -> Nexus {
    let identity = Identity::from_source("large");
    let options = Options { thin: true, ..Options::default() };
    let facts = Facts::volatile(4096);
    let volume = Volume::new(VolumeId(1), "v".into(), identity, facts, options, 1 << 45);
    let mut n = Nexus::new(Arc::new(LogicalUnit::new(Arc::new(volume))), &VIEW);
    n.begin(&VIEW, &[0; 6]);
    n
}

fn cdb(len: u16) -> [u8; 10] {
    let [high, low] = len.to_be_bytes();
    [0x42, 0, 0, 0, 0, 0, 0, high, low, 0]
}

fn unmap(n: &mut Nexus, extents: &[(u64, u32)]) -> Plan {
    let extents: Vec<_> = extents.iter().map(|&(lba, blocks)| Extent { lba, blocks }).collect();
    let list = unmap::emit(&extents).unwrap();
    let plan = n.begin(&VIEW, &cdb(u16::try_from(list.len()).unwrap()));
    assert_eq!(plan.data_out, list.len() as u64);
    let Action::Parameters(command) = plan.action else { panic!("UNMAP takes a list") };
    n.resume(&VIEW, command, &list)
}

fn ranges(n: &mut Nexus, extents: &[(u64, u32)]) -> Vec<(u64, u64)> {
    let plan = unmap(n, extents);
    let Kind::Discard(ranges) = request(n, plan, 0).kind else { panic!("a discard") };
    ranges
}

fn refused(n: &mut Nexus, extents: &[(u64, u32)]) -> Option<Condition> {
    sense_of(&unmap(n, extents)).map(|sense| sense.condition)
}

#[test]
fn ranges_reach_the_last_block_and_not_further() {
    let mut n = thin();
    assert_eq!(ranges(&mut n, &[(0, 1000)]), [(0, 1000 * 4096)]);
    assert_eq!(ranges(&mut n, &[(999, 1), (0, 1)]), [(999 * 4096, 4096), (0, 4096)]);
    let beyond = Some(Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
    for extent in [(0, 1001), (999, 2), (1000, 1), (1, 1000), (u64::MAX, u32::MAX)] {
        assert_eq!(refused(&mut n, &[extent]), beyond, "{extent:?}");
        assert_eq!(refused(&mut n, &[(0, 1), extent]), beyond, "nothing of it is done: {extent:?}");
    }
}

#[test]
fn sums_are_held_to_page_b0_however_they_come_about() {
    let mut n = large();
    let all = UNMAP_BLOCKS_MAX;
    assert_eq!(ranges(&mut n, &[(0, all)]), [(0, u64::from(all) * 4096)]);
    assert_eq!(ranges(&mut n, &[(0, all - 1), (1 << 32, 1)]).len(), 2);
    let too_many = Some(Condition::INVALID_FIELD_IN_PARAMETER_LIST);
    for extents in [
        vec![(0, all + 1)],
        vec![(0, all), (0, 1)],
        vec![(0, 1 << 31), (0, 1 << 31)], // 2^32: nothing, in 32 bits
        vec![(0, 1 << 31), (0, 1 << 31), (0, 1)],
    ] {
        assert_eq!(refused(&mut n, &extents), too_many, "{extents:?}");
    }
}

#[test]
fn ranges_of_no_blocks_are_left_out_and_a_list_of_them_is_good() {
    let mut n = thin();
    assert_eq!(ranges(&mut n, &[(7, 0), (5, 1), (1000, 0)]), [(5 * 4096, 4096)]);
    for extents in [&[][..], &[(0, 0)], &[(0, 0), (1000, 0)]] {
        let plan = unmap(&mut n, extents);
        assert!(matches!(plan.action, Action::Respond(reply) if reply.status == Status::Good));
    }
    let none = n.begin(&VIEW, &cdb(0));
    assert!(matches!(none.action, Action::Respond(reply) if reply.status == Status::Good));
}

#[test]
fn as_many_ranges_as_page_b0_says_and_not_one_more() {
    let mut n = thin();
    let extents = |count: usize| vec![(3, 1); count];
    assert_eq!(ranges(&mut n, &extents(UNMAP_EXTENTS_MAX)).len(), UNMAP_EXTENTS_MAX);
    let too_many = Some(Condition::INVALID_FIELD_IN_PARAMETER_LIST);
    assert_eq!(refused(&mut n, &extents(UNMAP_EXTENTS_MAX + 1)), too_many);
    let Action::Respond(page) = n.begin(&VIEW, &[0x12, 1, 0xb0, 0, 64, 0]).action else {
        panic!("it answers")
    };
    let told = |at: usize| u32::from_be_bytes(page.data[at..at + 4].try_into().unwrap());
    assert_eq!(told(20), UNMAP_BLOCKS_MAX);
    assert_eq!(told(24) as usize, UNMAP_EXTENTS_MAX);
}

#[test]
fn anchored_blocks_are_not_there() {
    let mut anchored = cdb(24);
    anchored[1] = 1;
    let refused = sense_of(&thin().begin(&VIEW, &anchored));
    assert_eq!(refused, Some(Sense::invalid_cdb(1, Some(0))));
}

#[test]
fn without_a_write_cache_deallocation_is_stable_when_it_is_acknowledged() {
    let mut n = thin();
    let plan = unmap(&mut n, &[(0, 1)]);
    assert!(!request(&n, plan, 0).durable);
    let Action::Parameters(select) = n.begin(&VIEW, &[0x15, 0x10, 0, 0, 24, 0]).action else {
        panic!("MODE SELECT takes a list")
    };
    let mut list = vec![0, 0, 0, 0, 0x08, 0x12];
    list.resize(24, 0); // WCE clear
    n.resume(&VIEW, select, &list);
    let plan = unmap(&mut n, &[(0, 1)]);
    assert!(request(&n, plan, 0).durable);
}
