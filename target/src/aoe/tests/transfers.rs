//! ATA commands over the wire.

use super::*;
use crate::volume::engine::Engine;

#[test]
fn a_read_becomes_a_request_and_its_data_the_reply() {
    let mut world = world();
    world.send(&header(Code::Ata), &ata(0x24, 2, 8, &[]));
    let (tag, kind, _) = world.engine.0.remove(0);
    assert!(matches!(kind, Kind::Read { offset: 4096, len: 1024 }));
    assert_eq!(world.server.in_flight(), 1);
    let mut data = Segments::new();
    data.push(Slice::whole(HeapBuffer::from_vec(vec![0x5a; 1024])));
    world.server.complete(tag, Outcome::Data(data));
    let (reply, argument) = world.reply();
    assert_eq!((reply.destination, reply.source, reply.tag), (CLIENT, OWN, 0x1234_5678));
    assert_eq!(status(&argument).command_status, 0x40);
    assert_eq!(argument[12..], [0x5a; 1024]);
    let (address, stats) = world.server.stats()[0];
    assert_eq!((address.to_string(), stats.reads, stats.read_bytes), ("7.1".into(), 1, 1024));
}

#[test]
fn a_write_is_handed_on_where_it_lies_and_is_durable() {
    let mut world = world();
    let frame = bytes(&header(Code::Ata), &ata(0x34, 1, 3, &[0x77; 512]));
    let frame = Slice::whole(HeapBuffer::from_vec(frame));
    let place = frame.bytes()[36..].as_ptr();
    world.server.frame(PORT, &frame, &mut world.host, &mut world.engine);
    let (tag, kind, durable) = world.engine.0.remove(0);
    let Kind::Write { offset: 1536, data } = kind else { panic!("a write, not {kind:?}") };
    assert_eq!((data[0].bytes().as_ptr(), data[0].len, durable), (place, 512, true));
    assert_eq!(world.recv(), None, "acknowledged before it was done");
    world.server.complete(tag, Outcome::Done);
    let (_, argument) = world.reply();
    assert_eq!((argument.len(), status(&argument).command_status), (12, 0x40));
    assert_eq!(world.server.stats()[0].1.write_bytes, 512);
}

#[test]
fn lying_lengths_are_error_2() {
    let mut world = world();
    for argument in [
        ata(0x34, 2, 0, &[0; 512]),
        ata(0x34, 1, 0, &[0; 1024]),
        ata(0x30, 1, 0, &[]),
        ata(0x24, 3, 0, &[]),
        ata(0x24, 0, 0, &[]),
    ] {
        let (reply, _) = world.ask(&header(Code::Ata), &argument);
        assert_eq!(reply.error, Some(Error::BadArgument));
    }
    assert!(world.engine.0.is_empty());
}

#[test]
fn a_larger_mtu_takes_larger_reads() {
    let mut world = world();
    world.server.mtu(PORT, 9000);
    world.send(&header(Code::Ata), &ata(0x24, 16, 0, &[]));
    assert_eq!(world.engine.0.len(), 1);
}

#[test]
fn the_linux_path_probe_is_a_read_with_data_attached() {
    let mut world = world();
    world.send(&header(Code::Ata), &ata(0x24, 2, 0, &[0; 1024]));
    assert!(matches!(world.engine.0[0].1, Kind::Read { offset: 0, len: 1024 }));
}

#[test]
fn medium_errors_are_ata_status_never_aoe_errors() {
    let mut world = world();
    world.send(&header(Code::Ata), &ata(0x24, 1, 5, &[]));
    let (tag, ..) = world.engine.0.remove(0);
    world.server.complete(tag, Outcome::Failed(BlockError::Medium));
    let (reply, argument) = world.reply();
    assert_eq!(reply.error, None);
    assert_eq!(Fault::from_registers(&status(&argument)), Some(Fault::Uncorrectable));
    let (reply, argument) = world.ask(&header(Code::Ata), &ata(0x24, 1, 1 << 40, &[]));
    assert_eq!(reply.error, None);
    assert_eq!(Fault::from_registers(&status(&argument)), Some(Fault::IdNotFound));
    assert_eq!(world.server.stats()[0].1.faults, 2);
}

#[test]
fn identify_is_512_bytes() {
    let mut world = world();
    let (_, argument) = world.ask(&header(Code::Ata), &ata(0xec, 1, 0, &[]));
    let identify = Identify::parse(&argument[12..]).unwrap();
    assert_eq!((argument.len(), identify.sectors), (524, 2048));
}

