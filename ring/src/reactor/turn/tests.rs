use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

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

#[test]
fn a_turn_takes_all_that_came_at_once_although_it_slept() {
    let mut reactor = reactor();
    let timer: OwnedFd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::empty()).unwrap();
    for tag in 1..=8 {
        let file = reactor.attach(timer.try_clone().unwrap());
        reactor.submit(Op::PollReadable { file }, tag);
    }
    let mut done = Vec::new();
    reactor.turn(Some(Duration::ZERO), &mut done).unwrap();
    assert!(done.is_empty(), "{done:?}");
    // Its interrupt ends all eight.
    let at = Timespec { tv_sec: 0, tv_nsec: 30_000_000 };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once).unwrap();
    reactor.turn(Some(Duration::from_secs(5)), &mut done).unwrap();
    assert_eq!(done.len(), 8, "{done:?}");
}
