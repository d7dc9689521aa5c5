//! What is measured: an iSCSI or AoE path, a block device, a file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use corbel_initiator::blocking::aoe::{Port, random_tag};
use corbel_initiator::blocking::iscsi::Session;
use corbel_initiator::blocking::login::{self, Options};
use corbel_initiator::blocking::{Error, now};
use corbel_initiator::config::PathSpec;
use corbel_initiator::discover::{identify_lun, identify_slot};
use corbel_proto::aoe::initiator::discover::{self, Found};
use corbel_proto::iscsi::bhs::Lun;
use corbel_ring::Store;
use corbel_ring::store::{self, Spec};

use crate::transport::Durable;

/// Longest wait for an answer before the measurement begins.
const WAIT: Duration = Duration::from_secs(5);
/// A shelf that does not answer is asked again this often.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// As it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Path(PathSpec),
    Device(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = ["aoe:", "iscsi:"].iter().any(|kind| text.starts_with(kind));
        if path {
            return PathSpec::parse(text).map(Self::Path).map_err(|wrong| wrong.to_string());
        }
        if text.is_empty() {
            return Err("a path (aoe:…, iscsi:…), a block device or a file is wanted".to_owned());
        }
        Ok(Self::Device(text.into()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Device(path) => path.display().fmt(f),
        }
    }
}

/// How a job gets there.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    Iscsi { portal: std::net::SocketAddr, lun: Lun, options: Box<Options> },
    Aoe { interface: String, found: Found },
    Device(Arc<Store>),
}

/// A place that has answered.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) way: Way,
    pub(crate) size_bytes: u64,
    pub(crate) block_bytes: u32,
    /// When a write counts as done there.
    pub(crate) durable: Durable,
    /// What a reader of the figures should know about it.
    pub(crate) note: Option<String>,
}

/// What is wanted of a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) writes: bool,
    /// A write counts as done when it is on stable storage.
    pub(crate) durable: bool,
}

/// MODE SENSE (6) without block descriptors, all pages (SPC-4 6.11).
const MODE_SENSE: [u8; 16] = [0x1a, 0x08, 0x3f, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// In the mode parameter header's third byte: FUA is known (SBC-4 6.5.1).
const DPOFUA: u8 = 0x10;

/// How a LUN is asked for durable writes, and what is to be said of it.
fn durable_of(session: &mut Session, lun: Lun) -> Result<(Durable, Option<String>), String> {
    let header = session.read(lun, MODE_SENSE, 255, WAIT).map_err(|error| error.to_string())?;
    let through = header.get(2).is_some_and(|specific| specific & DPOFUA != 0);
    if through {
        return Ok((Durable::Through, None));
    }
    let note = "it does not know FUA: after each write its blocks' cache is emptied";
    Ok((Durable::Emptied, Some(note.to_owned())))
}

/// Looks what is there. `options` is how to log in; its target is filled in here.
///
/// # Errors
/// If it does not answer, is not there, or cannot do what is wanted.
pub(crate) fn reach(place: &Place, mut options: Options, wanted: Wanted) -> Result<Device, String> {
    let through = if wanted.durable { Durable::Through } else { Durable::AsAnswered };
    match place {
        Place::Path(PathSpec::Iscsi { target, lun, portal }) => {
            options.target = Some(target.to_string());
            let lun = Lun::new(*lun);
            let mut session = login::connect(*portal, &options).map_err(|e| e.to_string())?;
            let known = identify_lun(&mut session, lun, WAIT).map_err(|e| e.to_string())?;
            let (durable, note) = match wanted.durable {
                true => durable_of(&mut session, lun)?,
                false => (Durable::AsAnswered, None),
            };
            session.logout(WAIT).map_err(|e| e.to_string())?;
            Ok(Device {
                way: Way::Iscsi { portal: *portal, lun, options: Box::new(options) },
                size_bytes: known.size_bytes,
                block_bytes: known.block_bytes,
                durable,
                note,
            })
        }
        Place::Path(PathSpec::Aoe { .. }) if wanted.durable => {
            Err("AoE has no durable writes to ask for: what an answer means is the target's".into())
        }
        Place::Path(PathSpec::Aoe { shelf, slot, interface }) => {
            let asked = (*shelf, *slot);
            let found = find(interface, asked).map_err(|error| match error {
                Error::Timeout(_) => format!("no shelf {shelf}.{slot} answers on {interface}"),
                other => other.to_string(),
            })?;
            let port = Port::open(interface).map_err(|e| e.to_string())?;
            let known = identify_slot(port, &found, WAIT).map_err(|e| e.to_string())?;
            Ok(Device {
                way: Way::Aoe { interface: interface.clone(), found },
                size_bytes: known.size_bytes,
                block_bytes: known.block_bytes,
                durable: Durable::AsAnswered,
                note: None,
            })
        }
        Place::Device(path) => {
            let options = store::Options { read_only: !wanted.writes, ..store::Options::default() };
            let store = Store::open(&Spec::Path(path.clone()), options);
            let store = store.map_err(|error| error.to_string())?;
            let facts = store.facts();
            let note = facts.buffered_because.as_ref();
            Ok(Device {
                size_bytes: facts.size_bytes,
                block_bytes: facts.logical_bytes,
                durable: through,
                note: note.map(|why| format!("through the page cache: {why}")),
                way: Way::Device(Arc::new(store)),
            })
        }
    }
}

/// Asks one shelf and slot who it is.
fn find(interface: &str, (shelf, slot): (u16, u8)) -> Result<Found, Error> {
    let mut port = Port::open(interface)?;
    let (mac, tag, end) = (port.mac, random_tag(), now() + WAIT);
    while now() < end {
        port.send(&discover::query(mac, shelf, slot, tag))?;
        let again = now() + ASK_AGAIN;
        while now() < again {
            let answer = port.receive()?.and_then(|frame| discover::answer(mac, tag, frame));
            if let Some(found) = answer.filter(|found| (found.shelf, found.slot) == (shelf, slot)) {
                return Ok(found);
            }
        }
    }
    Err(Error::Timeout(WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_spelled_as_for_the_initiator_and_all_else_is_a_file() {
        assert!(matches!("aoe:0.1@eth1".parse(), Ok(Place::Path(PathSpec::Aoe { .. }))));
        let iscsi = "iscsi:iqn.2026-11.org.example:a/2@10.0.0.1".parse();
        assert!(matches!(iscsi, Ok(Place::Path(PathSpec::Iscsi { lun: 2, .. }))));
        assert_eq!("/dev/sdx".parse(), Ok(Place::Device("/dev/sdx".into())));
        for bad in ["", "aoe:0.1", "iscsi:a@b", "aoe:0.1@eth1,eth2"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
