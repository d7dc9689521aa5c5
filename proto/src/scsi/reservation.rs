//! PERSISTENT RESERVE IN and OUT: parameter lists and data (SPC-4 6.15, 6.16).

use super::sense::{Condition, Sense};
use super::transport_id::TransportId;

/// Persistent reservation type (SPC-4 table 205).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// Only the holder writes.
    WriteExclusive = 1,
    /// Only the holder reads and writes.
    ExclusiveAccess = 3,
    /// Only who is registered writes.
    WriteExclusiveRegistrantsOnly = 5,
    /// Only who is registered reads and writes.
    ExclusiveAccessRegistrantsOnly = 6,
    /// Only who is registered writes, and all of them hold it.
    WriteExclusiveAllRegistrants = 7,
    /// Only who is registered reads and writes, and all of them hold it.
    ExclusiveAccessAllRegistrants = 8,
}

impl Type {
    /// The type of four bits; `None` for obsolete and reserved ones.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::WriteExclusive,
            3 => Self::ExclusiveAccess,
            5 => Self::WriteExclusiveRegistrantsOnly,
            6 => Self::ExclusiveAccessRegistrantsOnly,
            7 => Self::WriteExclusiveAllRegistrants,
            8 => Self::ExclusiveAccessAllRegistrants,
            _ => return None,
        })
    }

    /// Every registrant is a holder.
    pub const fn held_by_all(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }

    /// Registrants have the holder's access.
    pub const fn admits_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    /// Outsiders may read.
    pub const fn admits_readers(self) -> bool {
        matches!(
            self,
            Self::WriteExclusive
                | Self::WriteExclusiveRegistrantsOnly
                | Self::WriteExclusiveAllRegistrants
        )
    }
}

/// PERSISTENT RESERVE OUT service action (SPC-4 table 207).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum OutAction {
    Register,
    Reserve,
    Release,
    Clear,
    Preempt,
    PreemptAndAbort,
    RegisterAndIgnoreExistingKey,
    RegisterAndMove,
}

/// PERSISTENT RESERVE IN service action (SPC-4 table 200).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum InAction {
    ReadKeys,
    ReadReservation,
    ReportCapabilities,
    ReadFullStatus,
}

/// A PERSISTENT RESERVE OUT parameter list (SPC-4 6.16.3, 6.16.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutList {
    /// RESERVATION KEY: the sender's own.
    pub key: u64,
    /// SERVICE ACTION RESERVATION KEY.
    pub action_key: u64,
    /// APTPL: keep it all through a loss of power.
    pub persist: bool,
    /// ALL_TG_PT: register at every target port.
    pub all_target_ports: bool,
    /// SPEC_I_PT's TransportIDs; empty without that bit.
    pub others: Vec<TransportId>,
    /// REGISTER AND MOVE's own part.
    pub moving: Option<Moving>,
}

/// Where REGISTER AND MOVE moves the reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// UNREG: the sender is not registered afterwards.
    pub unregister: bool,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub target_port: u16,
    /// Who holds it then.
    pub to: TransportId,
}

/// Bytes of a list without TransportIDs.
const LIST_BYTES: usize = 24;
/// TransportIDs in one list at most.
const OTHERS_MAX: usize = 32;

impl OutList {
    /// Reads the list of `action`.
    ///
    /// # Errors
    /// PARAMETER LIST LENGTH ERROR, or INVALID FIELD IN PARAMETER LIST with a pointer.
    pub fn parse(action: OutAction, list: &[u8]) -> Result<Self, Sense> {
        let short = || Sense::from(Condition::PARAMETER_LIST_LENGTH_ERROR);
        let (b, tail) = list.split_first_chunk::<LIST_BYTES>().ok_or_else(short)?;
        let word = |at: usize| {
            let bytes: [u8; 8] = b[at..at + 8].try_into().expect("eight bytes of the head");
            u64::from_be_bytes(bytes)
        };
        let mut out = Self {
            key: word(0),
            action_key: word(8),
            persist: b[20] & 0x01 != 0,
            all_target_ports: b[20] & 0x04 != 0,
            others: Vec::new(),
            moving: None,
        };
        if action == OutAction::RegisterAndMove {
            out.persist = b[17] & 0x01 != 0;
            out.all_target_ports = false;
            out.moving = Some(Moving::parse(b, tail)?);
            return Ok(out);
        }
        let named = b[20] & 0x08 != 0;
        match action {
            OutAction::Register if named => out.others = others(tail)?,
            // Who ignores the key cannot name others (SPC-4 6.16.3).
            OutAction::RegisterAndIgnoreExistingKey if named => {
                return Err(Sense::invalid_parameter(20, Some(3)));
            }
            _ if !tail.is_empty() => return Err(short()),
            _ => {}
        }
        Ok(out)
    }
}

