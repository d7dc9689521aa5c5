//! The unit as an initiator meets it: CDB in, reply out.

use std::sync::Arc;

use corbel_proto::memory::{HeapBuffer, Segments, Slice};
use corbel_proto::scsi::lun::Lun;
use corbel_proto::scsi::{Condition, Sense, Status};
use proptest::prelude::*;

use super::*;
use crate::host::BlockError;
use crate::volume::{Facts, Identity, Kind, Options, Outcome, Volume, VolumeId};

mod access;
mod copy;
mod format;
mod medium;
mod mode;
mod reports;
mod reservation;
mod sanitize;
mod space;
mod token;
mod unmap;

const VIEW: View<'_> = View {
    luns: &[Lun::ZERO],
    luns_generation: 0,
    port_name: "iqn.2026-11.org.example:a,t,0x0001",
    relative_port: 1,
    port_group: 1,
    ports: &[1, 2],
    initiator: "iqn.2026-11.org.example:host,i,0x400000000000",
};

/// 1000 blocks of 4096 bytes behind a volatile cache; the power on attention already told.
fn nexus(options: Options) -> Nexus {
    nexus_of(options, |volume| volume)
}

fn nexus_of(options: Options, made: impl FnOnce(Volume) -> Volume) -> Nexus {
    let facts = Facts {
        block_bytes: 4096,
        physical_bytes: 4096,
        optimal_bytes: 0,
        granularity_bytes: 0,
        volatile_cache: true,
        discard: true,
        discard_granularity_bytes: 4096,
        discard_zeroes: true,
        rotational: false,
        atomic_bytes: 0,
    };
    let identity = Identity::from_source("test");
    let volume = Volume::new(VolumeId(1), "v".into(), identity, facts, options, 1000 * 4096);
    let unit = LogicalUnit::new(Arc::new(made(volume)));
    let mut nexus = Nexus::new(Arc::new(unit), &VIEW);
    let power_on = sense_of(&nexus.begin(&VIEW, &[0; 6])).unwrap();
    assert_eq!(power_on.condition, Condition::POWER_ON_OR_RESET_OCCURRED);
    nexus
}

fn disk() -> Nexus {
    nexus(Options::default())
}

fn sense_of(plan: &Plan) -> Option<Sense> {
    let Action::Respond(reply) = &plan.action else { return None };
    reply.sense.and_then(|s| Sense::parse(s.as_slice()))
}

fn refusal(nexus: &mut Nexus, cdb: &[u8]) -> Condition {
    sense_of(&nexus.begin(&VIEW, cdb)).expect("refused").condition
}

fn cdb16(code: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[..2].copy_from_slice(&[code, flags]);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

fn request(nexus: &Nexus, plan: Plan, fill: u8) -> crate::volume::Request<HeapBuffer> {
    let Action::Media(mut media) = plan.action else { panic!("not media work: {plan:?}") };
    let mut data = Segments::new();
    if plan.data_out > 0 {
        let bytes = vec![fill; usize::try_from(plan.data_out).unwrap()];
        data.push(Slice::whole(HeapBuffer::from_vec(bytes)));
    }
    nexus.unit().request(&mut media, data)
}

#[test]
fn read16_to_the_last_block_works_and_past_it_is_lba_out_of_range() {
    let mut n = disk();
    let plan = n.begin(&VIEW, &cdb16(0x88, 0, 999, 1));
    assert_eq!((plan.data_out, plan.data_in), (0, 4096));
    let read = request(&n, plan, 0);
    assert!(matches!(read.kind, Kind::Read { offset: 4_091_904, len: 4096 }));
    for (lba, blocks) in [(999, 2), (1000, 0), (u64::MAX, u32::MAX), (u64::MAX, 1)] {
        let refused = refusal(&mut n, &cdb16(0x88, 0, lba, blocks));
        assert_eq!(refused, Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, "{lba}+{blocks}");
    }
}

#[test]
fn no_blocks_is_good_and_writes_are_durable_by_fua_or_without_write_cache() {
    let mut n = disk();
    assert!(matches!(n.begin(&VIEW, &cdb16(0x8a, 0, 5, 0)).action, Action::Respond(_)));
    let plan = n.begin(&VIEW, &cdb16(0x8a, 0, 5, 1));
    assert!(!request(&n, plan, 1).durable);
    let plan = n.begin(&VIEW, &cdb16(0x8a, 0x08, 5, 1));
    assert!(request(&n, plan, 1).durable);
    let Action::Parameters(select) = n.begin(&VIEW, &[0x15, 0x10, 0, 0, 24, 0]).action else {
        panic!("MODE SELECT takes a list")
    };
    let mut list = vec![0, 0, 0, 0, 0x08, 0x12];
    list.resize(24, 0); // WCE clear
    let flush = n.resume(&VIEW, select, &list);
    assert!(matches!(request(&n, flush, 0).kind, Kind::Flush));
    let plan = n.begin(&VIEW, &cdb16(0x8a, 0, 5, 1));
    assert!(request(&n, plan, 1).durable);
}

#[test]
fn read_only_refuses_writes_and_unmap_is_unknown_unless_thin() {
    let mut n = nexus(Options { read_only: true, ..Options::default() });
    assert_eq!(refusal(&mut n, &cdb16(0x8a, 0, 0, 1)), Condition::WRITE_PROTECTED);
    let unmap = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];
    let refused = refusal(&mut disk(), &unmap);
    assert_eq!(refused, Condition::INVALID_COMMAND_OPERATION_CODE);
    let mut thin = nexus(Options { thin: true, ..Options::default() });
    let plan = thin.begin(&VIEW, &unmap);
    let Action::Parameters(command) = plan.action else { panic!("UNMAP takes a list") };
    assert_eq!(plan.data_out, 24);
    let short = thin.resume(&VIEW, command, &[0; 7]);
    let refused = sense_of(&short).unwrap().condition;
    assert_eq!(refused, Condition::PARAMETER_LIST_LENGTH_ERROR);
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0]);
    let plan = thin.resume(&VIEW, command, &list);
    let Kind::Discard(ranges) = request(&thin, plan, 0).kind else { panic!("not a discard") };
    assert_eq!(ranges, [(8192, 12288)]);
}

