//! Exports to open volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use corbel_ring::store::{Kind, Options as StoreOptions, Spec, Store};

use super::{StartError, encryption};
use crate::config::{Backing, Direct, Export};
use crate::volume::cipher::HEADER_BYTES;
use crate::volume::{Facts, Identity, Options, Volume, VolumeId};

/// Longest atomic write that a store of memory is given out for.
const ATOMIC_BYTES: u32 = 1 << 20;

/// One export, open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) export: Export,
    pub(super) volume: Arc<Volume>,
    pub(super) store: Arc<Store>,
}

impl Opened {
    /// The size that the volume should have now, from the store's.
    pub(super) fn size_bytes(&self, store_bytes: u64) -> u64 {
        let rest = store_bytes.saturating_sub(self.export.offset);
        let all = self.export.length.map_or(rest, |length| length.min(rest));
        if self.volume.cipher.is_some() { all.saturating_sub(HEADER_BYTES) } else { all }
    }
}

/// All exports, by name.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    next: u32,
    open: BTreeMap<String, Opened>,
}

impl Volumes {
    pub(super) fn get(&self, name: &str) -> Option<&Opened> {
        self.open.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Opened> {
        self.open.values()
    }

    /// Opens an export's store and adds it. An export of the same name must have been removed.
    pub(super) fn add(&mut self, export: &Export) -> Result<(), StartError> {
        let opened = open(VolumeId(self.next), export)?;
        self.next += 1;
        self.open.insert(export.name.clone(), opened);
        Ok(())
    }

    /// The export's endpoints or allow lists changed, its device did not.
    pub(super) fn update(&mut self, export: &Export) {
        if let Some(opened) = self.open.get_mut(&export.name) {
            opened.export = export.clone();
        }
    }

    /// Takes an export out; its volume answers "gone" from now on.
    pub(super) fn remove(&mut self, name: &str) -> Option<Opened> {
        let opened = self.open.remove(name)?;
        opened.volume.mark_gone();
        Some(opened)
    }
}

fn open(id: VolumeId, export: &Export) -> Result<Opened, StartError> {
    let wrong = |why: String| StartError::Export { export: export.name.clone(), why };
    let spec = match &export.backing {
        Backing::Path(path) => Spec::Path(path.clone()),
        Backing::Memory(bytes) => Spec::Memory(*bytes),
        Backing::Null(bytes) => Spec::Null(*bytes),
    };
    let options = StoreOptions {
        read_only: export.read_only,
        create_bytes: export.create,
        ..StoreOptions::default()
    };
    let store = Store::open(&spec, options).map_err(|error| wrong(error.to_string()))?;
    let facts = store.facts();
    match (&facts.buffered_because, export.direct) {
        (Some(why), Direct::Require) => {
            return Err(wrong(format!(
                "direct I/O is required (`direct = \"require\"`, vblade -d), but {why}; allow \
                 buffered I/O or move the image"
            )));
        }
        (Some(why), Direct::Auto) => {
            tracing::warn!(export = export.name, why, "I/O goes through the page cache");
        }
        (None, _) => {}
    }
    let rest = facts.size_bytes.checked_sub(export.offset).filter(|rest| *rest > 0);
    let rest = rest.ok_or_else(|| {
        let (offset, size) = (export.offset, facts.size_bytes);
        wrong(format!("the offset, {offset} bytes, is not inside the device of {size} bytes"))
    })?;
    if let Some(length) = export.length.filter(|length| *length > rest) {
        return Err(wrong(format!("the length, {length} bytes, is more than the {rest} there")));
    }
    let unit = u64::from(facts.logical_bytes);
    if !export.offset.is_multiple_of(unit) {
        return Err(wrong(format!("the offset must be a multiple of {unit}, the device's block")));
    }
    let mut bytes = export.length.unwrap_or(rest);
    let cipher = encryption::open(export, facts.read_only).map_err(&wrong)?;
    if cipher.is_some() {
        bytes = bytes.saturating_sub(HEADER_BYTES);
    }
    let mut volume = Volume::new(
        id,
        export.name.clone(),
        identity(export, store.source()),
        volume_facts(facts),
        Options {
            read_only: export.read_only || facts.read_only,
            removable: export.removable,
            thin: export.thin,
            sanitize_rate: export.sanitize_rate,
            space_warning: export.space_warning,
        },
        bytes,
    );
    if let Some(cipher) = cipher {
        volume = volume.encrypted(cipher);
    }
    if volume.blocks() == 0 {
        return Err(wrong(format!("it has less than one block of {unit} bytes")));
    }
    Ok(Opened { export: export.clone(), volume: Arc::new(volume), store: Arc::new(store) })
}

fn identity(export: &Export, source: &str) -> Identity {
    // Parts of one device are devices of their own.
    let part = match (export.offset, export.length) {
        (0, None) => String::new(),
        (offset, length) => format!("+{offset}/{}", length.unwrap_or(0)),
    };
    let mut identity = Identity::from_source(&format!("{source}{part}"));
    if let Some(naa) = export.naa {
        identity.naa = naa;
    }
    if let Some(serial) = &export.serial {
        identity.serial.clone_from(serial);
    }
    identity
}

fn volume_facts(facts: &corbel_ring::store::Facts) -> Facts {
    Facts {
        block_bytes: facts.logical_bytes,
        physical_bytes: facts.physical_bytes,
        optimal_bytes: facts.io_opt_bytes,
        granularity_bytes: facts.io_min_bytes,
        volatile_cache: facts.volatile_cache,
        discard: facts.discard_max_bytes > 0,
        discard_granularity_bytes: facts.discard_granularity_bytes,
        discard_zeroes: facts.discard_zeroes,
        rotational: facts.rotational,
        // Memory is gone with the process, so no part of a write outlives it.
        atomic_bytes: if facts.kind == Kind::Memory { ATOMIC_BYTES } else { 0 },
    }
}
