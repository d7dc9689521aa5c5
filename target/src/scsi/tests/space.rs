//! Thin units whose store tells how much room there is.

use super::*;
use crate::volume::space::Room;

const WARNING: u64 = 100 << 20;

/// A thin unit to be warned of below 100 MiB, of which 1000 MiB are available and 30 used.
fn thin() -> Nexus {
    let n = nexus(Options { thin: true, space_warning: WARNING, ..Options::default() });
    tell(&n, 1000);
    n
}

fn tell(n: &Nexus, available_mib: u64) {
    let room = Room { used: 30 << 20, available: available_mib << 20 };
    let volume = &n.unit().volume;
    volume.space.tell(room, volume.options.space_warning);
}

fn data(n: &mut Nexus, cdb: &[u8]) -> Vec<u8> {
    let Action::Respond(reply) = n.begin(&VIEW, cdb).action else { panic!("it answers at once") };
    assert_eq!(reply.status, Status::Good, "{cdb:02x?}");
    reply.data
}

fn log_sense(page: u8, subpage: u8, pointer: u8) -> [u8; 10] {
    [0x4d, 0, 0x40 | page, subpage, 0, 0, pointer, 0, 255, 0]
}

const PROVISIONING_PAGE: [u8; 6] = [0x12, 1, 0xb2, 0, 64, 0];

#[test]
fn every_initiator_is_told_once_when_little_is_left() {
    let mut n = thin();
    let other = View { initiator: "iqn.2026-11.org.example:other,i,0x400000000000", ..VIEW };
    let mut second = Nexus::new(Arc::clone(n.unit()), &other);
    second.begin(&other, &[0; 6]);
    tell(&n, 99);
    let reached = Condition::THIN_PROVISIONING_SOFT_THRESHOLD_REACHED;
    assert_eq!(refusal(&mut n, &cdb16(0x8a, 0, 0, 1)), reached);
    assert!(matches!(n.begin(&VIEW, &cdb16(0x8a, 0, 0, 1)).action, Action::Media(_)));
    tell(&n, 50);
    assert!(sense_of(&n.begin(&VIEW, &[0; 6])).is_none(), "it is low still");
    assert_eq!(sense_of(&second.begin(&other, &[0; 6])).unwrap().condition, reached);
    tell(&n, 200);
    assert!(sense_of(&n.begin(&VIEW, &[0; 6])).is_none());
    tell(&n, 10);
    assert_eq!(refusal(&mut n, &[0; 6]), reached);
}

#[test]
fn pages_tell_room_and_threshold_in_sets_of_a_mebibyte() {
    let mut n = thin();
    assert_eq!(data(&mut n, &PROVISIONING_PAGE)[4], 8, "2^8 blocks of 4096 bytes");
    assert_eq!(data(&mut n, &log_sense(0, 0, 0))[4..], [0x00, 0x0c]);
    assert_eq!(data(&mut n, &log_sense(0, 0xff, 0))[4..], [0, 0, 0, 0xff, 0x0c, 0]);
    let page = data(&mut n, &log_sense(0x0c, 0, 0));
    assert_eq!(page[4..12], [0, 1, 3, 8, 0, 0, 0x03, 0xe8]);
    assert_eq!(page[16..24], [0, 2, 3, 8, 0, 0, 0, 30]);
    let beyond = sense_of(&n.begin(&VIEW, &log_sense(0x0c, 0, 3)));
    assert_eq!(beyond, Some(Sense::invalid_cdb(5, None)));
    let thresholds = data(&mut n, &[0x1a, 8, 0x1c, 2, 255, 0]);
    assert_eq!(thresholds[4..8], [0x5c, 2, 0, 20]);
    assert_eq!(thresholds[20..28], [0x80, 1, 0, 0, 0, 0, 0, 100]);
    let changeable = data(&mut n, &[0x1a, 8, 0x5c, 2, 255, 0]);
    assert!(changeable[8..].iter().all(|byte| *byte == 0));
    let recovery = data(&mut n, &[0x1a, 8, 0x01, 0, 255, 0]);
    assert_eq!((recovery[4], recovery[11]), (0x01, 0x80), "LBPERE");
}

