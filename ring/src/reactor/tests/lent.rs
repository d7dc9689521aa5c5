//! Memory that stores lend to what is sent.

use std::fs::File as StdFile;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use super::*;

const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;

/// What is lent.
fn borrow(reactor: &mut Reactor, file: File, offset: u64, len: u32, tag: u64) -> Slice<Buf> {
    let loan = reactor.lend(file, (offset, len), tag).expect("it lends");
    assert!(loan.is_loan() && loan.len() == len as usize);
    Slice::whole(loan)
}

fn write(reactor: &mut Reactor, file: File, offset: u64, byte: u8, len: usize) {
    let mut data = lend(reactor, len);
    data.bytes_mut().fill(byte);
    reactor.submit(Op::Write { file, offset, data, durable: false }, 0);
    assert!(matches!(one(reactor), Event::Written { result: Ok(_), .. }));
}

fn returned(reactor: &mut Reactor) -> Vec<u64> {
    assert_eq!(reactor.has_returned(), !reactor.returned.borrow().is_empty());
    let mut tags: Vec<_> = std::iter::from_fn(|| reactor.next_returned()).collect();
    tags.sort_unstable();
    tags
}

fn send(reactor: &mut Reactor, file: File, pieces: &[Slice<Buf>]) {
    let mut message = reactor.message();
    for piece in pieces {
        message.bytes(b"head").payload(piece.clone());
    }
    reactor.submit(Op::Send { file, message }, 99);
}

/// A file in memory, of `pages` pages of which `held` hold something.
fn memory_file(pages: u64, held: u64) -> (StdFile, Spec) {
    let fd = rustix::fs::memfd_create("lent", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = StdFile::from(fd);
    file.set_len(pages * PAGE).unwrap();
    for page in 0..held {
        file.write_all_at(&[5; PAGE_BYTES], page * PAGE).unwrap();
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    (file, Spec::Path(path.into()))
}

#[test]
fn what_a_store_lends_is_sent_and_comes_back_when_nobody_has_it() {
    let mut reactor = reactor();
    let (memory, _store) = store(&mut reactor, &Spec::Memory(1 << 20));
    let (file, mut far) = pair(&mut reactor);
    write(&mut reactor, memory, 8192, 7, 4096);
    let lent = borrow(&mut reactor, memory, 8192, 4096, 3);
    let clone = lent.sub(1024, 512);
    send(&mut reactor, file, &[lent]);
    assert!(matches!(one(&mut reactor), Event::Sent(Ok(4100))));
    let mut got = vec![0; 4100];
    far.read_exact(&mut got).unwrap();
    assert!(&got[..4] == b"head" && got[4..].iter().all(|byte| *byte == 7));
    assert_eq!(returned(&mut reactor), []);
    drop(clone);
    assert_eq!(returned(&mut reactor), [3]);
}

#[test]
fn a_peer_that_does_not_read_keeps_no_store_waiting() {
    let mut reactor = reactor();
    let (memory, _store) = store(&mut reactor, &Spec::Memory(4 << 20));
    let (near, mut far) = UnixStream::pair().unwrap();
    let file = reactor.attach(near.into());
    let pieces: Vec<_> = (0..8u64)
        .map(|n| {
            write(&mut reactor, memory, n << 18, 1, 256 << 10);
            borrow(&mut reactor, memory, n << 18, 256 << 10, n)
        })
        .collect();
    send(&mut reactor, file, &pieces);
    drop(pieces);
    let mut out = Vec::new();
    for _ in 0..3 {
        reactor.turn(Some(Duration::from_millis(10)), &mut out).unwrap();
    }
    assert!(out.is_empty(), "a socket that takes 2 MiB at once: {out:?}");
    // The first one is in the socket, in part.
    assert_eq!(returned(&mut reactor), [0, 1, 2, 3, 4, 5, 6, 7]);
    write(&mut reactor, memory, 7 << 18, 2, 256 << 10);
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; 8 * (4 + (256 << 10))];
        far.read_exact(&mut got).map(|()| got)
    });
    assert!(matches!(one(&mut reactor), Event::Sent(Ok(_))));
    for piece in reader.join().unwrap().unwrap().chunks(4 + (256 << 10)) {
        assert!(&piece[..4] == b"head" && piece[4..].iter().all(|byte| *byte == 1));
    }
}

#[test]
fn what_is_full_for_want_of_memory_still_goes_out_from_the_store() {
    let arena = ArenaConfig { bytes_max: 8 << 20 };
    let mut reactor = reactor_with(Config { entries: 64, arena, ..Config::default() });
    let (memory, _store) = store(&mut reactor, &Spec::Memory(1 << 20));
    let (near, mut far) = UnixStream::pair().unwrap();
    let file = reactor.attach(near.into());
    let pieces: Vec<_> =
        (0..4u64).map(|n| borrow(&mut reactor, memory, n << 18, 256 << 10, n)).collect();
    let all: Vec<_> = std::iter::from_fn(|| reactor.arena().lend(256 << 10)).collect();
    assert_eq!(all.len(), 32);
    send(&mut reactor, file, &pieces);
    drop(pieces);
    let mut out = Vec::new();
    reactor.turn(Some(Duration::from_millis(10)), &mut out).unwrap();
    assert_eq!(returned(&mut reactor), []);
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; 4 * (4 + (256 << 10))];
        far.read_exact(&mut got)
    });
    assert!(matches!(one(&mut reactor), Event::Sent(Ok(_))));
    reader.join().unwrap().unwrap();
    assert_eq!(returned(&mut reactor), [0, 1, 2, 3]);
}