#[test]
fn compare_and_write_splits_its_payload_and_tells_where_it_differs() {
    let mut n = disk();
    let mut cdb = cdb16(0x89, 0, 3, 0);
    cdb[13] = 2;
    let plan = n.begin(&VIEW, &cdb);
    assert_eq!(plan.data_out, 2 * 2 * 4096);
    let Action::Media(media) = &plan.action else { panic!("not media work") };
    let done = n.unit().finish::<HeapBuffer>(media, Outcome::Miscompare(513));
    let sense = Sense::parse(done.sense.unwrap().as_slice()).unwrap();
    assert_eq!(sense.condition, Condition::MISCOMPARE_DURING_VERIFY_OPERATION);
    assert_eq!(sense.information, Some(513));
    let full = n.unit().finish::<HeapBuffer>(media, Outcome::Failed(BlockError::NoSpace));
    let sense = Sense::parse(full.sense.unwrap().as_slice()).unwrap();
    assert_eq!(sense.condition, Condition::SPACE_ALLOCATION_FAILED_WRITE_PROTECT);
    let kind = request(&n, plan, 7).kind;
    let Kind::CompareAndWrite { expected, new, .. } = kind else { panic!("not compare") };
    assert_eq!((expected[0].len, new[0].len), (8192, 8192));
}

#[test]
fn a_new_size_is_told_to_every_nexus_once_and_never_to_inquiry() {
    let mut first = disk();
    let mut second = Nexus::new(Arc::clone(first.unit()), &VIEW);
    refusal(&mut second, &[0; 6]);
    first.unit().volume.resize(2000 * 4096);
    for n in [&mut first, &mut second] {
        assert!(sense_of(&n.begin(&VIEW, &[0x12, 0, 0, 0, 96, 0])).is_none());
        assert_eq!(refusal(n, &[0; 6]), Condition::CAPACITY_DATA_HAS_CHANGED);
        assert!(sense_of(&n.begin(&VIEW, &[0; 6])).is_none());
    }
}

#[test]
fn a_prevented_medium_stays_until_the_initiator_goes_away() {
    let mut n = nexus(Options { removable: true, ..Options::default() });
    let mut other = Nexus::new(Arc::clone(n.unit()), &VIEW);
    refusal(&mut other, &[0; 6]);
    other.begin(&VIEW, &[0x1e, 0, 0, 0, 1, 0]);
    let eject = [0x1b, 0, 0, 0, 0x02, 0];
    assert_eq!(refusal(&mut n, &eject), Condition::MEDIUM_REMOVAL_PREVENTED);
    drop(other);
    assert!(sense_of(&n.begin(&VIEW, &eject)).is_none());
    assert_eq!(refusal(&mut n, &[0; 6]), Condition::MEDIUM_NOT_PRESENT);
}