/// Counts have 32 bits: sets are as large as it takes.
#[test]
fn sets_of_a_huge_unit_are_larger_and_their_exponent_says_so() {
    let options = Options { thin: true, space_warning: 1 << 50, ..Options::default() };
    let identity = Identity::from_source("huge");
    let facts = Facts::volatile(4096);
    let volume = Volume::new(VolumeId(1), "v".into(), identity, facts, options, 1 << 60);
    volume.space.tell(Room { used: 1 << 55, available: 1 << 59 }, 1 << 50);
    let mut n = Nexus::new(Arc::new(LogicalUnit::new(Arc::new(volume))), &VIEW);
    n.begin(&VIEW, &[0; 6]);
    assert_eq!(data(&mut n, &PROVISIONING_PAGE)[4], 29 - 12, "sets of 512 MiB");
    let page = data(&mut n, &log_sense(0x0c, 0, 0));
    assert_eq!(page[8..12], (1_u32 << 30).to_be_bytes());
    assert_eq!(page[20..24], (1_u32 << 26).to_be_bytes());
    let thresholds = data(&mut n, &[0x1a, 8, 0x1c, 2, 255, 0]);
    assert_eq!(thresholds[24..28], (1_u32 << 21).to_be_bytes());
}

#[test]
fn threshold_below_a_set_is_one_and_without_a_warning_there_is_none() {
    for (warning, enabled, sets) in [(1, 0x80, 1), (0, 0, 0)] {
        let options = Options { thin: true, space_warning: warning, ..Options::default() };
        let mut n = nexus(options);
        tell(&n, 1000);
        let page = data(&mut n, &[0x1a, 8, 0x1c, 2, 255, 0]);
        assert_eq!((page[20], page[27]), (enabled, sets), "{warning}");
        let recovery = data(&mut n, &[0x1a, 8, 0x01, 0, 255, 0]);
        assert_eq!(recovery[11], enabled, "LBPERE, {warning}");
        let changeable = data(&mut n, &[0x1a, 8, 0x41, 0, 255, 0]);
        assert!(changeable[6..].iter().all(|byte| *byte == 0), "{warning}");
    }
}

#[test]
fn all_pages_have_the_subpage_only_if_it_is_asked_for() {
    let mut n = thin();
    let mut codes = |subpage| {
        let all = data(&mut n, &[0x1a, 8, 0x3f, subpage, 255, 0]);
        let (mut rest, mut codes) = (&all[4..], Vec::new());
        while let [code, len, tail @ ..] = rest {
            codes.push(*code);
            let long = code & 0x40 != 0;
            let len = if long { 2 + usize::from(tail[1]) } else { usize::from(*len) };
            rest = &tail[len..];
        }
        codes
    };
    assert_eq!(codes(0), [0x01, 0x08, 0x0a, 0x1c]);
    assert_eq!(codes(0xff), [0x01, 0x08, 0x0a, 0x1c, 0x5c]);
}

#[test]
fn where_nothing_is_known_there_are_no_such_pages() {
    let mut unknown = nexus(Options { thin: true, space_warning: WARNING, ..Options::default() });
    let mut thick = nexus(Options { space_warning: WARNING, ..Options::default() });
    tell(&thick, 1000);
    for n in [&mut unknown, &mut thick] {
        assert_eq!(data(n, &PROVISIONING_PAGE)[4], 0);
        assert_eq!(data(n, &log_sense(0, 0, 0))[4..], [0x00]);
        for cdb in
            [&log_sense(0x0c, 0, 0)[..], &[0x1a, 8, 0x1c, 2, 255, 0], &[0x1a, 8, 1, 0, 255, 0]]
        {
            assert_eq!(refusal(n, cdb), Condition::INVALID_FIELD_IN_CDB, "{cdb:02x?}");
        }
    }
}

/// Some hosts send back everything that they read.
#[test]
fn all_pages_can_be_selected_back_as_they_were_told() {
    let mut n = thin();
    let all = data(&mut n, &[0x1a, 8, 0x3f, 0xff, 255, 0]);
    let len = u8::try_from(all.len()).unwrap();
    let select = [0x15, 0x10, 0, 0, len, 0];
    let Action::Parameters(command) = n.begin(&VIEW, &select).action else { panic!("a list") };
    let mut list = [&[0, 0, 0, 0][..], &all[4..]].concat();
    assert!(sense_of(&n.resume(&VIEW, command, &list)).is_none());
    *list.last_mut().unwrap() ^= 1; // the threshold
    let refused = sense_of(&n.resume(&VIEW, command, &list)).unwrap();
    assert_eq!(refused, Sense::invalid_parameter(u16::from(len) - 1, None));
}
