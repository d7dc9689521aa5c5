use super::*;
use crate::aoe::header::Repr as HeaderRepr;

const LOCAL: Mac = Mac([2, 0, 0, 0, 0, 1]);
const REMOTE: Mac = Mac([2, 0, 0, 0, 0, 2]);
const MS: Duration = Duration::from_millis(1);

fn path(window_max: u16) -> Path<Vec<u8>> {
    Path::new(Config {
        local: LOCAL,
        remote: REMOTE,
        shelf: 3,
        slot: 4,
        sectors_max: 2,
        window_max,
        give_up_after: Duration::from_secs(10),
        timeouts: Timeouts::DEFAULT,
        first_tag: 0xffff_fff0,
    })
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

/// The frame as bytes.
fn take(path: &mut Path<Vec<u8>>, now: Instant) -> Option<Vec<u8>> {
    path.poll_transmit(now).map(|frame| {
        let data = frame.data.map_or(&[][..], Vec::as_slice);
        [&frame.head[..], data].concat()
    })
}

/// The server's answer to `request`, with these status registers and data.
fn answer(request: &[u8], error: Option<Error>, status: u8, data: &[u8]) -> Vec<u8> {
    let header = HeaderRepr::parse(&HeaderPacket::new_checked(request).unwrap());
    let mut reply = request[..ATA_DATA_OFFSET].to_vec();
    header.reply(REMOTE, 3, 4, error).emit(&mut HeaderPacket::new_unwritten(&mut reply[..]));
    (reply[25], reply[27]) = (if status & 1 == 1 { 4 } else { 0 }, status);
    reply.extend(data);
    reply
}

const READ: Operation<Vec<u8>> = Operation::Read { lba: 0x0102_0304_0506, sectors: 2 };
const ID: CommandId = CommandId(1);

#[test]
fn read_is_a_48_bit_command_and_completes_with_its_data() {
    let mut path = path(16);
    path.submit(at(0), ID, READ);
    let request = take(&mut path, at(0)).unwrap();
    assert_eq!(request.len(), 36);
    assert_eq!(request[24..36], [0x40, 0, 2, 0x24, 6, 5, 4, 3, 2, 1, 0, 0]);
    assert!(take(&mut path, at(0)).is_none());
    let reply = answer(&request, None, 0x40, &[7; 1024]);
    let done = path.handle_frame(at(3), &reply).unwrap();
    assert_eq!((done.id, done.result, done.copies_lost), (ID, Ok(&[7; 1024][..]), 0));
    assert_eq!(path.round_trip(), Some(3 * MS));
    assert!(path.is_empty() && path.poll_timeout().is_none());
}

#[test]
fn write_carries_its_data_and_the_write_flag() {
    let mut path = path(16);
    path.submit(at(0), ID, Operation::Write { lba: 1, data: vec![9; 512] });
    let request = take(&mut path, at(0)).unwrap();
    assert_eq!(request[24..28], [0x41, 0, 1, 0x34]);
    assert_eq!(request[36..], [9; 512]);
}

#[test]
fn unanswered_command_is_repeated_under_a_new_tag_and_any_copy_completes_it() {
    let mut path = path(16);
    path.submit(at(0), ID, READ);
    let first = take(&mut path, at(0)).unwrap();
    assert_eq!(path.poll_timeout(), Some(at(250)));
    path.handle_timeout(at(250));
    let second = take(&mut path, at(250)).unwrap();
    assert_ne!(first[20..24], second[20..24]);
    assert_eq!(first[24..], second[24..]);
    assert_eq!(second[20] & 0x80, 0x80, "a tag of user space");
    let late = answer(&first, None, 0x40, &[0; 1024]);
    let done = path.handle_frame(at(260), &late).unwrap();
    assert_eq!((done.copies_lost, done.last_sent), (1, at(250)));
    assert_eq!(path.round_trip(), Some(260 * MS), "measured against its own copy");
    let other = answer(&second, None, 0x40, &[0; 1024]);
    assert!(path.handle_frame(at(270), &other).is_none());
    assert_eq!(path.counters(), Counters { sent: 2, repeated: 1, late: 1, malformed: 0 });
}

#[test]
fn each_repetition_waits_twice_as_long_until_the_command_is_given_up() {
    let mut path = path(16);
    path.submit(at(0), ID, READ);
    let (mut now, mut waits) = (at(0), Vec::new());
    let failed = loop {
        while take(&mut path, now).is_some() {}
        if let Some(failed) = path.poll_failed() {
            break failed;
        }
        let next = path.poll_timeout().unwrap();
        waits.push((next - now).as_millis());
        now = next;
        path.handle_timeout(now);
    };
    assert_eq!(waits, [250, 500, 1000, 2000, 4000, 2250]);
    assert_eq!(now, at(10_000));
    assert_eq!((failed.result, failed.copies_lost), (Err(Failure::TimedOut), 6));
    assert!(path.is_empty() && path.poll_timeout().is_none());
}

#[test]
fn device_and_server_errors_are_definite() {
    for (error, status, failure) in [
        (None, 0x41, Failure::Device(Fault::Aborted)),
        (None, 0x60, Failure::Device(Fault::DeviceFault)),
        (Some(Error::TargetReserved), 0, Failure::Refused(Error::TargetReserved)),
    ] {
        let mut path = path(16);
        path.submit(at(0), ID, READ);
        let reply = answer(&take(&mut path, at(0)).unwrap(), error, status, &[]);
        assert_eq!(path.handle_frame(at(1), &reply).unwrap().result, Err(failure));
    }
}

#[test]
fn frames_that_cannot_be_the_answer_change_nothing() {
    let mut path = path(16);
    path.submit(at(0), ID, READ);
    let request = take(&mut path, at(0)).unwrap();
    let reply = answer(&request, None, 0x40, &[7; 1024]);
    assert!(path.handle_frame(at(1), &request).is_none(), "not a response");
    assert!(path.handle_frame(at(1), &reply[..reply.len() - 1]).is_none(), "data cut short");
    // Another server, another version, another shelf, another slot, another command.
    for (byte, value) in [(11, 9), (14, 0x28), (17, 9), (18, 9), (19, 1)] {
        let mut other = reply.clone();
        other[byte] = value;
        assert!(path.handle_frame(at(1), &other).is_none(), "byte {byte}");
    }
    for len in 0..reply.len() {
        assert!(path.handle_frame(at(1), &reply[..len]).is_none());
    }
    assert!(path.handle_frame(at(1), &reply).is_some());
}

#[test]
fn no_more_than_the_window_is_on_the_wire() {
    let mut path = path(8);
    for id in 0..100 {
        path.submit(at(0), CommandId(id), READ);
    }
    let mut on_wire = VecDeque::new();
    let mut most = 0;
    for ms in 1..500 {
        on_wire.extend(std::iter::from_fn(|| take(&mut path, at(ms))));
        most = most.max(on_wire.len());
        let Some(request) = on_wire.pop_front() else { break };
        path.handle_frame(at(ms), &answer(&request, None, 0x40, &[0; 1024])).unwrap();
    }
    assert_eq!(most, 8);
    assert!(path.is_empty());
}

#[test]
fn withdrawn_command_says_how_many_copies_are_out() {
    let mut path = path(1);
    path.submit(at(0), ID, READ);
    path.submit(at(0), CommandId(2), READ);
    take(&mut path, at(0)).unwrap();
    assert!(matches!(path.withdraw(ID), Some((Operation::Read { .. }, 1))));
    assert!(path.withdraw(ID).is_none());
    assert!(take(&mut path, at(0)).is_some(), "the window is free again");
    assert!(matches!(path.withdraw(CommandId(2)), Some((_, 1))));
    assert!(path.is_empty());
}

#[test]
fn a_command_given_up_while_it_waits_for_the_window_never_went_out() {
    let mut path = path(1);
    path.submit(at(0), ID, READ);
    path.submit(at(1), CommandId(2), READ);
    take(&mut path, at(1)).unwrap();
    path.handle_timeout(at(10_001));
    let lost: Vec<_> =
        std::iter::from_fn(|| path.poll_failed()).map(|f| (f.id.0, f.copies_lost)).collect();
    assert_eq!(lost, [(1, 1), (2, 0)]);
    assert!(take(&mut path, at(10_001)).is_none());
}

#[test]
fn trim_probe_and_short_flush_look_as_the_standard_says() {
    let mut path = path(16);
    let ranges = crate::ata::command::TrimRanges::emit(7, 9).to_vec();
    path.submit(at(0), ID, Operation::Trim { ranges: ranges.clone() });
    let trim = take(&mut path, at(0)).unwrap();
    assert_eq!((&trim[24..28], &trim[36..]), (&[0x41, 1, 1, 0x06][..], &ranges[..]));
    path.submit(at(0), CommandId(2), Operation::Probe { lba: 0, padding: vec![0; 1024] });
    let probe = take(&mut path, at(0)).unwrap();
    assert_eq!((&probe[24..28], probe.len()), (&[0x40, 0, 2, 0x24][..], 36 + 1024));
    assert!(path.handle_frame(at(1), &answer(&probe, None, 0x40, &[0; 1024])).is_some());
    path.submit(at(0), CommandId(3), Operation::FlushShort);
    assert_eq!(take(&mut path, at(0)).unwrap()[24..28], [0, 0, 0, 0xe7]);
}

#[test]
fn replies_to_other_hosts_are_not_ours() {
    let mut path = path(16);
    path.submit(at(0), ID, READ);
    let mut reply = answer(&take(&mut path, at(0)).unwrap(), None, 0x40, &[0; 1024]);
    reply[5] = 9;
    assert!(path.handle_frame(at(1), &reply).is_none());
}

#[test]
fn what_was_lost_is_repeated_oldest_first_and_counted_until_a_reply() {
    let mut path = path(16);
    for id in 0..4 {
        path.submit(at(0), CommandId(id), Operation::Read { lba: id, sectors: 1 });
        take(&mut path, at(0)).unwrap();
    }
    path.handle_timeout(at(250));
    assert_eq!(path.unanswered(), 1);
    let again: Vec<_> = std::iter::from_fn(|| take(&mut path, at(250))).collect();
    assert_eq!(again.iter().map(|frame| frame[28]).collect::<Vec<_>>(), [0, 1, 2, 3]);
    path.handle_timeout(at(750));
    assert_eq!(path.unanswered(), 2);
    let reply = answer(&again[0], None, 0x40, &[0; 512]);
    let done = path.handle_frame(at(751), &reply).unwrap();
    let tag = |frame: &[u8]| u32::from_be_bytes(frame[20..24].try_into().unwrap());
    assert_eq!((done.copies_lost, done.lost_tags.len()), (1, 1));
    assert_ne!(done.lost_tags[0], tag(&again[0]));
    assert_eq!(path.unanswered(), 0);
}

#[test]
fn a_host_that_stood_still_waits_longer() {
    let mut path = path(16);
    path.submit(at(0), ID, READ);
    take(&mut path, at(0)).unwrap();
    path.postpone(Duration::from_secs(20));
    assert_eq!(path.poll_timeout(), Some(at(20_250)));
    path.handle_timeout(at(20_249));
    assert!(take(&mut path, at(20_249)).is_none() && path.poll_failed().is_none());
}

#[test]
fn ten_thousand_commands_leave_nothing_behind() {
    let mut path = path(64);
    let mut on_wire = Vec::new();
    for id in 0..10_000 {
        path.submit(at(id), CommandId(id), READ);
        on_wire.extend(take(&mut path, at(id)).map(|frame| (id, frame)));
        if id % 7 == 0 {
            path.withdraw(CommandId(id));
        }
        if on_wire.len() > 20 {
            let (_, frame) = on_wire.remove(3);
            path.handle_frame(at(id), &answer(&frame, None, 0x40, &[0; 1024]));
        }
        path.handle_timeout(at(id));
        while path.poll_failed().is_some() {}
    }
    path.handle_timeout(at(100_000));
    while path.poll_failed().is_some() {}
    assert!(path.is_empty() && path.poll_timeout().is_none());
    assert!(path.to_send.len() < 100 && path.on_wire == 0 && path.waiting == 0);
}
