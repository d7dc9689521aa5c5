use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::*;
use crate::store::{Options, Spec};
use crate::tcp;
use crate::wake::mailbox;

mod lent;

pub(super) fn reactor() -> Reactor {
    reactor_with(Config { entries: 64, ..Config::default() })
}

fn reactor_with(config: Config) -> Reactor {
    Reactor::new(config, Waker::new().unwrap()).unwrap()
}

/// Turns until `count` completions came.
fn run(reactor: &mut Reactor, count: usize) -> Vec<Completion> {
    let (mut out, until) = (Vec::new(), Instant::now() + Duration::from_secs(20));
    while out.len() < count {
        assert!(Instant::now() < until, "only {out:?}");
        reactor.turn(Some(Duration::from_millis(100)), &mut out).unwrap();
    }
    assert_eq!(out.len(), count, "{out:?}");
    out
}

fn one(reactor: &mut Reactor) -> Event {
    run(reactor, 1).remove(0).event
}

/// A connection: our end in the reactor, the other an ordinary socket.
pub(super) fn pair(reactor: &mut Reactor) -> (File, TcpStream) {
    let (file, far) = std_pair();
    (reactor.attach(file), far)
}

fn std_pair() -> (OwnedFd, TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0.into(), far)
}

pub(super) fn lend(reactor: &Reactor, len: usize) -> Slice<Buf> {
    Slice::whole(reactor.arena().lend(len).unwrap())
}

pub(super) fn filled(reactor: &Reactor, len: usize, seed: u8) -> Slice<Buf> {
    let mut slice = lend(reactor, len);
    for (block, n) in slice.bytes_mut().chunks_mut(256).zip((0u8..=255).cycle()) {
        block.iter_mut().zip(0u8..=255).for_each(|(to, i)| *to = i ^ n ^ seed);
    }
    slice
}

pub(super) fn store(reactor: &mut Reactor, spec: &Spec) -> (File, Arc<Store>) {
    let store = Arc::new(Store::open(spec, Options::default()).unwrap());
    (reactor.attach_store(store.clone()), store)
}

pub(super) fn image(bytes: u64) -> (tempfile::TempDir, Spec) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    (dir, Spec::Path(path))
}

#[test]
fn many_connections_are_accepted_and_idle_ones_hold_no_memory() {
    let pool = PoolConfig { buffers: 512, buffer_bytes: 4096 };
    let mut reactor = reactor_with(Config { entries: 64, pool, ..Config::default() });
    let listener = tcp::listen("127.0.0.1:0".parse().unwrap(), &Default::default()).unwrap();
    let listener = reactor.attach(listener);
    let address: SocketAddr = tcp::local_address(reactor.descriptor(listener).unwrap()).unwrap();
    reactor.submit(Op::Accept { file: listener }, 7);
    // More than the submission queue holds, so that it overflows while they are set going.
    let mut clients: Vec<_> = (0..300).map(|_| TcpStream::connect(address).unwrap()).collect();
    for done in run(&mut reactor, 300) {
        let Event::Accepted(Ok(file)) = done.event else { panic!("{done:?}") };
        assert!(done.tag == 7 && done.more);
        reactor.submit(Op::RecvPooled { file, len_max: 0, repeat: true }, 8);
    }
    reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    assert_eq!(reactor.pool.free(), 512);
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
    }
    for done in run(&mut reactor, 300) {
        let Event::Pooled(Ok(Some(data))) = done.event else { panic!("{done:?}") };
        assert_eq!(data.bytes(), b"hello");
        assert!(done.more);
    }
    assert_eq!(reactor.pool.free(), 512);
    drop(clients);
    for done in run(&mut reactor, 300) {
        assert!(matches!(done.event, Event::Pooled(Ok(None))) && !done.more, "{done:?}");
    }
}

