//! What image files hold, asked of the file system.
//!
//! There is no ring operation for `lseek`, and it may wait for the disk; so a thread of its own
//! asks, one question at a time.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use corbel_ring::Store;

use crate::host::{BlockError, Extent};

/// One question.
struct Job {
    store: Arc<Store>,
    offset: u64,
    answer: Box<dyn FnOnce(Result<Extent, BlockError>) + Send>,
}

/// The asking side. Clones share one thread; it ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Surveyor(mpsc::Sender<Job>);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Surveyor {
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn spawn() -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::Builder::new().name("survey".into()).spawn(move || {
            for job in jobs {
                let extent =
                    job.store.extent(job.offset).map(|(len, mapped)| Extent { len, mapped });
                (job.answer)(extent.map_err(|error| {
                    tracing::warn!(%error, "a file does not tell what it holds");
                    BlockError::Unsupported
                }));
            }
        })?;
        Ok(Self(sender))
    }

    /// Queues a question; `answer` is told on the surveyor's thread.
    pub(super) fn ask(
        &self,
        store: Arc<Store>,
        offset: u64,
        answer: impl FnOnce(Result<Extent, BlockError>) + Send + 'static,
    ) {
        let job = Job { store, offset, answer: Box::new(answer) };
        if let Err(mpsc::SendError(job)) = self.0.send(job) {
            (job.answer)(Err(BlockError::Unsupported));
        }
    }
}
