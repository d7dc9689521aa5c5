//! Whatever an initiator sends: no panic, and nothing is left of it once it is gone.

use proptest::prelude::*;

use super::reassign::{level_2, lose};
use super::recovery::Door;
use super::*;

/// A PDU of an initiator that knows the rules and does not care.
fn pdu() -> impl Strategy<Value = (Bhs, usize)> {
    let opcode = prop::sample::select(
        &[0x00u8, 0x40, 0x01, 0x41, 0x01, 0x42, 0x02, 0x44, 0x04, 0x05, 0x05, 0x46, 0x10, 0x1c][..],
    );
    let flags = prop::sample::select(
        &[0x80u8, 0x00, 0xa0, 0xc0, 0x20, 0x81, 0x82, 0x84, 0x85, 0x86, 0x88][..],
    );
    let bytes = prop::collection::vec(any::<u8>(), 48);
    (opcode, flags, bytes, 0usize..1500, any::<bool>()).prop_map(
        |(opcode, flags, bytes, len, tame)| {
            let mut bhs = Bhs(bytes.try_into().expect("48 bytes")).with_ahs_bytes(0);
            (bhs.0[0], bhs.0[1]) = (opcode, flags);
            let (itt, sn) = (bhs.itt() % 4, bhs.u32_at(24) % 16);
            bhs = bhs.put_u32(16, itt).put_u32(24, sn);
            if tame {
                // A LUN that is there, tags and lengths that fit, a CDB that means something.
                let cdb = [[0x28, 2], [0x2a, 2], [0x00, 0]][sn as usize % 3];
                let ttt = if itt % 2 == 0 { TAG_NONE } else { sn % 4 };
                bhs = bhs.put(8, [0; 8]).put_u32(20, if opcode & 0x3f == 1 { 1024 } else { ttt });
                bhs = bhs.put_u32(36, 0).put_u32(40, 0);
                if opcode & 0x3f == 1 {
                    bhs = bhs.put(32, cdb);
                }
            }
            (bhs, len)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn nothing_is_left_of_a_hostile_initiator(
        pdus in prop::collection::vec((pdu(), any::<u8>()), 1..60),
    ) {
        let mut world = World::new();
        let client = world.logged_in(0, 1);
        for ((bhs, len), chance) in pdus {
            client.send(&mut world, bhs, &vec![3; len]);
            match chance % 4 {
                0 => world.disk(0),
                1 => drop(client.heard(&mut world)),
                _ => {}
            }
        }
        world.at(0, |server, cx| server.turn(cx));
        world.at(0, |server, cx| server.closed(client.id, cx));
        world.disk(0);
        prop_assert!(world.shards[0].server.is_idle());
        prop_assert_eq!(world.registry.count(), 0);
        prop_assert_eq!(world.shards[0].engine.in_flight(), 0);
        prop_assert_eq!(world.shards[0].machine.arena.in_use(), 0);
        prop_assert!(world.shards[0].server.drains.is_empty());
        prop_assert!(world.shards[0].server.timers.is_empty());
    }

    /// The same with connections that are lost and come back, and tasks that are reassigned.
    #[test]
    fn nothing_is_left_of_one_that_comes_back_and_back(
        pdus in prop::collection::vec((pdu(), any::<u8>()), 1..60),
    ) {
        let mut world = World::new();
        let (mut client, tsih) = level_2(&mut world);
        let mut all = vec![client];
        for ((bhs, len), chance) in pdus {
            client.send(&mut world, bhs, &vec![3; len]);
            match chance % 8 {
                0 | 1 => world.disk(0),
                2 => drop(client.heard(&mut world)),
                3 => world.at(0, |server, cx| server.turn(cx)),
                4 | 5 => {
                    if chance & 0x10 == 0 {
                        lose(&client, &mut world);
                    }
                    let cid = u16::from(chance >> 6);
                    client = Door { tsih, cid, ..Door::to(0, 1) }.knock(&mut world);
                    all.push(client);
                    let server = &world.shards[0].server;
                    if server.conn_ref(client.id).is_none_or(|conn| conn.session.is_none()) {
                        lose(&client, &mut world);
                    }
                }
                6 => {
                    let machine = &mut world.shards[0].machine;
                    machine.now = machine.now + Duration::from_secs(5);
                    world.at(0, |server, cx| server.timeout(cx));
                }
                _ => {}
            }
        }
        for client in all {
            lose(&client, &mut world);
        }
        let machine = &mut world.shards[0].machine;
        machine.now = machine.now + Duration::from_secs(22);
        world.at(0, |server, cx| server.timeout(cx));
        while !world.shards[0].machine.ops.is_empty() {
            world.disk(0);
        }
        let shard = &world.shards[0];
        prop_assert!(shard.server.is_idle(), "{:?}", shard.server.status());
        prop_assert_eq!(world.registry.count(), 0);
        prop_assert_eq!(shard.machine.arena.in_use(), 0);
        prop_assert!(shard.server.drains.is_empty() && shard.server.retained.is_empty());
        prop_assert!(shard.server.fences.is_empty() && shard.server.fence_dues.is_empty());
        prop_assert!(shard.server.timers.is_empty() && shard.server.recalls.is_empty());
    }
}
