//! One way to a device, as the multipath engine sees it: the same words for AoE and iSCSI.
//!
//! A *path client* ([`aoe`], [`iscsi`]) is a pure machine that owns everything about its way:
//! connecting, logging in, proving who the device is, keep-alive, checking, coming back, splitting
//! a request into commands. It knows nothing of other paths. It is given a [`Try`], and says what
//! became of it ([`Tried`]); it says when it is fit for work and when not ([`PathEvent`]).

pub mod aoe;
pub mod iscsi;

use corbel_proto::memory::Slice;
use corbel_proto::time::Duration;
use serde::Serialize;

use crate::identity::Identity;
use crate::request::{Extent, IoError, Operation};

/// A path of a device. Numbers are not used again while the device is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PathId(pub u16);

/// One try of one request on one path. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TryId(pub u64);

/// A request on its way over one path.
#[derive(Debug, Clone)]
pub struct Try<B> {
    /// Its name.
    pub id: TryId,
    /// What.
    pub operation: Operation,
    /// Where.
    pub extent: Extent,
    /// As in [`Request::data`](crate::request::Request::data).
    pub data: Option<Slice<B>>,
}

/// A path's name for what may still take effect after its try has ended. Lives are in the order in
/// which they end: whatever ends later has a higher one, so [`PathEvent::Quiet`] of one life ends
/// every lower one too. A try that ends now never gets a life that has been said to be quiet.
///
/// An iSCSI path counts its sessions. An AoE path has no proof but time, so its lives are moments:
/// a copy that can be out for one second has a lower life than one of the same moment that can be
/// out for ten, and never waits for it. Numbers have gaps, and the first may be any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize)]
pub struct Life(pub u64);

/// What became of a try.
#[derive(Debug)]
pub struct Tried<B> {
    /// Which.
    pub id: TryId,
    /// The try's memory. `None` if there was none.
    pub data: Option<Slice<B>>,
    /// How it ended.
    pub verdict: Verdict,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done, whole.
    Done,
    /// Done, whole; but more than one copy of it was sent, and one that was not answered may land
    /// (once more) until the path says [`PathEvent::Quiet`] of this life. The request has ended
    /// well; whatever changes its extent must wait.
    DoneInDoubt(Life),
    /// The device says no; every other path would say the same. The answer is definite: nothing of
    /// it takes effect later.
    Device(IoError),
    /// The same, but copies of other parts of it may land until the path says
    /// [`PathEvent::Quiet`] of this life: whatever changes its extent must wait.
    DeviceInDoubt(IoError, Life),
    /// Not now, but the path is well (BUSY, TASK SET FULL, becoming ready, a transition): the same
    /// path again after this long, or another path now. Nothing of it takes effect later.
    Later(Duration),
    /// This path cannot do it now; another may. Nothing of it takes effect later: it was never
    /// sent, or its end was answered for by the target.
    Elsewhere(PathFault),
    /// This path cannot do it; another may. It may have taken effect, or **may still do so**, until
    /// the path says [`PathEvent::Quiet`] of this life.
    InDoubt(PathFault, Life),
}

/// What is wrong with a path, in the words of `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathFault {
    /// Not yet connected since the start.
    Starting,
    /// The local interface is down, has no carrier, or is gone.
    LinkDown,
    /// The portal does not accept, or there is no route.
    Unreachable,
    /// Nothing is heard: pings or frames are not answered.
    Silent,
    /// The target closed or reset the connection.
    Closed,
    /// The target asked us to leave (asynchronous logout).
    LogoutAsked,
    /// The target will not let us in.
    LoginRefused,
    /// The target broke the protocol, or a digest was wrong.
    Protocol,
    /// Commands fail here that another path may do (hardware of the path, repeated aborts).
    CommandsFail,
    /// A command took longer than the limit.
    CommandTimeout,
    /// The unit is not there (LOGICAL UNIT NOT SUPPORTED, unknown slot).
    NoDevice,
    /// ALUA standby, unavailable or in transition.
    Standby,
    /// It is another device, or has another size, than the one expected.
    Mismatch,
    /// It comes and goes too often, and has to prove itself (flap damping).
    Flapping,
    /// An administrator failed it.
    Disabled,
}

/// What a path knows about the device behind it, once it is fit for work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Who the device is, and how large.
    pub identity: Identity,
    /// Bytes of a physical block; at least the logical one.
    pub physical_block_bytes: u32,
    /// What one request is best long, in bytes; 0 is unknown.
    pub optimal_bytes: u32,
    /// The device must not be written.
    pub read_only: bool,
    /// Acknowledged writes may be in a volatile cache until flushed. False for AoE: see the
    /// architecture's page.
    pub volatile_cache: bool,
    /// Discard works.
    pub discard: bool,
    /// Write zeroes works without sending them.
    pub write_zeroes: bool,
    /// Which cache a write over this path lands in, if every target node has its own:
    /// paths with equal names share it.
    pub cache_domain: String,
    /// Which running instance of a target answers, if it tells. Another value after a return means
    /// that it was restarted, and a volatile cache may be lost.
    pub instance: Option<String>,
    /// Priority, higher is better: ALUA state (active/optimized 50, non-optimized 10, preferred
    /// +80, standby 1), or the configured weight.
    pub priority: u32,
    /// Serial number of the target, for `group_by_serial`.
    pub group_serial: String,
}

/// What a path says on its own.
#[derive(Debug)]
pub enum PathEvent<B> {
    /// It may be given tries. Also after facts have changed (size, ALUA state).
    Ready(Box<Facts>),
    /// It may not. Every try it had has ended before this event.
    Down(PathFault),
    /// A try ended.
    Tried(Tried<B>),
    /// What was in doubt up to and with this life is over: it has taken effect, or never will.
    Quiet(Life),
    /// A try that ended in doubt has been answered for after all, every copy of it: nothing of it
    /// is on its way any more, and its extent may be let go before its life is quiet. A hint: who
    /// ignores it only waits longer.
    Settled(TryId),
    /// Something may be on its way from an earlier process (crash recovery): anything, anywhere, of
    /// this life. [`PathEvent::Quiet`] ends it.
    Haunted(Life),
    /// A round of checking went well; it carried nothing else.
    Checked,
}
