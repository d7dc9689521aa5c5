//! On virtual Ethernet pairs, each test in a network namespace of its own. Needs root, and says
//! so rather than skipping.

use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use corbel_proto::memory::Buffer;

use super::*;
use crate::reactor::{Completion, Config, Event, File, Op, Reactor};
use crate::store::{self, Spec, Store};
use crate::wake::Waker;

mod full;
mod held;
mod order;
mod watched;

const ETHERTYPE: u16 = 0x88b5;
const HEADER_BYTES: usize = 36;

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).output().expect("iproute2 is installed");
    assert!(done.status.success(), "`ip {line}` (these tests need root): {done:?}");
}

/// A network namespace; removed when dropped.
struct Space(String);

impl Drop for Space {
    fn drop(&mut self) {
        ip(&format!("netns delete {}", self.0));
    }
}

/// Runs `test` on a thread that sees nothing but `end0` and `end1`, the ends of a cable.
fn on_a_cable(mtu: u32, test: fn()) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    assert!(rustix::process::geteuid().is_root(), "raw Ethernet tests need root");
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let space = Space(format!("corbel-ring-{}-{number}", std::process::id()));
    ip(&format!("netns add {}", space.0));
    let path = format!("/run/netns/{}", space.0);
    let run = move || {
        let file = std::fs::File::open(path).unwrap();
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).unwrap();
        ip(&format!("link add end0 mtu {mtu} type veth peer name end1 mtu {mtu}"));
        ip("link set end0 up");
        ip("link set end1 up");
        test();
    };
    std::thread::spawn(run).join().expect("the test passes");
}

fn config() -> PortConfig {
    let (ethertype, payload_offset) = (ETHERTYPE, HEADER_BYTES);
    PortConfig { ethertype, payload_offset, frames: 64, share: None }
}

fn reactor() -> Reactor {
    let config = Config { entries: 64, ..Config::default() };
    Reactor::new(config, Waker::new().unwrap()).unwrap()
}

fn port(reactor: &mut Reactor, name: &str) -> (Port, File) {
    let port = Port::open(name, config()).unwrap();
    let file = reactor.attach_port(&port).unwrap();
    reactor.watch(file, &port, 0);
    (port, file)
}

fn header(to: [u8; 6], from: [u8; 6], ethertype: u16) -> [u8; HEADER_BYTES] {
    let mut header = [0xaa; HEADER_BYTES];
    header[..6].copy_from_slice(&to);
    header[6..12].copy_from_slice(&from);
    header[12..14].copy_from_slice(&ethertype.to_be_bytes());
    header
}

/// Turns until `count` frames were received; leaves other completions in `out`.
fn frames(
    reactor: &mut Reactor,
    port: &mut Port,
    count: usize,
    out: &mut Vec<Completion>,
) -> Vec<Slice<Buf>> {
    let (mut got, until) = (Vec::new(), Instant::now() + Duration::from_secs(10));
    while got.len() < count {
        assert!(Instant::now() < until, "{} of {count} frames", got.len());
        reactor.turn(Some(Duration::from_millis(50)), out).unwrap();
        let arena = reactor.arena();
        got.extend(std::iter::from_fn(|| port.receive(&arena)));
    }
    got
}

#[test]
fn frames_for_us_and_for_all_arrive_and_no_others() {
    on_a_cable(1500, || {
        let mut reactor = reactor();
        let (a, out_a) = port(&mut reactor, "end0");
        let (mut b, _) = port(&mut reactor, "end1");
        let (us, them) = (b.interface().mac, a.interface().mac);
        for (to, ethertype) in
            [(us, ETHERTYPE), ([2, 9, 9, 9, 9, 9], ETHERTYPE), (us, 0x88b6), ([0xff; 6], ETHERTYPE)]
        {
            let mut message = reactor.message();
            message.bytes(&header(to, them, ethertype)).frame();
            reactor.submit(Op::Send { file: out_a, message }, 1);
        }
        let mut done = Vec::new();
        let got = frames(&mut reactor, &mut b, 2, &mut done);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].bytes()[..6], us);
        assert_eq!(got[1].bytes()[..6], [0xff; 6]);
        assert!(got.iter().all(|f| f.len == 60), "padded to the shortest frame: {got:?}");
        let sent = done.iter().filter(|c| matches!(c.event, Event::Sent(Ok(60)))).count();
        assert_eq!(sent, 4, "{done:?}");
    });
}

#[test]
fn a_jumbo_frame_goes_from_the_wire_to_the_disk_without_a_copy() {
    on_a_cable(9000, || {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("disk.img");
        std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let spec = Spec::Path(path.clone());
        let store = Store::open(&spec, store::Options::default()).unwrap();
        assert_eq!(store.facts().buffered_because, None, "this test is about direct I/O");
        let mut reactor = reactor();
        let disk = reactor.attach_store(Arc::new(store));
        let (a, out_a) = port(&mut reactor, "end0");
        let (mut b, _) = port(&mut reactor, "end1");
        let mut expected = Vec::new();
        for n in 0..32u8 {
            let mut payload = reactor.arena().lend(8704).unwrap();
            let bytes = payload.bytes_mut();
            (0u8..=255).cycle().zip(bytes).for_each(|(i, to)| *to = i.wrapping_mul(n) ^ n);
            expected.extend_from_slice(payload.bytes());
            let mut message = reactor.message();
            let header = header(b.interface().mac, a.interface().mac, ETHERTYPE);
            message.bytes(&header).payload(Slice::whole(payload)).frame();
            reactor.submit(Op::Send { file: out_a, message }, 1);
        }
        let got = frames(&mut reactor, &mut b, 32, &mut Vec::new());
        for (n, frame) in (0u64..).zip(got) {
            assert_eq!(frame.len, 36 + 8704);
            let data = frame.sub(36, 8704);
            assert_eq!(data.bytes().as_ptr() as usize % 512, 0);
            drop(frame);
            reactor.submit(Op::Write { file: disk, offset: n * 8704, data, durable: n == 31 }, 2);
        }
        let (mut out, mut written) = (Vec::new(), 0);
        while written < 32 {
            reactor.turn(Some(Duration::from_secs(5)), &mut out).unwrap();
            for done in out.drain(..) {
                if let Event::Written { result, .. } = done.event {
                    assert_eq!(result, Ok(8704));
                    written += 1;
                }
            }
        }
        assert!(std::fs::read(&path).unwrap()[..expected.len()] == expected);
    });
}