#[test]
fn a_frame_that_finds_no_room_is_copied_and_sent_later() {
    let mut reactor = reactor();
    let (memory, _store) = store(&mut reactor, &Spec::Memory(1 << 20));
    let (near, far) = std::os::unix::net::UnixDatagram::pair().unwrap();
    far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let file = reactor.attach(near.into());
    write(&mut reactor, memory, 0, 9, 4096);
    // The queue of a datagram socket is short: net.unix.max_dgram_qlen, a few hundred at most.
    let frames = 600u64;
    for tag in 0..frames {
        let lent = borrow(&mut reactor, memory, 0, 4096, tag);
        let mut message = reactor.message();
        message.payload(lent);
        message.frame();
        reactor.submit(Op::Send { file, message }, 99);
        reactor.turn(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    }
    reactor.turn(Some(Duration::from_millis(5)), &mut Vec::new()).unwrap();
    assert_eq!(returned(&mut reactor).len() as u64, frames, "none waits for the reader");
    write(&mut reactor, memory, 0, 8, 4096);
    let reader = std::thread::spawn(move || {
        let mut got = [0; 5000];
        (0..frames).all(|_| far.recv(&mut got).unwrap() == 4096 && got[..4096] == [9; 4096])
    });
    let (mut out, until) = (Vec::new(), Instant::now() + Duration::from_secs(20));
    while !reader.is_finished() && Instant::now() < until {
        reactor.turn(Some(Duration::from_millis(5)), &mut out).unwrap();
    }
    assert!(reader.join().unwrap());
}

#[test]
fn a_store_lends_so_often_and_not_beyond_its_end() {
    let mut reactor = reactor();
    let (memory, _store) = store(&mut reactor, &Spec::Memory(1 << 20));
    let mut held = Vec::new();
    while let Some(loan) = reactor.lend(memory, (0, 512), held.len() as u64) {
        held.push(loan);
        assert!(held.len() < 1000);
    }
    held.pop();
    assert_eq!(returned(&mut reactor), [held.len() as u64]);
    assert!(reactor.lend(memory, (1 << 20, 512), 1).is_none());
    assert!(reactor.lend(memory, (u64::MAX, 512), 1).is_none());
    borrow(&mut reactor, memory, (1 << 20) - 512, 512, 7);
}

#[test]
fn a_file_in_memory_is_lent_as_long_as_it_is_whole() {
    let mut reactor = reactor();
    let (_whole, spec) = memory_file(16, 16);
    let (_sparse, sparse) = memory_file(16, 15);
    let (file, _store) = store(&mut reactor, &spec);
    let (holes, _other) = store(&mut reactor, &sparse);
    borrow(&mut reactor, file, PAGE, 8192, 1);
    assert!(reactor.lend(holes, (0, 4096), 1).is_none());
    reactor.submit(Op::Fallocate { file, mode: Hole::Punch, offset: 0, len: PAGE }, 2);
    assert!(matches!(one(&mut reactor), Event::Deallocated(Ok(()))));
    assert!(reactor.lend(file, (PAGE, 8192), 1).is_none());
}

/// The kernel finds out where this process would be killed.
#[test]
fn a_file_that_was_cut_short_fails_a_send_and_is_lent_no_more() {
    let mut reactor = reactor();
    let (cut, spec) = memory_file(16, 16);
    let (file, _store) = store(&mut reactor, &spec);
    let (socket, mut far) = pair(&mut reactor);
    let lent = borrow(&mut reactor, file, 15 * PAGE, 4096, 4);
    cut.set_len(8 * PAGE).unwrap();
    send(&mut reactor, socket, &[lent]);
    match one(&mut reactor) {
        Event::Sent(Err(failure)) => assert_eq!(failure.errno, libc::EFAULT),
        event => panic!("{event:?}"),
    }
    assert_eq!(returned(&mut reactor), [4]);
    assert!(reactor.lend(file, (7 * PAGE, 4096), 5).is_none());
    reactor.close(socket);
    far.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_loan_outlives_its_store_and_a_reactor_outlives_its_loans() {
    let mut reactor = reactor();
    let (memory, store) = store(&mut reactor, &Spec::Memory(1 << 20));
    let (file, mut far) = pair(&mut reactor);
    write(&mut reactor, memory, 0, 3, 4096);
    let lent = borrow(&mut reactor, memory, 0, 4096, 6);
    reactor.close(memory);
    drop(store);
    send(&mut reactor, file, &[lent]);
    assert!(matches!(one(&mut reactor), Event::Sent(Ok(_))));
    let mut got = [0; 4100];
    far.read_exact(&mut got).unwrap();
    assert_eq!(got[4..], [3; 4096]);
    assert_eq!(returned(&mut reactor), [6]);
}

#[test]
#[should_panic(expected = "for the kernel alone")]
fn the_processor_does_not_read_what_is_lent() {
    let mut reactor = reactor();
    let (memory, _store) = store(&mut reactor, &Spec::Memory(1 << 20));
    let lent = borrow(&mut reactor, memory, 0, 4096, 1);
    let _ = lent.bytes();
}

#[test]
#[should_panic(expected = "a store's own")]
fn the_kernel_does_not_write_to_what_is_lent() {
    let mut reactor = reactor();
    let (memory, _store) = store(&mut reactor, &Spec::Memory(1 << 20));
    let (file, _far) = pair(&mut reactor);
    let data = borrow(&mut reactor, memory, 0, 4096, 1);
    reactor.submit(Op::Recv { file, data, exact: true }, 2);
}
