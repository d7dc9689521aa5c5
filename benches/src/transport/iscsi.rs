//! iSCSI: one session of one connection.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use corbel_initiator::blocking::login::{self, Options};
use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::iscsi::initiator::{
    Answer, Command, CommandId, Connection, Event as Told, Failure, KeepAlive, Transfer,
};
use corbel_proto::memory::{SEGMENT_BYTES_MAX, Slice};
use corbel_proto::time::{Duration, Instant};
use corbel_ring::{Buf, Completion, Event, File, Message, Op, Reactor};

use super::{Durable, Ended, Shape, Transport, noise, pieces, reactor};
use crate::cpu::now;

/// PDUs and bytes that go out in one message.
const MESSAGE_PDUS_MAX: usize = 256;
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;

const RECEIVED: u64 = 1;
const SENT: u64 = 2;

const KEEP_ALIVE: KeepAlive =
    KeepAlive { ping_after: Duration::from_secs(5), answer_within: Duration::from_secs(25) };

/// How long leaving may take.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// Times a command is sent again, in a row, to a target that says that it is busy.
const BUSY_MAX: u32 = 100_000;

/// The memory of a command.
#[derive(Debug)]
enum Data {
    /// To be filled, or filled with what is told.
    Own(Vec<u8>),
    /// What every write writes.
    Same(Rc<Same>),
}

/// The same bytes twice: in one piece for the protocol to look at, and where the kernel takes them
/// from without a copy.
#[derive(Debug)]
struct Same {
    bytes: Vec<u8>,
    pieces: Vec<Slice<Buf>>,
}

impl AsRef<[u8]> for Data {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Same(same) => &same.bytes,
        }
    }
}

impl AsMut<[u8]> for Data {
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Same(_) => unreachable!("nothing is read into what is written"),
        }
    }
}

impl Same {
    fn new(bytes: u32, reactor: &Reactor) -> Result<Self, String> {
        let mut whole = vec![0; bytes as usize];
        noise(&mut whole);
        let (arena, mut rest, mut lent) = (reactor.arena(), &whole[..], Vec::new());
        for len in pieces(bytes) {
            let mut piece = Slice::whole(arena.lend(len as usize).ok_or("no payload memory")?);
            piece.bytes_mut().copy_from_slice(&rest[..len as usize]);
            rest = &rest[len as usize..];
            lent.push(piece);
        }
        Ok(Self { bytes: whole, pieces: lent })
    }

    fn append(&self, mut at: usize, len: usize, message: &mut Message) {
        let end = at + len;
        while at < end {
            let piece = &self.pieces[at / SEGMENT_BYTES_MAX];
            let start = at % SEGMENT_BYTES_MAX;
            let len = (end - at).min(piece.len as usize - start);
            let narrow = |n: usize| u32::try_from(n).expect("inside a piece");
            message.payload(piece.sub(narrow(start), narrow(len)));
            at += len;
        }
    }
}

#[derive(Debug)]
struct Slot {
    /// Memory of its own, while it is not under way.
    memory: Option<Vec<u8>>,
    cdb: [u8; 16],
    busy: u32,
    /// Once it is written the cache is to be emptied.
    unsaved: bool,
}

/// See the module.
pub(super) struct Iscsi {
    reactor: Reactor,
    file: File,
    connection: Connection<Data>,
    lun: Lun,
    shape: Shape,
    same: Rc<Same>,
    slots: Vec<Slot>,
    done: Vec<Completion>,
    receiving: bool,
    sending: bool,
    repeated: u64,
}

impl Iscsi {
    /// Logs in.
    pub(super) fn open(
        portal: SocketAddr,
        lun: Lun,
        options: &Options,
        shape: Shape,
    ) -> Result<Self, String> {
        let mut options = options.clone();
        // RFC 7143 11.12.5: the last two bytes tell the sessions of one initiator apart.
        let job = u16::try_from(shape.job).map_err(|_| "too many jobs")?;
        options.isid[4..].copy_from_slice(&job.to_be_bytes());
        let (stream, start) = login::open(portal, &options).map_err(|error| error.to_string())?;
        // A local peer gets a copy in any case, and a notification to wait for besides.
        let mut reactor = reactor(shape.io_bytes as usize, !portal.ip().is_loopback(), shape)?;
        let same = Rc::new(Same::new(shape.io_bytes, &reactor)?);
        let file = reactor.attach(OwnedFd::from(stream));
        let memory = || Some(vec![0; shape.io_bytes as usize]);
        let slot = |_| Slot { memory: memory(), cdb: [0; 16], busy: 0, unsaved: false };
        Ok(Self {
            connection: Connection::new(now(), start, Some(KEEP_ALIVE)),
            reactor,
            file,
            lun,
            shape,
            same,
            slots: (0..shape.slots).map(slot).collect(),
            done: Vec::with_capacity(64),
            receiving: false,
            sending: false,
            repeated: 0,
        })
    }

