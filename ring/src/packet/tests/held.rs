//! Frames held for as long as a disk hangs.

use super::*;
use crate::memory::ArenaConfig;

const PAYLOAD_BYTES: usize = 8192;

/// Sends `count` frames to `to`, each with a payload of its number.
fn send(reactor: &mut Reactor, out: File, to: &Port, from: &Port, count: usize) {
    for n in 0..count {
        let mut payload = reactor.arena().lend(PAYLOAD_BYTES).unwrap();
        payload.bytes_mut().fill(u8::try_from(n % 251).expect("small"));
        let mut message = reactor.message();
        let header = header(to.interface().mac, from.interface().mac, ETHERTYPE);
        message.bytes(&header).payload(Slice::whole(payload)).frame();
        reactor.submit(Op::Send { file: out, message }, 1);
        if n % 16 == 15 {
            reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        }
    }
    reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
}

fn check(frame: &Slice<Buf>, n: usize) {
    let payload = &frame.bytes()[HEADER_BYTES..];
    assert_eq!(payload.as_ptr() as usize % 512, 0, "for direct I/O");
    assert_eq!(payload.len(), PAYLOAD_BYTES);
    let other = payload.iter().position(|byte| usize::from(*byte) != n % 251);
    assert_eq!(other.map(|at| (at, payload[at])), None, "frame {n}, from an offset on");
}

#[test]
fn a_fresh_ring_is_not_stopped_by_frames_that_are_never_given_back() {
    on_a_cable(9000, || {
        let mut reactor = reactor();
        let (a, out) = port(&mut reactor, "end0");
        let (mut b, _) = port(&mut reactor, "end1");
        let arena = Arena::unregistered(ArenaConfig { bytes_max: 8 << 20 });
        let room = b.slots();
        // All that were sent; those for which there was no memory are missing. The kernel may take
        // and deliver them a little later.
        let take = |reactor: &mut Reactor, port: &mut Port, sent: usize| {
            let lost = |port: &mut Port| usize::try_from(port.statistics().no_memory).unwrap();
            let (mut got, before) = (Vec::new(), lost(port));
            let until = Instant::now() + Duration::from_secs(10);
            while got.len() + lost(port) - before < sent {
                assert!(Instant::now() < until, "{} of {sent} frames", got.len());
                reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
                while port.next_time().is_some() {
                    got.extend(port.receive(&arena));
                }
            }
            got
        };
        send(&mut reactor, out, &b, &a, room);
        let hung = take(&mut reactor, &mut b, room);
        assert_eq!((hung.len(), arena.stats().bytes_lent), (room, 0), "nothing was copied");
        assert!(b.blocked_by().is_some() && !b.is_copying());

        let mut c = b.fresh().unwrap();
        drop(b);
        assert!(c.blocked_by().is_none() && c.is_copying());
        // Several rounds, all held: copies until the memory is used up, then losses, but never
        // a ring that stands still.
        let (mut copies, mut sent) = (Vec::new(), 0);
        while c.statistics().no_memory < room as u64 {
            send(&mut reactor, out, &c, &a, room / 2);
            sent += room / 2;
            let got = take(&mut reactor, &mut c, room / 2);
            got.iter().enumerate().for_each(|(n, frame)| check(frame, n));
            copies.extend(got);
            assert!(c.blocked_by().is_none());
            assert!(sent < 20 * room, "the arena is smaller than that");
        }
        assert!(copies.len() > 2 * room, "{} copies in {room} slots", copies.len());
        assert_eq!(c.statistics().dropped, 0, "none by the kernel");
        // What carries no payload passes without memory.
        let mut message = reactor.message();
        message.bytes(&header(c.interface().mac, a.interface().mac, ETHERTYPE)).frame();
        reactor.submit(Op::Send { file: out, message }, 1);
        reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        assert_eq!(take(&mut reactor, &mut c, 1).len(), 1);

        hung.iter().enumerate().for_each(|(n, frame)| check(frame, n));
        drop((copies, hung));
        assert!(!c.is_copying());
        send(&mut reactor, out, &c, &a, 3);
        let got = take(&mut reactor, &mut c, 3);
        assert_eq!((got.len(), arena.stats().bytes_lent), (3, 0), "nothing is copied any more");
    });
}

#[test]
fn rings_that_are_gone_leave_their_registration_to_others() {
    on_a_cable(1500, || {
        let mut reactor = reactor();
        let mut registered = (0..200).map(|_| {
            let port = Port::open("end1", config()).unwrap();
            let file = reactor.attach_port(&port).unwrap();
            let registered = port.parts().unwrap().1.is_fixed();
            reactor.close(file);
            registered
        });
        // Some kernels (6.1) register no memory that belongs to a file, the first ring's neither.
        let first = registered.next().unwrap();
        assert_eq!(registered.position(|other| other != first), None);
    });
}
