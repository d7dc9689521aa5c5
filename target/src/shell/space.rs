//! How much room thin image files take and have left, asked of their file system.
//!
//! Nothing tells of a file system that fills up, so a thread of its own looks every few seconds. It
//! also tells volumes how the time passes, for tokens that nobody uses.

use std::io;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;

use corbel_ring::Store;

use super::volumes::Opened;
use crate::volume::Volume;
use crate::volume::space::Room;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// A volume, and where its room is. Neither is kept open for this.
#[derive(Debug)]
struct Watched {
    volume: Weak<Volume>,
    store: Weak<Store>,
    /// The store can tell.
    looks: bool,
}

/// Ends with its thread when it is dropped.
#[derive(Debug)]
pub(super) struct Watch(mpsc::Sender<Watched>);

impl Watch {
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn spawn() -> io::Result<Self> {
        let (sender, added) = mpsc::channel::<Watched>();
        thread::Builder::new().name("space".into()).spawn(move || {
            let mut watched: Vec<Watched> = Vec::new();
            loop {
                match added.recv_timeout(EVERY) {
                    Ok(one) => watched.push(one),
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        // Exports that come may make a round longer, never shorter.
                        let seconds = u32::try_from(EVERY.as_secs()).unwrap_or(u32::MAX);
                        watched.retain(|one| pass(one, seconds));
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self(sender))
    }

    /// Watches an export: its room, if it is thin and its store can tell. A part of a file cannot.
    pub(super) fn add(&self, opened: &Opened) {
        let whole = opened.export.offset == 0 && opened.export.length.is_none();
        let (volume, store) = (Arc::downgrade(&opened.volume), Arc::downgrade(&opened.store));
        let looks = whole && opened.volume.options.thin;
        // The first look is now, so that what initiators see does not come and go.
        let looks = looks && look(&opened.volume, &opened.store);
        // Without the thread, nothing more is known.
        let _ = self.0.send(Watched { volume, store, looks });
    }
}

/// So many seconds have passed; false if there is nothing to watch any more.
fn pass(watched: &Watched, seconds: u32) -> bool {
    let Some(volume) = watched.volume.upgrade() else { return false };
    volume.tokens.elapsed(seconds);
    if let Some(store) = watched.store.upgrade()
        && watched.looks
    {
        look(&volume, &store);
    }
    true
}

/// Looks once; false if there is nothing to be seen.
fn look(volume: &Volume, store: &Store) -> bool {
    let usage = match store.usage() {
        Ok(Some(usage)) => usage,
        Ok(None) => return false,
        Err(error) => {
            tracing::warn!(export = volume.name, %error, "its file system does not tell its room");
            return true;
        }
    };
    let room = Room { used: usage.used_bytes, available: usage.free_bytes };
    match volume.space.tell(room, volume.options.space_warning) {
        Some(true) => tracing::warn!(
            export = volume.name,
            available = room.available,
            "little room is left on its file system: writes will fail when there is none"
        ),
        Some(false) => tracing::info!(export = volume.name, "there is room for it again"),
        None => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use corbel_ring::store::{Options as StoreOptions, Spec};

    use super::*;
    use crate::volume::{Facts, Identity, Options, VolumeId};

    #[test]
    fn sparse_file_tells_what_it_takes_and_its_file_system_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(1 << 24).unwrap();
        let store = Store::open(&Spec::Path(path), StoreOptions::default()).unwrap();
        let options = Options { thin: true, space_warning: u64::MAX, ..Options::default() };
        let (identity, facts) = (Identity::from_source("s"), Facts::volatile(4096));
        let volume = Volume::new(VolumeId(0), "v".into(), identity, facts, options, 1 << 24);
        let (volume, store) = (Arc::new(volume), Arc::new(store));
        let (weak, from) = (Arc::downgrade(&volume), Arc::downgrade(&store));
        let watched = Watched { volume: weak, store: from, looks: true };
        assert!(look(&volume, &store));
        let empty = volume.space.room().unwrap();
        assert!(empty.used < 1 << 20 && empty.available > 0, "{empty:?}");
        assert_eq!(volume.space.generation(), 1, "it is less than it should be");
        file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
        file.sync_all().unwrap();
        assert!(pass(&watched, 5));
        let written = volume.space.room().unwrap();
        assert!(written.used >= empty.used + (4 << 20), "{written:?}");
        drop((volume, store));
        assert!(!pass(&watched, 5), "nobody is watched for longer than he is there");
    }

    #[test]
    fn memory_tells_nothing() {
        let store = Store::open(&Spec::Memory(1 << 20), StoreOptions::default()).unwrap();
        assert_eq!(store.usage().unwrap(), None);
    }
}