#[test]
fn a_full_ring_drops_and_counts_and_recovers() {
    on_a_cable(1500, || {
        let mut reactor = reactor();
        let (a, out_a) = port(&mut reactor, "end0");
        let (mut b, _) = port(&mut reactor, "end1");
        let room = b.slots();
        let frame = header(b.interface().mac, a.interface().mac, ETHERTYPE);
        let send = |reactor: &mut Reactor, count| {
            for _ in 0..count {
                let mut message = reactor.message();
                message.bytes(&frame).frame();
                reactor.submit(Op::Send { file: out_a, message }, 1);
            }
        };
        send(&mut reactor, room + 50);
        let held = frames(&mut reactor, &mut b, room, &mut Vec::new());
        assert_eq!(held.len(), room);
        assert!(b.blocked_by().is_some());
        reactor.turn(Some(Duration::from_millis(50)), &mut Vec::new()).unwrap();
        assert!(b.receive(&reactor.arena()).is_none());
        assert!(b.statistics().dropped >= 50, "{:?}", b.statistics());
        drop(held);
        assert!(b.blocked_by().is_none());
        for _ in 0..3 {
            send(&mut reactor, room / 2);
            assert_eq!(frames(&mut reactor, &mut b, room / 2, &mut Vec::new()).len(), room / 2);
        }
    });
}

#[test]
fn a_frame_outlives_its_port() {
    on_a_cable(1500, || {
        let mut reactor = reactor();
        let (a, out_a) = port(&mut reactor, "end0");
        let (mut b, in_b) = port(&mut reactor, "end1");
        let mut message = reactor.message();
        let expected = header(b.interface().mac, a.interface().mac, ETHERTYPE);
        message.bytes(&expected).frame();
        reactor.submit(Op::Send { file: out_a, message }, 1);
        let got = frames(&mut reactor, &mut b, 1, &mut Vec::new());
        reactor.close(in_b);
        drop((b, reactor));
        assert_eq!(got[0].bytes()[..HEADER_BYTES], expected);
    });
}

#[test]
fn a_port_survives_its_interface_going_down_and_up() {
    on_a_cable(1500, || {
        let mut reactor = reactor();
        let (a, out_a) = port(&mut reactor, "end0");
        let (mut b, _) = port(&mut reactor, "end1");
        let frame = header(b.interface().mac, a.interface().mac, ETHERTYPE);
        let send = |reactor: &mut Reactor| {
            let mut message = reactor.message();
            message.bytes(&frame).frame();
            reactor.submit(Op::Send { file: out_a, message }, 1);
        };
        ip("link set end0 down");
        send(&mut reactor);
        let mut done = Vec::new();
        while !done.iter().any(|c: &Completion| matches!(c.event, Event::Sent(Err(_)))) {
            reactor.turn(Some(Duration::from_millis(50)), &mut done).unwrap();
        }
        ip("link set end0 up");
        // The carrier takes a moment, and the socket reports once more that it was down.
        let until = Instant::now() + Duration::from_secs(10);
        while b.receive(&reactor.arena()).is_none() {
            assert!(Instant::now() < until, "frames pass again");
            send(&mut reactor);
            reactor.turn(Some(Duration::from_millis(50)), &mut Vec::new()).unwrap();
        }
    });
}

#[test]
fn what_happens_to_interfaces_is_told() {
    on_a_cable(1500, || {
        let mut links = Links::open().unwrap();
        let names: Vec<_> = links.interfaces().map(|i| i.name.clone()).collect();
        assert!(["lo", "end0", "end1"].iter().all(|n| names.iter().any(|m| m == n)), "{names:?}");
        links.events().unwrap();
        ip("link set end0 mtu 9000");
        ip("link set end0 address 02:00:00:00:00:01");
        ip("link set end0 down");
        ip("link delete end0");
        ip("link add end0 type veth peer name end1");
        let events = links.events().unwrap();
        let of_a = |e: &LinkEvent| match e {
            LinkEvent::MtuChanged(i) if i.name == "end0" && i.mtu == 9000 => Some("mtu"),
            LinkEvent::AddressChanged(i) if i.name == "end0" => Some("address"),
            LinkEvent::Down(i) if i.name == "end0" => Some("down"),
            LinkEvent::Removed(i) if i.name == "end0" => Some("removed"),
            LinkEvent::Added(i) if i.name == "end0" => Some("added"),
            _ => None,
        };
        let told: Vec<_> = events.iter().filter_map(of_a).collect();
        assert_eq!(told, ["mtu", "address", "down", "removed", "added"], "{events:?}");
    });
}

#[test]
fn an_absent_interface_is_refused_with_those_present() {
    on_a_cable(1500, || {
        let text = Port::open("eth7", config()).unwrap_err().to_string();
        assert!(text.contains("eth7") && text.contains("lo, ") && text.contains("end1"), "{text}");
    });
}
