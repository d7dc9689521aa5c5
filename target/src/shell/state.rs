//! Small state files (AoE config strings, masks, reservations), replaced crash-safely.
//!
//! A file is written under another name, made stable, renamed over the old one, and the folder is
//! made stable: after a crash at any instant the old or the new contents stand there, whole. That
//! blocks, so a thread of its own does it; whoever asked is told when it is done.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

/// One replacement to make.
struct Job {
    name: String,
    bytes: Vec<u8>,
    done: Box<dyn FnOnce(bool) + Send>,
}

/// The writing side. Clones share one thread; it ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct StateWriter(mpsc::Sender<Job>);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("name", &self.name).finish_non_exhaustive()
    }
}

impl StateWriter {
    /// A writer into `dir`, or one that keeps nothing and says so to nobody (`export` and
    /// `vblade` without a state folder behave as vblade does: state lasts as long as the process).
    ///
    /// # Errors
    /// If the folder cannot be made or the thread not be started.
    pub(super) fn spawn(dir: Option<PathBuf>) -> io::Result<Self> {
        if let Some(dir) = &dir {
            fs::create_dir_all(dir).map_err(|e| {
                io::Error::new(e.kind(), format!("state folder {}: {e}", dir.display()))
            })?;
        }
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::Builder::new().name("state".into()).spawn(move || {
            for job in jobs {
                let kept = match &dir {
                    None => true,
                    Some(dir) => match replace(dir, &job.name, &job.bytes) {
                        Ok(()) => true,
                        Err(error) => {
                            tracing::error!(file = job.name, %error, "state file not written");
                            false
                        }
                    },
                };
                (job.done)(kept);
            }
        })?;
        Ok(Self(sender))
    }

    /// Queues a replacement; `done` is told, on the writer's thread, whether it is stable.
    pub(super) fn replace(
        &self,
        name: &str,
        bytes: Vec<u8>,
        done: impl FnOnce(bool) + Send + 'static,
    ) {
        let job = Job { name: name.to_owned(), bytes, done: Box::new(done) };
        if let Err(mpsc::SendError(job)) = self.0.send(job) {
            (job.done)(false);
        }
    }
}

/// Reads a state file; `None` if there is none.
///
/// # Errors
/// If it is there and cannot be read.
pub(super) fn load(dir: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(dir.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    replace_by(dir, name, bytes, |_| Ok(()))
}

/// What a replacement consists of, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Write,
    Sync,
    Rename,
    SyncFolder,
}

/// `before` is told of each step, and may let it fail.
fn replace_by(
    dir: &Path,
    name: &str,
    bytes: &[u8],
    mut before: impl FnMut(Step) -> io::Result<()>,
) -> io::Result<()> {
    let fresh = dir.join(format!("{name}.new"));
    before(Step::Create)?;
    let mut file = File::create(&fresh)?;
    before(Step::Write)?;
    file.write_all(bytes)?;
    before(Step::Sync)?;
    file.sync_all()?;
    before(Step::Rename)?;
    fs::rename(&fresh, dir.join(name))?;
    before(Step::SyncFolder)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    mod faults;

    use super::*;

    fn replaced(writer: &StateWriter, name: &str, bytes: &[u8]) -> bool {
        let (tell, told) = mpsc::channel();
        writer.replace(name, bytes.to_vec(), move |kept| tell.send(kept).unwrap());
        told.recv().unwrap()
    }

    #[test]
    fn what_was_replaced_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let writer = StateWriter::spawn(Some(dir.path().join("state"))).unwrap();
        let state = dir.path().join("state");
        assert_eq!(load(&state, "e0.1").unwrap(), None);
        assert!(replaced(&writer, "e0.1", b"one"));
        assert!(replaced(&writer, "e0.1", b"two"));
        assert_eq!(load(&state, "e0.1").unwrap().as_deref(), Some(&b"two"[..]));
    }

    #[test]
    fn a_folder_that_went_away_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let writer = StateWriter::spawn(Some(state.clone())).unwrap();
        fs::remove_dir_all(state).unwrap();
        assert!(!replaced(&writer, "e0.1", b"lost"));
    }

    #[test]
    fn without_a_folder_nothing_is_kept_and_nothing_fails() {
        assert!(replaced(&StateWriter::spawn(None).unwrap(), "e0.1", b"gone"));
    }
}
