//! iSCSI as it comes from the wire: PDUs and text.

use corbel_proto::iscsi::ahs::Ahs;
use corbel_proto::iscsi::bhs::{Bhs, Opcode};
use corbel_proto::iscsi::framer::{Framer, Step};
use corbel_proto::iscsi::name::Name;
use corbel_proto::iscsi::params::{Limits, Negotiator, SessionType, segment_bytes};
use corbel_proto::iscsi::pdu::{asynchronous, data, login, logout, nop, r2t, reject, scsi, snack};
use corbel_proto::iscsi::pdu::{task, text as text_pdu};
use corbel_proto::iscsi::text::{self, Accumulator, Keys};

/// A TCP stream through the framer, and every PDU through its parser. The first byte says
/// which digests are on and how the stream is cut.
pub(super) fn iscsi_stream(input: &[u8]) {
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
        Opcode::TextRequest => format!("{:?}", text_pdu::TextRequest::parse(&bhs.0)),
        Opcode::DataOut => format!("{:?}", data::DataOut::parse(bhs)),
        Opcode::LogoutRequest => format!("{:?}", logout::LogoutRequest::parse(bhs)),
        Opcode::Snack => format!("{:?}", snack::Snack::parse(bhs)),
        Opcode::NopIn => format!("{:?}", nop::NopIn::parse(bhs)),
        Opcode::ScsiResponse => format!("{:?}", scsi::ScsiResponse::parse(bhs)),
        Opcode::TaskResponse => format!("{:?}", task::TaskResponse::parse(bhs)),
        Opcode::LoginResponse => format!("{:?}", login::LoginResponse::parse(&bhs.0)),
        Opcode::TextResponse => format!("{:?}", text_pdu::TextResponse::parse(&bhs.0)),
        Opcode::DataIn => format!("{:?}", data::DataIn::parse(bhs)),
        Opcode::LogoutResponse => format!("{:?}", logout::LogoutResponse::parse(bhs)),
        Opcode::R2t => format!("{:?}", r2t::R2t::parse(bhs)),
        Opcode::Async => format!("{:?}", asynchronous::Async::parse(bhs)),
        Opcode::Reject => format!("{:?}", reject::Reject::parse(bhs)),
    };
    assert!(!shown.is_empty());
}

/// The 48 bytes of login and text PDUs: what is read is written the same way.
pub(super) fn iscsi_login_pdu(input: &[u8]) {
    let Some(bytes) = input.first_chunk::<48>() else { return };
    if let Ok(request) = login::LoginRequest::parse(bytes) {
        assert_eq!(login::LoginRequest::parse(&request.emit()), Ok(request));
    }
    if let Ok(response) = login::LoginResponse::parse(bytes) {
        assert_eq!(login::LoginResponse::parse(&response.emit()), Ok(response));
    }
    if let Ok(request) = text_pdu::TextRequest::parse(bytes) {
        assert_eq!(text_pdu::TextRequest::parse(&request.emit()), Ok(request));
    }
    if let Ok(response) = text_pdu::TextResponse::parse(bytes) {
        assert_eq!(text_pdu::TextResponse::parse(&response.emit()), Ok(response));
    }
}

/// Keys and values: as text, as numbers and lists, and as a negotiation in either role.
pub(super) fn iscsi_text(input: &[u8]) {
    let Some((&cut, input)) = input.split_first() else { return };
    let mut accumulator = Accumulator::default();
    let (first, second) = input.split_at(usize::from(cut).min(input.len()));
    let held = accumulator.push(first, true);
    assert!(!matches!(held, Ok(Some(_))), "a text goes on until its last piece");
    let Ok(Some(whole)) = accumulator.push(second, false) else { return };
    assert_eq!(whole, input, "two pieces make one text");
    let Ok(keys) = Keys::parse(&whole) else { return };
    let mut again = Vec::new();
    let mut target = Negotiator::new(Limits::default(), SessionType::Normal, true);
    let mut initiator = Negotiator::new(Limits::default(), SessionType::Normal, true);
    let mut answer = Vec::new();
    let mut sound = true;
    for (key, value) in keys.iter() {
        assert_eq!(keys.value(key), Some(value), "a key stands once");
        text::put(&mut again, key, value);
        values(value);
        sound &= target.answer(key, value, &mut answer).is_ok();
        let _ = initiator.accept(key, value);
    }
    let reread = Keys::parse(&again).expect("we read what we write");
    assert!(reread.iter().eq(keys.iter()));
    if sound {
        Keys::parse(&answer).expect("our answer is text");
        if let Ok(agreed) = target.finish() {
            assert!((512..1 << 24).contains(&agreed.peer_segment_bytes_max));
            assert!((512..1 << 24).contains(&agreed.burst_bytes_max));
            assert!(agreed.first_burst_bytes_max <= agreed.burst_bytes_max);
        }
    }
}

fn values(value: &str) {
    if let Some(bytes) = text::binary(value) {
        assert!(bytes.len() <= value.len());
        let shown = text::binary_text(&bytes);
        assert_eq!(text::binary(&shown).as_ref(), Some(&bytes));
    }
    if let (Some(number), true) = (text::number(value), value.starts_with("0x")) {
        assert_eq!(u64::from_str_radix(&value[2..], 16), Ok(number));
    }
    if let Some((low, high)) = text::range(value) {
        assert!(low <= high);
    }
    let _ = (text::boolean(value), segment_bytes(value), text::list(value).count());
    if let Ok(name) = value.parse::<Name>() {
        assert_eq!(name.as_str().parse().as_ref(), Ok(&name));
    }
}
