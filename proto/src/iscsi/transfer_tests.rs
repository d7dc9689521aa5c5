//! Write data: what is let in, what is asked for, and what is asked for again.

use super::*;
use crate::iscsi::bhs::Lun;
use crate::memory::HeapArena;

fn data(ttt: u32, data_sn: u32, offset: u32, is_final: bool) -> DataOut {
    DataOut { is_final, lun: Lun(0), itt: 1, ttt, exp_stat_sn: 0, data_sn, offset }
}

fn feed(
    t: &mut Transfer<crate::memory::HeapBuffer>,
    d: DataOut,
    len: u32,
) -> Result<(), Violation> {
    t.accept(&d, len)?;
    t.place(d.offset, &vec![u8::try_from(d.data_sn + 1).unwrap(); len as usize]);
    t.arrived(&d);
    Ok(())
}

#[test]
fn unsolicited_burst_then_bursts_that_were_asked_for() {
    let mut arena = HeapArena::new(1 << 20);
    let mut t = Transfer::new(20_000, 1000, true, 4096, true);
    assert!(t.lend(&mut arena, 4096));
    t.want(20_000);
    assert_eq!(t.ask(7, 8192, 2), None, "not while unsolicited data may come");
    feed(&mut t, data(TAG_NONE, 0, 1000, false), 1000).unwrap();
    feed(&mut t, data(TAG_NONE, 1, 2000, true), 2096).unwrap();
    assert_eq!(t.ask(7, 8192, 2), Some(Ask { offset: 4096, bytes: 8192, r2t_sn: 0 }));
    assert_eq!(t.ask(8, 8192, 2), Some(Ask { offset: 12_288, bytes: 7712, r2t_sn: 1 }));
    assert_eq!(t.ask(9, 8192, 2), None);
    feed(&mut t, data(7, 0, 4096, true), 8192).unwrap();
    assert!(!t.is_complete());
    feed(&mut t, data(8, 0, 12_288, true), 7712).unwrap();
    assert!(t.is_complete());
    let segments = t.take_segments();
    assert_eq!(segments.iter().map(|s| s.len).sum::<u32>(), 20_000);
}

/// tgt placed a Data-Out wherever its header said, past the end of the heap buffer.
#[test]
fn no_byte_goes_outside_its_burst() {
    let mut arena = HeapArena::new(1 << 20);
    let mut t = Transfer::new(8192, 0, false, 65_536, true);
    assert!(t.lend(&mut arena, 8192));
    t.want(8192);
    t.ask(7, 4096, 1).unwrap();
    for (d, len) in [
        (data(TAG_NONE, 0, 0, true), 4096), // not asked for
        (data(8, 0, 0, true), 4096),        // another tag
        (data(7, 1, 0, true), 4096),        // DataSN
        (data(7, 0, 1, true), 4095),        // offset
        (data(7, 0, u32::MAX, true), 4096), // offset near the end of all numbers
        (data(7, 0, 0, true), 4097),        // too long
        (data(7, 0, 0, true), 4095),        // final, but short
        (data(7, 0, 0, false), 4096),       // full, but not final
    ] {
        assert!(t.accept(&d, len).is_err(), "{d:?}");
    }
    feed(&mut t, data(7, 0, 0, true), 4096).unwrap();
}

#[test]
fn memory_is_lent_all_or_nothing_and_never_more_than_announced() {
    let mut arena = HeapArena::new(600_000);
    let mut t = Transfer::new(u32::MAX, 0, false, 0, true);
    assert!(!t.lend(&mut arena, 700_000));
    assert_eq!((t.held_bytes(), arena.in_use()), (0, 0));
    let mut t = Transfer::new(1000, 0, false, 0, true);
    assert!(t.lend(&mut arena, 1000));
    assert_eq!((t.held_bytes(), arena.in_use()), (1000, 1000));
}

/// DataPDUInOrder=No: any order, but no byte twice, and the last PDU is where all has come.
#[test]
fn pdus_of_a_burst_may_come_in_any_order_if_that_was_agreed() {
    let mut arena = HeapArena::new(1 << 20);
    let mut t = Transfer::new(8192, 0, false, 0, false);
    assert!(t.lend(&mut arena, 8192));
    t.want(8192);
    t.ask(7, 8192, 1).unwrap();
    feed(&mut t, data(7, 0, 6144, false), 2048).unwrap();
    feed(&mut t, data(7, 1, 0, false), 2048).unwrap();
    assert!(feed(&mut t, data(7, 2, 1024, false), 2048).is_err(), "half of it has come");
    assert!(feed(&mut t, data(7, 2, 7168, false), 2048).is_err(), "outside");
    assert!(feed(&mut t, data(7, 2, 2048, true), 2048).is_err(), "not the last");
    let mut t = Transfer::new(8192, 0, false, 0, false);
    assert!(t.lend(&mut arena, 8192));
    t.want(8192);
    t.ask(7, 8192, 1).unwrap();
    for (sn, offset) in [(0, 6144), (1, 0), (2, 4096)] {
        feed(&mut t, data(7, sn, offset, false), 2048).unwrap();
    }
    assert!(!t.is_complete());
    feed(&mut t, data(7, 3, 2048, true), 2048).unwrap();
    assert!(t.is_complete());
    let segments = t.take_segments();
    let bytes = segments[0].bytes();
    assert_eq!([bytes[0], bytes[2048], bytes[4096], bytes[6144]], [2, 4, 3, 1]);
}

