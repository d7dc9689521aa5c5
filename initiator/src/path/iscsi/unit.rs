//! What a logical unit has told of itself.

use corbel_proto::scsi::alua::{AccessState, PortGroup};
use corbel_proto::scsi::capacity::Capacity;
use corbel_proto::scsi::inquiry::InquiryData;
use corbel_proto::scsi::mode;
use corbel_proto::scsi::vpd::BlockLimits;

use crate::identity::Identity;
use crate::path::Facts;

/// WRITE SAME (16) is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriteSame {
    /// NDOB: it needs no payload for zeroes.
    pub(super) no_payload: bool,
}

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) inquiry: Option<InquiryData>,
    /// It reports target port groups.
    pub(super) grouped: bool,
    pub(super) page_80: Vec<u8>,
    pub(super) page_83: Vec<u8>,
    pub(super) capacity: Capacity,
    pub(super) limits: BlockLimits,
    /// UNMAP is there.
    pub(super) unmap: bool,
    /// WRITE SAME (16) deallocates.
    pub(super) unmap_by_write_same: bool,
    pub(super) mode: Option<mode::Told>,
    pub(super) write_same: Option<WriteSame>,
    /// Our port group.
    pub(super) access: Option<PortGroup>,
    pub(super) instance: Option<String>,
    /// Which process of the target answers, if it tells.
    pub(super) process: Option<[u8; 16]>,
    /// It said so when it was asked, whatever its pages say.
    pub(super) refuses_discard: bool,
    /// The same of write zeroes.
    pub(super) refuses_zeroes: bool,
}

impl Default for Unit {
    fn default() -> Self {
        let capacity = Capacity {
            last_lba: 0,
            block_bytes: 0,
            physical_exponent: 0,
            thin: false,
            thin_zeroes: false,
        };
        Self {
            inquiry: None,
            grouped: false,
            page_80: Vec::new(),
            page_83: Vec::new(),
            capacity,
            limits: BlockLimits::default(),
            unmap: false,
            unmap_by_write_same: false,
            mode: None,
            write_same: None,
            access: None,
            instance: None,
            process: None,
            refuses_discard: false,
            refuses_zeroes: false,
        }
    }
}

impl Unit {
    /// A capacity that can be true: whole sectors, and a size that 64 bits hold.
    pub(super) fn is_sound(&self) -> bool {
        let block = self.capacity.block_bytes;
        let size = self.capacity.last_lba.checked_add(1).map(|n| n.checked_mul(u64::from(block)));
        (512..=1 << 20).contains(&block) && block.is_power_of_two() && size.flatten().is_some()
    }

    pub(super) fn size_bytes(&self) -> u64 {
        // Checked when it was told.
        self.capacity
            .last_lba
            .saturating_add(1)
            .saturating_mul(u64::from(self.capacity.block_bytes))
    }

    /// Blocks of one READ or WRITE.
    pub(super) fn transfer_blocks_max(&self) -> u64 {
        match self.limits.transfer_max {
            0 => u64::from(u32::MAX),
            max => u64::from(max),
        }
    }

    pub(super) const fn can_unmap(&self) -> bool {
        self.unmap && self.limits.unmap_blocks_max > 0 && self.limits.unmap_extents_max > 0
    }

    pub(super) const fn can_unmap_by_write_same(&self) -> bool {
        self.unmap_by_write_same
    }

    /// It says so, or names a limit for it, or deallocates by it.
    pub(super) const fn can_write_same(&self) -> bool {
        self.write_same.is_some() || self.limits.write_same_max > 0 || self.unmap_by_write_same
    }

    /// Acknowledged writes may be in a volatile cache: it says so, or does not say.
    pub(super) fn may_cache(&self) -> bool {
        self.mode.and_then(|mode| mode.write_cache).unwrap_or(true)
    }

    /// FUA is understood (DPOFUA).
    pub(super) fn takes_fua(&self) -> bool {
        self.mode.is_some_and(|mode| mode.fua)
    }

    pub(super) fn identity(&self) -> Identity {
        match &self.inquiry {
            Some(inquiry) => {
                Identity::from_scsi(inquiry, &self.page_83, &self.page_80, &self.capacity)
            }
            None => Identity {
                wwn: None,
                serial: String::new(),
                model: String::new(),
                size_bytes: self.size_bytes(),
                block_bytes: self.capacity.block_bytes,
            },
        }
    }

    /// True if `other` is what this unit could become without being another one: it may grow and
    /// shrink.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let (a, b) = (self.identity(), other.identity());
        (a.wwn, a.serial, a.model, a.block_bytes) == (b.wwn, b.serial, b.model, b.block_bytes)
    }

    /// The port group's state does not let commands through.
    pub(super) fn is_standing_by(&self) -> bool {
        let state = self.access.map(|group| group.state);
        !matches!(
            state,
            None | Some(
                AccessState::Optimized | AccessState::NonOptimized | AccessState::BlockDependent
            )
        )
    }

    fn priority(&self) -> u32 {
        let Some(group) = self.access else { return 50 };
        let state = match group.state {
            AccessState::Optimized => 50,
            AccessState::NonOptimized => 10,
            AccessState::BlockDependent => 5,
            _ => 1,
        };
        state + if group.preferred { 80 } else { 0 }
    }

    /// What the engine is told. `cache_domain` and `weight` are the path's own.
    pub(super) fn facts(&self, cache_domain: String, weight: Option<u32>) -> Facts {
        let identity = self.identity();
        let block = u64::from(self.capacity.block_bytes);
        let bytes = |blocks: u64| u32::try_from(blocks.saturating_mul(block)).unwrap_or(0);
        let discards = self.can_unmap() || self.can_unmap_by_write_same();
        Facts {
            physical_block_bytes: bytes(1 << self.capacity.physical_exponent),
            optimal_bytes: bytes(u64::from(self.limits.transfer_optimal)),
            read_only: self.mode.is_some_and(|mode| mode.write_protected),
            volatile_cache: self.may_cache(),
            discard: discards && !self.refuses_discard,
            write_zeroes: self.can_write_same() && !self.refuses_zeroes,
            cache_domain,
            instance: self.instance.clone(),
            priority: weight.unwrap_or_else(|| self.priority()),
            group_serial: identity.serial.clone(),
            identity,
        }
    }
}
