//! Config string, MAC mask and reservation.

use super::*;

#[test]
fn set_wants_an_empty_or_equal_string_and_force_does_not() {
    let mut world = world();
    let config = header(Code::Config);
    let (reply, argument) = world.change(&config, &query(config::Command::Set, b"one"));
    assert_eq!((reply.error, config_string(&argument)), (None, b"one".to_vec()));
    let (reply, _) = world.ask(&config, &query(config::Command::Set, b"one"));
    assert_eq!(reply.error, None, "equal, so nothing to write");
    let (reply, argument) = world.ask(&config, &query(config::Command::Set, b"two"));
    assert_eq!(reply.error, Some(Error::ConfigStringPresent));
    assert_eq!(config_string(&argument), b"one");
    let (_, argument) = world.change(&config, &query(config::Command::ForceSet, b"two"));
    assert_eq!(config_string(&argument), b"two");
    let (_, argument) = world.ask(&config, &query(config::Command::Read, b""));
    assert_eq!(config_string(&argument), b"two");
}

#[test]
fn tests_answer_only_on_a_match() {
    let mut world = world();
    let config = header(Code::Config);
    world.change(&config, &query(config::Command::Set, b"storage"));
    world.ask(&config, &query(config::Command::Test, b"storage"));
    world.ask(&config, &query(config::Command::TestPrefix, b"stor"));
    world.ask(&config, &query(config::Command::TestPrefix, b""));
    world.silent(&config, &query(config::Command::Test, b"stor"));
    world.silent(&config, &query(config::Command::TestPrefix, b"tor"));
    world.silent(&config, &query(config::Command::TestPrefix, b"storages"));
    let all = HeaderRepr { shelf: 0xffff, slot: 0xff, ..config };
    world.silent(&all, &query(config::Command::Test, b"other"));
}

#[test]
fn other_config_commands_and_lying_strings_are_error_2() {
    let mut world = world();
    let mut lying = query(config::Command::ForceSet, b"x");
    lying[6..8].copy_from_slice(&1000u16.to_be_bytes());
    for argument in [query(config::Command::Other(5), b""), lying] {
        let (reply, _) = world.ask(&header(Code::Config), &argument);
        assert_eq!(reply.error, Some(Error::BadArgument));
    }
    assert!(world.host.persisted.is_empty());
}

#[test]
fn a_change_that_cannot_be_written_is_not_made() {
    let mut world = world();
    world.send(&header(Code::Config), &query(config::Command::Set, b"x"));
    let before = world.slots[0].contents();
    assert_eq!(before, Contents::default(), "in force before it was stable");
    world.persisted(false);
    assert_eq!(world.reply().0.error, Some(Error::DeviceUnavailable));
    world.send(&header(Code::Mask), &mask_edit(vec![mask::Directive::Add(CLIENT)]));
    world.persisted(false);
    let (_, argument) = world.reply();
    assert_eq!(argument, [0, 1, 1, 0]);
    assert_eq!(world.slots[0].contents(), Contents::default());
}

#[test]
fn one_change_at_a_time_and_the_next_one_sees_it() {
    let mut world = world();
    let config = header(Code::Config);
    world.send(&config, &query(config::Command::Set, b"first"));
    world.silent(&config, &query(config::Command::Set, b"second"));
    assert_eq!(world.server.stats()[0].1.busy, 1);
    world.persisted(true);
    assert_eq!(config_string(&world.reply().1), b"first");
    let (reply, _) = world.ask(&config, &query(config::Command::Set, b"second"));
    assert_eq!(reply.error, Some(Error::ConfigStringPresent));
}

#[test]
fn what_was_written_is_taken_up_again() {
    let mut world = world();
    world.send(&header(Code::Reserve), &reservation(reserve::Command::Set, &[CLIENT]));
    let (name, bytes, _) = world.host.persisted[0].clone();
    assert_eq!(name, "aoe-7.1");
    let restored = slot(7, 1, vec![]);
    restored.restore(&bytes).unwrap();
    assert_eq!(restored.contents().reserve, [CLIENT]);
    assert_eq!(restored.restore(b"CAoE"), Err(RestoreError::Foreign));
    let mut world = world_of(vec![restored], Options::default());
    let other = HeaderRepr { source: OTHER, ..header(Code::Ata) };
    let (reply, _) = world.ask(&other, &ata(0x24, 1, 0, &[]));
    assert_eq!(reply.error, Some(Error::TargetReserved));
}

