//! The logical unit: a volume, and what initiators may set on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use corbel_proto::scsi::{Condition, Sense};

use super::mode_pages::ModePages;
use super::port_groups::PortGroups;

use crate::volume::Volume;

/// Who serves a unit, as VPD page C0 tells it: both are of 16 bytes, and not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    /// The boot of the host. Another value means that what was in a volatile cache may be lost.
    pub boot: [u8; 16],
    /// The process. Portals that tell the same one share their sessions: a login at one of them
    /// ends the session that it replaces at another.
    pub process: [u8; 16],
}

/// A volume as a SCSI disk. Shared by all shards; what changes in it is atomic and rarely changes.
#[derive(Debug)]
pub struct LogicalUnit {
    /// The device behind it.
    pub volume: Arc<Volume>,
    instance: Option<Instance>,
    medium: AtomicU8,
    prevents: AtomicU32,
    pub(super) medium_generation: AtomicU64,
    pub(super) reset_generation: AtomicU64,
    /// How good each way to it is.
    pub port_groups: PortGroups,
    /// What initiators may set.
    pub mode: ModePages,
}

/// Whether the medium answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Medium {
    Started = 0,
    Ejected = 1,
}

impl LogicalUnit {
    /// A started unit with default mode parameters.
    pub fn new(volume: Arc<Volume>) -> Self {
        Self {
            mode: ModePages::new(volume.facts.volatile_cache),
            medium: AtomicU8::new(Medium::Started as u8),
            prevents: AtomicU32::new(0),
            medium_generation: AtomicU64::new(0),
            reset_generation: AtomicU64::new(0),
            instance: None,
            port_groups: PortGroups::default(),
            volume,
        }
    }

    /// The same, of which VPD page C0 tells who serves it.
    #[must_use]
    pub const fn with_instance(mut self, instance: Option<Instance>) -> Self {
        self.instance = instance;
        self
    }

    /// See [`Self::with_instance`].
    pub(super) const fn instance(&self) -> Option<Instance> {
        self.instance
    }

    /// Name of the file that outlives the process with the states of its port groups.
    pub fn access_name(&self) -> String {
        format!("access-{:016x}", self.volume.identity.naa)
    }

    /// Name of the file that outlives the process with saved mode pages.
    pub fn mode_name(&self) -> String {
        format!("mode-{:016x}", self.volume.identity.naa)
    }

    /// LOGICAL UNIT RESET: saved or default parameters, nothing prevented, and every initiator is
    /// told. Aborting the tasks is the transport's matter. An ejected medium stays out.
    pub fn reset(&self) {
        self.mode.reset();
        self.volume.reservations.reset();
        self.prevents.store(0, Ordering::Release);
        self.reset_generation.fetch_add(1, Ordering::AcqRel);
    }

    /// D_SENSE: sense data is sent in descriptor format.
    pub fn descriptor_sense(&self) -> bool {
        self.mode.descriptor_sense()
    }

    pub(super) fn write_cache(&self) -> bool {
        self.mode.write_cache()
    }

    /// Why a write is refused, if it is.
    pub(super) fn protection(&self) -> Option<Condition> {
        if self.volume.options.read_only {
            return Some(Condition::WRITE_PROTECTED);
        }
        self.mode.write_protect().then_some(Condition::LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED)
    }

    /// Why the medium cannot be used, if it cannot.
    pub(super) fn unready(&self) -> Option<Sense> {
        match self.medium.load(Ordering::Acquire) {
            m if m == Medium::Ejected as u8 => Some(Condition::MEDIUM_NOT_PRESENT.into()),
            _ if self.volume.blocks() == 0 => Some(Condition::CAUSE_NOT_REPORTABLE.into()),
            _ => None,
        }
    }

    /// True if that loaded a medium that was out.
    pub(super) fn set_medium(&self, medium: Medium) -> bool {
        let old = self.medium.swap(medium as u8, Ordering::AcqRel);
        let loaded = old == Medium::Ejected as u8 && medium == Medium::Started;
        if loaded {
            self.medium_generation.fetch_add(1, Ordering::AcqRel);
        }
        loaded
    }

    pub(super) fn ejected(&self) -> bool {
        self.medium.load(Ordering::Acquire) == Medium::Ejected as u8
    }

    pub(super) fn prevent(&self) {
        self.prevents.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn allow(&self) {
        // A reset may have zeroed the count meanwhile; then there is nothing to take back.
        let down = |n: u32| n.checked_sub(1);
        let _ = self.prevents.fetch_update(Ordering::AcqRel, Ordering::Relaxed, down);
    }

    pub(super) fn removal_prevented(&self) -> bool {
        self.prevents.load(Ordering::Acquire) > 0
    }
}
