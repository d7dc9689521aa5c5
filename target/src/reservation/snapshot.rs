//! What is kept through a loss of power (APTPL), and how it is written down.
//!
//! ```text
//! "CRes"  version 1 (u8)  type held (u8, 0 is none)  its holder (u16 LE, 0xffff is all or none)
//! registrations (u16 LE), each: flags (u8: 1 all target ports)  key (u64 LE)  port (u16 LE)
//!   length (u8) and initiator port  length (u8) and target
//! CRC-32 of all before (u32 LE)
//! ```
//!
//! State that is not to be kept is written as one of no registrations, over what was kept before.

use corbel_proto::reader::Reader;
use corbel_proto::scsi::reservation::Type;
use thiserror::Error;

use super::state::REGISTRATIONS_MAX;
use super::{Held, NexusName, Registration, State};
use crate::sealed::{Flaw, Form};

const VERSION: u8 = 1;
const FORM: Form = Form { magic: *b"CRes", version: VERSION };
/// In place of a holder's number.
const NOBODY: u16 = 0xffff;
const ALL_TARGET_PORTS: u8 = 0x01;

/// A state file that cannot be believed. Nothing of it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// Another file, or another version's.
    #[error("not a volume's reservations of version {VERSION}")]
    Foreign,
    /// The checksum is wrong, or the file has another length than it says.
    #[error("the volume's reservations are damaged")]
    Damaged,
}

impl State {
    /// Writes down what must outlive a loss of power.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        let mut out = FORM.begin();
        let held = self.held.as_ref().filter(|_| self.persists);
        let registrations: &[_] = if self.persists { &self.registrations } else { &[] };
        let holder = held.and_then(|held| held.holder.as_ref());
        let holder = holder
            .and_then(|holder| registrations.iter().position(|one| one.nexus == *holder))
            .map_or(NOBODY, |at| u16::try_from(at).expect("a few hundred registrations"));
        out.push(held.map_or(0, |held| held.kind as u8));
        out.extend(holder.to_le_bytes());
        let count = u16::try_from(registrations.len()).expect("a few hundred registrations");
        out.extend(count.to_le_bytes());
        for Registration { nexus, all_target_ports, key } in registrations {
            out.push(if *all_target_ports { ALL_TARGET_PORTS } else { 0 });
            out.extend(key.to_le_bytes());
            out.extend(nexus.port.to_le_bytes());
            for text in [&nexus.initiator, &nexus.target] {
                out.push(u8::try_from(text.len()).expect("names have 241 bytes at most"));
                out.extend(text.as_bytes());
            }
        }
        FORM.seal(out)
    }

    /// Reads it back. PRGENERATION begins anew.
    pub(super) fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        let content = FORM.open(bytes).map_err(|flaw| match flaw {
            Flaw::Foreign => RestoreError::Foreign,
            Flaw::Damaged => RestoreError::Damaged,
        })?;
        Self::fields(content).ok_or(RestoreError::Damaged)
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes, "reservations", "snapshot.rs");
        let kind = reader.u8().ok()?;
        let holder = u16::from_le_bytes(reader.array().ok()?);
        let count = u16::from_le_bytes(reader.array().ok()?);
        if usize::from(count) > REGISTRATIONS_MAX {
            return None;
        }
        let registrations: Option<Vec<_>> = (0..count).map(|_| registration(&mut reader)).collect();
        let registrations = registrations?;
        reader.finish().ok()?;
        let holder = match holder {
            NOBODY => None,
            at => Some(registrations.get(usize::from(at))?.nexus.clone()),
        };
        let held = match kind {
            0 => None,
            code => Some(Held { kind: Type::from_code(code)?, holder }),
        };
        // Either all hold it, or one does.
        let sound =
            held.as_ref().is_none_or(|held| held.kind.held_by_all() == held.holder.is_none());
        let persists = !registrations.is_empty();
        sound.then_some(Self { generation: 0, persists, registrations, held })
    }
}

fn registration(reader: &mut Reader<'_>) -> Option<Registration> {
    let flags = reader.u8().ok()?;
    let key = u64::from_le_bytes(reader.array().ok()?);
    let port = u16::from_le_bytes(reader.array().ok()?);
    let mut text = || -> Option<String> {
        let len = reader.u8().ok()?;
        String::from_utf8(reader.take(usize::from(len)).ok()?.to_vec()).ok()
    };
    let nexus = NexusName { initiator: text()?, target: text()?, port };
    let all_target_ports = flags & ALL_TARGET_PORTS != 0;
    (key != 0).then_some(Registration { nexus, all_target_ports, key })
}