    /// Sends what may be sent, in one message; one at a time keeps the order.
    fn pump(&mut self) {
        if !self.receiving {
            self.receiving = true;
            let op = Op::RecvPooled { file: self.file, len_max: 0, repeat: true };
            self.reactor.submit(op, RECEIVED);
        }
        if self.sending {
            return;
        }
        let mut message = self.reactor.message();
        for _ in 0..MESSAGE_PDUS_MAX {
            let Some(pdu) = self.connection.poll_transmit() else { break };
            message.bytes(pdu.header());
            match pdu.origin() {
                Some((Data::Same(same), at)) if !pdu.data().is_empty() => {
                    same.append(at as usize, pdu.data().len(), &mut message);
                }
                _ => {
                    message.bytes(pdu.data());
                }
            }
            message.bytes(pdu.trailer());
            if message.len() >= MESSAGE_BYTES_MAX {
                break;
            }
        }
        if message.is_empty() {
            return self.reactor.unsent(message);
        }
        self.sending = true;
        self.reactor.submit(Op::Send { file: self.file, message }, SENT);
    }

    fn completed(&mut self, at: Instant, completion: Completion) -> Result<(), String> {
        match (completion.tag, completion.event) {
            (SENT, event) => {
                self.sending = false;
                if let Event::Sent(Err(failure)) = event {
                    return Err(failure.to_string());
                }
            }
            (_, Event::Pooled(Ok(Some(data)))) => {
                self.receiving = completion.more;
                let taken = self.connection.handle_bytes(at, data.bytes());
                taken.map_err(|fatal| fatal.to_string())?;
            }
            (_, Event::Pooled(Ok(None))) => {
                return Err("the target closed the connection".to_owned());
            }
            (_, Event::Pooled(Err(failure))) => return Err(failure.to_string()),
            _ => {}
        }
        Ok(())
    }

    fn told(&mut self, told: Told<Data>, ended: &mut Vec<Ended>) -> Result<(), String> {
        let (id, transfer, result) = match told {
            Told::Done { id, transfer, result } => (id, transfer, result),
            Told::Async(event, _) => return Err(format!("the target says: {event:?}")),
            Told::LoggedOut(_) => return Err("logged out".to_owned()),
            _ => return Ok(()),
        };
        let slot = u32::try_from(id.0).expect("our own numbers");
        let at = slot as usize;
        let again = result.as_ref().is_ok_and(is_temporary) && self.slots[at].busy < BUSY_MAX;
        if again {
            self.repeated += 1;
            self.slots[at].busy += 1;
            let (lun, cdb) = (self.lun, self.slots[at].cdb);
            self.connection.submit(Command { id, lun, cdb, transfer });
            return Ok(());
        }
        if let Transfer::Read(Data::Own(memory)) | Transfer::Write(Data::Own(memory)) = transfer {
            self.slots[at].memory = Some(memory);
        }
        let result = result.map_err(failed).and_then(good);
        if std::mem::take(&mut self.slots[at].unsaved) && result.is_ok() {
            let cdb = cache_emptied(&self.slots[at].cdb);
            self.slots[at].cdb = cdb;
            self.connection.submit(Command { id, lun: self.lun, cdb, transfer: Transfer::None });
            return Ok(());
        }
        ended.push(Ended { slot, result });
        Ok(())
    }
}

/// BUSY, TASK SET FULL, and CHECK CONDITION with a unit attention (SAM-5 5.3.1, SPC-4 4.5).
fn is_temporary(answer: &Answer) -> bool {
    let key = match answer.sense.first().map(|code| code & 0x7f) {
        Some(0x70 | 0x71) => answer.sense.get(2),
        Some(0x72 | 0x73) => answer.sense.get(1),
        _ => None,
    };
    matches!(answer.status, 0x08 | 0x28)
        || (answer.status == 0x02 && key.is_some_and(|key| key & 0xf == 0x6))
}

fn good(answer: Answer) -> Result<(), String> {
    match answer {
        Answer { status: 0, residual: corbel_proto::iscsi::pdu::Residual::None, .. } => Ok(()),
        Answer { status: 0, residual, .. } => Err(format!("not as much as asked: {residual:?}")),
        Answer { status, sense, .. } => {
            Err(format!("SCSI status {status:#04x}, sense {sense:02x?}"))
        }
    }
}

fn failed(failure: Failure) -> String {
    format!("the command failed: {failure:?}")
}

/// FUA of WRITE (16): its blocks are on the medium when it ends (SBC-4 5.46).
const FUA: u8 = 0x08;