#[test]
fn a_reset_before_the_first_command_is_part_of_power_on() {
    let first = disk();
    let mut second = Nexus::new(Arc::clone(first.unit()), &VIEW);
    first.unit().reset();
    assert_eq!(refusal(&mut second, &[0; 6]), Condition::POWER_ON_OR_RESET_OCCURRED);
    assert!(sense_of(&second.begin(&VIEW, &[0; 6])).is_none());
}

/// libiscsi reads right after loading, and takes a unit attention for a fault.
#[test]
fn a_loaded_medium_is_news_to_all_but_the_one_who_loaded_it() {
    let mut n = nexus(Options { removable: true, ..Options::default() });
    let mut other = Nexus::new(Arc::clone(n.unit()), &VIEW);
    refusal(&mut other, &[0; 6]);
    assert!(sense_of(&n.begin(&VIEW, &[0x1b, 0, 0, 0, 0x02, 0])).is_none());
    assert!(sense_of(&n.begin(&VIEW, &[0x1b, 0, 0, 0, 0x03, 0])).is_none());
    assert!(sense_of(&n.begin(&VIEW, &[0; 6])).is_none());
    assert_eq!(refusal(&mut other, &[0; 6]), Condition::NOT_READY_TO_READY_CHANGE);
}

#[test]
fn a_missing_unit_answers_inquiry_and_report_luns_and_refuses_the_rest() {
    let inquiry = MissingLun::begin(&VIEW, &[0x12, 0, 0, 0, 5, 0]);
    let Action::Respond(reply) = inquiry.action else { panic!("answered at once") };
    assert_eq!((reply.status, reply.data.len(), reply.data[0]), (Status::Good, 5, 0x7f));
    let refused = sense_of(&MissingLun::begin(&VIEW, &[0; 6])).unwrap().condition;
    assert_eq!(refused, Condition::LOGICAL_UNIT_NOT_SUPPORTED);
    let luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0];
    assert_eq!(MissingLun::begin(&VIEW, &luns).data_in, 16);
}

proptest! {
    #[test]
    fn no_cdb_panics_and_transfers_stay_bounded(
        cdb in any::<[u8; 16]>(),
        list in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut n = nexus(Options { thin: true, removable: true, ..Options::default() });
        let plan = n.begin(&VIEW, &cdb);
        prop_assert!(plan.data_out <= limits::TRANSFER_BYTES_MAX);
        prop_assert!(plan.data_in <= limits::TRANSFER_BYTES_MAX);
        if let Action::Parameters(command) = plan.action {
            let next = n.resume(&VIEW, command, &list);
            prop_assert!(!matches!(next.action, Action::Parameters(_)));
        }
    }
}

#[test]
fn a_failed_flush_is_told_once_to_every_initiator_at_its_next_flush() {
    let mut ours = disk();
    let mut theirs = Nexus::new(ours.unit().clone(), &VIEW);
    theirs.begin(&VIEW, &[0; 6]);
    let sync = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ours.unit().volume.count_flush_failure();
    for nexus in [&mut ours, &mut theirs] {
        assert_eq!(refusal(nexus, &sync), Condition::WRITE_ERROR);
        assert!(matches!(nexus.begin(&VIEW, &sync).action, Action::Media(_)));
    }
}

#[test]
fn page_c0_tells_boot_and_process_where_they_are_known_and_page_00_lists_it() {
    let inquiry = |nexus: &mut Nexus, page| {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[2], cdb[4]) = (0x12, 1, page, 252);
        nexus.begin(&VIEW, &cdb)
    };
    let mut silent = nexus(Options::default());
    assert!(sense_of(&inquiry(&mut silent, 0xc0)).is_some());
    let volume = silent.lu.volume.clone();
    let instance = Instance { boot: [7; 16], process: [9; 16] };
    let unit = LogicalUnit::new(volume).with_instance(Some(instance));
    let mut telling = Nexus::new(Arc::new(unit), &VIEW);
    let mut data = |page| match inquiry(&mut telling, page).action {
        Action::Respond(reply) => reply.data.to_vec(),
        action => panic!("{action:?}"),
    };
    assert_eq!(data(0xc0)[4..], [[7; 16], [9; 16]].concat());
    assert!(data(0x00).ends_with(&[0xb2, 0xc0]));
}
