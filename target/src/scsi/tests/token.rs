//! Token copies: POPULATE TOKEN, WRITE USING TOKEN, RECEIVE ROD TOKEN INFORMATION.

use corbel_proto::scsi::token::TOKEN_BYTES;

use super::*;
use crate::scsi::copy::{Copy, Progress};

const ID: u32 = 0x0a0b_0c0d;
const OTHER: View<'_> =
    View { initiator: "iqn.2026-11.org.example:other,i,0x400000000000", ..VIEW };

/// Another volume of the same kind.
fn other() -> Nexus {
    let facts = Facts { block_bytes: 4096, physical_bytes: 4096, ..Facts::volatile(4096) };
    let (identity, options) = (Identity::from_source("other"), Options::default());
    let volume = Volume::new(VolumeId(2), "o".into(), identity, facts, options, 1000 * 4096);
    let mut nexus = Nexus::new(Arc::new(LogicalUnit::new(Arc::new(volume))), &VIEW);
    nexus.begin(&VIEW, &[0; 6]);
    nexus
}

fn with_ranges(mut list: Vec<u8>, ranges: &[(u64, u32)]) -> Vec<u8> {
    let at = list.len() - 2;
    list[at..].copy_from_slice(&u16::try_from(16 * ranges.len()).unwrap().to_be_bytes());
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    let len = u16::try_from(list.len() - 2).unwrap().to_be_bytes();
    list[..2].copy_from_slice(&len);
    list
}

fn out(n: &mut Nexus, action: u8, list: &[u8]) -> Plan {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x83, action);
    cdb[6..10].copy_from_slice(&ID.to_be_bytes());
    cdb[10..14].copy_from_slice(&u32::try_from(list.len()).unwrap().to_be_bytes());
    let Action::Parameters(command) = n.begin(&VIEW, &cdb).action else { panic!("a list") };
    n.resume(&VIEW, command, list)
}

/// RECEIVE ROD TOKEN INFORMATION.
fn told(n: &mut Nexus, view: &View<'_>) -> Option<Vec<u8>> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[12]) = (0x84, 0x07, 4);
    cdb[2..6].copy_from_slice(&ID.to_be_bytes());
    let Action::Respond(reply) = n.begin(view, &cdb).action else { panic!("answered at once") };
    (reply.status == Status::Good).then_some(reply.data)
}

/// A token for these ranges, told as it is.
fn token(n: &mut Nexus, ranges: &[(u64, u32)]) -> Vec<u8> {
    let plan = out(n, 0x10, &with_ranges(vec![0; 16], ranges));
    assert!(sense_of(&plan).is_none(), "{plan:?}");
    let data = told(n, &VIEW).unwrap();
    assert_eq!(data[4..6], [0x10, 0x01]);
    data[38..].to_vec()
}

/// WRITE USING TOKEN with what `units` are seen.
fn write(
    n: &mut Nexus,
    (token, offset, delete): (&[u8], u64, bool),
    ranges: &[(u64, u32)],
    units: &[&Arc<LogicalUnit>],
) -> Result<Copy, Condition> {
    let mut list = vec![0; 536];
    list[2] = u8::from(delete) << 1;
    list[8..16].copy_from_slice(&offset.to_be_bytes());
    list[16..16 + TOKEN_BYTES].copy_from_slice(token);
    let plan = out(n, 0x11, &with_ranges(list, ranges));
    let Action::WriteUsingToken(list_id, order) = plan.action else {
        return Err(sense_of(&plan).expect("refused").condition);
    };
    assert_eq!(list_id, ID);
    let units: Vec<_> = units.iter().map(|unit| Arc::clone(unit)).collect();
    n.write_using_token(list_id, &order, &units).map_err(|sense| sense.condition)
}

fn chunk(len: u64) -> Outcome<HeapBuffer> {
    let buffer = HeapBuffer::new(usize::try_from(len).unwrap());
    Outcome::Data([Slice::whole(buffer)].into_iter().collect())
}

/// From, to and how many blocks, chunk by chunk; or what it fails with.
fn walked(copy: &mut Copy) -> Result<Vec<(u64, u64, u64)>, Condition> {
    let mut done = Vec::new();
    let mut progress = copy.next_chunk::<HeapBuffer>();
    loop {
        let request = match progress {
            Progress::Submit(request) => request,
            Progress::Done => return Ok(done),
            Progress::Failed(sense) => return Err(sense.condition),
        };
        let Kind::Read { offset: from, len } = request.kind else { panic!("{request:?}") };
        match copy.outcome(chunk(len)) {
            Progress::Submit(write) => {
                let Kind::Write { offset: to, .. } = write.kind else { panic!("{write:?}") };
                done.push((from / 4096, to / 4096, len / 4096));
            }
            Progress::Failed(sense) => return Err(sense.condition),
            Progress::Done => panic!("what was read is not written"),
        }
        progress = copy.outcome(Outcome::Done);
    }
}

#[test]
fn blocks_of_a_token_go_to_ranges_in_order_from_an_offset_on() {
    let (mut here, mut there) = (disk(), other());
    let token = token(&mut there, &[(10, 4), (100, 6)]);
    let source = there.unit().clone();
    let to = [(500, 3), (700, 4)];
    let mut copy = write(&mut here, (&token, 2, false), &to, &[&source]).unwrap();
    let parts = walked(&mut copy).unwrap();
    assert_eq!(parts, [(12, 500, 2), (100, 502, 1), (101, 700, 4)]);
    let data = told(&mut here, &VIEW).unwrap();
    assert_eq!((data[4], data[5], data[23], data.len()), (0x11, 0x01, 7, 36));
    // It can be used again; but not beyond its end.
    assert!(write(&mut here, (&token, 9, false), &[(0, 1)], &[&source]).is_ok());
    for (offset, blocks) in [(10, 1), (9, 2), (11, 0), (u64::MAX, 1)] {
        let refused = write(&mut here, (&token, offset, false), &[(0, blocks)], &[&source]);
        assert_eq!(refused.unwrap_err(), Condition::INVALID_FIELD_IN_PARAMETER_LIST);
    }
}

