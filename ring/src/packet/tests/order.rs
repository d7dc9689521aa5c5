//! Which frames reach which shard, and in which order.

use super::*;

/// Sends a frame with these bytes for a key, and waits until it is on its way.
fn send(reactor: &mut Reactor, out: File, to: &Port, from: &Port, key: [u8; 3]) {
    let mut frame = header(to.interface().mac, from.interface().mac, ETHERTYPE);
    frame[16..19].copy_from_slice(&key);
    let mut message = reactor.message();
    message.bytes(&frame).frame();
    reactor.submit(Op::Send { file: out, message }, 1);
    let mut done = Vec::new();
    while !done.iter().any(|c: &Completion| matches!(c.event, Event::Sent(Ok(_)))) {
        reactor.turn(Some(Duration::from_secs(5)), &mut done).unwrap();
    }
}

fn key(frame: &Slice<Buf>) -> [u8; 3] {
    frame.bytes()[16..19].try_into().expect("three bytes")
}

#[test]
fn a_key_belongs_to_one_shard_on_every_interface_whenever_it_was_opened() {
    on_a_cable(1500, || {
        ip("link add end2 type veth peer name end3");
        ip("link set end2 up");
        ip("link set end3 up");
        let mut reactor = reactor();
        let (a, out_a) = port(&mut reactor, "end0");
        let (c, out_c) = port(&mut reactor, "end2");
        let open = |name, shard| {
            let share = Share { key_offset: 16, key_bytes: 3, shards: 3, shard };
            Port::open(name, PortConfig { share: Some(share), ..config() }).unwrap()
        };
        // The ends of the second cable are opened in another order.
        let mut first = [0, 1, 2].map(|shard| open("end1", shard));
        let mut second = [2, 0, 1].map(|shard| open("end3", shard));
        second.rotate_left(1);
        let keys = [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 7, 250], [0xff; 3], [0, 5, 0xff]];
        for key in keys {
            send(&mut reactor, out_a, &first[0], &a, key);
            send(&mut reactor, out_c, &second[0], &c, key);
        }
        let arena = reactor.arena();
        for ports in [&mut first, &mut second] {
            let (mut got, until) = (0, Instant::now() + Duration::from_secs(10));
            while got < keys.len() {
                assert!(Instant::now() < until, "{got} of {} frames", keys.len());
                for (shard, port) in (0u32..).zip(&mut *ports) {
                    let Some(frame) = port.receive(&arena) else { continue };
                    let sum: u32 = key(&frame).iter().copied().map(u32::from).sum();
                    assert_eq!(sum % 3, shard, "{:?}", key(&frame));
                    got += 1;
                }
            }
        }
    });
}

#[test]
fn frames_of_two_interfaces_come_in_the_order_the_kernel_took_them() {
    on_a_cable(1500, || {
        ip("link add end2 type veth peer name end3");
        ip("link set end2 up");
        ip("link set end3 up");
        let mut reactor = reactor();
        let (a, out_a) = port(&mut reactor, "end0");
        let (c, out_c) = port(&mut reactor, "end2");
        let mut ports = ["end1", "end3"].map(|name| Port::open(name, config()).unwrap());
        for n in 0..60u8 {
            // In runs of one to four.
            if n % 5 < n % 3 + 1 {
                send(&mut reactor, out_a, &ports[0], &a, [n; 3]);
            } else {
                send(&mut reactor, out_c, &ports[1], &c, [n; 3]);
            }
        }
        let (arena, mut got, mut from) = (reactor.arena(), Vec::new(), [0, 0]);
        // The kernel may deliver them a little later, but once one is there all before it are.
        let until = Instant::now() + Duration::from_secs(10);
        while got.len() < 60 {
            assert!(Instant::now() < until, "{} of 60 frames", got.len());
            let Some((_, port)) = first_received(|| {
                let heads = ports.iter_mut().enumerate();
                heads.filter_map(|(n, port)| Some((port.next_time()?, n))).min()
            }) else {
                continue;
            };
            got.push(key(&ports[port].receive(&arena).unwrap())[0]);
            from[port] += 1;
        }
        assert_eq!(got, (0..60).collect::<Vec<_>>());
        assert!(from.iter().all(|n| *n > 10), "{from:?}");
    });
}

#[test]
fn a_frame_found_only_by_the_second_look_still_comes_first() {
    // The first look passed port A while it was empty; it got a frame before B got its own.
    let mut looks = [Some((7, 'B')), Some((5, 'A')), Some((5, 'A'))].into_iter();
    assert_eq!(first_received(|| looks.next().unwrap()), Some((5, 'A')));
    assert_eq!(first_received(|| None::<(u64, char)>), None);
}
