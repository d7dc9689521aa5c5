//! Query Config as a client uses it: who is there (AoEr11 3.2).

use super::TAG_USER;
use crate::aoe::config::{self, ARGUMENT_BYTES, Command};
use crate::aoe::header::{Code, Packet as HeaderPacket, Repr as HeaderRepr};
use crate::aoe::{HEADER_BYTES, Mac, SHELF_BROADCAST, SLOT_BROADCAST, VERSION};

/// Every station's address on the loopback interface.
const LOOPBACK: Mac = Mac([0; 6]);

/// A server that answered, or announced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The server's interface.
    pub remote: Mac,
    /// Shelf.
    pub shelf: u16,
    /// Slot.
    pub slot: u8,
    /// Outstanding messages it can queue; at least 1 here.
    pub buffer_count: u16,
    /// Its firmware version.
    pub firmware: u16,
    /// Most sectors in one command; 1 or more.
    pub sectors: u8,
    /// Its config string, any bytes.
    pub config: Vec<u8>,
}

/// A query.
pub type Query = [u8; HEADER_BYTES + ARGUMENT_BYTES];

/// The frame that asks one shelf.slot, or everyone (see [`everyone`]), to say what it is.
pub fn query(local: Mac, shelf: u16, slot: u8, tag: u32) -> Query {
    query_to(Mac::BROADCAST, local, shelf, slot, tag)
}

/// The same, for one server alone.
pub fn query_to(destination: Mac, local: Mac, shelf: u16, slot: u8, tag: u32) -> Query {
    let header = HeaderRepr {
        destination,
        source: local,
        version: VERSION,
        response: false,
        error: None,
        shelf,
        slot,
        code: Code::Config,
        tag: tag | TAG_USER,
    };
    let config = config::Repr {
        buffer_count: 0,
        firmware: 0,
        sectors: 0,
        command: Command::Read,
        string: &[],
    };
    let mut bytes = [0; HEADER_BYTES + ARGUMENT_BYTES];
    header.emit(&mut HeaderPacket::new_unwritten(&mut bytes[..]));
    config.emit(&mut bytes[HEADER_BYTES..]);
    bytes
}

/// The frame that asks everyone.
pub fn everyone(local: Mac, tag: u32) -> Query {
    query(local, SHELF_BROADCAST, SLOT_BROADCAST, tag)
}

/// Who sent this frame, if it answers the query that `local` asked with `tag`.
///
/// A raw socket hears more than answers: what its own host sends, announcements, what somebody
/// else asked for, and lies. Anybody on the link can lie, but one who does not listen must guess
/// the tag; take a random one for each query.
pub fn answer(local: Mac, tag: u32, frame: &[u8]) -> Option<Found> {
    let packet = HeaderPacket::new_checked(frame).ok()?;
    let asked = HeaderRepr::parse(&packet).tag == tag | TAG_USER;
    parse(local, frame).filter(|_| asked)
}