#[test]
fn the_mask_shuts_out_without_a_word() {
    let mut world = world();
    let add = mask_edit(vec![mask::Directive::Add(CLIENT), mask::Directive::None(OTHER)]);
    let (_, argument) = world.change(&header(Code::Mask), &add);
    let packet = MaskPacket::new_checked(&argument[..]).unwrap();
    let members: Vec<_> = packet.directives().collect();
    assert_eq!(members, [mask::Directive::None(CLIENT)]);
    let other = |code| HeaderRepr { source: OTHER, ..header(code) };
    world.silent(&other(Code::Ata), &ata(0x24, 1, 0, &[]));
    world.silent(&other(Code::Config), &query(config::Command::Read, b""));
    let all = HeaderRepr { shelf: 0xffff, slot: 0xff, ..other(Code::Config) };
    world.silent(&all, &query(config::Command::Read, b""));
    assert_eq!(world.server.stats()[0].1.shut_out, 3);
    let delete = mask_edit(vec![mask::Directive::Delete(CLIENT)]);
    world.change(&header(Code::Mask), &delete);
    world.ask(&other(Code::Config), &query(config::Command::Read, b""));
}

#[test]
fn the_operators_allow_list_shuts_out_too() {
    let mut world = world_of(vec![slot(7, 1, vec![OTHER])], Options::default());
    world.silent(&header(Code::Ata), &ata(0x24, 1, 0, &[]));
}

#[test]
fn a_failing_edit_names_its_directive_and_changes_nothing() {
    let mut world = world();
    let edit = mask_edit(vec![mask::Directive::Add(CLIENT), mask::Directive::Other(9, OTHER)]);
    let (reply, argument) = world.ask(&header(Code::Mask), &edit);
    assert_eq!((reply.error, argument), (None, vec![0, 1, 2, 1]));
    assert!(world.host.persisted.is_empty());
}

#[test]
fn the_mask_is_full_at_what_a_reply_can_show() {
    let mac = |n: u8| Mac([2, 1, 0, 0, 0, n]);
    let many: Vec<_> = (0..=254).map(|n| mask::Directive::Add(mac(n))).collect();
    let mut world = world();
    let (_, argument) = world.ask(&header(Code::Mask), &mask_edit(many.clone()));
    assert_eq!(argument, [0, 1, 3, 185], "MTU 1500");
    world.server.mtu(PORT, 9000);
    world.send(&header(Code::Mask), &mask_edit(many));
    world.persisted(true);
    world.reply();
    let member = HeaderRepr { source: mac(0), ..header(Code::Mask) };
    let (_, argument) = world.ask(&member, &mask_edit(vec![mask::Directive::Add(CLIENT)]));
    assert_eq!(argument, [0, 1, 3, 0], "255 addresses");
    world.server.mtu(PORT, 1500);
    let (reply, _) = world.ask(&member, &[0, 0, 0, 0]);
    assert_eq!(reply.error, Some(Error::BadArgument), "too long for this port");
}

/// What SCSI initiators reserved, AoE clients cannot be registered for.
#[test]
fn a_scsi_reservation_keeps_aoe_clients_from_what_it_excludes() {
    use crate::reservation::NexusName;
    let mut world = world();
    let volume = world.slots[0].disk().volume().clone();
    let who = NexusName::new("iqn.x:a,i,0x400000000000", "iqn.x:t,t,0x0001", 1);
    assert!(volume.reservations.reserve(&who));
    for command in [0x34, 0x24, 0xe7] {
        let (reply, _) = world.ask(&header(Code::Ata), &ata(command, 1, 0, &[0; 512]));
        assert_eq!(reply.error, Some(Error::TargetReserved), "{command:#x}");
    }
    assert_eq!(world.ask(&header(Code::Ata), &ata(0xec, 1, 0, &[])).0.error, None);
    assert_eq!(world.server.stats()[0].1.conflicts, 3);
    volume.reservations.reset();
    world.send(&header(Code::Ata), &ata(0x34, 1, 0, &[0; 512]));
    assert_eq!(world.engine.0.len(), 1);
}

