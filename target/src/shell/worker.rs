//! One shard's thread: completions and letters in, operations out, one system call a turn.

use std::collections::VecDeque;
use std::time::Duration as Wait;

use corbel_proto::memory::Slice;
use corbel_proto::time::{Duration, Instant};
use corbel_ring::{Buf, Completion, Event, Receiver};

use super::StartError;
use super::host::{Backing, RingHost, block_error};
use super::letter::{Letter, Plan};
use super::ports::{Ports, Tags};
use super::report::ShardReport;
use super::streams::{COMMANDS_A_TURN, Streams};
use crate::aoe::{AoeServer, PortId};
use crate::host::{BlockError, BlockToken, Host, ShardId};
use crate::iscsi::server::IscsiServer;
use crate::scsi::LogicalUnit;
use crate::shard::Shard;

/// What completed, by the top byte of its tag. Block operations carry the engine's token, whose
/// top byte is 0, or 0x80 for a flush.
pub(super) mod tag {
    pub(crate) const KIND_SHIFT: u32 = 56;
    pub(crate) const PORT_READABLE: u64 = 1;
    pub(crate) const FRAME_SENT: u64 = 2;
    pub(crate) const LINKS: u64 = 3;
    pub(crate) const LISTENER: u64 = 4;
    pub(crate) const RECEIVED: u64 = 5;
    pub(crate) const SENT: u64 = 6;

    /// The tag of operation `kind` on thing number `index`.
    pub(crate) const fn of(kind: u64, index: u64) -> u64 {
        kind << KIND_SHIFT | index
    }

    /// What `of` put together.
    pub(crate) const fn parts(tag: u64) -> (u64, u64) {
        (tag >> KIND_SHIFT, tag & ((1 << KIND_SHIFT) - 1))
    }
}

/// Completions handled before what they gave is sent, for each connection that sent something in
/// the turn before: a peer is at work on its answers while the next ones are put together, and
/// many peers' answers still share a system call. As many as a connection begins, with the ends of
/// its last message and its receive.
const COMPLETIONS_A_SHARE: usize = COMMANDS_A_TURN + 2;

/// Frames that make a share. They are sent one by one in any case: theirs may double each turn.
const FRAMES_A_SHARE: usize = 8;

/// How long a stopping shard waits for initiators to log out, and then for the disks.
const LOGOUT_GRACE: Duration = Duration::from_secs(3);
const STOP_GRACE: Duration = Duration::from_secs(5);

