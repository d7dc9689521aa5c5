//! The bytes themselves, as RFC 4171 5 and 6 draw them.

use super::*;

fn written(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    fill(&mut writer);
    writer.0
}

fn attributes(bytes: &[u8]) -> Option<Vec<Attribute<'_>>> {
    Attributes::new(bytes).collect::<Result<_, _>>().ok()
}

/// 6.1: a length that counts the padding; text has at least one zero behind it.
#[test]
fn values_are_padded_to_fours_and_their_length_says_so() {
    for (text, padded) in [("", 4), ("abc", 4), ("abcd", 8), ("abcde", 8)] {
        let bytes = written(|writer| {
            writer.text(tag::ENTITY, text);
        });
        assert_eq!(bytes[..8], [0, 0, 0, 1, 0, 0, 0, padded], "{text}");
        assert_eq!(bytes.len(), 8 + usize::from(padded));
        assert_eq!(&bytes[8..8 + text.len()], text.as_bytes());
        assert!(bytes[8 + text.len()..].iter().all(|byte| *byte == 0));
        assert_eq!(attributes(&bytes).unwrap()[0].text(), Some(text));
    }
    let bytes = written(|writer| {
        writer.put(9, &[1, 2, 3, 4, 5]).put(tag::DELIMITER, &[]);
    });
    #[rustfmt::skip]
    assert_eq!(bytes, [
        0, 0, 0, 9, 0, 0, 0, 8, 1, 2, 3, 4, 5, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
    ]);
}

/// 6.3.1, 6.3.2.
#[test]
fn a_portal_is_its_address_as_ipv6_and_then_its_port() {
    let v4 = written(|writer| {
        writer.portal((tag::PORTAL_ADDRESS, tag::PORTAL_PORT), "10.0.0.1:3260".parse().unwrap());
    });
    #[rustfmt::skip]
    assert_eq!(v4, [
        0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1,
        0, 0, 0, 17, 0, 0, 0, 4, 0, 0, 0x0c, 0xbc,
    ]);
    let portal: SocketAddr = "[fd00::1]:860".parse().unwrap();
    let v6 = written(|writer| {
        writer.portal((tag::GROUP_ADDRESS, tag::GROUP_PORT), portal);
    });
    let [address, port] = attributes(&v6).unwrap()[..] else { panic!("two attributes") };
    assert_eq!((address.address(), port.port()), (Some(portal.ip()), Some(860)));
    // Bit 16 says UDP.
    let udp = written(|writer| {
        writer.number(tag::PORTAL_PORT, 0x1_0000 | 3260);
    });
    assert_eq!(attributes(&udp).unwrap()[0].port(), None);
}

/// Some servers count without the padding.
#[test]
fn a_length_without_its_padding_is_understood_and_the_padding_must_be_there() {
    let bytes = [0, 0, 0, 1, 0, 0, 0, 5, b's', b'h', b'e', b'l', b'f', 0, 0, 0];
    let next = written(|writer| {
        writer.number(tag::PERIOD, 60);
    });
    let both = [&bytes[..], &next].concat();
    let [entity, period] = attributes(&both).unwrap()[..] else { panic!("two attributes") };
    assert_eq!((entity.text(), period.number()), (Some("shelf"), Some(60)));
    for len in 1..bytes.len() {
        assert_eq!(attributes(&bytes[..len]), None, "{len}");
    }
    assert_eq!(attributes(&[]), Some(vec![]));
}

#[test]
fn headers_read_back_as_written_and_others_are_refused() {
    let header = Header {
        function: function::REGISTER | function::RESPONSE,
        payload_bytes: 8,
        flags: flag::FIRST | flag::LAST,
        transaction: 0x1234,
        sequence: 7,
    };
    let bytes = header.emit();
    assert_eq!(bytes, [0, 1, 0x80, 1, 0, 8, 0x0c, 0, 0x12, 0x34, 0, 7]);
    assert_eq!(Header::parse(&bytes), Ok(header));
    let mut other = bytes;
    other[1] = 2;
    assert!(Header::parse(&other).is_err(), "another version");
    for odd in 9..12 {
        let mut other = bytes;
        other[5] = odd;
        assert!(Header::parse(&other).is_err(), "{odd} bytes");
    }
    let mut message = bytes.to_vec();
    Header::set_transaction(&mut message, 0xfedc);
    assert_eq!(message[..], [0, 1, 0x80, 1, 0, 8, 0x0c, 0, 0xfe, 0xdc, 0, 7]);
}

fn pdu(flags: u16, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        function: function::QUERY,
        payload_bytes: u16::try_from(payload.len()).unwrap(),
        flags,
        transaction: 1,
        sequence: 0,
    };
    [&header.emit()[..], payload].concat()
}

#[test]
fn messages_follow_each_other_and_a_first_pdu_begins_anew() {
    let mut framer = Framer::default();
    framer.push(&pdu(flag::FIRST, &[1; 4]));
    framer.push(&pdu(flag::FIRST, &[2; 4]));
    framer.push(&pdu(flag::LAST, &[3; 4]));
    framer.push(&pdu(flag::FIRST | flag::LAST, &[4; 8]));
    let payload = |framer: &mut Framer| framer.next_message().unwrap().map(|(_, payload)| payload);
    assert_eq!(payload(&mut framer), Some(vec![2, 2, 2, 2, 3, 3, 3, 3]), "not what was cut off");
    assert_eq!(payload(&mut framer), Some(vec![4; 8]));
    assert_eq!(payload(&mut framer), None);
}

#[test]
fn a_message_is_taken_at_its_longest_and_refused_with_four_bytes_more() {
    let longest = |last: usize| {
        let mut framer = Framer::default();
        let pieces = MESSAGE_BYTES_MAX / PAYLOAD_BYTES_MAX;
        for piece in 0..pieces {
            framer.push(&pdu(if piece == 0 { flag::FIRST } else { 0 }, &[0; PAYLOAD_BYTES_MAX]));
        }
        let rest = MESSAGE_BYTES_MAX - pieces * PAYLOAD_BYTES_MAX;
        framer.push(&pdu(flag::LAST, &vec![0; rest + last]));
        framer.next_message().map(|message| message.unwrap().1.len())
    };
    assert_eq!(longest(0), Ok(MESSAGE_BYTES_MAX));
    assert!(longest(4).is_err());
}