#[test]
fn an_exhausted_pool_delays_but_loses_nothing() {
    let pool = PoolConfig { buffers: 2, buffer_bytes: 4096 };
    let mut reactor = reactor_with(Config { entries: 64, pool, ..Config::default() });
    let (file, mut far) = pair(&mut reactor);
    reactor.submit(Op::RecvPooled { file, len_max: 0, repeat: true }, 1);
    let sent: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    let expected = sent.clone();
    let writer = std::thread::spawn(move || far.write_all(&sent).map(|()| far));
    let (mut got, mut held, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let mut starved = 0;
    while got.len() < expected.len() {
        reactor.turn(Some(Duration::from_millis(20)), &mut out).unwrap();
        if out.is_empty() {
            starved += u32::from(reactor.pool.free() == 0);
            held.clear();
        }
        for done in out.drain(..) {
            let Event::Pooled(Ok(Some(data))) = done.event else { panic!("{done:?}") };
            got.extend_from_slice(data.bytes());
            held.push(data);
        }
    }
    assert!(got == expected && starved > 0);
    writer.join().unwrap().unwrap();
}

#[test]
fn a_receive_says_whether_the_socket_holds_more() {
    let pool = PoolConfig { buffers: 4, buffer_bytes: 4096 };
    let mut reactor = reactor_with(Config { entries: 64, pool, ..Config::default() });
    let (file, mut far) = pair(&mut reactor);
    far.write_all(&[1; 5000]).unwrap();
    for (bytes, waiting) in [(4096, true), (904, false)] {
        reactor.submit(Op::RecvPooled { file, len_max: 0, repeat: false }, 1);
        let done = run(&mut reactor, 1).remove(0);
        let Event::Pooled(Ok(Some(data))) = done.event else { panic!() };
        assert_eq!((data.len, done.waiting), (bytes, waiting));
    }
}

#[test]
fn what_memory_answers_waits_for_no_system_call_and_no_receive_waits_for_ever() {
    let mut reactor = reactor();
    let (file, mut far) = pair(&mut reactor);
    let (memory, _store) = store(&mut reactor, &Spec::Memory(4096));
    far.write_all(b"hello").unwrap();
    let receive = Op::RecvPooled { file, len_max: 0, repeat: false };
    reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    reactor.submit(receive, 1);
    let mut turns = 0;
    for turn in 1.. {
        let data = lend(&reactor, 512);
        reactor.submit(Op::Read { file: memory, offset: 0, data }, 2);
        let mut out = Vec::new();
        reactor.turn(Some(Duration::ZERO), &mut out).unwrap();
        if out.iter().any(|done| done.tag == 1) {
            turns = turn;
            break;
        }
        assert!(turn < 10, "the receive is forgotten");
    }
    assert!(turns > 1, "a system call was made for the receive alone");
}

#[test]
fn a_header_is_received_pooled_and_its_payload_in_place() {
    let mut reactor = reactor();
    let (file, mut far) = pair(&mut reactor);
    reactor.submit(Op::RecvPooled { file, len_max: 48, repeat: false }, 1);
    far.write_all(&[1; 48]).unwrap();
    far.write_all(&[2; 1000]).unwrap();
    let Event::Pooled(Ok(Some(header))) = one(&mut reactor) else { panic!() };
    assert_eq!(header.bytes(), [1; 48]);
    let data = lend(&reactor, 8192);
    reactor.submit(Op::Recv { file, data, exact: true }, 2);
    let mut out = Vec::new();
    reactor.turn(Some(Duration::from_millis(50)), &mut out).unwrap();
    assert!(out.is_empty(), "not whole yet");
    far.write_all(&[2; 7192]).unwrap();
    let Event::Received { data, result } = one(&mut reactor) else { panic!() };
    assert_eq!(result, Ok(8192));
    assert!(data.bytes().iter().all(|b| *b == 2));
    // The stream ends in the middle.
    reactor.submit(Op::Recv { file, data, exact: true }, 3);
    far.write_all(&[3; 10]).unwrap();
    drop(far);
    let Event::Received { result, .. } = one(&mut reactor) else { panic!() };
    assert_eq!(result, Ok(10));
}

#[test]
fn a_connection_goes_from_one_reactor_to_another_unharmed() {
    let (mut from, mut to) = (reactor(), reactor());
    let (file, mut far) = pair(&mut from);
    from.submit(Op::RecvPooled { file, len_max: 4, repeat: false }, 1);
    far.write_all(b"fivesix").unwrap();
    assert!(matches!(one(&mut from), Event::Pooled(Ok(Some(_)))));
    let fd = from.detach(file).unwrap();
    from.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    assert!(from.detach(file).is_err(), "it is gone here");
    let file = to.attach(fd);
    to.submit(Op::RecvPooled { file, len_max: 0, repeat: false }, 2);
    let Event::Pooled(Ok(Some(rest))) = one(&mut to) else { panic!() };
    assert_eq!(rest.bytes(), b"six");
}

#[test]
#[should_panic(expected = "memory to be filled is shared")]
fn shared_memory_cannot_be_filled() {
    let mut reactor = reactor();
    let (file, _far) = pair(&mut reactor);
    let data = lend(&reactor, 512);
    let _reader = data.clone();
    reactor.submit(Op::Recv { file, data, exact: false }, 0);
}

#[test]
#[should_panic(expected = "slice outside its buffer")]
fn a_forged_slice_is_refused() {
    let mut reactor = reactor();
    let (file, _far) = pair(&mut reactor);
    let mut data = lend(&reactor, 512);
    data.len = 8192;
    reactor.submit(Op::Recv { file, data, exact: false }, 0);
}

fn send_and_compare(zero_copy_bytes_min: Option<u32>) {
    let config = Config { entries: 64, zero_copy_bytes_min, ..Config::default() };
    let mut reactor = reactor_with(config);
    let (file, mut far) = pair(&mut reactor);
    let mut expected = Vec::new();
    let mut message = reactor.message();
    message.bytes(b"head").bytes(b"er");
    expected.extend_from_slice(b"header");
    for seed in 0..24 {
        let piece = filled(&reactor, 256 * 1024, seed);
        expected.extend_from_slice(piece.bytes());
        message.payload(piece).bytes(&[seed]);
        expected.push(seed);
    }
    let len = message.len();
    reactor.submit(Op::Send { file, message }, 4);
    // The reader starts late, so the socket's buffer fills up.
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        let mut got = vec![0; usize::try_from(len).unwrap()];
        far.read_exact(&mut got).map(|()| got)
    });
    let Event::Sent(result) = one(&mut reactor) else { panic!() };
    assert_eq!(result, Ok(len));
    assert!(reader.join().unwrap().unwrap() == expected);
    let until = Instant::now() + Duration::from_secs(10);
    while reactor.arena().stats().bytes_lent > 0 {
        assert!(Instant::now() < until, "memory comes back after the notification");
        reactor.turn(Some(Duration::from_millis(10)), &mut Vec::new()).unwrap();
    }
    assert_eq!(reactor.in_flight(), 1);
}

