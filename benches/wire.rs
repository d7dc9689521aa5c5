//! What it costs to read and write one PDU or frame, and CRC32C over one block.
#![allow(missing_docs, reason = "criterion's macros make public functions without comment")]

use std::hint::black_box;

use corbel_proto::aoe::{AtaPacket, AtaRepr, HEADER_BYTES, HeaderPacket, HeaderRepr, Mac};
use corbel_proto::aoe::{Code, VERSION};
use corbel_proto::ata::Registers;
use corbel_proto::iscsi::bhs::{Bhs, Lun};
use corbel_proto::iscsi::digest::Digest;
use corbel_proto::iscsi::framer::{Framer, Step};
use corbel_proto::iscsi::pdu::scsi::{Attribute, ScsiCommand};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn command() -> ScsiCommand {
    ScsiCommand {
        immediate: false,
        is_final: true,
        read: false,
        write: true,
        attribute: Attribute::Simple,
        lun: Lun::new(0),
        itt: 1,
        edtl: 4096,
        cmd_sn: 1,
        exp_stat_sn: 1,
        cdb: [0x8a; 16],
    }
}

fn pdu(c: &mut Criterion) {
    let command = command();
    let bhs = command.emit();
    c.bench_function("SCSI Command: emit", |b| b.iter(|| black_box(&command).emit()));
    c.bench_function("SCSI Command: parse", |b| b.iter(|| ScsiCommand::parse(black_box(&bhs))));
}

fn framing(c: &mut Criterion) {
    let mut stream = command().emit().with_data_bytes(4096).0.to_vec();
    stream.resize(48 + 4096, 0x5a);
    for data_digest in [false, true] {
        let mut wire = stream.clone();
        if data_digest {
            wire.extend(Digest::of(&stream[48..]).to_wire());
        }
        let name = if data_digest { "with data digest" } else { "without digest" };
        c.bench_function(&format!("4 KiB write through the framer, {name}"), |b| {
            let mut framer = Framer::new();
            framer.set_digests(false, data_digest);
            b.iter(|| frame(&mut framer, black_box(&wire)));
        });
    }
}

fn frame(framer: &mut Framer, mut bytes: &[u8]) -> Option<Bhs> {
    let mut last = None;
    while let Ok((taken, step)) = framer.push(bytes) {
        bytes = &bytes[taken..];
        match step {
            Step::More => break,
            Step::Header => last = Some(framer.bhs()),
            Step::Data(_) | Step::End { .. } => {}
        }
    }
    last
}

fn aoe(c: &mut Criterion) {
    let header = HeaderRepr {
        destination: Mac([2, 0, 0, 0, 0, 1]),
        source: Mac([2, 0, 0, 0, 0, 2]),
        version: VERSION,
        response: false,
        error: None,
        shelf: 0,
        slot: 0,
        code: Code::Ata,
        tag: 7,
    };
    let ata = AtaRepr {
        extended: true,
        device: false,
        asynchronous: false,
        write: false,
        registers: Registers { count: 8, command_status: 0x24, ..Registers::default() },
    };
    let mut bytes = [0; 36];
    c.bench_function("AoE ATA frame: emit", |b| {
        b.iter(|| {
            black_box(&header).emit(&mut HeaderPacket::new_unwritten(&mut bytes[..]));
            black_box(&ata).emit(&mut bytes[HEADER_BYTES..]);
            bytes[35]
        });
    });
    c.bench_function("AoE ATA frame: parse", |b| {
        b.iter(|| {
            let packet = HeaderPacket::new_checked(black_box(&bytes[..])).ok()?;
            let ata = AtaPacket::new_checked(packet.argument()).ok()?;
            Some((HeaderRepr::parse(&packet), AtaRepr::parse(&ata)))
        });
    });
}

fn crc32c(c: &mut Criterion) {
    let mut group = c.benchmark_group("CRC32C");
    for bytes in [48_usize, 512, 4096, 65_536] {
        let data = vec![0x5a; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("{bytes} bytes"), |b| b.iter(|| Digest::of(black_box(&data))));
    }
    group.finish();
}

criterion_group!(benches, pdu, framing, aoe, crc32c);
criterion_main!(benches);
