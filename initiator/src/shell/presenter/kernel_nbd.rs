//! A device of the kernel's NBD client: netlink calls, which may wait, on a thread of their own.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use corbel_ring::reactor::Reactor;
use corbel_ring::{Receiver, Sender, mailbox};

use super::super::run_state::RunState;
use super::News;
use crate::admin::Presented;
use crate::present::nbd::kernel::{self, Client, KernelError, device};
use crate::present::nbd::machine::Export;
use crate::present::{link, users};

/// What the thread is to do.
#[derive(Debug)]
enum Job {
    Connect {
        index: Option<u32>,
        export: Box<Export>,
    },
    Resize(Box<Export>),
    /// Whoever uses it or not, or only if nobody does.
    Disconnect {
        force: bool,
    },
}

/// What came of it.
#[derive(Debug)]
enum Done {
    /// Our end of the stream on which the kernel asks.
    Stream(OwnedFd),
    Connected(Result<u32, String>),
    Resized(Result<(), String>),
    Disconnected,
    InUse(String),
}

/// What becomes of the stream on which the kernel asks.
#[derive(Debug)]
pub(super) enum Stream {
    /// This is our end.
    Begins(OwnedFd),
    /// The device was taken away.
    Ends,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Kernel {
    name: String,
    jobs: mpsc::Sender<Job>,
    done: Receiver<Done>,
    inbox: VecDeque<Done>,
    state: RunState,
    index: Option<u32>,
    /// It is to go, whoever uses it.
    forced: bool,
}

impl Kernel {
    /// Begins to connect.
    pub(super) fn begin(
        name: &str,
        index: Option<u32>,
        export: &Export,
        state: RunState,
        reactor: &mut Reactor,
    ) -> Result<Self, String> {
        let (jobs, work) = mpsc::channel();
        let (sender, done) = mailbox(reactor.waker());
        // The mark tells our device from another's with the same name.
        let backend = format!("corbel:{name}:{:x}", state.mark());
        std::thread::Builder::new()
            .name("corbel-nbd".to_owned())
            .spawn(move || work_off(&backend, &work, &sender))
            .map_err(|error| format!("no thread for the kernel's NBD client: {error}"))?;
        let export = Box::new(export.clone());
        // The thread ends only after its sender is gone.
        let _ = jobs.send(Job::Connect { index: index.or_else(|| state.number()), export });
        Ok(Self {
            name: name.to_owned(),
            jobs,
            done,
            inbox: VecDeque::new(),
            state,
            index: None,
            forced: false,
        })
    }

    /// Passes on what the thread has done.
    pub(super) fn poll(&mut self, news: &mut VecDeque<News>) -> Option<Stream> {
        self.done.drain(&mut self.inbox);
        while let Some(done) = self.inbox.pop_front() {
            match done {
                Done::Stream(socket) => return Some(Stream::Begins(socket)),
                Done::Connected(Ok(index)) => {
                    self.index = Some(index);
                    self.state.keep(index);
                    let at = device::path(index).display().to_string();
                    let link = match link::publish(&self.name, &format!("nbd{index}")) {
                        Ok(link) => Some(link.display().to_string()),
                        Err(error) => {
                            news.push_back(News::Note(format!("no name for {at}: {error}")));
                            None
                        }
                    };
                    news.push_back(News::Ready(Presented { by: "nbd", at, link }));
                }
                Done::Connected(Err(why)) => news.push_back(News::Failed(why)),
                Done::Resized(Ok(())) => {}
                Done::Resized(Err(why)) => {
                    news.push_back(News::Note(format!("its size stays: {why}")));
                }
                Done::Disconnected => {
                    if let Some(index) = self.index.take() {
                        // It is gone, or leads elsewhere by now.
                        let _ = link::withdraw(&self.name, &format!("nbd{index}"));
                    }
                    self.state.forget();
                    return Some(Stream::Ends);
                }
                // Whoever has insisted meanwhile is not told of a scruple.
                Done::InUse(_) if self.forced => {}
                Done::InUse(who) => news.push_back(News::InUse(who)),
            }
        }
        None
    }

    pub(super) fn resize(&mut self, export: &Export) {
        let _ = self.jobs.send(Job::Resize(Box::new(export.clone())));
    }

    /// Begins to take it away; without `force` only if nobody uses it.
    pub(super) fn disconnect(&mut self, force: bool) {
        self.forced |= force;
        let _ = self.jobs.send(Job::Disconnect { force });
    }
}

fn work_off(backend: &str, jobs: &mpsc::Receiver<Job>, done: &Sender<Done>) {
    let mut at = None;
    while let Ok(job) = jobs.recv() {
        match (job, at) {
            (Job::Connect { index, export }, _) => {
                let connected = connect(backend, index, &export, done);
                at = connected.as_ref().ok().copied();
                done.send(Done::Connected(connected.map_err(|error| error.to_string())));
            }
            (Job::Resize(export), Some(index)) => {
                let resized =
                    Client::open().and_then(|mut client| client.resize(index, backend, &export));
                done.send(Done::Resized(resized.map_err(|error| error.to_string())));
            }
            (Job::Disconnect { force }, at) => done.send(disconnect(at, force)),
            (_, None) => {}
        }
    }
}

/// Takes over the device that an earlier process left, or makes one.
fn connect(
    backend: &str,
    index: Option<u32>,
    export: &Export,
    done: &Sender<Done>,
) -> Result<u32, KernelError> {
    let mut client = Client::open()?;
    if let Ok(Some(left)) = device::find(backend) {
        done.send(Done::Stream(client.reconfigure(left, backend)?));
        return Ok(left);
    }
    let failed = |error| KernelError::Io { what: "making a socket for it", error };
    let (theirs, ours) = kernel::pair().map_err(failed)?;
    // The kernel reads from the device before it says that it is there.
    done.send(Done::Stream(ours));
    client.connect(index, export, backend, kernel::TICK, &theirs)
}

fn disconnect(at: Option<u32>, force: bool) -> Done {
    let Some(index) = at else { return Done::Disconnected };
    if let Some(who) = (!force).then(|| users::objection(&device::name(index))).flatten() {
        return Done::InUse(format!("{}: {who}", device::path(index).display()));
    }
    if let Err(error) = Client::open().and_then(|mut client| client.disconnect(index)) {
        tracing::warn!(%error, "the kernel's NBD device was not taken away");
    }
    Done::Disconnected
}
