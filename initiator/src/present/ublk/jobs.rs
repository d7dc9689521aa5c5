//! The thread that waits in the driver's control commands, so that the I/O thread never does: it
//! is the I/O thread that lets them end.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use corbel_ring::Waker;

use super::abi::{self, Info};
use super::control::{Control, open_node};
use super::{Stop, Wanted, Why, names};
use crate::present::{link, users};

const RECOVERY_PAUSE: Duration = Duration::from_millis(20);

/// What is to be done, in the order sent.
#[derive(Debug)]
pub(super) enum Job {
    /// Make the device, or take it over from a process that has died.
    Attach,
    /// Every tag is fetched: let users come.
    Start { id: u32, recovered: bool, tags: u16 },
    /// Keep users out.
    Stop { id: u32, how: Stop },
    /// Nothing of it is open any more: forget it.
    Delete { id: u32 },
    /// Change the size.
    Resize { id: u32, size_bytes: u64 },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    Attached(Attached),
    Started { size_bytes: u64 },
    NotStopped(String),
    Down,
    Deleted,
    Resized(u64),
    NotResized(Why),
    Failed(Why),
}

/// A device to be served.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) id: u32,
    pub(super) node: OwnedFd,
    pub(super) depth: u16,
    pub(super) io_bytes: u32,
    pub(super) recovered: bool,
}

/// Our end of the thread. It ends after its last job once this is dropped.
#[derive(Debug)]
pub(super) struct Helper {
    jobs: Sender<Job>,
    answers: Receiver<Answer>,
}

impl Helper {
    pub(super) fn new(wanted: Wanted, waker: Waker) -> Result<Self, Why> {
        let (jobs, inbox) = mpsc::channel();
        let (outbox, answers) = mpsc::channel();
        let thread = thread::Builder::new().name("ublk-control".to_owned());
        let run = move || {
            for job in inbox {
                work(&wanted, job, &|answer| {
                    // Nobody there any more: the device was dropped.
                    if outbox.send(answer).is_ok() {
                        waker.wake();
                    }
                });
            }
        };
        thread.spawn(run).map_err(|error| Why::kernel("start a thread", &error))?;
        Ok(Self { jobs, answers })
    }

    pub(super) fn send(&self, job: Job) {
        // The thread ends only after this sender.
        let _ = self.jobs.send(job);
    }

