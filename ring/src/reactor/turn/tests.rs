use std::time::Duration;

use super::super::tests::{filled, image, lend, pair, reactor, store};
use super::super::{Op, Reactor};

/// Queues an answer of one byte.
fn answer(reactor: &mut Reactor, file: super::super::File) {
    let mut message = reactor.message();
    message.bytes(b"x");
    reactor.submit(Op::Send { file, message }, 3);
}

#[test]
fn what_a_disk_is_to_do_does_not_wait_for_answers_to_be_sent() {
    let mut reactor = reactor();
    reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    let (_dir, spec) = image(1 << 20);
    let (disk, _) = store(&mut reactor, &spec);
    let (peer, _far) = pair(&mut reactor);
    let (fresh, data) = (lend(&reactor, 4096), filled(&reactor, 4096, 1));
    reactor.submit(Op::Read { file: disk, offset: 4096, data: fresh }, 1);
    reactor.submit(Op::Write { file: disk, offset: 8192, data, durable: false }, 2);
    // They wait for one another.
    assert_eq!(reactor.ring.queued(), 2);
    answer(&mut reactor, peer);
    assert_eq!(reactor.ring.queued(), 1);
    // Answers do, too.
    answer(&mut reactor, peer);
    assert_eq!(reactor.ring.queued(), 2);
}
