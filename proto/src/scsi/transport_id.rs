//! TransportIDs of iSCSI initiators (SPC-4 7.6.4.6).

use super::sense::Sense;

/// An iSCSI initiator, as PERSISTENT RESERVE OUT names it and READ FULL STATUS tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportId {
    /// TPID FORMAT 00b: all ports of the initiator of this name.
    Device(String),
    /// TPID FORMAT 01b: one port, `NAME,i,0xISID` with twelve digits.
    Port(String),
}

/// PROTOCOL IDENTIFIER, iSCSI.
const ISCSI: u8 = 0x05;
/// What stands between the name and the ISID.
const SEPARATOR: &str = ",i,0x";
/// Lengths of the part after the header: a multiple of four, at least 20.
const TAIL_MIN: usize = 20;
/// The longest name, the separator, twelve digits and NUL, in whole words.
const TAIL_MAX: usize = 244;

/// The name of the initiator port that logged in as `name` with `isid`.
pub fn port_name(name: &str, isid: [u8; 6]) -> String {
    let digits: String = isid.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}{SEPARATOR}{digits}")
}

/// The initiator's own name in a port's.
pub fn device_of(port: &str) -> &str {
    port.split_once(SEPARATOR).map_or(port, |(device, _)| device)
}

impl TransportId {
    /// Appends it.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let (format, text) = match self {
            Self::Device(name) => (0x00, name),
            Self::Port(name) => (0x40, name),
        };
        let mut tail = text.as_bytes().to_vec();
        tail.truncate(TAIL_MAX - 1);
        // NUL, and padding to whole words.
        tail.resize((tail.len() + 1).next_multiple_of(4).max(TAIL_MIN), 0);
        let len = u16::try_from(tail.len()).expect("at most 244");
        out.extend_from_slice(&[format | ISCSI, 0]);
        out.extend_from_slice(&len.to_be_bytes());
        out.append(&mut tail);
    }

    /// Reads the one that `bytes` begin with, and how long it is. `at` is where it stands in the
    /// parameter list, to be pointed at.
    ///
    /// # Errors
    /// INVALID FIELD IN PARAMETER LIST for another protocol's, or one that is not well-formed.
    pub fn parse(bytes: &[u8], at: usize) -> Result<(Self, usize), Sense> {
        let point = |offset: usize| u16::try_from(at + offset).unwrap_or(u16::MAX);
        let wrong = |offset: usize| Sense::invalid_parameter(point(offset), None);
        let (head, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| wrong(0))?;
        if head[0] & 0x0f != ISCSI {
            return Err(wrong(0));
        }
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let tail = rest.get(..len).filter(|_| (TAIL_MIN..=TAIL_MAX).contains(&len));
        let tail = tail.filter(|_| len.is_multiple_of(4)).ok_or_else(|| wrong(2))?;
        let end = tail.iter().position(|byte| *byte == 0).ok_or_else(|| wrong(4))?;
        let text = core::str::from_utf8(&tail[..end]).map_err(|_| wrong(4))?;
        // Names are compared in one form, as at login.
        let text = text.to_ascii_lowercase();
        let id = match (head[0] >> 6, text.split_once(SEPARATOR)) {
            (0b00, None) if !text.is_empty() => Self::Device(text),
            (0b01, Some((name, isid))) if !name.is_empty() && is_isid(isid) => Self::Port(text),
            (0b00 | 0b01, _) => return Err(wrong(4)),
            _ => return Err(wrong(0)),
        };
        Ok((id, 4 + len))
    }
}

fn is_isid(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "iqn.2026-11.org.example:a";

    #[test]
    fn ids_read_back_and_every_cut_is_refused() {
        let port = port_name(NAME, [0x40, 0, 1, 0x37, 0, 0xff]);
        assert_eq!(port, format!("{NAME},i,0x4000013700ff"));
        assert_eq!(device_of(&port), NAME);
        for id in [TransportId::Port(port), TransportId::Device(NAME.into())] {
            let mut bytes = Vec::new();
            id.emit(&mut bytes);
            assert!(bytes.len().is_multiple_of(4) && bytes.len() >= 24);
            assert_eq!(TransportId::parse(&bytes, 24), Ok((id, bytes.len())));
            for len in 0..bytes.len() {
                assert!(TransportId::parse(&bytes[..len], 24).is_err(), "{len}");
            }
        }
    }

    #[test]
    fn names_that_are_none_and_other_protocols_are_pointed_at() {
        let mut bytes = Vec::new();
        TransportId::Port(format!("{NAME},i,0x4000013700fg")).emit(&mut bytes);
        assert_eq!(TransportId::parse(&bytes, 28), Err(Sense::invalid_parameter(32, None)));
        bytes[0] = 0x40; // Fibre Channel
        assert_eq!(TransportId::parse(&bytes, 28), Err(Sense::invalid_parameter(28, None)));
    }

    #[test]
    fn the_longest_name_keeps_its_nul() {
        let mut bytes = Vec::new();
        TransportId::Port(port_name(&"a".repeat(223), [0xff; 6])).emit(&mut bytes);
        assert_eq!((bytes.len(), bytes.last()), (248, Some(&0)));
        assert!(TransportId::parse(&bytes, 0).is_ok());
    }
}