#[test]
fn a_retransmission_is_executed_again_in_order() {
    let mut world = world();
    for tag in [1, 2] {
        let header = HeaderRepr { tag, ..header(Code::Ata) };
        world.send(&header, &ata(0x34, 1, 0, &[0; 512]));
    }
    let tags: Vec<_> = world.engine.0.drain(..).map(|(tag, ..)| tag).collect();
    for tag in tags {
        world.server.complete(tag, Outcome::Done);
    }
    assert_eq!((world.reply().0.tag, world.reply().0.tag), (1, 2));
}

#[test]
fn what_is_outstanding_is_bounded_and_drops_are_counted() {
    let options = Options { outstanding_max: 2, ..Options::default() };
    let mut world = world_of(vec![slot(7, 1, vec![])], options);
    for _ in 0..3 {
        world.send(&header(Code::Ata), &ata(0x24, 1, 0, &[]));
    }
    assert_eq!((world.engine.0.len(), world.server.counters().overflow), (2, 1));
    let (tag, ..) = world.engine.0.remove(0);
    world.server.complete(tag, Outcome::Cancelled);
    world.send(&header(Code::Ata), &ata(0x24, 1, 0, &[]));
    assert_eq!(world.engine.0.len(), 1, "a reply not yet taken counts");
    world.reply();
    world.send(&header(Code::Ata), &ata(0x24, 1, 0, &[]));
    assert_eq!(world.engine.0.len(), 2);
}

#[test]
fn a_slot_whose_disk_hangs_leaves_room_for_the_others() {
    let options = Options { outstanding_max: 4, slot_outstanding_max: 2, ..Options::default() };
    let mut world = world_of(vec![slot(7, 1, vec![]), slot(7, 2, vec![])], options);
    let other = HeaderRepr { slot: 2, ..header(Code::Ata) };
    for _ in 0..9 {
        world.send(&header(Code::Ata), &ata(0x34, 1, 0, &[0; 512]));
    }
    assert_eq!((world.engine.0.len(), world.server.counters().overflow), (2, 7));
    world.send(&other, &ata(0x24, 1, 0, &[]));
    assert_eq!(world.engine.0.len(), 3);
    let (tag, ..) = world.engine.0.remove(0);
    world.server.complete(tag, Outcome::Done);
    world.send(&header(Code::Ata), &ata(0x34, 1, 0, &[0; 512]));
    assert_eq!(world.engine.0.len(), 3, "room again");
}

#[test]
fn a_port_that_went_away_takes_its_replies_with_it() {
    let mut world = world();
    world.send(&header(Code::Ata), &ata(0x24, 1, 0, &[]));
    world.send(&header(Code::Config), &query(config::Command::Read, b""));
    world.server.port_down(PORT);
    let (tag, ..) = world.engine.0.remove(0);
    world.server.complete(tag, Outcome::Done);
    assert_eq!(world.recv(), None);
    assert_eq!(world.server.counters().lost_port, 2);
    world.server.port_up(PORT, OWN, 1500);
    world.ask(&header(Code::Config), &query(config::Command::Read, b""));
}

#[test]
fn a_slot_taken_off_the_map_still_answers_what_it_began() {
    let mut world = world();
    world.send(&header(Code::Ata), &ata(0x34, 1, 0, &[0; 512]));
    world.server.set_map(&Arc::new(ShelfMap::default()));
    let (tag, ..) = world.engine.0.remove(0);
    world.server.complete(tag, Outcome::Done);
    world.reply();
    world.silent(&header(Code::Ata), &ata(0x34, 1, 0, &[0; 512]));
}

#[test]
fn on_a_volatile_cache_a_write_is_acknowledged_after_the_flush() {
    let mut world = world();
    let mut engine = Engine::default();
    let frame = bytes(&header(Code::Ata), &ata(0x34, 1, 0, &[0x77; 512]));
    let frame = Slice::whole(HeapBuffer::from_vec(frame));
    world.server.frame(PORT, &frame, &mut world.host, &mut engine);
    let (op, token) = world.host.blocks.remove(0);
    let BlockOp::Write { offset: 0, data } = op else { panic!("a write, not {op:?}") };
    engine.block_done(&mut world.host, token, Ok(()), Some(data));
    assert!(engine.poll().is_none(), "acknowledged before the flush");
    let (op, token) = world.host.blocks.remove(0);
    assert!(matches!(op, BlockOp::Flush));
    engine.block_done(&mut world.host, token, Ok(()), None);
    let (owner, outcome) = engine.poll().unwrap();
    let Owner::Aoe(tag) = owner else { panic!("AoE's own request") };
    world.server.complete(tag, outcome);
    assert_eq!(status(&world.reply().1).command_status, 0x40);
}
