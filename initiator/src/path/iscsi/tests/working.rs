use corbel_proto::scsi::sense::Key;

use super::bench::{Bench, config, ms};
use super::peer::{BLOCK, Disk, Trick};
use crate::path::Verdict;
use crate::request::IoError;

#[test]
fn what_was_written_is_read() {
    let mut bench = Bench::up(config(), Disk::new(4096));
    let write = bench.write(8, 512, 7);
    assert_eq!(bench.verdict(write), Some(Verdict::Done));
    let read = bench.read(8, 512);
    assert_eq!(bench.end(read), Some((Verdict::Done, vec![7; 512 * BLOCK])));
    assert!(bench.disk.bytes[..8 * BLOCK].iter().all(|byte| *byte == 0));
    assert_eq!(bench.disk.log, [0x2a, 0x28]);
}

#[test]
fn what_a_unit_says_is_acted_on() {
    let cases = [
        (Trick::Sense(Key::MediumError, 0x11, 0), Verdict::Device(IoError::Medium)),
        (Trick::Sense(Key::DataProtect, 0x27, 7), Verdict::Device(IoError::NoSpace)),
        (Trick::Sense(Key::UnitAttention, 0x29, 0), Verdict::Done),
        (Trick::Deferred(Key::MediumError, 0x0c, 0), Verdict::Done),
        (Trick::Status(0x18), Verdict::Device(IoError::Conflict)),
        (Trick::Status(0x08), Verdict::Later(ms(10))),
        (Trick::Short, Verdict::Done),
    ];
    for (trick, verdict) in cases {
        let mut bench = Bench::up(config(), Disk::new(64));
        bench.disk.play(0x28, trick);
        let read = bench.read(0, 1);
        assert_eq!(bench.verdict(read), Some(verdict), "{trick:?}");
    }
}
