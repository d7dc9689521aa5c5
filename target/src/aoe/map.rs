//! Which slots stand on which ports.

use std::sync::Arc;

use thiserror::Error;

use super::{Address, Slot};

/// An Ethernet interface, numbered by the host from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// Every slot on every port. Immutable; a change of the configuration makes a new one.
#[derive(Debug, Default)]
pub struct ShelfMap {
    /// Sorted by port, then address.
    entries: Vec<(PortId, Arc<Slot>)>,
}

/// Two slots claim one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("shelf.slot {address} is served twice on the same interface")]
pub struct MapError {
    /// The port.
    pub port: PortId,
    /// The address.
    pub address: Address,
}

impl ShelfMap {
    /// A map of these slots on these ports; the same slot may stand on several.
    pub fn new(mut entries: Vec<(PortId, Arc<Slot>)>) -> Result<Self, MapError> {
        entries.sort_by_key(|(port, slot)| (*port, slot.address()));
        for pair in entries.windows(2) {
            let [(port, slot), (next_port, next)] = pair else { continue };
            if (port, slot.address()) == (next_port, next.address()) {
                return Err(MapError { port: *port, address: slot.address() });
            }
        }
        Ok(Self { entries })
    }

    /// All of it, by port, then address.
    pub fn entries(&self) -> &[(PortId, Arc<Slot>)] {
        &self.entries
    }
}