/// A shard that waits for memory, or has something to say to itself, looks again this soon.
const SOON: Wait = Wait::from_millis(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) host: RingHost,
    pub(super) shard: Shard<Buf>,
    ports: Ports,
    streams: Streams,
    inbox: Receiver<Letter>,
    letters: VecDeque<Letter>,
    stopping: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
        host: RingHost,
        aoe: AoeServer<Buf>,
        iscsi: IscsiServer<Buf, LogicalUnit>,
        inbox: Receiver<Letter>,
    ) -> Self {
        let tags = Tags {
            readable: tag::of(tag::PORT_READABLE, 0),
            sent: tag::of(tag::FRAME_SENT, 0),
            links: tag::of(tag::LINKS, 0),
        };
        let ports = Ports::new(host.shard(), host.shards(), tags);
        Self {
            host,
            shard: Shard::new(aoe, iscsi),
            ports,
            streams: Streams::default(),
            inbox,
            letters: VecDeque::new(),
            stopping: None,
        }
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// If the ring broke.
    pub(super) fn run(mut self) -> std::io::Result<()> {
        let (mut fresh, mut done, mut shares) = (Vec::new(), VecDeque::new(), 1);
        loop {
            let wait = if done.is_empty() { self.wait() } else { Some(Wait::ZERO) };
            self.host.reactor.turn(wait, &mut fresh)?;
            done.extend(fresh.drain(..));
            self.host.now = now();
            self.streams.go_on(&mut self.host, &mut self.shard);
            for _ in 0..COMPLETIONS_A_SHARE * shares {
                let Some(completion) = done.pop_front() else { break };
                self.completed(completion);
            }
            self.inbox.drain(&mut self.letters);
            while let Some(letter) = self.letters.pop_front() {
                self.letter(letter);
            }
            self.receive_frames();
            while let Some((token, data)) = self.host.next_refused() {
                self.shard.block_done(&mut self.host, token, Err(BlockError::Gone), data);
            }
            while let Some(tag) = self.host.reactor.next_returned() {
                self.shard.returned(&mut self.host, BlockToken(tag));
            }
            self.shard.tick(&mut self.host);
            let frames = self.send_frames();
            let messages = self.streams.pump(&mut self.host, &mut self.shard);
            shares = (messages + frames / FRAMES_A_SHARE).max(1);
            if self.is_finished() {
                // The last answers go out.
                return self.host.reactor.turn(Some(Wait::ZERO), &mut fresh);
            }
        }
    }

    /// How long nothing needs to be done. `None`: until something happens.
    fn wait(&self) -> Option<Wait> {
        let frames = self.ports.has_frames() && self.stopping.is_none();
        let returned = self.host.reactor.has_returned();
        if frames || returned || self.host.has_refused() || self.streams.has_unread() {
            return Some(Wait::ZERO);
        }
        if self.shard.wants_tick() || self.stopping.is_some() {
            return Some(SOON);
        }
        let due = self.shard.next_timeout().into_iter().chain(self.ports.next_timeout()).min()?;
        Some(due.since(now()))
    }

    fn completed(&mut self, completion: Completion) {
        let Completion { tag, event, more, waiting } = completion;
        let (kind, index) = tag::parts(tag);
        match (kind, event) {
            (tag::PORT_READABLE, _) => {
                self.ports.readable(PortId(u16::try_from(index).unwrap_or(u16::MAX)));
            }
            (tag::FRAME_SENT, Event::Sent(Err(error))) => {
                tracing::debug!(%error, "a frame was not sent; its client repeats");
            }
            (tag::LINKS, _) => {
                let host = &mut self.host;
                let news = self.ports.link_events(&mut host.reactor, &mut self.shard.aoe);
                if host.shard() == 0 {
                    news.into_iter().for_each(|port| self.shard.aoe.announce(port));
                }
            }
            (tag::LISTENER, Event::Accepted(accepted)) => {
                self.streams.accepted(index, accepted, more, &mut self.host, &mut self.shard);
            }
            (tag::RECEIVED, event) => {
                self.streams.received(index, event, waiting, &mut self.host, &mut self.shard);
            }
            (tag::SENT, event) => {
                self.streams.sent(index, event, &mut self.host, &mut self.shard);
            }
            (_, event) => self.block_done(BlockToken(tag), event),
        }
    }

    fn block_done(&mut self, token: BlockToken, event: Event) {
        let (result, data): (_, Option<Slice<Buf>>) = match event {
            Event::Read { data, result } | Event::Written { data, result } => {
                // Short of what was asked: the store ended before its size said so.
                let whole = data.len;
                let result = match result {
                    Ok(bytes) if bytes == whole => Ok(()),
                    Ok(_) => Err(BlockError::Medium),
                    Err(failure) => Err(failed(failure)),
                };
                (result, Some(data))
            }
            Event::Synced(result) | Event::Deallocated(result) => (result.map_err(failed), None),
            _ => return,
        };
        self.shard.block_done(&mut self.host, token, result, data);
    }

    fn receive_frames(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let (shard, host) = (&mut self.shard, &mut self.host);
        let arena = host.reactor.arena();
        self.ports.receive(&arena, |port, frame| shard.frame(host, port, &frame));
        self.ports.unblock(host.now, &mut host.reactor);
    }

    /// Returns how many there were.
    fn send_frames(&mut self) -> usize {
        let mut frames = 0;
        while let Some(frame) = self.shard.aoe.poll_transmit() {
            self.ports.send(frame, &mut self.host.reactor);
            frames += 1;
        }
        frames
    }

    fn letter(&mut self, letter: Letter) {
        match letter {
            Letter::Peer(message) => self.shard.message(&mut self.host, message),
            Letter::Persisted { token, kept } => {
                self.shard.persisted(&mut self.host, token, kept);
            }
            Letter::Extent { token, extent } => match extent {
                Ok(extent) => self.shard.status_done(&mut self.host, token, extent),
                Err(error) => self.shard.block_done(&mut self.host, token, Err(error), None),
            },
            Letter::Store(volume, store, base) => {
                let file = self.host.reactor.attach_store(store.clone());
                self.host.set_store(volume, Some(Backing { store, file, base }));
            }
            Letter::Forget(volume) => self.host.set_store(volume, None),
            Letter::Install(plan, answer) => {
                // Nobody listens any more if the start was given up meanwhile.
                let _ = answer.send(self.install(&plan));
            }
            Letter::Adopt(fd, bytes) => {
                // A stopping shard takes no connection, and closes this one.
                self.streams.adopt(fd, &bytes, &mut self.host, &mut self.shard);
            }
            Letter::Announce => self.announce(),
            Letter::Report(answer) => {
                let _ = answer.send(self.report());
            }
            Letter::Stop => {
                self.stopping.get_or_insert(self.host.now + STOP_GRACE);
                self.ports.stop(&mut self.host.reactor);
                self.streams.stop_listening(&mut self.host.reactor);
                self.shard.stop(&mut self.host, LOGOUT_GRACE);
            }
        }
    }

    fn install(&mut self, plan: &Plan) -> Result<(), StartError> {
        let keep: Vec<_> = plan.ports.iter().map(|(id, _)| *id).collect();
        let reactor = &mut self.host.reactor;
        for (id, name) in &plan.ports {
            self.ports.add(*id, name, reactor, &mut self.shard.aoe)?;
        }
        self.streams.listen(&plan.portals, reactor)?;
        self.ports.retain(&keep, reactor, &mut self.shard.aoe);
        self.shard.aoe.set_map(&plan.shelves);
        self.shard.set_targets(&mut self.host, &plan.targets);
        self.announce();
        Ok(())
    }

    /// One shard speaks for all.
    fn announce(&mut self) {
        if self.host.shard() == 0 {
            for port in self.ports.ids() {
                self.shard.aoe.announce(port);
            }
        }
    }

    fn report(&mut self) -> ShardReport {
        ShardReport {
            shard: self.host.shard(),
            now: self.host.now,
            ports: self.ports.report(),
            sessions: self.shard.iscsi.status(),
            arena: self.host.reactor.arena().stats(),
            in_flight: self.shard.engine.in_flight_by_volume(),
        }
    }

    /// A stopping shard ends once nothing is in flight, or when its grace is over.
    fn is_finished(&self) -> bool {
        let Some(deadline) = self.stopping else { return false };
        let idle = self.shard.engine.in_flight() == 0 && self.streams.is_empty();
        if !idle && self.host.now < deadline {
            return false;
        }
        if self.shard.engine.in_flight() > 0 {
            let shard: ShardId = self.host.shard();
            tracing::warn!(
                shard,
                requests = self.shard.engine.in_flight(),
                "stopping although the storage has not answered"
            );
        }
        true
    }
}

fn failed(failure: corbel_ring::Failure) -> BlockError {
    tracing::warn!(%failure, "the backing store failed");
    block_error(failure)
}

/// The monotonic clock, which starts at boot.
pub(super) fn now() -> Instant {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds * 1_000_000_000 + nanos)
}