    pub(super) fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

fn work(wanted: &Wanted, job: Job, tell: &dyn Fn(Answer)) {
    let failed = |why| tell(Answer::Failed(why));
    match job {
        Job::Attach => tell(attach(wanted).map_or_else(Answer::Failed, Answer::Attached)),
        Job::Start { id, recovered, tags } => match start(wanted, id, recovered) {
            Ok(size_bytes) => {
                tell(Answer::Started { size_bytes });
                names::tune(id, wanted.io_bytes, tags);
            }
            Err(why) => failed(why),
        },
        Job::Stop { id, how } => match stop(wanted, id, how) {
            Ok(answer) => tell(answer),
            Err(why) => tell(Answer::NotStopped(why.to_string())),
        },
        Job::Delete { id } => match Control::open().and_then(|mut control| control.delete(id)) {
            Ok(()) => tell(Answer::Deleted),
            Err(why) => failed(why),
        },
        Job::Resize { id, size_bytes } => match resize(wanted, id, size_bytes) {
            Ok(()) => tell(Answer::Resized(size_bytes)),
            Err(why) => tell(Answer::NotResized(why)),
        },
    }
}

fn attach(wanted: &Wanted) -> Result<Attached, Why> {
    let mut control = Control::open()?;
    control.features()?;
    if let Some(id) = wanted.id
        && let Some(attached) = recover(&mut control, wanted, id)?
    {
        return Ok(attached);
    }
    add(&mut control, wanted)
}

fn add(control: &mut Control, wanted: &Wanted) -> Result<Attached, Why> {
    let info = Info {
        depth: wanted.tags(),
        state: abi::STATE_DEAD,
        io_bytes: wanted.io_bytes,
        id: 0,
        pid: -1,
        flags: abi::Features::FLAGS,
        mark: wanted.mark,
    };
    let info = control.add(wanted.id, info)?;
    let node =
        control.set_shape(info.id, &wanted.shape, info.io_bytes).and_then(|()| open_node(info.id));
    match node {
        Ok(node) => {
            let Info { id, depth, io_bytes, .. } = info;
            Ok(Attached { id, node, depth, io_bytes, recovered: false })
        }
        Err(why) => {
            if let Err(error) = control.delete(info.id) {
                tracing::warn!(id = info.id, %error, "a device that was not used stays");
            }
            Err(why)
        }
    }
}

/// Takes device `id` over from a process that died. `None`: there is none of that number (any
/// more).
fn recover(control: &mut Control, wanted: &Wanted, id: u32) -> Result<Option<Attached>, Why> {
    let deadline = Instant::now() + wanted.recovery_wait;
    loop {
        let Some(info) = control.info(id)? else { return Ok(None) };
        if info.mark != wanted.mark {
            return Err(Why::Foreign(id));
        }
        match info.state {
            abi::STATE_DEAD => {
                // Its server died before it was started, or after it was stopped.
                control.delete(id)?;
                return Ok(None);
            }
            abi::STATE_QUIESCED if control.begin_recovery(id)? => {
                check_recovered(control, wanted, id)?;
                let node = open_node(id)?;
                let Info { depth, io_bytes, .. } = info;
                return Ok(Some(Attached { id, node, depth, io_bytes, recovered: true }));
            }
            _ if Instant::now() > deadline => return Err(Why::Served { id, pid: info.pid }),
            _ => thread::sleep(RECOVERY_PAUSE),
        }
    }
}

/// Users of a device that lived through a crash count on what it was like.
fn check_recovered(control: &mut Control, wanted: &Wanted, id: u32) -> Result<(), Why> {
    let (block_bytes, _) = control.block_and_size(id)?;
    if block_bytes == wanted.shape.block_bytes {
        return Ok(());
    }
    Err(Why::Unfit(format!(
        "device {id} is in use with blocks of {block_bytes} bytes, and they are now {}",
        wanted.shape.block_bytes
    )))
}

fn start(wanted: &Wanted, id: u32, recovered: bool) -> Result<u64, Why> {
    let mut control = Control::open()?;
    if recovered {
        control.end_recovery(id)?;
    } else {
        control.start(id)?;
    }
    let (_, size_bytes) = control.block_and_size(id)?;
    if let Err(error) = link::publish(&wanted.name, &format!("ublkb{id}")) {
        tracing::warn!(name = wanted.name, %error, "no link to the device in /dev/corbel");
    }
    Ok(size_bytes)
}

fn stop(wanted: &Wanted, id: u32, how: Stop) -> Result<Answer, Why> {
    if how == Stop::IfUnused
        && let Some(objection) = users::objection(&format!("ublkb{id}"))
    {
        return Ok(Answer::NotStopped(objection));
    }
    let mut control = Control::open()?;
    if how == Stop::IfUnused && control.features()?.can_stop_unused() {
        if !control.try_stop(id)? {
            return Ok(Answer::NotStopped("somebody has it open".to_owned()));
        }
    } else {
        control.stop(id)?;
    }
    if let Err(error) = link::withdraw(&wanted.name, &format!("ublkb{id}")) {
        tracing::warn!(name = wanted.name, %error, "the link in /dev/corbel stays");
    }
    Ok(Answer::Down)
}

fn resize(wanted: &Wanted, id: u32, size_bytes: u64) -> Result<(), Why> {
    let shape = super::Shape { size_bytes, ..wanted.shape };
    if let Some(fault) = shape.fault() {
        return Err(Why::Unfit(fault));
    }
    let mut control = Control::open()?;
    if !control.features()?.can_resize() {
        return Err(Why::TooOld("a change of the size while in use (Linux 6.16)"));
    }
    control.resize(id, size_bytes)
}
