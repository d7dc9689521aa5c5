//! A shard's TCP side: listeners, connections, and where received bytes go.
//!
//! A connection without traffic holds no memory: its receive waits for a piece of the pool that
//! all share. Write payload that is still to come is received straight to where the disk write
//! will take it from; while a connection brings such payload, only the next header is received in
//! between, so that payload is not caught in the pool and copied.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use corbel_proto::iscsi::bhs::BHS_BYTES;
use corbel_proto::iscsi::target::Payload;
use corbel_proto::memory::Slice;
use corbel_ring::tcp::{self, ListenError};
use corbel_ring::{Buf, Event, Failure, File, Message, Op, OpId, Reactor};
use slab::Slab;

use super::host::RingHost;
use super::worker::tag;
use crate::iscsi::server::{ConnId, Move};
use crate::shard::Shard;

/// PDUs and bytes that go out in one message.
const MESSAGE_PDUS_MAX: usize = 64;
const MESSAGE_BYTES_MAX: u64 = 512 * 1024;

/// Commands of one connection that are begun before answers go out: what is answered can be worked
/// on by the initiator meanwhile. Not 16: TCP hands packets of up to 64 KiB, headers included, to
/// the device, and 16 answers of 4 KiB are one such packet and another of 800 bytes, which costs
/// both ends nearly as much again. Answers of any power of two fill their last packet well.
pub(super) const COMMANDS_A_TURN: usize = 15;
const PACKET_BYTES: usize = 65_535 - 40 - 60;
const _: () = assert!(COMMANDS_A_TURN * (BHS_BYTES + 4 + 4096 + 4) <= PACKET_BYTES);

/// Answers that are held back, if they are small, while the socket has more commands for us: each
/// message wakes the peer.
const HELD_PDUS_MAX: usize = 16;
const HELD_BYTES_MAX: u64 = 4096;

/// Payload of at least this length is received straight to its place.
const DIRECT_BYTES_MIN: u32 = 8192;

#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    file: File,
    accept: Option<OpId>,
}

/// What is being received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Nothing,
    Pooled,
    Direct,
}

#[derive(Debug)]
struct Stream {
    file: File,
    id: ConnId,
    receiving: Receiving,
    /// Received, and not yet looked at. Nothing more is received meanwhile.
    input: Option<Slice<Buf>>,
    sending: bool,
    /// When the last bytes came, the socket held more.
    waiting: bool,
    /// Small answers that more will soon be added to.
    held: Option<Message>,
    held_pdus: usize,
    /// The last bytes were followed by payload: receive headers alone.
    payload_comes: bool,
    /// The iSCSI side is done with it; it closes once what is queued was sent.
    closing: bool,
    /// Closed by us or by the peer; waits for its operations to end.
    dead: bool,
}

