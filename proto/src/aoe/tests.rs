//! No bytes from the wire make a parser panic, and what parses means the same when written again.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ata::{Command, Identify, command::TrimRanges};

/// Frames of any bytes, half of them with the AoE Ethernet type in place.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    (vec(any::<u8>(), 0..1500), any::<bool>()).prop_map(|(mut bytes, aoe)| {
        if aoe && bytes.len() >= 14 {
            bytes[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_frame_is_read_or_refused(bytes in frame()) {
        let Ok(packet) = HeaderPacket::new_checked(&bytes[..]) else { return Ok(()) };
        let header = HeaderRepr::parse(&packet);
        let argument = packet.argument();
        let _ = (header.reply(Mac::default(), 0, 0, None), argument.len());
    }

    #[test]
    fn any_ata_argument_survives_a_round_trip(bytes in vec(any::<u8>(), 0..64)) {
        if let Ok(packet) = AtaPacket::new_checked(&bytes[..]) {
            let repr = AtaRepr::parse(&packet);
            let _ = Command::parse(&repr.registers);
            let mut again = [0; ata::ARGUMENT_BYTES];
            repr.emit(&mut again);
            prop_assert_eq!(AtaRepr::parse(&AtaPacket::new_checked(&again[..]).unwrap()), repr);
        }
    }

    #[test]
    fn any_config_argument_survives_a_round_trip(bytes in vec(any::<u8>(), 0..1200)) {
        if let Ok(packet) = ConfigPacket::new_checked(&bytes[..]) {
            let repr = ConfigRepr::parse(&packet);
            let mut again = vec![0; repr.buffer_len()];
            repr.emit(&mut again);
            let packet = ConfigPacket::new_checked(&again[..]).unwrap();
            prop_assert_eq!(ConfigRepr::parse(&packet), repr);
        }
    }

    #[test]
    fn any_list_survives_a_round_trip(bytes in vec(any::<u8>(), 0..2100)) {
        if let Ok(packet) = MaskPacket::new_checked(&bytes[..]) {
            let repr = MaskRepr::parse(&packet);
            let mut again = vec![0; repr.buffer_len()];
            repr.emit(&mut again);
            if matches!(repr, MaskRepr::List(..)) {
                let packet = MaskPacket::new_checked(&again[..]).unwrap();
                prop_assert_eq!(MaskRepr::parse(&packet), repr);
            }
        }
        if let Ok(packet) = ReservePacket::new_checked(&bytes[..]) {
            let repr = ReserveRepr::parse(&packet);
            let mut again = vec![0; repr.buffer_len()];
            repr.emit(&mut again);
            let packet = ReservePacket::new_checked(&again[..]).unwrap();
            prop_assert_eq!(ReserveRepr::parse(&packet), repr);
        }
    }

    #[test]
    fn any_identify_block_and_trim_list_is_read_or_refused(
        bytes in vec(any::<u8>(), 500..1025),
    ) {
        let _ = Identify::parse(&bytes);
        if let Ok(ranges) = TrimRanges::parse(&bytes[..512.min(bytes.len())]) {
            prop_assert!(ranges.count() <= 64);
        }
    }

    #[test]
    fn any_text_is_an_address_or_not(text in ".{0,20}") {
        if let Ok(mac) = text.parse::<Mac>() {
            prop_assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
        }
    }
}

#[test]
fn advertised_sectors_keep_4k_alignment_where_the_link_allows() {
    let table = [
        (0, 0),
        (547, 0),
        (548, 1),
        (1500, 2),
        (4131, 7),
        (4132, 8),
        (8228, 16),
        (9000, 16),
        (16384, 24),
        (65536, 120),
        (1 << 20, 248),
    ];
    for (mtu, sectors) in table {
        assert_eq!(sectors_advertised(mtu), sectors, "MTU {mtu}");
    }
}

#[test]
fn a_frame_fits_if_its_ethernet_payload_does() {
    assert_eq!(sectors_fitting(1500), 2);
    assert_eq!(sectors_fitting(8213), 15);
    assert_eq!(sectors_fitting(8214), 16);
    assert_eq!(sectors_fitting(9000), 17);
    assert_eq!(sectors_fitting(3), 0);
}