#[test]
fn a_socket_that_must_copy_is_copied_to() {
    let config = Config { entries: 64, zero_copy_bytes_min: Some(1), ..Config::default() };
    let mut reactor = reactor_with(config);
    let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = reactor.attach(near.into());
    for _ in 0..2 {
        let piece = filled(&reactor, 4096, 3);
        let mut message = reactor.message();
        message.payload(piece);
        reactor.submit(Op::Send { file, message }, 4);
        let Event::Sent(result) = one(&mut reactor) else { panic!() };
        assert_eq!(result, Ok(4096));
        let mut got = [0; 4096];
        far.read_exact(&mut got).unwrap();
    }
}

#[test]
fn memory_of_a_copied_message_is_back_with_its_completion() {
    let config = Config { entries: 64, zero_copy_bytes_min: Some(1), ..Config::default() };
    let mut reactor = reactor_with(config);
    let (file, _far) = pair(&mut reactor);
    reactor.copy_always(file);
    let piece = filled(&reactor, 4096, 3);
    let mut message = reactor.message();
    message.payload(piece);
    reactor.submit(Op::Send { file, message }, 4);
    let Event::Sent(result) = one(&mut reactor) else { panic!() };
    assert_eq!((result, reactor.arena().stats().bytes_lent), (Ok(4096), 0));
}

#[test]
fn a_long_message_is_sent_whole_by_copying() {
    send_and_compare(None);
}

#[test]
fn a_long_message_is_sent_whole_without_copying() {
    send_and_compare(Some(1));
}

#[test]
fn a_vanished_peer_is_a_failure_and_no_signal() {
    let mut reactor = reactor();
    let (file, far) = pair(&mut reactor);
    drop(far);
    loop {
        let mut message = reactor.message();
        message.bytes(&[0; 1000]);
        reactor.submit(Op::Send { file, message }, 0);
        if let Event::Sent(Err(failure)) = one(&mut reactor) {
            break assert_eq!(failure.kind(), FailureKind::Disconnected);
        }
    }
}

