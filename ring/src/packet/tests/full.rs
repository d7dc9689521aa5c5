//! An interface whose queue is full.

use super::*;

/// vblade ended, and took its export along, when the kernel refused a frame with ENOBUFS.
#[test]
fn a_full_interface_queue_delays_frames_and_loses_none() {
    const FRAMES: usize = 48;
    on_a_cable(1500, || {
        // A queue of three full frames, emptied at a rate of about 700 a second.
        let queue = "qdisc add dev end0 root tbf rate 8mbit burst 2kb limit 4600";
        let done = Command::new("tc").args(queue.split(' ')).output().expect("iproute2 has tc");
        assert!(done.status.success(), "`tc {queue}`: {done:?}");
        let mut reactor = reactor();
        let (a, out) = port(&mut reactor, "end0");
        let (mut b, _) = port(&mut reactor, "end1");
        let header = header(b.interface().mac, a.interface().mac, ETHERTYPE);
        for n in 0..FRAMES {
            let mut payload = reactor.arena().lend(1024).unwrap();
            payload.bytes_mut().fill(u8::try_from(n).expect("small"));
            let mut message = reactor.message();
            message.bytes(&header).payload(Slice::whole(payload)).frame();
            reactor.submit(Op::Send { file: out, message }, 1);
        }
        let mut done = Vec::new();
        let got = frames(&mut reactor, &mut b, FRAMES, &mut done);
        let mut seen: Vec<_> = got.iter().map(|frame| frame.bytes()[HEADER_BYTES]).collect();
        seen.sort_unstable();
        assert!(seen.iter().map(|n| usize::from(*n)).eq(0..FRAMES), "{seen:?}");
        let until = Instant::now() + Duration::from_secs(10);
        let sent = |done: &[Completion]| {
            done.iter().filter(|c| matches!(c.event, Event::Sent(Ok(_)))).count()
        };
        while sent(&done) < FRAMES {
            assert!(Instant::now() < until, "{} of {FRAMES} sent", sent(&done));
            reactor.turn(Some(Duration::from_millis(50)), &mut done).unwrap();
        }
    });
}