impl Moving {
    fn parse(head: &[u8; LIST_BYTES], tail: &[u8]) -> Result<Self, Sense> {
        let len = u32::from_be_bytes([head[20], head[21], head[22], head[23]]);
        if usize::try_from(len).ok() != Some(tail.len()) {
            return Err(Condition::PARAMETER_LIST_LENGTH_ERROR.into());
        }
        let (to, used) = TransportId::parse(tail, LIST_BYTES)?;
        // One port and no more; a whole device cannot hold a reservation.
        if used != tail.len() || matches!(to, TransportId::Device(_)) {
            return Err(Sense::invalid_parameter(24, None));
        }
        let target_port = u16::from_be_bytes([head[18], head[19]]);
        Ok(Self { unregister: head[17] & 0x02 != 0, target_port, to })
    }
}

fn others(tail: &[u8]) -> Result<Vec<TransportId>, Sense> {
    let (len, mut rest) = tail
        .split_first_chunk::<4>()
        .ok_or_else(|| Sense::from(Condition::PARAMETER_LIST_LENGTH_ERROR))?;
    if usize::try_from(u32::from_be_bytes(*len)).ok() != Some(rest.len()) {
        return Err(Sense::invalid_parameter(24, None));
    }
    let mut ids = Vec::new();
    let mut at = LIST_BYTES + 4;
    while !rest.is_empty() {
        let (id, used) = TransportId::parse(rest, at)?;
        if ids.len() == OTHERS_MAX {
            return Err(Condition::INSUFFICIENT_REGISTRATION_RESOURCES.into());
        }
        ids.push(id);
        rest = &rest[used..];
        at += used;
    }
    Ok(ids)
}

/// READ KEYS data (SPC-4 6.15.2).
pub fn keys(generation: u32, keys: impl Iterator<Item = u64>) -> Vec<u8> {
    with_length(generation, keys.flat_map(u64::to_be_bytes).collect())
}

/// READ RESERVATION data (SPC-4 6.15.3): key and type of what is held.
pub fn reservation(generation: u32, held: Option<(u64, Type)>) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some((key, kind)) = held {
        body.extend_from_slice(&key.to_be_bytes());
        body.extend_from_slice(&[0, 0, 0, 0, 0, kind as u8, 0, 0]); // SCOPE: the logical unit
    }
    with_length(generation, body)
}

/// REPORT CAPABILITIES data (SPC-4 6.15.4): all types and features. `can_persist`: state can be
/// kept through a loss of power; `persists`: it is.
pub fn capabilities(can_persist: bool, persists: bool) -> Vec<u8> {
    let features = 0x1c | u8::from(can_persist); // CRH, SIP_C, ATP_C, PTPL_C
    vec![0, 8, features, 0x80 | u8::from(persists), 0xea, 0x01, 0, 0] // TMV; all six types
}

/// One registration for READ FULL STATUS (SPC-4 6.15.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullStatus {
    /// Its key.
    pub key: u64,
    /// ALL_TG_PT.
    pub all_target_ports: bool,
    /// What it holds.
    pub holds: Option<Type>,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub target_port: u16,
    /// The initiator port.
    pub initiator: TransportId,
}

/// READ FULL STATUS data.
pub fn full_status(generation: u32, all: impl Iterator<Item = FullStatus>) -> Vec<u8> {
    let mut body = Vec::new();
    for one in all {
        let mut id = Vec::new();
        one.initiator.emit(&mut id);
        let flags = u8::from(one.all_target_ports) << 1 | u8::from(one.holds.is_some());
        body.extend_from_slice(&one.key.to_be_bytes());
        body.extend_from_slice(&[0, 0, 0, 0, flags, one.holds.map_or(0, |kind| kind as u8)]);
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&one.target_port.to_be_bytes());
        let len = u32::try_from(id.len()).expect("at most 248");
        body.extend_from_slice(&len.to_be_bytes());
        body.append(&mut id);
    }
    with_length(generation, body)
}