/// The promise of a token: what it named is copied, or nothing is.
#[test]
fn token_whose_blocks_were_changed_copies_nothing_more() {
    let (mut here, mut there) = (disk(), other());
    let source = there.unit().clone();
    let changed = |block: u64| source.volume.tokens.written(block * 4096, block * 4096 + 1);
    let first = token(&mut there, &[(10, 600)]);
    changed(9);
    changed(610);
    assert!(write(&mut here, (&first, 0, false), &[(0, 600)], &[&source]).is_ok());
    changed(300);
    let refused = write(&mut here, (&first, 0, false), &[(0, 1)], &[&source]);
    assert_eq!(refused.unwrap_err(), Condition::TOKEN_REVOKED);
    // While a chunk is read: it is not written.
    let second = token(&mut there, &[(10, 600)]);
    let mut copy = write(&mut here, (&second, 0, false), &[(0, 600)], &[&source]).unwrap();
    assert!(matches!(copy.next_chunk::<HeapBuffer>(), Progress::Submit(_)));
    changed(11);
    let Progress::Failed(sense) = copy.outcome(chunk(1 << 20)) else { panic!("it is written") };
    assert_eq!(sense.condition, Condition::TOKEN_REVOKED);
    assert_eq!(told(&mut here, &VIEW).unwrap()[5], 0x02);
    // After a chunk was written: the next is not read.
    let third = token(&mut there, &[(10, 600)]);
    let mut copy = write(&mut here, (&third, 0, false), &[(0, 600)], &[&source]).unwrap();
    copy.next_chunk::<HeapBuffer>();
    assert!(matches!(copy.outcome(chunk(1 << 20)), Progress::Submit(_)));
    changed(11);
    let Progress::Failed(_) = copy.outcome::<HeapBuffer>(Outcome::Done) else { panic!("it reads") };
}

#[test]
fn token_is_good_for_who_sees_its_unit_and_may_read_it() {
    let (mut here, mut there) = (disk(), other());
    let source = there.unit().clone();
    let token = token(&mut there, &[(0, 8)]);
    let own = here.unit().clone();
    let unseen = write(&mut here, (&token, 0, false), &[(0, 8)], &[&own]);
    assert_eq!(unseen.unwrap_err(), Condition::TOKEN_UNKNOWN);
    for (byte, condition) in [
        (0, Condition::UNSUPPORTED_TOKEN_TYPE),
        (7, Condition::INVALID_TOKEN_LENGTH),
        (15, Condition::TOKEN_UNKNOWN),  // its number
        (31, Condition::TOKEN_UNKNOWN),  // its unit
        (130, Condition::TOKEN_UNKNOWN), // its process
        (500, Condition::TOKEN_CORRUPT),
    ] {
        let mut forged = token.clone();
        forged[byte] ^= 1;
        let refused = write(&mut here, (&forged, 0, false), &[(0, 8)], &[&source]);
        assert_eq!(refused.unwrap_err(), condition, "byte {byte}");
    }
    let mut holder = Nexus::new(Arc::clone(&source), &OTHER);
    holder.begin(&OTHER, &[0; 6]);
    holder.begin(&OTHER, &[0x16, 0, 0, 0, 0, 0]); // RESERVE(6)
    let reserved = write(&mut here, (&token, 0, false), &[(0, 8)], &[&source]);
    assert_eq!(reserved.unwrap_err(), Condition::COPY_TARGET_DEVICE_NOT_REACHABLE);
}

#[test]
fn token_ends_when_it_is_deleted_or_nobody_uses_it() {
    let (mut here, mut there) = (disk(), other());
    let source = there.unit().clone();
    let used = token(&mut there, &[(0, 8)]);
    let mut copy = write(&mut here, (&used, 0, true), &[(0, 8)], &[&source]).unwrap();
    walked(&mut copy).unwrap();
    let gone = write(&mut here, (&used, 0, false), &[(0, 8)], &[&source]);
    assert_eq!(gone.unwrap_err(), Condition::TOKEN_UNKNOWN);
    let unused = token(&mut there, &[(0, 8)]);
    source.volume.tokens.elapsed(60);
    let gone = write(&mut here, (&unused, 0, false), &[(0, 8)], &[&source]);
    assert_eq!(gone.unwrap_err(), Condition::TOKEN_EXPIRED);
}

#[test]
fn outcome_is_told_to_who_asked_and_what_is_too_much_is_refused() {
    let mut n = disk();
    assert_eq!(told(&mut n, &VIEW), None);
    token(&mut n, &[(0, 8)]);
    let mut second = Nexus::new(Arc::clone(n.unit()), &OTHER);
    second.begin(&OTHER, &[0; 6]);
    assert_eq!(told(&mut second, &OTHER), None);
    let beyond = sense_of(&out(&mut n, 0x10, &with_ranges(vec![0; 16], &[(999, 2)]))).unwrap();
    assert_eq!(beyond.condition, Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
    let mut locked = nexus(Options { read_only: true, ..Options::default() });
    token(&mut locked, &[(0, 8)]);
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[12]) = (0x83, 0x11, 8);
    assert_eq!(refusal(&mut locked, &cdb), Condition::WRITE_PROTECTED);
}