#[test]
fn holes_in_unsolicited_data_are_asked_for_and_never_read_as_they_are() {
    let mut arena = HeapArena::new(1 << 20);
    let mut t = Transfer::new(8192, 0, true, 4096, false);
    assert!(t.lend(&mut arena, 4096));
    feed(&mut t, data(TAG_NONE, 0, 3072, false), 512).unwrap();
    feed(&mut t, data(TAG_NONE, 1, 512, true), 512).unwrap();
    t.want(8192);
    let mut asked = Vec::new();
    while let Some(ask) = t.ask(7, 8192, 9) {
        asked.push((ask.offset, ask.bytes));
    }
    assert_eq!(asked, [(0, 512), (1024, 2048), (3584, 4608)]);
}

#[test]
fn holes_of_one_burst_are_bounded() {
    let mut t: Transfer<crate::memory::HeapBuffer> = Transfer::new(8192, 0, true, 8192, false);
    let sent = (0..4096).take_while(|&sn| t.accept(&data(TAG_NONE, sn, sn * 2, false), 1).is_ok());
    assert_eq!(sent.count(), HOLES_MAX);
}

/// RFC 7143 7.7: a recovery R2T has the next R2TSN and part of what an earlier one asked for.
#[test]
fn lost_data_is_asked_for_again_under_a_new_number() {
    let mut arena = HeapArena::new(1 << 20);
    let mut t = Transfer::new(8192, 0, false, 0, true);
    assert!(t.lend(&mut arena, 8192));
    t.want(6000);
    t.ask(7, 8192, 1).unwrap();
    feed(&mut t, data(7, 0, 0, false), 2048).unwrap();
    let lost = data(7, 1, 2048, false);
    t.accept(&lost, 2048).unwrap();
    assert!(t.lose(&lost, 2048));
    assert_eq!(t.ask(8, 8192, 1), None, "the burst goes on first");
    let last = data(7, 2, 4096, true);
    t.accept(&last, 1904).unwrap();
    assert!(t.lose(&last, 1904), "the last of a burst ends it all the same");
    assert!(!t.is_complete());
    assert_eq!(t.ask(8, 3000, 1), Some(Ask { offset: 2048, bytes: 2048, r2t_sn: 1 }));
    feed(&mut t, data(8, 0, 2048, true), 2048).unwrap();
    assert_eq!(t.ask(9, 3000, 1), Some(Ask { offset: 4096, bytes: 1904, r2t_sn: 2 }));
    feed(&mut t, data(9, 0, 4096, true), 1904).unwrap();
    assert!(t.is_complete());
}

#[test]
fn damaged_data_is_not_asked_for_for_ever() {
    let mut arena = HeapArena::new(1 << 20);
    let mut t = Transfer::new(512, 0, false, 0, true);
    assert!(t.lend(&mut arena, 512));
    t.want(512);
    let asked = (0..1000).take_while(|&ttt| {
        t.ask(ttt, 512, 1).unwrap();
        let lost = data(ttt, 0, 0, true);
        t.accept(&lost, 512).unwrap();
        t.lose(&lost, 512)
    });
    assert_eq!(asked.count(), usize::from(RECOVERIES_MAX));
}

#[test]
fn what_a_lost_connection_left_open_is_asked_for_anew() {
    let mut arena = HeapArena::new(1 << 20);
    let mut t = Transfer::new(8192, 0, true, 2048, true);
    assert!(t.lend(&mut arena, 8192));
    t.want(8192);
    feed(&mut t, data(TAG_NONE, 0, 0, false), 1024).unwrap();
    t.restart();
    assert_eq!(t.ask(7, 4096, 2), Some(Ask { offset: 1024, bytes: 4096, r2t_sn: 0 }));
    assert_eq!(t.ask(8, 4096, 2), Some(Ask { offset: 5120, bytes: 3072, r2t_sn: 1 }));
    feed(&mut t, data(7, 0, 1024, false), 96).unwrap();
    feed(&mut t, data(8, 0, 5120, true), 3072).unwrap();
    t.restart();
    assert_eq!(t.ask(9, 4096, 2), Some(Ask { offset: 1120, bytes: 4000, r2t_sn: 2 }));
    feed(&mut t, data(9, 0, 1120, true), 4000).unwrap();
    assert!(t.is_complete());
}
