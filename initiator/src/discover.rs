//! What is there: targets and shelves, and the identity of each device.

use std::collections::BTreeMap;

use corbel_proto::aoe::initiator::Operation;
use corbel_proto::aoe::initiator::discover::Found;
use corbel_proto::ata::Identify;
use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::iscsi::initiator::Transfer;
use corbel_proto::scsi::capacity::Capacity;
use corbel_proto::scsi::inquiry::InquiryData;
use corbel_proto::scsi::vpd;
use corbel_proto::time::Duration;

use crate::blocking::Error;
use crate::blocking::aoe::{Client, Port, random_tag};
use crate::blocking::iscsi::Session;
use crate::identity::Identity;

/// LUNs of one target that are looked at, at most.
const LUNS_MAX: usize = 1024;

/// A target that SendTargets named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its iSCSI name.
    pub name: String,
    /// Its portals: address, port, portal group, as the target wrote them.
    pub portals: Vec<String>,
}

/// Reads the answer to SendTargets (RFC 7143 appendix C): TargetName, then its TargetAddresses.
pub fn targets(text: &[u8]) -> Vec<Target> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for pair in text.split(|&byte| byte == 0) {
        let pair = String::from_utf8_lossy(pair);
        match pair.split_once('=') {
            Some(("TargetName", name)) => {
                found.entry(name.to_owned()).or_default();
                current = Some(name.to_owned());
            }
            Some(("TargetAddress", address)) => {
                if let Some(portals) = current.as_ref().and_then(|name| found.get_mut(name)) {
                    portals.push(address.to_owned());
                }
            }
            _ => {}
        }
    }
    found.into_iter().map(|(name, portals)| Target { name, portals }).collect()
}

/// LUNs of the target a session is with.
///
/// # Errors
/// If the target does not say.
pub fn luns(session: &mut Session, wait: Duration) -> Result<Vec<Lun>, Error> {
    let bytes = 8 + 8 * LUNS_MAX;
    let len = u32::try_from(bytes).expect("a small constant").to_be_bytes();
    let mut cdb = [0; 16];
    cdb[0] = 0xa0; // REPORT LUNS
    cdb[6..10].copy_from_slice(&len);
    let data = settled(session, Lun(0), cdb, bytes, wait)?;
    let list = data.get(8..).unwrap_or_default();
    let told = data.first_chunk().map_or(0, |len| u32::from_be_bytes(*len) as usize);
    let units = list[..told.min(list.len())].chunks_exact(8);
    Ok(units.map(|unit| Lun(u64::from_be_bytes(unit.try_into().expect("eight bytes")))).collect())
}

/// The identity of one LUN.
///
/// # Errors
/// If the LUN does not answer INQUIRY and READ CAPACITY (16).
pub fn identify_lun(session: &mut Session, lun: Lun, wait: Duration) -> Result<Identity, Error> {
    let inquiry = settled(session, lun, inquiry_cdb(None), 255, wait)?;
    let inquiry = InquiryData::parse(&inquiry)
        .ok_or_else(|| Error::Command("INQUIRY data is too short".to_owned()))?;
    let mut page = |code| {
        let data = settled(session, lun, inquiry_cdb(Some(code)), 255, wait).unwrap_or_default();
        vpd::body(&data, code).map(<[u8]>::to_vec).unwrap_or_default()
    };
    let (page_83, page_80) = (page(vpd::DEVICE_IDENTIFICATION), page(vpd::UNIT_SERIAL_NUMBER));
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[13]) = (0x9e, 0x10, 32); // READ CAPACITY (16)
    let capacity = settled(session, lun, cdb, 32, wait)?;
    let capacity = Capacity::parse16(&capacity)
        .ok_or_else(|| Error::Command("READ CAPACITY data is too short".to_owned()))?;
    Ok(Identity::from_scsi(&inquiry, &page_83, &page_80, &capacity))
}

/// Reads, and tries again when a unit attention got in the way: every new session meets some.
fn settled(
    session: &mut Session,
    lun: Lun,
    cdb: [u8; 16],
    bytes: usize,
    wait: Duration,
) -> Result<Vec<u8>, Error> {
    let mut attentions = 0;
    loop {
        let (answer, _) = session.run(lun, [0; 16], Transfer::None, wait)?;
        if answer.status == 0 || attentions == 8 {
            break;
        }
        attentions += 1;
    }
    session.read(lun, cdb, bytes, wait)
}

fn inquiry_cdb(page: Option<u8>) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[2], cdb[4]) = (0x12, u8::from(page.is_some()), page.unwrap_or(0), 255);
    cdb
}

/// The identity of the device behind a shelf and slot.
///
/// # Errors
/// If it does not answer IDENTIFY DEVICE within `wait`, or with nonsense.
pub fn identify_slot(port: Port, found: &Found, wait: Duration) -> Result<Identity, Error> {
    let mut client = Client::new(port, found, wait, random_tag());
    let block = client.run(Operation::Identify)?;
    let identify =
        Identify::parse(&block).map_err(|malformed| Error::Command(malformed.to_string()))?;
    Ok(Identity::from_ata(&identify))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_with_all_their_portals() {
        let text = b"TargetName=iqn.2026-11.a:b\0TargetAddress=10.0.0.1:3260,1\0\
                     TargetAddress=[fd00::1]:3260,2\0TargetName=iqn.2026-11.a:c\0";
        assert_eq!(
            targets(text),
            [
                Target {
                    name: "iqn.2026-11.a:b".into(),
                    portals: vec!["10.0.0.1:3260,1".into(), "[fd00::1]:3260,2".into()],
                },
                Target { name: "iqn.2026-11.a:c".into(), portals: Vec::new() },
            ]
        );
    }

    #[test]
    fn nonsense_names_no_target() {
        assert_eq!(targets(b"TargetAddress=10.0.0.1\0\xff\xff=\0=\0TargetName\0"), []);
    }
}
