//! Sessions that keep what they may have to send again.

use corbel_proto::iscsi::pdu::snack::Snack;

use super::*;

/// A login of one request, with everything that may differ.
#[derive(Clone, Copy)]
pub(super) struct Door<'a> {
    pub(super) shard: usize,
    pub(super) isid: u8,
    pub(super) tsih: u16,
    pub(super) cid: u16,
    pub(super) cmd_sn: u32,
    /// Beyond the names.
    pub(super) keys: &'a str,
}

impl Door<'_> {
    pub(super) fn to(shard: usize, isid: u8) -> Self {
        Self { shard, isid, tsih: 0, cid: 0, cmd_sn: 1, keys: "" }
    }

    /// Connects and asks.
    pub(super) fn knock(self, world: &mut World) -> Client {
        let client = world.connect(self.shard).unwrap();
        let request = LoginRequest {
            transit: true,
            continues: false,
            current: Stage::Operational,
            next: Some(Stage::FullFeature),
            version_max: 0,
            version_min: 0,
            data_len: 0,
            isid: Isid([0, 0, 0, 0, 0, self.isid]),
            tsih: self.tsih,
            task_tag: 0,
            cid: self.cid,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: 0,
        };
        let names = format!("InitiatorName=iqn.2026-11.org.example:node\0TargetName={TARGET}\0");
        let text = names + &self.keys.replace(' ', "\0");
        client.send(world, Bhs(request.emit()), text.as_bytes());
        let moved = world.moved.iter().find(|(from, _)| *from == (client.shard, client.id));
        let (shard, id) = moved.map_or((client.shard, client.id), |(_, to)| *to);
        Client { shard, id, cmd_sn: self.cmd_sn }
    }

    /// Connects, and is let in: the client and its session.
    pub(super) fn enter(self, world: &mut World) -> (Client, u16) {
        let client = self.knock(world);
        let response = LoginResponse::parse(&client.one(world).0.0).unwrap();
        assert_eq!((response.status.code(), response.next), (0, Some(Stage::FullFeature)));
        (client, response.tsih)
    }
}

/// What a store lends is sent and forgotten: a digest would read it, and what may be sent again
/// would keep it.
#[test]
fn stores_lend_memory_only_to_answers_that_are_sent_once_and_not_looked_at() {
    for (keys, lend) in [
        ("", true),
        ("HeaderDigest=CRC32C ", true),
        ("DataDigest=CRC32C ", false),
        ("ErrorRecoveryLevel=1 ", false),
    ] {
        let mut world = World::new();
        let (mut client, _) = Door { keys, ..Door::to(0, 1) }.enter(&mut world);
        let sends = world.at(0, |server, _| server.conn_ref(client.id).unwrap().wire.only_sends());
        assert_eq!(sends, lend, "{keys}");
        if !keys.contains("Digest") {
            client.command(&mut world, 5, 0x28, 2);
            assert_eq!(world.shards[0].machine.asked_to_lend == 1, lend, "{keys}");
        }
    }
}

#[test]
fn a_read_is_sent_again_until_another_command_finds_no_memory() {
    let mut world = World::new();
    let keys = "ErrorRecoveryLevel=1 ";
    let (mut client, _) = Door { keys, ..Door::to(0, 1) }.enter(&mut world);
    client.command(&mut world, 5, 0x28, 2);
    world.disk(0);
    let heard = client.heard(&mut world);
    assert_eq!(
        heard.iter().map(|(bhs, _)| bhs.opcode()).collect::<Vec<_>>(),
        [Some(Opcode::DataIn), Some(Opcode::ScsiResponse)]
    );
    let snack = Snack {
        kind: 0,
        lun: WireLun::new(0),
        itt: 5,
        ttt: TAG_NONE,
        exp_stat_sn: 0,
        begin: 0,
        run: 0,
    };
    client.send(&mut world, snack.emit(), &[]);
    assert_eq!(client.one(&mut world).1, heard[0].1);
    // Another session's write has no room beside what is kept.
    let mut other = world.logged_in(0, 2);
    let free = (1 << 22) - world.shards[0].machine.arena.in_use();
    let arena = &mut world.shards[0].machine.arena;
    let rest: Vec<_> = [free % (256 * 1024)]
        .into_iter()
        .chain(std::iter::repeat_n(256 * 1024, free / (256 * 1024)))
        .map(|len| arena.alloc(len).unwrap())
        .collect();
    other.command(&mut world, 6, 0x2a, 1);
    assert_eq!(ScsiResponse::parse(&other.one(&mut world).0).unwrap().status, 0x28);
    world.at(0, |server, cx| server.turn(cx));
    assert_eq!(world.shards[0].machine.arena.in_use(), free);
    other.command(&mut world, 7, 0x2a, 1);
    world.disk(0);
    assert_eq!(ScsiResponse::parse(&other.one(&mut world).0).unwrap().status, 0);
    client.send(&mut world, snack.emit(), &[]);
    assert_eq!(client.one(&mut world).0.opcode(), Some(Opcode::Reject));
    drop(rest);
}

#[test]
fn no_more_is_agreed_than_the_target_lets() {
    let mut world = World::new();
    let keys = "ErrorRecoveryLevel=1 ";
    Door { keys, ..Door::to(0, 1) }.enter(&mut world);
    world.logged_in(0, 2);
    let mut levels: Vec<_> = world.shards[0].server.status();
    levels.sort_by_key(|status| status.isid.0[5]);
    let levels: Vec<_> = levels.iter().map(|status| status.agreed.recovery_level).collect();
    assert_eq!(levels, [1, 0]);
}
