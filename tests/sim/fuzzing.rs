//! What the fuzzer drives. One function per target in `fuzz/fuzz_targets/`; `tests/corpus.rs`
//! replays every input of `fuzz/corpus/` through the same functions on every test run.
//!
//! A function returns if the code under test kept its promises and panics if not. Inputs are
//! bytes as a peer could send them; targets of state machines read operations from them.

use corbel_proto::aoe;
use corbel_proto::ata::{Command, Identify};
use corbel_proto::iscsi::ahs::Ahs;
use corbel_proto::iscsi::bhs::{Bhs, Opcode};
use corbel_proto::iscsi::framer::{Framer, Step};
use corbel_proto::iscsi::pdu::{asynchronous, data, login, logout, nop, r2t, reject, scsi, snack};
use corbel_proto::iscsi::pdu::{task, text};

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] =
    &[("aoe_frame", aoe_frame), ("ata_identify", ata_identify), ("iscsi_stream", iscsi_stream)];

/// A frame from the wire through every parser of its kind.
pub fn aoe_frame(frame: &[u8]) {
    let Ok(header) = aoe::HeaderPacket::new_checked(frame) else { return };
    let repr = aoe::HeaderRepr::parse(&header);
    let mut again = [0; aoe::HEADER_BYTES];
    repr.emit(&mut aoe::HeaderPacket::new_unwritten(&mut again[..]));
    let reparsed = aoe::HeaderPacket::new_checked(&again[..]).expect("we emit what we parse");
    assert_eq!(aoe::HeaderRepr::parse(&reparsed), repr);
    let argument = header.argument();
    if let Ok(ata) = aoe::AtaPacket::new_checked(argument) {
        let command = Command::parse(&ata.registers());
        assert!(!format!("{command:?}").is_empty());
        assert!(ata.data().len() <= argument.len());
    }
    if let Ok(config) = aoe::ConfigPacket::new_checked(argument) {
        let repr = aoe::ConfigRepr::parse(&config);
        assert!(repr.string.len() <= 1024);
    }
    if let Ok(mask) = aoe::MaskPacket::new_checked(argument) {
        assert!(mask.directives().count() <= 255);
    }
    if let Ok(reserve) = aoe::ReservePacket::new_checked(argument) {
        assert!(reserve.macs().count() <= 255);
    }
}

/// The 512 bytes that a disk says of itself.
pub fn ata_identify(bytes: &[u8]) {
    let Ok(identify) = Identify::parse(bytes) else { return };
    let emitted = identify.emit();
    assert_eq!(Identify::parse(&emitted).as_ref(), Ok(&identify));
}

/// A TCP stream through the framer, and every PDU through its parser. The first byte says
/// which digests are on and how the stream is cut.
pub fn iscsi_stream(input: &[u8]) {
    let Some((&mode, mut stream)) = input.split_first() else { return };
    let mut framer = Framer::new();
    framer.set_digests(mode & 1 != 0, mode & 2 != 0);
    let piece = usize::from(mode >> 2).max(1);
    while !stream.is_empty() {
        let cut = piece.min(stream.len());
        let Ok((taken, step)) = framer.push(&stream[..cut]) else { return };
        assert!(taken <= cut);
        assert!(taken > 0 || step != Step::More, "the framer always goes on");
        if step == Step::Header {
            parse_pdu(&framer.bhs(), framer.ahs());
        }
        stream = &stream[taken..];
    }
}

fn parse_pdu(bhs: &Bhs, ahs: &[u8]) {
    let _ = Ahs::parse(ahs);
    let Some(opcode) = bhs.opcode() else { return };
    let shown = match opcode {
        Opcode::NopOut => format!("{:?}", nop::NopOut::parse(bhs)),
        Opcode::ScsiCommand => format!("{:?}", scsi::ScsiCommand::parse(bhs)),
        Opcode::TaskRequest => format!("{:?}", task::TaskRequest::parse(bhs)),
        Opcode::LoginRequest => format!("{:?}", login::LoginRequest::parse(&bhs.0)),
        Opcode::TextRequest => format!("{:?}", text::TextRequest::parse(&bhs.0)),
        Opcode::DataOut => format!("{:?}", data::DataOut::parse(bhs)),
        Opcode::LogoutRequest => format!("{:?}", logout::LogoutRequest::parse(bhs)),
        Opcode::Snack => format!("{:?}", snack::Snack::parse(bhs)),
        Opcode::NopIn => format!("{:?}", nop::NopIn::parse(bhs)),
        Opcode::ScsiResponse => format!("{:?}", scsi::ScsiResponse::parse(bhs)),
        Opcode::TaskResponse => format!("{:?}", task::TaskResponse::parse(bhs)),
        Opcode::LoginResponse => format!("{:?}", login::LoginResponse::parse(&bhs.0)),
        Opcode::TextResponse => format!("{:?}", text::TextResponse::parse(&bhs.0)),
        Opcode::DataIn => format!("{:?}", data::DataIn::parse(bhs)),
        Opcode::LogoutResponse => format!("{:?}", logout::LogoutResponse::parse(bhs)),
        Opcode::R2t => format!("{:?}", r2t::R2t::parse(bhs)),
        Opcode::Async => format!("{:?}", asynchronous::Async::parse(bhs)),
        Opcode::Reject => format!("{:?}", reject::Reject::parse(bhs)),
    };
    assert!(!shown.is_empty());
}
