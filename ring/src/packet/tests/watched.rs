//! Frames that come while the reactor looks, and while it sleeps.

use super::*;

/// Sends one frame, and waits until it is on its way.
fn send(reactor: &mut Reactor, out: File, to: &Port, from: &Port) {
    let mut message = reactor.message();
    message.bytes(&header(to.interface().mac, from.interface().mac, ETHERTYPE)).frame();
    reactor.submit(Op::Send { file: out, message }, 1);
    let mut done = Vec::new();
    while !done.iter().any(|c: &Completion| matches!(c.event, Event::Sent(Ok(_)))) {
        reactor.turn(Some(Duration::from_secs(5)), &mut done).unwrap();
    }
}

/// Takes one frame; the reactor must have told of it.
fn take(reactor: &mut Reactor, port: &mut Port) -> Slice<Buf> {
    let (mut out, until) = (Vec::new(), Instant::now() + Duration::from_secs(10));
    loop {
        reactor.turn(Some(Duration::from_secs(5)), &mut out).unwrap();
        assert!(Instant::now() < until, "no frame");
        let told = out.drain(..).any(|done| matches!(done.event, Event::Readable(Ok(()))));
        if let Some(frame) = port.receive(&reactor.arena()).filter(|_| told) {
            return frame;
        }
    }
}

/// How long a turn with nothing to do takes, once what is left over is handed out.
fn slept(reactor: &mut Reactor) -> Duration {
    let (mut longest, mut out) = (Duration::ZERO, Vec::new());
    for _ in 0..4 {
        let began = Instant::now();
        reactor.turn(Some(Duration::from_millis(200)), &mut out).unwrap();
        longest = longest.max(began.elapsed());
    }
    longest
}

#[test]
fn a_sleeping_reactor_polls_and_one_that_has_work_does_not() {
    on_a_cable(1500, || {
        let (mut near, mut far) = (reactor(), reactor());
        let (a, out) = port(&mut far, "end0");
        let (mut b, _) = port(&mut near, "end1");
        let idle = near.in_flight();
        slept(&mut near);
        assert_eq!(near.in_flight(), idle + 1, "a poll");
        for _ in 0..2 {
            // Frames that are there before anybody sleeps: after some, nobody polls.
            for _ in 0..40 {
                send(&mut far, out, &b, &a);
                while b.next_time().is_none() {}
                take(&mut near, &mut b);
            }
            near.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
            assert_eq!(near.in_flight(), idle, "the poll is given up");
            let sender = std::thread::spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                let mut far = reactor();
                let (a, out) = port(&mut far, "end0");
                let mut to_all = header([0xff; 6], a.interface().mac, ETHERTYPE).to_vec();
                to_all[20] = 7;
                let mut message = far.message();
                message.bytes(&to_all).frame();
                far.submit(Op::Send { file: out, message }, 1);
                far.turn(Some(Duration::from_secs(5)), &mut Vec::new()).unwrap();
            });
            let began = Instant::now();
            assert_eq!(take(&mut near, &mut b).bytes()[20], 7);
            assert!(began.elapsed() > Duration::from_millis(100), "nothing was sent before");
            assert!(began.elapsed() < Duration::from_secs(4), "woken by the frame, not by time");
            sender.join().unwrap();
        }
    });
}

#[test]
fn frames_that_are_held_keep_nobody_awake() {
    on_a_cable(1500, || {
        let mut reactor = reactor();
        let (a, out) = port(&mut reactor, "end0");
        let (mut b, _) = port(&mut reactor, "end1");
        send(&mut reactor, out, &b, &a);
        let mut held = vec![take(&mut reactor, &mut b)];
        assert!(slept(&mut reactor) > Duration::from_millis(150));
        // Not even a ring full of them.
        while b.blocked_by().is_none() {
            send(&mut reactor, out, &b, &a);
            held.push(take(&mut reactor, &mut b));
        }
        assert!(slept(&mut reactor) > Duration::from_millis(150));
        drop(held);
        assert!(slept(&mut reactor) > Duration::from_millis(150));
    });
}

#[test]
fn frames_nobody_wants_any_more_keep_nobody_awake() {
    on_a_cable(1500, || {
        let mut reactor = reactor();
        let (a, out) = port(&mut reactor, "end0");
        let (mut b, file) = port(&mut reactor, "end1");
        send(&mut reactor, out, &b, &a);
        while b.next_time().is_none() {}
        reactor.unwatch(file);
        assert!(slept(&mut reactor) > Duration::from_millis(150));
    });
}
