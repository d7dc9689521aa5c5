//! EXTENDED COPY and RECEIVE COPY RESULTS.

use corbel_proto::scsi::copy::List;

use super::*;
use crate::scsi::copy::{Copy, Progress};

const CHUNK: usize = 1 << 20;

/// A list with one segment of `blocks` from `source` of `from` to `to`'s `destination`.
fn list(from: &Nexus, to: &Nexus, blocks: u16, source: u64, destination: u64) -> Vec<u8> {
    let mut out = vec![9, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0];
    for unit in [from, to] {
        let naa = unit.unit().volume.identity.naa.to_be_bytes();
        let mut cscd = [&[0xe4, 0, 0, 0, 1, 3, 0, 8][..], &naa].concat();
        cscd.resize(32, 0);
        out.extend(cscd);
    }
    out.extend([0x02, 0, 0, 24, 0, 0, 0, 1, 0, 0]);
    out.extend(blocks.to_be_bytes());
    out.extend(source.to_be_bytes());
    out.extend(destination.to_be_bytes());
    out
}

/// Another volume of the same kind.
fn other() -> Nexus {
    let facts = Facts { block_bytes: 4096, physical_bytes: 4096, ..Facts::volatile(4096) };
    let (identity, options) = (Identity::from_source("other"), Options::default());
    let volume = Volume::new(VolumeId(2), "o".into(), identity, facts, options, 1000 * 4096);
    Nexus::new(Arc::new(LogicalUnit::new(Arc::new(volume))), &VIEW)
}

fn parsed(n: &mut Nexus, list: &[u8]) -> List {
    let mut cdb = [0; 16];
    (cdb[0], cdb[13]) = (0x83, u8::try_from(list.len()).unwrap());
    let Action::Parameters(command) = n.begin(&VIEW, &cdb).action else {
        panic!("a list is wanted")
    };
    let Action::Copy(list) = n.resume(&VIEW, command, list).action else { panic!("a copy") };
    list
}

fn units(nexuses: &[&Nexus]) -> Vec<Arc<LogicalUnit>> {
    nexuses.iter().map(|n| n.unit().clone()).collect()
}

fn submitted(progress: Progress<HeapBuffer>) -> crate::volume::Request<HeapBuffer> {
    match progress {
        Progress::Submit(request) => request,
        progress => panic!("nothing to do: {progress:?}"),
    }
}

fn chunk(len: usize) -> Outcome<HeapBuffer> {
    Outcome::Data([Slice::whole(HeapBuffer::new(len))].into_iter().collect())
}

/// COPY STATUS of list 9: standing, segments.
fn told(n: &mut Nexus) -> Option<(u8, u8)> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[2], cdb[13]) = (0x84, 9, 12);
    let Action::Respond(reply) = n.begin(&VIEW, &cdb).action else { panic!("answered at once") };
    (reply.status == Status::Good).then(|| (reply.data[4], reply.data[6]))
}

/// The offsets that a copy reads from and writes to, to its end.
fn walked(copy: &mut Copy) -> Vec<(u64, u64)> {
    let mut out = Vec::new();
    let mut progress = copy.next_chunk::<HeapBuffer>();
    loop {
        let request = match progress {
            Progress::Submit(request) => request,
            Progress::Done => return out,
            Progress::Failed(sense) => panic!("{sense:?}"),
        };
        let Kind::Read { offset: from, len } = request.kind else { panic!("{request:?}") };
        let write = submitted(copy.outcome(chunk(usize::try_from(len).unwrap())));
        let Kind::Write { offset: to, .. } = write.kind else { panic!("{write:?}") };
        out.push((from, to));
        progress = copy.outcome(Outcome::Done);
    }
}

#[test]
fn goes_chunk_by_chunk_and_its_status_can_be_asked() {
    let (mut n, there) = (disk(), other());
    assert_eq!(told(&mut n), None);
    let list = list(&n, &there, 513, 1, 2); // two chunks and a block
    let list = parsed(&mut n, &list);
    let mut copy = n.copy(&list, &units(&[&n, &there])).unwrap();
    assert_eq!(told(&mut n), Some((0, 0)));
    assert_eq!(n.copy(&list, &[]).unwrap_err().condition, Condition::OPERATION_IN_PROGRESS);
    assert_eq!(copy.volumes().as_slice(), [VolumeId(1), VolumeId(2)]);
    let mib = CHUNK as u64;
    let steps = walked(&mut copy);
    assert_eq!(steps, [(4096, 8192), (4096 + mib, 8192 + mib), (4096 + 2 * mib, 8192 + 2 * mib)]);
    assert_eq!(told(&mut n), Some((1, 1)));
    drop(copy);
    assert_eq!(told(&mut n), Some((1, 1)));
}

#[test]
fn one_that_is_aborted_has_failed() {
    let mut n = disk();
    let list = list(&n, &n, 8, 0, 100);
    let list = parsed(&mut n, &list);
    let copy = n.copy(&list, &units(&[&n])).unwrap();
    drop(copy);
    assert_eq!(told(&mut n), Some((2, 0)));
}

#[test]
fn overlapping_segment_is_copied_from_its_end() {
    let mut n = disk();
    let list = list(&n, &n, 600, 0, 10);
    let list = parsed(&mut n, &list);
    let mut copy = n.copy(&list, &units(&[&n])).unwrap();
    let from: Vec<u64> = walked(&mut copy).iter().map(|(from, _)| *from).collect();
    assert_eq!(from, [344 * 4096, 88 * 4096, 0]);
}