/// READ (16) or WRITE (16) (SBC-4 5.19, 5.46).
fn cdb(write: bool, durable: Durable, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = if write { 0x8a } else { 0x88 };
    if write && durable == Durable::Through {
        cdb[1] = FUA;
    }
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// SYNCHRONIZE CACHE (16) for the blocks of a WRITE (16) (SBC-4 5.30).
fn cache_emptied(write: &[u8; 16]) -> [u8; 16] {
    let mut cdb = *write;
    (cdb[0], cdb[1]) = (0x91, 0);
    cdb
}

impl Transport for Iscsi {
    fn submit(&mut self, _now: Instant, slot: u32, write: bool, offset: u64, data: Option<&[u8]>) {
        let (block, durable) = (self.shape.block_bytes, self.shape.durable);
        let cdb = cdb(write, durable, offset / u64::from(block), self.shape.io_bytes / block);
        let at = &mut self.slots[slot as usize];
        (at.cdb, at.busy) = (cdb, 0);
        at.unsaved = write && durable == Durable::Emptied;
        let transfer = match (write, data) {
            (true, None) => Transfer::Write(Data::Same(self.same.clone())),
            (_, data) => {
                let mut memory = at.memory.take().expect("the slot is free");
                if let Some(data) = data {
                    memory.copy_from_slice(data);
                }
                let memory = Data::Own(memory);
                if write { Transfer::Write(memory) } else { Transfer::Read(memory) }
            }
        };
        let (id, lun) = (CommandId(slot.into()), self.lun);
        self.connection.submit(Command { id, lun, cdb, transfer });
    }

    fn turn(&mut self, wait: Duration, ended: &mut Vec<Ended>) -> Result<(), String> {
        self.pump();
        let mut done = std::mem::take(&mut self.done);
        self.reactor.turn(Some(wait), &mut done).map_err(|error| error.to_string())?;
        let at = now();
        if done.is_empty() && self.connection.poll_timeout().is_some_and(|due| due <= at) {
            self.connection.handle_timeout(at).map_err(|fatal| fatal.to_string())?;
        }
        for completion in done.drain(..) {
            self.completed(at, completion)?;
        }
        self.done = done;
        while let Some(told) = self.connection.poll_event() {
            self.told(told, ended)?;
        }
        Ok(())
    }

    fn fetch(&self, slot: u32, into: &mut [u8]) {
        let memory = self.slots[slot as usize].memory.as_ref();
        into.copy_from_slice(memory.expect("its request has ended"));
    }

    fn repeated(&self) -> u64 {
        self.repeated
    }

    fn leave(&mut self) {
        self.connection.logout();
        let (end, mut ended) = (now() + LEAVE_MAX, Vec::new());
        // It ends with an error: the session is over.
        while now() < end && self.turn(Duration::from_millis(100), &mut ended).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use corbel_proto::iscsi::pdu::Residual;

    use super::*;

    fn answer(status: u8, sense: &[u8]) -> Answer {
        Answer { status, sense: sense.to_vec(), residual: Residual::None }
    }

    #[test]
    fn a_target_that_is_busy_or_has_news_is_asked_again() {
        assert!(is_temporary(&answer(0x28, &[])));
        assert!(is_temporary(&answer(0x02, &[0x70, 0, 0x06, 0])));
        assert!(is_temporary(&answer(0x02, &[0x72, 0x06, 0, 0])));
        assert!(!is_temporary(&answer(0x02, &[0x70, 0, 0x03, 0])));
        assert!(!is_temporary(&answer(0x00, &[])));
    }

    #[test]
    fn commands_carry_place_and_length() {
        let wanted = [0x88, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0];
        assert_eq!(cdb(false, Durable::AsAnswered, 0x1_0000_0002, 8), wanted);
        assert_eq!(cdb(true, Durable::AsAnswered, 0, 1)[..2], [0x8a, 0]);
    }

    #[test]
    fn durable_writes_have_fua_or_their_blocks_cache_is_emptied() {
        assert_eq!(cdb(true, Durable::Through, 0, 1)[..2], [0x8a, 0x08]);
        assert_eq!(cdb(true, Durable::Emptied, 0, 1)[..2], [0x8a, 0]);
        assert_eq!(cdb(false, Durable::Through, 0, 1)[..2], [0x88, 0]);
        let write = cdb(true, Durable::Emptied, 0x1_0000_0002, 8);
        let emptied = cache_emptied(&write);
        assert_eq!((&emptied[..2], &emptied[2..]), (&[0x91, 0][..], &write[2..]));
    }

    #[test]
    fn a_short_answer_is_no_success() {
        assert!(good(answer(0, &[])).is_ok());
        assert!(good(Answer { residual: Residual::Underflow(512), ..answer(0, &[]) }).is_err());
        assert!(good(answer(2, &[])).is_err());
    }
}
