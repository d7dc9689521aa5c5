//! Commands about the medium beyond reading and writing.

use corbel_proto::scsi::unmap;

use super::*;
use crate::host::Extent;

fn data(plan: Plan) -> Vec<u8> {
    let Action::Respond(reply) = plan.action else { panic!("not answered at once: {plan:?}") };
    assert_eq!(reply.status, Status::Good);
    reply.data
}

fn thin() -> Nexus {
    nexus(Options { thin: true, ..Options::default() })
}

/// SBC-3 5.4.2: the starting LBA is the first descriptor's.
#[test]
fn lba_status_of_a_full_unit_is_mapped_to_the_end_and_of_a_thin_one_what_the_store_says() {
    let mut cdb = cdb16(0x9e, 0x12, 10, 24);
    let all = data(disk().begin(&VIEW, &cdb));
    assert_eq!(all[..8], [0, 0, 0, 20, 0, 0, 0, 0]);
    assert_eq!(all[8..], [0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 3, 0xde, 0, 0, 0, 0]);
    let mut n = thin();
    cdb[13] = 40;
    let plan = n.begin(&VIEW, &cdb);
    let Action::Media(media) = &plan.action else { panic!("the store is asked") };
    let extents =
        vec![Extent { len: 4096, mapped: true }, Extent { len: 989 * 4096, mapped: false }];
    let done = n.unit().finish::<HeapBuffer>(media, Outcome::Extents(extents));
    assert_eq!((done.parameters.len(), done.parameters[3]), (40, 36));
    assert_eq!(done.parameters[24..], [0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 3, 0xdd, 1, 0, 0, 0]);
    let kind = request(&n, plan, 0).kind;
    assert!(matches!(kind, Kind::Status { offset: 40_960, extents_max: 2 }));
    let behind = refusal(&mut n, &cdb16(0x9e, 0x12, 1000, 24));
    assert_eq!(behind, Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
}

#[test]
fn write_and_verify_is_durable_and_compares_only_if_asked() {
    let mut n = disk();
    for (flags, compares) in [(0x00, false), (0x02, true)] {
        let plan = n.begin(&VIEW, &cdb16(0x8e, flags, 5, 1));
        let request = request(&n, plan, 1);
        let Kind::WriteAndVerify { compare, .. } = request.kind else { panic!("{flags}") };
        assert!(request.durable && compare == compares);
    }
    let one_block = n.begin(&VIEW, &cdb16(0x8e, 0x06, 5, 1));
    assert_eq!(sense_of(&one_block), Some(Sense::invalid_cdb(1, Some(2))));
}

/// SBC-4 5.56: only where the store promises it, and then no more than it promises.
#[test]
fn write_atomic_is_unknown_unless_the_store_promises_it() {
    let unknown = refusal(&mut disk(), &cdb16(0x9c, 0, 0, 1));
    assert_eq!(unknown, Condition::INVALID_COMMAND_OPERATION_CODE);
    let old = disk();
    let volume = &old.unit().volume;
    let facts = Facts { atomic_bytes: 8192, ..volume.facts.clone() };
    let identity = volume.identity.clone();
    let volume = Volume::new(VolumeId(1), "v".into(), identity, facts, Options::default(), 1 << 20);
    let mut n = Nexus::new(Arc::new(LogicalUnit::new(Arc::new(volume))), &VIEW);
    n.begin(&VIEW, &[0; 6]);
    let plan = n.begin(&VIEW, &cdb16(0x9c, 0, 0, 2));
    assert_eq!(plan.data_out, 8192);
    let long = n.begin(&VIEW, &cdb16(0x9c, 0, 0, 3));
    assert_eq!(sense_of(&long), Some(Sense::invalid_cdb(12, None)));
    let bounded = n.begin(&VIEW, &cdb16(0x9c, 0, 0, 0x1_0001));
    assert_eq!(sense_of(&bounded), Some(Sense::invalid_cdb(10, None)));
}

#[test]
fn defect_lists_are_empty_and_of_the_format_asked_for() {
    let mut n = disk();
    assert_eq!(data(n.begin(&VIEW, &[0x37, 0, 0x1d, 0, 0, 0, 0, 0, 32, 0])), [0, 0x1d, 0, 0]);
    let twelve = [0xb7, 0x0d, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
    assert_eq!(data(n.begin(&VIEW, &twelve)), [0, 0x0d, 0, 0, 0, 0, 0, 0]);
}

/// tgt cut lengths of 4 GiB and more to 32 bits.
#[test]
fn unmap_of_four_gigabytes_is_four_gigabytes_and_sums_do_not_wrap() {
    let small = thin();
    let volume = &small.unit().volume;
    let (identity, facts) = (volume.identity.clone(), volume.facts.clone());
    let options = Options { thin: true, ..Options::default() };
    let volume = Volume::new(VolumeId(1), "v".into(), identity, facts, options, 1 << 45);
    let mut n = Nexus::new(Arc::new(LogicalUnit::new(Arc::new(volume))), &VIEW);
    n.begin(&VIEW, &[0; 6]);
    let mut unmap = |extents: &[(u64, u32)]| {
        let extents: Vec<_> =
            extents.iter().map(|&(lba, blocks)| unmap::Extent { lba, blocks }).collect();
        let list = unmap::emit(&extents).unwrap();
        let plan = n.begin(&VIEW, &[0x42, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
        let Action::Parameters(command) = plan.action else { panic!("UNMAP takes a list") };
        let plan = n.resume(&VIEW, command, &list);
        match sense_of(&plan) {
            Some(sense) => Err(sense.condition),
            None => Ok(request(&n, plan, 0).kind),
        }
    };
    let Ok(Kind::Discard(ranges)) = unmap(&[(1 << 32, 1 << 20)]) else { panic!("a discard") };
    assert_eq!(ranges, [(1 << 44, 1 << 32)]);
    for extents in [[(0, 1 << 20), (1 << 21, 1)], [(0, u32::MAX), (0, u32::MAX)]] {
        let refused = unmap(&extents).expect_err("more than page B0 says");
        assert_eq!(refused, Condition::INVALID_FIELD_IN_PARAMETER_LIST);
    }
    let behind = unmap(&[(u64::MAX, 1)]).expect_err("there is no such block");
    assert_eq!(behind, Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
}

#[test]
fn unmap_of_no_blocks_behind_the_last_one_is_good() {
    let mut n = thin();
    let Action::Parameters(command) = n.begin(&VIEW, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]).action
    else {
        panic!("UNMAP takes a list")
    };
    let list = |lba: u16, blocks: u8| {
        let [high, low] = lba.to_be_bytes();
        let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low];
        list.extend_from_slice(&[0, 0, 0, blocks, 0, 0, 0, 0]);
        list
    };
    assert!(sense_of(&n.resume(&VIEW, command, &list(1000, 0))).is_none());
    for (lba, blocks) in [(1000, 1), (1001, 0)] {
        let refused = sense_of(&n.resume(&VIEW, command, &list(lba, blocks))).unwrap().condition;
        assert_eq!(refused, Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
    }
}

/// SBC-3 5.43: WSNZ is clear on the one, set on the other.
#[test]
fn write_same_of_no_blocks_goes_to_the_end_or_is_refused_if_thin() {
    let refused = sense_of(&thin().begin(&VIEW, &cdb16(0x93, 0, 990, 0)));
    assert_eq!(refused, Some(Sense::invalid_cdb(10, None)));
    let mut n = disk();
    let plan = n.begin(&VIEW, &cdb16(0x93, 0, 990, 0));
    let kind = request(&n, plan, 1).kind;
    assert!(matches!(kind, Kind::WriteSame { offset: 4_055_040, len: 40_960, .. }));
}

/// One initiator that shuts down must not take the disk from the others.
#[test]
fn a_stopped_unit_stays_ready_and_power_conditions_change_nothing() {
    let mut n = nexus(Options { removable: true, ..Options::default() });
    let plan = n.begin(&VIEW, &[0x1b, 0, 0, 0, 0, 0]);
    assert!(matches!(request(&n, plan, 0).kind, Kind::Flush));
    for power in 1..16_u8 {
        // LOEJ is void beside a power condition.
        assert!(sense_of(&n.begin(&VIEW, &[0x1b, 1, 0, 0, power << 4 | 2, 0])).is_none());
        assert!(sense_of(&n.begin(&VIEW, &[0; 6])).is_none());
    }
}