impl Stream {
    /// True if it will be looked at again without anything having to come.
    fn hears_more(&self) -> bool {
        !self.closing && (self.input.is_some() || self.waiting)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Streams {
    listeners: Slab<Listener>,
    streams: Slab<Stream>,
    by_id: BTreeMap<ConnId, usize>,
    /// Streams to look at before the next turn.
    dirty: Vec<usize>,
    /// Streams with received bytes that were not looked at yet.
    unread: VecDeque<usize>,
}

impl Streams {
    /// Listens on these addresses and no others.
    pub(super) fn listen(
        &mut self,
        addresses: &[SocketAddr],
        reactor: &mut Reactor,
    ) -> Result<(), ListenError> {
        for &address in addresses {
            if self.listeners.iter().any(|(_, listener)| listener.address == address) {
                continue;
            }
            let file = reactor.attach(tcp::listen(address, &tcp::Options::default())?);
            let key = self.listeners.insert(Listener { address, file, accept: None });
            self.accept(key, reactor);
        }
        self.close_listeners(reactor, |address| !addresses.contains(address));
        Ok(())
    }

    /// Takes no more connections.
    pub(super) fn stop_listening(&mut self, reactor: &mut Reactor) {
        self.close_listeners(reactor, |_| true);
    }

    fn close_listeners(&mut self, reactor: &mut Reactor, close: impl Fn(&SocketAddr) -> bool) {
        self.listeners.retain(|_, listener| {
            let keep = !close(&listener.address);
            if !keep {
                reactor.close(listener.file);
            }
            keep
        });
    }

    fn accept(&mut self, key: usize, reactor: &mut Reactor) {
        let listener = &mut self.listeners[key];
        let tag = tag::of(tag::LISTENER, key as u64);
        listener.accept = Some(reactor.submit(Op::Accept { file: listener.file }, tag));
    }

    /// True if there is no connection.
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// A connection came, or could not be accepted just now.
    pub(super) fn accepted(
        &mut self,
        listener: u64,
        accepted: Result<File, Failure>,
        more: bool,
        host: &mut RingHost,
        shard: &mut Shard<Buf>,
    ) {
        let key = usize::try_from(listener).unwrap_or(usize::MAX);
        let known = self.listeners.contains(key);
        match accepted {
            Ok(file) if known => {
                self.begin(file, host, shard);
            }
            Ok(file) => host.reactor.close(file),
            Err(failure) if known => tracing::warn!(%failure, "no connection accepted"),
            Err(_) => {}
        }
        if known && !more {
            self.accept(key, &mut host.reactor);
        }
    }

    /// A connection from another shard, which has received these bytes so far.
    pub(super) fn adopt(
        &mut self,
        fd: OwnedFd,
        received: &[u8],
        host: &mut RingHost,
        shard: &mut Shard<Buf>,
    ) {
        let file = host.reactor.attach(fd);
        if let Some(id) = self.begin(file, host, shard) {
            shard.received(host, id, received);
        }
    }

    /// A connection that this shard serves from now on, unless it went away again or is one too
    /// many (which is logged there).
    fn begin(&mut self, file: File, host: &mut RingHost, shard: &mut Shard<Buf>) -> Option<ConnId> {
        let addresses = host.reactor.descriptor(file).and_then(|fd| tcp::addresses(fd).ok());
        let accepted = addresses
            .and_then(|(local, peer)| Some((local, peer, shard.accept(host, local, peer).ok()?)));
        let Some((local, peer, id)) = accepted else {
            host.reactor.close(file);
            return None;
        };
        if local.ip() == peer.ip() || peer.ip().is_loopback() {
            host.reactor.copy_always(file);
        }
        let key = self.streams.insert(Stream {
            file,
            id,
            receiving: Receiving::Nothing,
            input: None,
            sending: false,
            waiting: false,
            held: None,
            held_pdus: 0,
            payload_comes: false,
            closing: false,
            dead: false,
        });
        self.by_id.insert(id, key);
        self.dirty.push(key);
        Some(id)
    }

    /// Hands a connection to the shard that has its session. Nothing is under way on it: it has
    /// sent one request, and was answered nothing.
    fn hand_over(&mut self, moving: Move, host: &mut RingHost, shard: &mut Shard<Buf>) {
        let Move { id, shard: to, bytes } = moving;
        shard.closed(host, id);
        let Some(key) = self.by_id.remove(&id) else { return };
        let stream = self.streams.remove(key);
        match host.reactor.detach(stream.file) {
            Ok(fd) => host.hand_over(to, fd, bytes),
            Err(error) => tracing::warn!(%error, "a connection is not handed over"),
        }
    }

    /// Bytes came, or the stream ended.
    pub(super) fn received(
        &mut self,
        key: u64,
        event: Event,
        waiting: bool,
        host: &mut RingHost,
        shard: &mut Shard<Buf>,
    ) {
        let Some(key) = usize::try_from(key).ok().filter(|key| self.streams.contains(*key)) else {
            return;
        };
        let stream = &mut self.streams[key];
        stream.waiting = waiting;
        let was = std::mem::replace(&mut stream.receiving, Receiving::Nothing);
        let (id, dead) = (stream.id, stream.dead);
        self.dirty.push(key);
        match event {
            Event::Pooled(Ok(Some(data))) if !dead => self.take(key, data, host, shard),
            Event::Received { data, result } if was == Receiving::Direct => {
                let len = result.unwrap_or(0);
                // The machine gets its memory back even if the stream ended.
                if !dead {
                    shard.direct_done(host, id, data, len);
                }
                if len == 0 {
                    self.end(key, host, shard);
                }
            }
            Event::Pooled(Ok(None) | Err(_)) => self.end(key, host, shard),
            _ => {}
        }
    }

    /// True if received bytes wait for [`Self::go_on`]: do not wait.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Looks at the next part of what was received, once for each stream.
    pub(super) fn go_on(&mut self, host: &mut RingHost, shard: &mut Shard<Buf>) {
        for _ in 0..self.unread.len() {
            let Some(key) = self.unread.pop_front() else { return };
            let input = self.streams.get_mut(key).and_then(|stream| stream.input.take());
            if let Some(input) = input {
                self.take(key, input, host, shard);
            }
        }
    }

    fn take(&mut self, key: usize, data: Slice<Buf>, host: &mut RingHost, shard: &mut Shard<Buf>) {
        let stream = &mut self.streams[key];
        self.dirty.push(key);
        let taken = shard.received_some(host, stream.id, data.bytes(), COMMANDS_A_TURN);
        let taken = u32::try_from(taken).unwrap_or(data.len).min(data.len);
        if taken < data.len {
            stream.input = Some(data.sub(taken, data.len - taken));
            self.unread.push_back(key);
        }
    }

    /// A message went out, or never will.
    pub(super) fn sent(
        &mut self,
        key: u64,
        event: Event,
        host: &mut RingHost,
        shard: &mut Shard<Buf>,
    ) {
        let Some(key) = usize::try_from(key).ok().filter(|key| self.streams.contains(*key)) else {
            return;
        };
        self.streams[key].sending = false;
        self.dirty.push(key);
        if matches!(event, Event::Sent(Err(_))) {
            self.end(key, host, shard);
        }
    }

    /// The stream is over, whoever ended it.
    fn end(&mut self, key: usize, host: &mut RingHost, shard: &mut Shard<Buf>) {
        let stream = &mut self.streams[key];
        if !stream.dead {
            stream.dead = true;
            stream.input = None;
            if let Some(message) = stream.held.take() {
                host.reactor.unsent(message);
            }
            host.reactor.close(stream.file);
            self.by_id.remove(&stream.id);
            shard.closed(host, stream.id);
            self.dirty.push(key);
        }
    }

    /// Sends what there is to send, receives where there is room, and closes what is done with.
    /// Returns how many messages were sent.
    pub(super) fn pump(&mut self, host: &mut RingHost, shard: &mut Shard<Buf>) -> usize {
        while let Some(moving) = shard.iscsi.poll_move() {
            self.hand_over(moving, host, shard);
        }
        while let Some(id) = shard.iscsi.poll_close() {
            if let Some(&key) = self.by_id.get(&id) {
                self.streams[key].closing = true;
                self.dirty.push(key);
            }
        }
        while let Some(id) = shard.iscsi.poll_ready() {
            self.dirty.extend(self.by_id.get(&id));
        }
        let mut sent = 0;
        while let Some(key) = self.dirty.pop() {
            if self.streams.contains(key) {
                sent += usize::from(self.pump_one(key, host, shard));
            }
        }
        sent
    }

    /// True if it sends something.
    fn pump_one(&mut self, key: usize, host: &mut RingHost, shard: &mut Shard<Buf>) -> bool {
        let stream = &mut self.streams[key];
        if stream.dead {
            if !stream.sending && stream.receiving == Receiving::Nothing {
                self.streams.remove(key);
            }
            return false;
        }
        if stream.sending {
            shard.iscsi.call_in(stream.id, host);
        }
        let sends = !stream.sending && send(stream, key, host, shard);
        stream.sending |= sends;
        if stream.closing {
            if !stream.sending {
                self.end(key, host, shard);
            }
            return sends;
        }
        let idle = stream.receiving == Receiving::Nothing && stream.input.is_none();
        if idle && shard.iscsi.wants_read(stream.id) {
            receive(stream, key, host, shard);
        }
        sends
    }
}

/// Everything that is queued, up to a bound, in one message. True if it is on its way.
fn send(stream: &mut Stream, key: usize, host: &mut RingHost, shard: &mut Shard<Buf>) -> bool {
    let mut message = stream.held.take().unwrap_or_else(|| host.reactor.message());
    let mut pdus = std::mem::take(&mut stream.held_pdus);
    while pdus < MESSAGE_PDUS_MAX && message.len() < MESSAGE_BYTES_MAX {
        let Some(pdu) = shard.iscsi.transmit(stream.id) else { break };
        pdus += 1;
        message.bytes(pdu.header());
        match &pdu.data {
            Payload::None => {}
            Payload::Small(bytes) => {
                message.bytes(bytes);
            }
            Payload::Bytes(bytes) => {
                message.bytes(bytes);
            }
            Payload::Shared(slice) => {
                message.payload(slice.clone());
            }
        }
        message.bytes(pdu.trailer());
    }
    if message.is_empty() {
        host.reactor.unsent(message);
        return false;
    }
    let more = stream.hears_more() && shard.iscsi.wants_read(stream.id);
    if more && waits(pdus, message.len(), shard.iscsi.direct(stream.id)) {
        (stream.held, stream.held_pdus) = (Some(message), pdus);
        return false;
    }
    let tag = tag::of(tag::SENT, key as u64);
    host.reactor.submit(Op::Send { file: stream.file, message }, tag);
    true
}

/// True if so many answers, of so many bytes, wait for what the socket holds, which begins with
/// this much payload. Not while that is received straight to its place: all of it may take a while
/// to come. But a command that the end of a pool buffer has cut brings its rest with the next.
fn waits(pdus: usize, bytes: u64, direct: Option<u32>) -> bool {
    pdus < HELD_PDUS_MAX && bytes < HELD_BYTES_MAX && !direct.is_some_and(is_direct)
}

/// True if so much payload that is still to come is received straight to its place.
const fn is_direct(left: u32) -> bool {
    left >= DIRECT_BYTES_MIN
}

fn receive(stream: &mut Stream, key: usize, host: &mut RingHost, shard: &mut Shard<Buf>) {
    let (file, tag) = (stream.file, tag::of(tag::RECEIVED, key as u64));
    let direct = shard.iscsi.direct(stream.id).filter(|left| is_direct(*left));
    if direct.is_some() {
        stream.payload_comes = true;
        let place: Option<Slice<Buf>> = shard.iscsi.take_direct(stream.id);
        if let Some(data) = place {
            stream.receiving = Receiving::Direct;
            host.reactor.submit(Op::Recv { file, data, exact: true }, tag);
            return;
        }
    }
    // Commands that bring no payload come many at a time; a header in front of payload alone.
    let len_max = if stream.payload_comes { u32::try_from(BHS_BYTES).expect("48") } else { 0 };
    stream.payload_comes = direct.is_some();
    stream.receiving = Receiving::Pooled;
    host.reactor.submit(Op::RecvPooled { file, len_max, repeat: false }, tag);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_answers_wait_for_the_rest_of_a_cut_command_but_not_for_a_long_payload() {
        assert!(waits(7, 7 * 48, None));
        assert!(waits(7, 7 * 48, Some(3000)));
        assert!(!waits(7, 7 * 48, Some(DIRECT_BYTES_MIN)));
        assert!(!waits(HELD_PDUS_MAX, 7 * 48, None) && !waits(7, HELD_BYTES_MAX, None));
    }
}