#[test]
fn a_reservation_keeps_others_off_the_disk_but_not_off_identify() {
    let mut world = world();
    let set = |macs: &[Mac]| reservation(reserve::Command::Set, macs);
    let other = |code| HeaderRepr { source: OTHER, ..header(code) };
    world.change(&header(Code::Reserve), &set(&[CLIENT]));
    let (reply, _) = world.ask(&other(Code::Ata), &ata(0x34, 1, 0, &[0; 512]));
    assert_eq!(reply.error, Some(Error::TargetReserved));
    assert_eq!(world.ask(&other(Code::Ata), &ata(0xec, 1, 0, &[])).0.error, None);
    world.ask(&other(Code::Config), &query(config::Command::Read, b""));
    let (reply, argument) = world.ask(&other(Code::Reserve), &set(&[OTHER]));
    assert_eq!(reply.error, Some(Error::TargetReserved));
    let shown: Vec<_> = ReservePacket::new_checked(&argument[..]).unwrap().macs().collect();
    assert_eq!(shown, [CLIENT]);
    world.send(&header(Code::Ata), &ata(0x34, 1, 0, &[0; 512]));
    assert_eq!(world.engine.0.len(), 1, "the holder writes");
    assert_eq!(world.server.stats()[0].1.conflicts, 2);
}

#[test]
fn a_holder_changes_and_releases_and_force_takes_over() {
    let mut world = world();
    let from = |source| HeaderRepr { source, ..header(Code::Reserve) };
    let set = |macs: &[Mac]| reservation(reserve::Command::Set, macs);
    world.change(&from(CLIENT), &set(&[CLIENT]));
    world.change(&from(CLIENT), &set(&[CLIENT, OTHER]));
    world.change(&from(OTHER), &reservation(reserve::Command::ForceSet, &[OTHER]));
    assert_eq!(world.slots[0].contents().reserve, [OTHER]);
    world.change(&from(OTHER), &set(&[]));
    world.change(&from(CLIENT), &set(&[CLIENT]));
    let (reply, _) = world.ask(&from(CLIENT), &[3, 0]);
    assert_eq!(reply.error, Some(Error::BadArgument));
}

#[test]
fn another_shards_change_is_in_force_here_at_once() {
    let shared = slot(7, 1, vec![]);
    let mut here = world_of(vec![shared.clone()], Options::default());
    let mut there = world_of(vec![shared], Options::default());
    here.ask(&header(Code::Config), &query(config::Command::Read, b""));
    there.send(&header(Code::Reserve), &reservation(reserve::Command::Set, &[OTHER]));
    here.silent(&header(Code::Reserve), &reservation(reserve::Command::Set, &[CLIENT]));
    there.persisted(true);
    let (reply, _) = here.ask(&header(Code::Ata), &ata(0x24, 1, 0, &[]));
    assert_eq!(reply.error, Some(Error::TargetReserved));
}

#[test]
fn a_reload_in_the_middle_of_a_change_loses_nothing() {
    let mut world = world();
    world.send(&header(Code::Reserve), &reservation(reserve::Command::Set, &[CLIENT]));
    let disk = world.slots[0].disk().clone();
    let fresh = Arc::new(world.slots[0].reconfigured(disk, vec![CLIENT, OTHER]));
    let map = ShelfMap::new(vec![(PORT, fresh.clone())]).unwrap();
    world.server.set_map(&Arc::new(map));
    world.persisted(true);
    assert_eq!(world.reply().0.error, None);
    assert_eq!(fresh.contents().reserve, [CLIENT]);
    let other = HeaderRepr { source: OTHER, ..header(Code::Ata) };
    let (reply, _) = world.ask(&other, &ata(0x24, 1, 0, &[]));
    assert_eq!(reply.error, Some(Error::TargetReserved));
    assert_eq!(world.server.stats()[0].1.conflicts, 1, "figures go on");
}
