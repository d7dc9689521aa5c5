//! What a device's process leaves to the next one, should it die: a small file below `/run`. While
//! it is there, the device has not taken leave of its targets.

use std::fs;
use std::path::{Path, PathBuf};

use super::run_state::replace;
use crate::multipath::Legacy;

/// See the module.
#[derive(Debug)]
pub(super) struct LegacyFile {
    path: PathBuf,
    /// Of what is in the file.
    version: Option<u64>,
}

impl LegacyFile {
    /// That of the device called `name`, and what an earlier process that died left in it.
    pub(super) fn load(folder: &Path, name: &str) -> (Self, Option<Legacy>) {
        let path = folder.join(format!("{name}.legacy.json"));
        // One that cannot be read was left behind all the same.
        let left = fs::read(&path).ok();
        let marks = left.map(|bytes| serde_json::from_slice(&bytes).unwrap_or_default());
        (Self { path, version: None }, marks)
    }

    /// Writes down `marks`, unless this version of them is there already.
    pub(super) fn keep(&mut self, version: u64, marks: impl FnOnce() -> Legacy) {
        if self.version == Some(version) {
            return;
        }
        // Tried once: a device that cannot be remembered works all the same.
        self.version = Some(version);
        if let Err(error) = replace(&self.path, &marks()) {
            tracing::warn!(
                %error,
                file = %self.path.display(),
                "not written: should this process die, the next one will not know its caches, nor \
                 how old its writes are"
            );
        }
    }

    /// The device has taken leave.
    pub(super) fn forget(self) {
        // Not there: as it should be.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multipath::CacheMark;

    #[test]
    fn caches_are_known_to_the_next_process_until_they_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mark = CacheMark { name: "node-a".to_owned(), instance: Some("1".to_owned()) };
        let changes_since = Some(7);
        let marks = Legacy { lost: true, caches: vec![mark], changes_since };
        let (mut file, left) = LegacyFile::load(folder.path(), "disk");
        assert_eq!(left, None);
        file.keep(3, || marks.clone());
        file.keep(3, || unreachable!("nothing has changed"));
        assert_eq!(LegacyFile::load(folder.path(), "disk").1, Some(marks));
        file.keep(4, Legacy::default);
        assert_eq!(LegacyFile::load(folder.path(), "disk").1, Some(Legacy::default()));
        file.forget();
        assert_eq!(LegacyFile::load(folder.path(), "disk").1, None);
    }
}