/// The classic hole: a copy must not reach what its initiator does not see.
#[test]
fn unit_that_the_initiator_does_not_see_is_not_reachable() {
    let (mut n, there) = (disk(), other());
    let list = list(&n, &there, 1, 0, 0);
    let list = parsed(&mut n, &list);
    let refused = n.copy(&list, &units(&[&n])).unwrap_err();
    assert_eq!(refused.condition, Condition::COPY_TARGET_DEVICE_NOT_REACHABLE);
    assert_eq!(refused.pointer.unwrap().byte, 80);
    assert_eq!(told(&mut n), None);
}

#[test]
fn segment_beyond_either_end_copies_nothing() {
    let (mut n, there) = (disk(), other());
    for (source, destination) in [(999, 0), (0, 999), (u64::MAX, 0), (0, u64::MAX)] {
        let list = list(&n, &there, 2, source, destination);
        let list = parsed(&mut n, &list);
        let refused = n.copy(&list, &units(&[&n, &there])).unwrap_err();
        assert_eq!(refused.condition, Condition::COPY_ABORTED);
    }
}

/// A host that is fenced off while a chunk is read writes nothing more.
#[test]
fn reservation_that_came_meanwhile_stops_it_before_the_write() {
    let (mut n, there) = (disk(), other());
    let list = list(&n, &there, 8, 0, 0);
    let list = parsed(&mut n, &list);
    let mut copy = n.copy(&list, &units(&[&n, &there])).unwrap();
    submitted(copy.next_chunk());
    let stranger = crate::reservation::NexusName::new("iqn.z,i,0x400000000001", "iqn.a", 1);
    assert!(there.unit().volume.reservations.reserve(&stranger));
    let Progress::Failed(sense) = copy.outcome(chunk(8 * 4096)) else { panic!("it wrote") };
    assert_eq!(sense.condition, Condition::COPY_TARGET_DEVICE_NOT_REACHABLE);
    assert_eq!(told(&mut n), Some((2, 0)));
}

#[test]
fn medium_error_on_the_way_is_a_third_party_failure() {
    let mut n = disk();
    let list = list(&n, &n, 8, 0, 100);
    let list = parsed(&mut n, &list);
    let mut copy = n.copy(&list, &units(&[&n])).unwrap();
    submitted(copy.next_chunk());
    let failed = copy.outcome::<HeapBuffer>(Outcome::Failed(BlockError::Medium));
    let Progress::Failed(sense) = failed else { panic!("it went on") };
    assert_eq!(sense.condition, Condition::THIRD_PARTY_DEVICE_FAILURE);
}

#[test]
fn write_protected_destination_is_left_alone_and_a_protected_source_can_be_read() {
    let mut locked = nexus(Options { read_only: true, ..Options::default() });
    let there = other();
    let onto = list(&there, &locked, 1, 0, 0);
    let onto = parsed(&mut locked, &onto);
    assert!(locked.copy(&onto, &units(&[&locked, &there])).is_err());
    let from = list(&locked, &there, 1, 0, 0);
    let from = parsed(&mut locked, &from);
    assert!(locked.copy(&from, &units(&[&locked, &there])).is_ok());
}

#[test]
fn no_list_is_good_and_operating_parameters_are_told() {
    let mut n = disk();
    assert!(sense_of(&n.begin(&VIEW, &cdb16(0x83, 0, 0, 0))).is_none());
    let too_long = refusal(&mut n, &cdb16(0x83, 0, 0, 1 << 16));
    assert_eq!(too_long, Condition::PARAMETER_LIST_LENGTH_ERROR);
    let Action::Respond(reply) = n.begin(&VIEW, &cdb16(0x84, 3, 0, 100)).action else {
        panic!("answered at once")
    };
    assert_eq!(reply.data.len(), 46);
    assert_eq!(refusal(&mut n, &cdb16(0x84, 4, 0, 100)), Condition::INVALID_FIELD_IN_CDB);
}

/// A host that was sent to another path must not reach the unit by way of a copy.
#[test]
fn other_unit_whose_port_does_not_serve_is_not_reachable() {
    use corbel_proto::scsi::alua::{AccessState, PortGroup};
    let mut here = disk();
    let there = other();
    let both = units(&[&here, &there]);
    let states = [
        (AccessState::NonOptimized, true),
        (AccessState::Standby, false),
        (AccessState::Unavailable, false),
        (AccessState::Transitioning, false),
        (AccessState::Optimized, true),
    ];
    for (state, serves) in states {
        let group = |group, state| PortGroup { group, state, preferred: false };
        let groups = [group(1, state), group(2, AccessState::Optimized)];
        there.unit().port_groups.configure(false, &groups);
        for list in [list(&here, &there, 8, 0, 0), list(&there, &here, 8, 0, 0)] {
            let wanted = List { id: None, ..parsed(&mut here, &list) };
            let refused = here.copy(&wanted, &both).err().map(|sense| sense.condition);
            let unreachable = Condition::COPY_TARGET_DEVICE_NOT_REACHABLE;
            assert_eq!(refused, (!serves).then_some(unreachable), "{state:?}");
        }
    }
}
