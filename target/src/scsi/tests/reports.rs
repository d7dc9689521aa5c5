//! What the unit tells of itself and its ports.

use super::*;

fn data(plan: Plan) -> Vec<u8> {
    let Action::Respond(reply) = plan.action else { panic!("not answered at once: {plan:?}") };
    assert_eq!(reply.status, Status::Good);
    reply.data
}

fn page(n: &mut Nexus, code: u8) -> Vec<u8> {
    data(n.begin(&VIEW, &[0x12, 1, code, 2, 0, 0]))
}

/// SPC-4 6.37: the groups are those that page 83 speaks of, and TPGS says that they can be asked.
#[test]
fn every_portal_group_is_an_optimized_port_group() {
    let mut n = disk();
    assert_eq!(data(n.begin(&VIEW, &[0x12, 0, 0, 0, 96, 0]))[5] & 0x30, 0x10);
    let mut cdb = [0; 12];
    (cdb[0], cdb[1], cdb[9]) = (0xa3, 0x0a, 200);
    let told = data(n.begin(&VIEW, &cdb));
    assert_eq!(told[3], 24);
    assert_eq!(told[4..16], [0, 0x8f, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
    cdb[1] |= 0x20;
    assert_eq!(data(n.begin(&VIEW, &cdb))[3..5], [28, 0x10]);
    cdb[1] |= 0x40;
    assert_eq!(sense_of(&n.begin(&VIEW, &cdb)), Some(Sense::invalid_cdb(1, Some(7))));
}

#[test]
fn vpd_pages_are_listed_in_order_and_each_can_be_read() {
    let mut n = disk();
    let list = page(&mut n, 0)[4..].to_vec();
    assert!(list.is_sorted());
    for code in list {
        let whole = page(&mut n, code);
        assert_eq!(whole[1], code);
        assert_eq!(usize::from(whole[2]) << 8 | usize::from(whole[3]), whole.len() - 4);
    }
    assert_eq!(page(&mut n, 0x87)[4..], [0x3f, 0xff, 0, 0]);
    let ports = page(&mut n, 0x88);
    assert_eq!((ports[7], ports[59]), (1, 2), "both ports of the target");
    assert!(ports[20..].starts_with(VIEW.port_name.as_bytes()));
}

#[test]
fn log_sense_has_only_its_lists_and_task_management_tells_what_there_is() {
    let mut n = disk();
    let log = |page, subpage| [0x4d, 0, page, subpage, 0, 0, 0, 0, 64, 0];
    assert_eq!(data(n.begin(&VIEW, &log(0, 0))), [0, 0, 0, 1, 0]);
    assert_eq!(data(n.begin(&VIEW, &log(0, 0xff))), [0x40, 0xff, 0, 4, 0, 0, 0, 0xff]);
    let refused = sense_of(&n.begin(&VIEW, &log(0x0d, 0)));
    assert_eq!(refused, Some(Sense::invalid_cdb(2, Some(5))));
    let tasks = |repd| [0xa3, 0x0d, repd, 0, 0, 0, 0, 0, 0, 64, 0, 0];
    assert_eq!(data(n.begin(&VIEW, &tasks(0))), [0xd8, 0, 0, 0]);
    assert_eq!(data(n.begin(&VIEW, &tasks(0x80))).len(), 16);
}
