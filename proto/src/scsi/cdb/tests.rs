use proptest::prelude::*;

use super::super::opcode::OPCODES;
use super::*;

fn command(cdb: &[u8]) -> Command {
    parse(cdb).unwrap().0
}

#[test]
#[rustfmt::skip]
fn read10_has_its_lba_count_and_fua() {
    let cdb = [
        0x28,                   // READ(10)
        0x18,                   // DPO, FUA
        0x01, 0x02, 0x03, 0x04, // LBA
        0x00,                   // group number
        0x00, 0x10,             // 16 blocks
        0x00,                   // control
    ];
    let extent = Extent { lba: 0x0102_0304, blocks: 16, count_at: 7 };
    assert_eq!(command(&cdb), Command::Read { extent, fua: true });
}

#[test]
#[rustfmt::skip]
fn read6_of_no_blocks_is_256_blocks_and_its_lba_has_21_bits() {
    let cdb = [
        0x08,                   // READ(6)
        0xff, 0xff, 0xff,       // reserved bits set, LBA
        0x00,                   // 256 blocks
        0x00,                   // control
    ];
    let extent = Extent { lba: 0x1f_ffff, blocks: 256, count_at: 4 };
    assert_eq!(command(&cdb), Command::Read { extent, fua: false });
}

#[test]
#[rustfmt::skip]
fn write16_and_write12_have_wide_fields() {
    let sixteen = [
        0x8a,                   // WRITE(16)
        0x08,                   // FUA
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, // LBA
        0x00, 0x01, 0x00, 0x00, // 65536 blocks
        0x00, 0x00,             // group number, control
    ];
    let extent = Extent { lba: u64::MAX - 1, blocks: 65536, count_at: 10 };
    assert_eq!(command(&sixteen), Command::Write { extent, fua: true });
    let twelve = [
        0xaa, 0x00,             // WRITE(12)
        0x00, 0x00, 0x00, 0x05, // LBA
        0xff, 0xff, 0xff, 0xff, // blocks
        0x00, 0x00,             // group number, control
    ];
    let extent = Extent { lba: 5, blocks: u32::MAX, count_at: 6 };
    assert_eq!(command(&twelve), Command::Write { extent, fua: false });
}

#[test]
fn protection_information_is_refused_with_a_pointer() {
    for code in [0x28, 0x2a, 0x2e, 0x2f, 0x41, 0x88, 0x89, 0x8a, 0x8b, 0x93, 0xa8, 0xaf] {
        let mut cdb = [0; 16];
        cdb[0] = code;
        cdb[1] = 0x20;
        assert_eq!(parse(&cdb), Err(Sense::invalid_cdb(1, Some(7))), "{code:#x}");
    }
}

#[test]
fn naca_is_refused_where_the_control_byte_stands() {
    assert_eq!(parse(&[0, 0, 0, 0, 0, 4]), Err(Sense::invalid_cdb(5, Some(2))));
    let mut read16 = [0; 16];
    read16[0] = 0x88;
    read16[15] = 4;
    assert_eq!(parse(&read16), Err(Sense::invalid_cdb(15, Some(2))));
}

#[test]
fn inquiry_with_a_page_but_without_evpd_is_refused() {
    assert_eq!(parse(&[0x12, 0, 0x83, 0, 255, 0]), Err(Sense::invalid_cdb(2, None)));
    assert_eq!(
        command(&[0x12, 1, 0x83, 1, 0, 0]),
        Command::Inquiry { page: Some(0x83), allocation: 256 }
    );
}

#[test]
fn unknown_service_action_points_at_it_and_unknown_code_does_not() {
    let mut cdb = [0; 16];
    cdb[0] = 0x9e;
    cdb[1] = 0x15;
    assert_eq!(parse(&cdb), Err(Sense::invalid_cdb(1, Some(4))));
    cdb[0] = 0xc0;
    assert_eq!(parse(&cdb), Err(Condition::INVALID_COMMAND_OPERATION_CODE.into()));
}

#[test]
fn byte_check_10b_is_reserved() {
    let mut cdb = [0; 10];
    cdb[0] = 0x2f;
    cdb[1] = 0b100;
    assert_eq!(parse(&cdb), Err(Sense::invalid_cdb(1, Some(2))));
    cdb[1] = 0b110;
    let Command::Verify { check, .. } = command(&cdb) else { panic!("not VERIFY") };
    assert_eq!(check, ByteCheck::OneBlock);
}

#[test]
fn a_cdb_shorter_than_its_command_is_refused() {
    for op in OPCODES {
        let mut cdb = op.usage.to_vec();
        cdb.pop();
        cdb[1] = op.service_action.unwrap_or(0);
        assert!(parse(&cdb).is_err(), "{}", op.name);
    }
    assert!(parse(&[]).is_err());
}

#[test]
fn every_command_of_the_table_is_parsed() {
    for op in OPCODES {
        let mut cdb = vec![0; op.usage.len()];
        cdb[0] = op.code;
        cdb[1] = op.service_action.unwrap_or(0);
        assert_eq!(parse(&cdb).map(|(_, class)| class), Ok(op.class), "{}", op.name);
    }
}

proptest! {
    #[test]
    fn no_cdb_panics(cdb in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = parse(&cdb);
    }
}
