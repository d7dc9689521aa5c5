//! What the next process must know about a device that outlives this one: a small file below
//! `/run`, which a reboot empties, as it ends the devices.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct RunState {
    path: PathBuf,
    known: Option<Known>,
    mark: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// N of `/dev/ublkbN` or `/dev/nbdN`.
    number: u32,
}

impl RunState {
    /// What is known about the device called `name` that has this identity.
    pub(super) fn load(folder: &Path, name: &str, identity: &str) -> Self {
        let path = folder.join(format!("{name}.json"));
        let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        // A device is found again by its name and by what is behind it.
        let mut hash = crc32fast::Hasher::new();
        hash.update(name.as_bytes());
        hash.update(&[0]);
        hash.update(identity.as_bytes());
        Self { path, known, mark: u64::from(hash.finalize()) | 1 << 32 }
    }

    /// True if an earlier process left the device behind.
    pub(super) fn is_left_behind(folder: &Path, name: &str) -> bool {
        folder.join(format!("{name}.json")).exists()
    }

    /// The number it had.
    pub(super) fn number(&self) -> Option<u32> {
        self.known.map(|known| known.number)
    }

    /// Tells it from other devices that have had its number.
    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    /// The device has this number now.
    pub(super) fn keep(&mut self, number: u32) {
        let known = Known { number };
        self.known = Some(known);
        if let Err(error) = replace(&self.path, &known) {
            tracing::warn!(
                %error,
                file = %self.path.display(),
                "not written: should this process die, the device has to be attached by number"
            );
        }
    }

    /// The device is gone.
    pub(super) fn forget(&mut self) {
        self.known = None;
        // Not there: as it should be.
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes `content` in place of what was there: whole, or not at all.
pub(super) fn replace(path: &Path, content: &impl Serialize) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(content)?;
    fs::create_dir_all(path.parent().expect("a file in a folder"))?;
    let draft = path.with_extension("new");
    fs::File::create(&draft)?.write_all(&bytes)?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_again_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = RunState::load(folder.path(), "disk", "naa.1");
        assert_eq!(state.number(), None);
        state.keep(7);
        assert!(RunState::is_left_behind(folder.path(), "disk"));
        let again = RunState::load(folder.path(), "disk", "naa.1");
        assert_eq!((again.number(), again.mark()), (Some(7), state.mark()));
        assert_ne!(RunState::load(folder.path(), "disk", "naa.2").mark(), state.mark());
        state.forget();
        assert_eq!(RunState::load(folder.path(), "disk", "naa.1").number(), None);
    }
}
