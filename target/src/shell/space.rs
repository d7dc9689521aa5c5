//! How much room thin image files take and have left, asked of their file system.
//!
//! Nothing tells of a file system that fills up, so a thread of its own looks every few seconds.

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
type Watched = (Weak<Volume>, Weak<Store>);

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
                    Err(mpsc::RecvTimeoutError::Timeout) => watched.retain(look),
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self(sender))
    }

    /// Watches an export, if it is thin and its store can tell: a part of a file cannot.
    pub(super) fn add(&self, opened: &Opened) {
        let whole = opened.export.offset == 0 && opened.export.length.is_none();
        let watched = (Arc::downgrade(&opened.volume), Arc::downgrade(&opened.store));
        // The first look is now, so that what initiators see does not come and go.
        if whole && opened.volume.options.thin && look(&watched) {
            let _ = self.0.send(watched); // without the thread, nothing more is known
        }
    }
}

/// Looks once; false if there is nothing to look at any more.
fn look((volume, store): &Watched) -> bool {
    let (Some(volume), Some(store)) = (volume.upgrade(), store.upgrade()) else { return false };
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
        let watched = (Arc::downgrade(&volume), Arc::downgrade(&store));
        assert!(look(&watched));
        let empty = volume.space.room().unwrap();
        assert!(empty.used < 1 << 20 && empty.available > 0, "{empty:?}");
        assert_eq!(volume.space.generation(), 1, "it is less than it should be");
        file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
        file.sync_all().unwrap();
        assert!(look(&watched));
        let written = volume.space.room().unwrap();
        assert!(written.used >= empty.used + (4 << 20), "{written:?}");
        drop((volume, store));
        assert!(!look(&watched), "nobody is watched for longer than he is there");
    }

    #[test]
    fn memory_tells_nothing() {
        let store = Store::open(&Spec::Memory(1 << 20), StoreOptions::default()).unwrap();
        assert_eq!(store.usage().unwrap(), None);
    }
}
