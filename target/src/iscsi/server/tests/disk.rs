//! A logical unit that does as little as the server lets it.

use std::sync::Arc;

use corbel_proto::iscsi::target::{DataIn, Response, TaskFault};
use corbel_proto::memory::{HeapBuffer, Segments};
use corbel_proto::scsi::transport_id;

use smallvec::SmallVec;

use crate::iscsi::device::{Ask, Device, Next, View};
use crate::reservation::{Ended, NexusName, Registration};
use crate::volume::{Kind, Outcome, Request, Volume, VolumeId};

/// READ (28h) and WRITE (2Ah) of the first `cdb[1]` blocks; PERSISTENT RESERVE OUT (5Fh) ends the
/// commands of the initiators with ISID 2 and 3; SANITIZE (48h) reads what nobody can stop, and is
/// answered first with a `cdb[1]` of 1; EXTENDED COPY (83h) reads twice, on volume 9 as well;
/// everything else is GOOD.
#[derive(Debug)]
pub(super) struct Disk(pub(super) Arc<Volume>);

/// Works that are more than a number of bytes.
const SANITIZE: u64 = u64::MAX;
const COPY: u64 = u64::MAX - 1;

fn status(status: u8, wanted: u64) -> Response<HeapBuffer> {
    Response { status, sense: Box::default(), data: DataIn::None, wanted }
}

impl Device<HeapBuffer> for Disk {
    type Nexus = ();
    type Work = u64;

    fn volume(&self) -> VolumeId {
        self.0.id
    }

    fn nexus(self: &Arc<Self>, _: &View<'_>) {}

    fn begin(&self, (): &mut (), ask: &Ask<'_>) -> Next<HeapBuffer, u64> {
        let bytes = u64::from(ask.cdb[1]) * 512;
        let request = |kind| Request { volume: self.0.clone(), kind, durable: false, lend: false };
        match ask.cdb[0] {
            0x28 => {
                let read = request(Kind::Read { offset: 0, len: bytes });
                Next::Submit(Request { lend: true, ..read }, bytes)
            }
            0x2a => Next::Gather(bytes, bytes),
            0x48 => {
                let answer = (ask.cdb[1] == 1).then(|| status(0, 0));
                let request = request(Kind::Read { offset: 0, len: 512 });
                Next::Detach(Box::new((request, SANITIZE, answer)))
            }
            0x83 => Next::Submit(request(Kind::Read { offset: 0, len: 512 }), COPY),
            0x5f => Next::Keep("reservations".to_owned(), vec![1], 0),
            _ => Next::Answer(status(0, 0)),
        }
    }

    fn data(
        &self,
        (): &mut (),
        _: &View<'_>,
        bytes: u64,
        data: Segments<HeapBuffer>,
    ) -> Next<HeapBuffer, u64> {
        let kind = Kind::Write { offset: 0, data };
        Next::Submit(Request { volume: self.0.clone(), kind, durable: false, lend: false }, bytes)
    }

    fn outcome(&self, bytes: u64, outcome: Outcome<HeapBuffer>) -> Next<HeapBuffer, u64> {
        match bytes {
            SANITIZE => return Next::Keep("sanitized".to_owned(), vec![1], SANITIZE),
            COPY => {
                let kind = Kind::Read { offset: 512, len: 512 };
                return Next::Submit(
                    Request { volume: self.0.clone(), kind, durable: false, lend: false },
                    0,
                );
            }
            _ => {}
        }
        Next::Answer(match outcome {
            Outcome::Done => status(0, bytes),
            Outcome::Data(data) => Response { data: DataIn::Segments(data), ..status(0, bytes) },
            _ => status(2, 0),
        })
    }

    fn peers(&self, (): &mut (), _: u64, _: &[Arc<Self>]) -> Next<HeapBuffer, u64> {
        Next::Answer(status(2, 0))
    }

    fn also_on(work: &u64) -> SmallVec<[VolumeId; 2]> {
        (*work == COPY).then_some(VolumeId(9)).into_iter().collect()
    }

    fn kept(&self, work: u64, ok: bool) -> Next<HeapBuffer, u64> {
        if work == SANITIZE {
            return Next::Answer(status(0, 0));
        }
        let victims = [2, 3].map(|isid| {
            let initiator =
                transport_id::port_name("iqn.2026-11.org.example:node", [0, 0, 0, 0, 0, isid]);
            let nexus = NexusName::new(&initiator, super::TARGET, 1);
            Registration { nexus, all_target_ports: false, key: 1 }
        });
        match ok {
            true => {
                let ended = Ended { registered: victims.to_vec(), outsiders: true };
                Next::Evict(ended, status(0, 0))
            }
            false => Next::Answer(status(2, 0)),
        }
    }

    fn reset(&self) {}

    fn missing(_: &Ask<'_>) -> Response<HeapBuffer> {
        status(2, 0)
    }

    fn aborted() -> Response<HeapBuffer> {
        status(0x40, 0)
    }

    fn faulty(_: TaskFault) -> Response<HeapBuffer> {
        status(0x28, 0)
    }
}