/// Who sent this frame, if it is a good answer to anybody's query, or an announcement.
///
/// Passed over are servers that name the broadcast shelf or slot as their own (as the Linux client
/// does), frames for another station than `local`, and frames that no server can have sent: from
/// `local` itself, or from a group address. A client that spoke to those would wait for ever.
/// Only on the loopback interface, whose address is all zeros, server and client have the same.
pub fn parse(local: Mac, frame: &[u8]) -> Option<Found> {
    let packet = HeaderPacket::new_checked(frame).ok()?;
    let header = HeaderRepr::parse(&packet);
    let is_group = |mac: Mac| mac.0[0] & 1 == 1;
    if !header.response
        || header.version != VERSION
        || header.error.is_some()
        || header.code != Code::Config
        || header.shelf == SHELF_BROADCAST
        || header.slot == SLOT_BROADCAST
        || (header.source == local && local != LOOPBACK)
        || is_group(header.source)
        || !(header.destination == local || is_group(header.destination))
    {
        return None;
    }
    let packet = config::Packet::new_checked(packet.argument()).ok()?;
    let config = config::Repr::parse(&packet);
    Some(Found {
        remote: header.source,
        shelf: header.shelf,
        slot: header.slot,
        buffer_count: config.buffer_count.max(1),
        firmware: config.firmware,
        sectors: if config.sectors == 0 { 2 } else { config.sectors },
        config: config.string.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const REMOTE: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn reply(shelf: u16, sectors: u8, string: &[u8]) -> Vec<u8> {
        let query = everyone(LOCAL, 5);
        let query = HeaderRepr::parse(&HeaderPacket::new_checked(&query[..]).unwrap());
        let mut frame = vec![0; HEADER_BYTES + ARGUMENT_BYTES + string.len()];
        let header = query.reply(REMOTE, shelf, 1, None);
        header.emit(&mut HeaderPacket::new_unwritten(&mut frame[..]));
        let command = Command::Read;
        config::Repr { buffer_count: 16, firmware: 3, sectors, command, string }
            .emit(&mut frame[HEADER_BYTES..]);
        frame
    }

    #[test]
    fn query_goes_to_everyone_with_a_user_tag() {
        let query = everyone(LOCAL, 5);
        let header = HeaderRepr::parse(&HeaderPacket::new_checked(&query[..]).unwrap());
        assert_eq!((header.shelf, header.slot), (0xffff, 0xff));
        assert_eq!((header.destination, header.tag), (Mac::BROADCAST, 0x8000_0005));
        assert_eq!(parse(REMOTE, &query), None, "a query is no answer");
    }

    #[test]
    fn answer_is_read_and_no_sectors_means_two() {
        let found = answer(LOCAL, 5, &reply(7, 0, b"label")).unwrap();
        assert_eq!((found.remote, found.shelf, found.slot), (REMOTE, 7, 1));
        assert_eq!((found.sectors, found.buffer_count), (2, 16));
        assert_eq!(found.config, b"label");
    }

    #[test]
    fn broadcast_shelves_and_broken_frames_are_passed_over() {
        assert_eq!(parse(LOCAL, &reply(0xffff, 2, b"")), None);
        let whole = reply(7, 2, b"label");
        for len in 0..whole.len() {
            assert_eq!(parse(LOCAL, &whole[..len]), None);
        }
    }

    /// A client that took its own host's frame for an answer wrote to itself, and waited.
    #[test]
    fn frame_that_no_server_sent_to_us_names_nobody() {
        let good = reply(7, 2, b"");
        let stations = |destination: Mac, source: Mac| {
            let mut frame = good.clone();
            frame[..6].copy_from_slice(&destination.0);
            frame[6..12].copy_from_slice(&source.0);
            parse(LOCAL, &frame).map(|found| found.remote)
        };
        assert_eq!(stations(LOCAL, REMOTE), Some(REMOTE));
        assert_eq!(stations(Mac::BROADCAST, REMOTE), Some(REMOTE), "an announcement");
        assert_eq!(stations(Mac::BROADCAST, LOCAL), None, "from ourselves");
        assert_eq!(stations(LOCAL, Mac::BROADCAST), None, "from a group");
        let mut looped = good.clone();
        looped[..12].fill(0);
        assert!(parse(LOOPBACK, &looped).is_some(), "all have one address there");
        assert_eq!(stations(Mac([2, 0, 0, 0, 0, 3]), REMOTE), None, "for another station");
    }

    #[test]
    fn only_the_query_s_own_tag_makes_an_answer() {
        let frame = reply(7, 2, b"");
        assert!(answer(LOCAL, 5, &frame).is_some());
        assert!(answer(LOCAL, TAG_USER | 5, &frame).is_some());
        assert_eq!(answer(LOCAL, 6, &frame), None);
        let mut announcement = frame;
        announcement[20..24].fill(0);
        assert_eq!(answer(LOCAL, 0, &announcement), None);
        assert!(parse(LOCAL, &announcement).is_some());
    }
}