/// On some kernels a file leaves the table of registered ones only after every operation that began
/// before it: a receive that waits for ever would keep all that are closed open.
#[test]
fn a_closed_file_is_gone_although_another_is_waited_for() {
    let mut reactor = reactor();
    let (idle, _far) = pair(&mut reactor);
    let (mut end, file) = std::io::pipe().unwrap();
    reactor.submit(Op::RecvPooled { file: idle, len_max: 0, repeat: true }, 1);
    let file = reactor.attach(file.into());
    reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    reactor.close(file);
    reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    rustix::io::ioctl_fionbio(&end, true).unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while end.read(&mut [0]).is_err() {
        assert!(Instant::now() < until, "the pipe's other end is still open");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_aborted_connection_is_reset_whoever_holds_its_file() {
    let mut reactor = reactor();
    let (file, mut far) = pair(&mut reactor);
    let _held = reactor.descriptor(file).unwrap().try_clone_to_owned().unwrap();
    reactor.submit(Op::RecvPooled { file, len_max: 0, repeat: true }, 1);
    reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    reactor.abort(file);
    far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // In a thread of its own: the ring's completions interrupt this one.
    let error = std::thread::spawn(move || far.read(&mut [0])).join().unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(!matches!(one(&mut reactor), Event::Pooled(Ok(Some(_)))));
}

#[test]
fn connecting_completes_or_fails() {
    let mut reactor = reactor();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let fd = tcp::connect(address, None, &Default::default()).unwrap();
    let file = reactor.attach(fd);
    reactor.submit(Op::PollWritable { file }, 1);
    assert!(matches!(one(&mut reactor), Event::Writable(Ok(()))));
    tcp::connected(reactor.descriptor(file).unwrap()).unwrap();
    let (near, far) = tcp::addresses(reactor.descriptor(file).unwrap()).unwrap();
    assert!(near != far && far == address);
    drop(listener);
    let fd = tcp::connect(address, None, &Default::default()).unwrap();
    let file = reactor.attach(fd);
    reactor.submit(Op::PollWritable { file }, 1);
    one(&mut reactor);
    assert!(tcp::connected(reactor.descriptor(file).unwrap()).is_err());
}

#[test]
fn a_file_is_written_read_synced_and_punched() {
    let (_dir, spec) = image(4 << 20);
    let mut reactor = reactor();
    let (file, store) = store(&mut reactor, &spec);
    assert_eq!(store.facts().buffered_because, None, "ext4 has direct I/O");
    let data = filled(&reactor, 65536, 9);
    assert!(data.buffer.fixed(reactor.ring.id()).is_some(), "arena memory is registered");
    let expected = data.bytes().to_vec();
    reactor.submit(Op::Write { file, offset: 8192, data, durable: true }, 1);
    let Event::Written { data, result } = one(&mut reactor) else { panic!() };
    assert_eq!(result, Ok(65536));
    drop(data);
    reactor.submit(Op::Sync { file }, 2);
    assert!(matches!(one(&mut reactor), Event::Synced(Ok(()))));
    let on_disk = std::fs::read(store.path().unwrap()).unwrap();
    assert!(on_disk[8192..][..65536] == expected);
    reactor.submit(Op::Fallocate { file, mode: Hole::Punch, offset: 12288, len: 4096 }, 3);
    assert!(matches!(one(&mut reactor), Event::Deallocated(Ok(()))));
    let data = lend(&reactor, 65536);
    reactor.submit(Op::Read { file, offset: 8192, data }, 4);
    let Event::Read { data, result } = one(&mut reactor) else { panic!() };
    assert_eq!(result, Ok(65536));
    assert_eq!(data.bytes()[..4096], expected[..4096]);
    assert!(data.bytes()[4096..8192].iter().all(|b| *b == 0));
    // Across the end of the file: what is there.
    let end = (4 << 20) - 512;
    let data = lend(&reactor, 4096);
    reactor.submit(Op::Read { file, offset: end, data }, 5);
    let Event::Read { result, .. } = one(&mut reactor) else { panic!() };
    assert_eq!(result, Ok(512));
}

#[test]
fn memory_stores_answer_at_the_next_turn() {
    let mut reactor = reactor();
    let (file, _) = store(&mut reactor, &Spec::Memory(1 << 20));
    let (null, _) = store(&mut reactor, &Spec::Null(1 << 40));
    let data = filled(&reactor, 4096, 1);
    let expected = data.bytes().to_vec();
    reactor.submit(Op::Write { file, offset: 512, data, durable: false }, 1);
    let data = lend(&reactor, 4096);
    reactor.submit(Op::Read { file, offset: 512, data }, 2);
    let data = filled(&reactor, 4096, 1);
    reactor.submit(Op::Read { file: null, offset: 1 << 39, data }, 3);
    reactor.submit(Op::Sync { file }, 4);
    let data = lend(&reactor, 4096);
    reactor.submit(Op::Read { file, offset: 1 << 20, data }, 5);
    let mut done = run(&mut reactor, 5);
    assert_eq!(done.iter().map(|c| c.tag).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let Event::Read { data, result: Ok(4096) } = &done[1].event else { panic!("{done:?}") };
    assert!(data.bytes() == expected);
    let Event::Read { data, .. } = &done[2].event else { panic!("{done:?}") };
    assert!(data.bytes().iter().all(|b| *b == 0));
    let Event::Read { result: Err(past), .. } = done.pop().unwrap().event else { panic!() };
    assert_eq!(past.kind(), FailureKind::Invalid);
}

#[test]
fn cancelled_operations_complete_and_give_their_memory_back() {
    let mut reactor = reactor();
    let (file, _far) = pair(&mut reactor);
    let data = lend(&reactor, 4096);
    let id = reactor.submit(Op::Recv { file, data, exact: true }, 1);
    reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    reactor.cancel(id);
    let Event::Received { result, .. } = one(&mut reactor) else { panic!() };
    assert_eq!(result.unwrap_err().kind(), FailureKind::Cancelled);
    reactor.cancel(id);
    assert_eq!(reactor.arena().stats().bytes_lent, 0);
}

#[test]
fn closing_ends_everything_on_the_file_and_stale_handles_are_harmless() {
    let mut reactor = reactor();
    let (file, mut far) = pair(&mut reactor);
    reactor.submit(Op::RecvPooled { file, len_max: 0, repeat: true }, 1);
    reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    reactor.close(file);
    let done = run(&mut reactor, 1).remove(0);
    assert!(!done.more && matches!(done.event, Event::Pooled(Ok(None) | Err(_))), "{done:?}");
    assert_eq!(far.read(&mut [0; 10]).unwrap(), 0, "the peer sees the end");
    let (again, _far) = pair(&mut reactor);
    assert_eq!(again.key, file.key);
    let data = lend(&reactor, 512);
    reactor.submit(Op::Recv { file, data, exact: false }, 2);
    let Event::Received { result, .. } = one(&mut reactor) else { panic!() };
    assert_eq!(result.unwrap_err().kind(), FailureKind::Gone);
}

#[test]
fn dropped_with_work_in_flight_it_waits_for_the_kernel() {
    let (_dir, spec) = image(16 << 20);
    let mut reactor = reactor();
    let arena = reactor.arena();
    let (disk, _) = store(&mut reactor, &spec);
    let (file, mut far) = pair(&mut reactor);
    for n in 0..32 {
        let data = filled(&reactor, 65536, 0);
        reactor.submit(Op::Write { file: disk, offset: n * 65536, data, durable: true }, n);
    }
    let data = lend(&reactor, 4096);
    reactor.submit(Op::Recv { file, data, exact: true }, 99);
    let mut message = reactor.message();
    for _ in 0..32 {
        message.payload(lend(&reactor, 256 * 1024));
    }
    reactor.submit(Op::Send { file, message }, 100);
    reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    let began = Instant::now();
    drop(reactor);
    assert!(began.elapsed() < DROP_WAIT_MAX, "cancelled, not waited out");
    assert_eq!(arena.stats().bytes_lent, 0);
    drop(far.write_all(b"x"));
}

#[test]
fn letters_wake_a_waiting_shard_once() {
    let mut reactor = reactor();
    let (sender, receiver) = mailbox(reactor.waker());
    let mut letters = VecDeque::new();
    for round in 0..200 {
        let senders: Vec<_> = (0..3)
            .map(|n| {
                let sender = sender.clone();
                std::thread::spawn(move || sender.send(n))
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(10);
        while letters.len() < 3 {
            reactor.turn(Some(Duration::from_secs(10)), &mut Vec::new()).unwrap();
            receiver.drain(&mut letters);
            assert!(Instant::now() < until, "a wake was lost in round {round}");
        }
        letters.clear();
        senders.into_iter().for_each(|s| s.join().unwrap());
    }
}

#[test]
fn a_turn_waits_no_longer_than_told() {
    let mut reactor = reactor();
    let began = Instant::now();
    let mut out = Vec::new();
    reactor.turn(Some(Duration::from_millis(30)), &mut out).unwrap();
    assert!(out.is_empty());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(29) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn more_operations_than_the_queue_holds_all_complete() {
    let mut reactor = reactor_with(Config { entries: 8, ..Config::default() });
    let (_dir, spec) = image(4 << 20);
    let (file, _) = store(&mut reactor, &spec);
    for n in 0..500 {
        let data = lend(&reactor, 4096);
        reactor.submit(Op::Read { file, offset: n * 4096, data }, n);
    }
    let mut tags: Vec<_> = run(&mut reactor, 500).iter().map(|c| c.tag).collect();
    tags.sort_unstable();
    assert!(tags.into_iter().eq(0..500));
}

#[test]
fn a_stalled_peer_cannot_hold_memory_past_an_abort() {
    let config = Config { entries: 64, zero_copy_bytes_min: Some(1), ..Config::default() };
    let mut reactor = reactor_with(config);
    let (file, _stalled) = pair(&mut reactor);
    let mut message = reactor.message();
    for _ in 0..64 {
        message.payload(lend(&reactor, 256 * 1024));
    }
    reactor.submit(Op::Send { file, message }, 1);
    let mut out = Vec::new();
    reactor.turn(Some(Duration::from_millis(50)), &mut out).unwrap();
    reactor.abort(file);
    let until = Instant::now() + Duration::from_secs(10);
    while reactor.in_flight() > 1 {
        assert!(Instant::now() < until, "{out:?}");
        reactor.turn(Some(Duration::from_millis(50)), &mut out).unwrap();
    }
    assert!(matches!(out[..], [Completion { event: Event::Sent(_), more: false, .. }]), "{out:?}");
    drop(out);
    assert_eq!(reactor.arena().stats().bytes_lent, 0);
}

#[test]
fn without_registered_files_and_memory_everything_works_too() {
    // The only place in the table is the waker's.
    let mut reactor = reactor_with(Config { entries: 64, files_max: 1, ..Config::default() });
    let arena = Arena::unregistered(ArenaConfig::default());
    let (_dir, spec) = image(1 << 20);
    let (disk, store) = store(&mut reactor, &spec);
    let (file, mut far) = pair(&mut reactor);
    assert!(matches!(reactor.files.target(disk), Ok(sys::Target::Raw(_))));
    far.write_all(&[5; 4096]).unwrap();
    let data = Slice::whole(arena.lend(4096).unwrap());
    assert_eq!(data.buffer.fixed(reactor.ring.id()), None);
    reactor.submit(Op::Recv { file, data, exact: true }, 1);
    let Event::Received { data, result: Ok(4096) } = one(&mut reactor) else { panic!() };
    reactor.submit(Op::Write { file: disk, offset: 4096, data, durable: true }, 2);
    let Event::Written { data, result: Ok(4096) } = one(&mut reactor) else { panic!() };
    reactor.submit(Op::Read { file: disk, offset: 4096, data }, 3);
    let Event::Read { data, result: Ok(4096) } = one(&mut reactor) else { panic!() };
    assert_eq!(data.bytes(), [5; 4096]);
    assert_eq!(std::fs::read(store.path().unwrap()).unwrap()[4096..8192], [5; 4096]);
    reactor.submit(Op::RecvPooled { file, len_max: 0, repeat: true }, 4);
    far.write_all(b"hello").unwrap();
    let Event::Pooled(Ok(Some(data))) = one(&mut reactor) else { panic!() };
    assert_eq!(data.bytes(), b"hello");
}
