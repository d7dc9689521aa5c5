//! A device of the kernel's NBD client: netlink calls, which may wait, on a thread of their own.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use corbel_ring::reactor::Reactor;
use corbel_ring::{Receiver, Sender, mailbox};

use super::super::run_state::RunState;
use super::News;
use crate::admin::Presented;
use crate::present::link;
use crate::present::nbd::kernel::{self, Client, KernelError, device};
use crate::present::nbd::machine::Export;

/// What the thread is to do.
#[derive(Debug)]
enum Job {
    Connect { index: Option<u32>, export: Box<Export>, socket: OwnedFd },
    Resize(Box<Export>),
    Disconnect,
}

/// What came of it.
#[derive(Debug)]
enum Done {
    Connected(Result<u32, String>),
    Resized(Result<(), String>),
    Disconnected,
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
}

impl Kernel {
    /// Begins to connect; gives our end of the stream too.
    pub(super) fn begin(
        name: &str,
        index: Option<u32>,
        export: &Export,
        state: RunState,
        reactor: &mut Reactor,
    ) -> Result<(Self, OwnedFd), String> {
        let (socket, ours) = kernel::pair().map_err(|error| format!("a socket pair: {error}"))?;
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
        let _ = jobs.send(Job::Connect { index: index.or_else(|| state.number()), export, socket });
        let kernel =
            Self { name: name.to_owned(), jobs, done, inbox: VecDeque::new(), state, index: None };
        Ok((kernel, ours))
    }

    /// Passes on what the thread has done.
    pub(super) fn poll(&mut self, news: &mut VecDeque<News>) {
        self.done.drain(&mut self.inbox);
        while let Some(done) = self.inbox.pop_front() {
            match done {
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
                }
            }
        }
    }

    /// Who has the device for themselves, if anybody.
    pub(super) fn users(&self) -> Option<String> {
        let index = self.index?;
        let used = device::is_in_use(index).unwrap_or(false);
        used.then(|| {
            format!("{} is mounted or part of another device", device::path(index).display())
        })
    }

    pub(super) fn resize(&mut self, export: &Export) {
        let _ = self.jobs.send(Job::Resize(Box::new(export.clone())));
    }

    pub(super) fn disconnect(&mut self) {
        let _ = self.jobs.send(Job::Disconnect);
    }
}

fn work_off(backend: &str, jobs: &mpsc::Receiver<Job>, done: &Sender<Done>) {
    let mut at = None;
    while let Ok(job) = jobs.recv() {
        match (job, at) {
            (Job::Connect { index, export, socket }, _) => {
                let connected = connect(backend, index, &export, &socket);
                at = connected.as_ref().ok().copied();
                done.send(Done::Connected(connected.map_err(|error| error.to_string())));
            }
            (Job::Resize(export), Some(index)) => {
                let resized =
                    Client::open().and_then(|mut client| client.resize(index, backend, &export));
                done.send(Done::Resized(resized.map_err(|error| error.to_string())));
            }
            (Job::Disconnect, at) => {
                let gone = at.map(|index| Client::open().and_then(|mut c| c.disconnect(index)));
                if let Some(Err(error)) = gone {
                    tracing::warn!(%error, "the kernel's NBD device was not taken away");
                }
                done.send(Done::Disconnected);
            }
            (_, None) => {}
        }
    }
}

/// Takes over the device that an earlier process left, or makes one.
fn connect(
    backend: &str,
    index: Option<u32>,
    export: &Export,
    socket: &OwnedFd,
) -> Result<u32, KernelError> {
    let mut client = Client::open()?;
    if let Ok(Some(left)) = device::find(backend) {
        client.reconfigure(left, backend, socket)?;
        return Ok(left);
    }
    client.connect(index, export, backend, kernel::TICK, socket)
}
