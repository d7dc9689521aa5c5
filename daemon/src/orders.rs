//! What may be asked of the program as a whole: to read its configuration again, one time after
//! the other; and to end, once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::signals::systemd;

/// Reloads that may wait for their turn. One more would read the same file as they will.
const RELOADS_MAX: usize = 64;

/// What those who asked for the end get to take their answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// Whoever may ask holds one. `R` is what a reload is answered.
#[derive(Debug)]
pub struct Orders<R> {
    reloads: mpsc::Sender<Option<oneshot::Sender<R>>>,
    stop: Arc<watch::Sender<bool>>,
    ended: Arc<watch::Sender<bool>>,
}

impl<R> Clone for Orders<R> {
    fn clone(&self) -> Self {
        let Self { reloads, stop, ended } = self;
        Self { reloads: reloads.clone(), stop: stop.clone(), ended: ended.clone() }
    }
}

impl<R: Send> Orders<R> {
    /// And the other end, where reloads are carried out.
    pub fn new() -> (Self, Reloads<R>) {
        let (reloads, asked) = mpsc::channel(RELOADS_MAX);
        let (stop, ended) = (watch::Sender::new(false), watch::Sender::new(false));
        (Self { reloads, stop: Arc::new(stop), ended: Arc::new(ended) }, Reloads(asked))
    }

    /// Reads the configuration again, as SIGHUP asks for; nobody waits for the answer.
    pub fn reload(&self) {
        // If there is no room, those who wait read the file later than now.
        let _ = self.reloads.try_send(None);
    }

    /// Reads the configuration again; gives what became of it, or `None` if the program ends
    /// before that.
    pub async fn reloaded(&self) -> Option<R> {
        let (answer, answered) = oneshot::channel();
        self.reloads.send(Some(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Begins the end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Comes back when the end was asked for.
    pub async fn stop_asked(&self) {
        let _ = self.stop.subscribe().wait_for(|asked| *asked).await;
    }

    /// Turns true when everything has ended.
    pub fn end(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Everything has ended. Gives those who waited for it the time to be told.
    pub async fn ended(&self) {
        self.ended.send_replace(true);
        let told = async {
            while self.ended.receiver_count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(FAREWELL, told).await;
    }
}

/// The reloads that were asked for, in order.
#[derive(Debug)]
pub struct Reloads<R>(mpsc::Receiver<Option<oneshot::Sender<R>>>);

impl<R> Reloads<R> {
    /// Waits for the next one, and tells the service manager that it begins. `None` if nobody is
    /// left to ask.
    pub async fn next(&mut self) -> Option<Reload<R>> {
        let asker = self.0.recv().await?;
        systemd::reloading();
        Some(Reload(asker))
    }
}

/// A reload under way.
#[derive(Debug)]
#[must_use = "the service manager waits for its end"]
pub struct Reload<R>(Option<oneshot::Sender<R>>);

impl<R> Reload<R> {
    /// It is over: tells the service manager, and who asked.
    pub fn over(self, answer: R) {
        systemd::ready();
        if let Some(asker) = self.0 {
            // A client that went away has its answer in the log.
            let _ = asker.send(answer);
        }
    }
}