fn with_length(generation: u32, body: Vec<u8>) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("registrations are bounded");
    [&generation.to_be_bytes()[..], &len.to_be_bytes(), &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(flags: u8) -> Vec<u8> {
        let mut list = vec![0; 24];
        (list[7], list[15], list[20]) = (1, 2, flags);
        list
    }

    fn id(name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        TransportId::Port(format!("{name},i,0x400001370000")).emit(&mut out);
        out
    }

    #[test]
    fn a_plain_list_has_24_bytes_and_not_one_more_or_less() {
        let parsed = OutList::parse(OutAction::Register, &list(0x05)).unwrap();
        assert_eq!((parsed.key, parsed.action_key), (1, 2));
        assert!(parsed.persist && parsed.all_target_ports && parsed.others.is_empty());
        for len in (0..24).chain([25, 48]) {
            let mut other = list(0);
            other.resize(len, 0);
            let refused = OutList::parse(OutAction::Reserve, &other).unwrap_err();
            assert_eq!(refused.condition, Condition::PARAMETER_LIST_LENGTH_ERROR, "{len}");
        }
    }

    #[test]
    fn register_names_others_and_register_and_ignore_must_not() {
        let ids = [id("iqn.x:a"), id("iqn.x:b")].concat();
        let mut named = list(0x08);
        named.extend(u32::try_from(ids.len()).unwrap().to_be_bytes());
        named.extend(ids);
        let parsed = OutList::parse(OutAction::Register, &named).unwrap();
        assert_eq!(parsed.others.len(), 2);
        let refused = OutList::parse(OutAction::RegisterAndIgnoreExistingKey, &named);
        assert_eq!(refused, Err(Sense::invalid_parameter(20, Some(3))));
        named[27] -= 1;
        let refused = OutList::parse(OutAction::Register, &named);
        assert_eq!(refused, Err(Sense::invalid_parameter(24, None)));
    }

    #[test]
    fn register_and_move_takes_one_port() {
        let to = id("iqn.x:b");
        let mut moving = list(0);
        (moving[17], moving[19]) = (0x03, 7); // UNREG, APTPL; target port 7
        moving[20..24].copy_from_slice(&u32::try_from(to.len()).unwrap().to_be_bytes());
        moving.extend(&to);
        let parsed = OutList::parse(OutAction::RegisterAndMove, &moving).unwrap();
        let told = parsed.moving.unwrap();
        assert!(parsed.persist && told.unregister);
        assert_eq!(told.target_port, 7);
        moving.push(0);
        assert!(OutList::parse(OutAction::RegisterAndMove, &moving).is_err());
    }

    #[test]
    #[rustfmt::skip]
    fn data_is_as_the_standard_lays_it_out() {
        assert_eq!(keys(3, [5].into_iter()), [
            0, 0, 0, 3, 0, 0, 0, 8,     // PRGENERATION, ADDITIONAL LENGTH
            0, 0, 0, 0, 0, 0, 0, 5,
        ]);
        assert_eq!(reservation(3, None), [0, 0, 0, 3, 0, 0, 0, 0]);
        assert_eq!(reservation(3, Some((5, Type::ExclusiveAccess)))[7..], [
            16,
            0, 0, 0, 0, 0, 0, 0, 5,
            0, 0, 0, 0, 0, 3, 0, 0,     // obsolete, reserved, SCOPE and TYPE, obsolete
        ]);
        assert_eq!(capabilities(true, false), [0, 8, 0x1d, 0x80, 0xea, 1, 0, 0]);
        let status = full_status(1, [FullStatus {
            key: 5,
            all_target_ports: false,
            holds: Some(Type::WriteExclusive),
            target_port: 2,
            initiator: TransportId::Port("iqn.x:a,i,0x400001370000".into()),
        }].into_iter());
        assert_eq!(status[8..36], [
            0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0,
            0x01, 0x01, 0, 0, 0, 0,     // R_HOLDER; SCOPE and TYPE
            0, 2, 0, 0, 0, 32,          // target port; length of the TransportID
            0x45, 0, 0, 28,             // TPID FORMAT 01b, iSCSI
        ]);
    }

    proptest! {
        #[test]
        fn no_list_panics(list in proptest::collection::vec(any::<u8>(), 0..120), moves: bool) {
            let action = if moves { OutAction::RegisterAndMove } else { OutAction::Register };
            let _ = OutList::parse(action, &list);
        }
    }
}
