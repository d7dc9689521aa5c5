//! The judge of all that a target sends on one connection.

use std::collections::BTreeMap;

use corbel_proto::iscsi::bhs::{Bhs, Opcode, TAG_NONE};
use corbel_proto::iscsi::framer::{Framer, Step};
use corbel_proto::iscsi::params::Negotiated;
use corbel_proto::iscsi::pdu::Numbers;
use corbel_proto::iscsi::pdu::data::DataIn;
use corbel_proto::iscsi::pdu::r2t::R2t;
use corbel_proto::iscsi::sequence;
use corbel_proto::iscsi::target::Outgoing;
use corbel_proto::memory::HeapBuffer;

/// What a command has been sent so far.
#[derive(Debug, Default, Clone)]
struct Task {
    edtl: u32,
    read_bytes: u32,
    /// Offset and length by DataSN.
    data: Vec<(u32, u32)>,
    /// Tag, offset and length by R2TSN.
    r2ts: Vec<(u32, u32, u32)>,
}

#[derive(Debug)]
pub(super) struct Judge {
    framer: Framer,
    digests: (bool, bool),
    window: u32,
    stat_sn: Option<u32>,
    last: Option<Numbers>,
    tasks: BTreeMap<u32, Task>,
    /// Answered ones, whose data may be sent again.
    done: BTreeMap<u32, Task>,
    /// What was sent under each StatSN, if that may be sent again.
    statuses: Option<BTreeMap<u32, Vec<u8>>>,
}

impl Judge {
    pub(super) fn new(window: u32, again: bool) -> Self {
        Self {
            framer: Framer::new(),
            digests: (false, false),
            window,
            stat_sn: None,
            last: None,
            tasks: BTreeMap::new(),
            done: BTreeMap::new(),
            statuses: again.then(BTreeMap::new),
        }
    }

    pub(super) fn digests(&mut self, header: bool, data: bool) {
        self.digests = (header, data);
        self.framer.set_digests(header, data);
    }

    pub(super) const fn digests_on(&self) -> (bool, bool) {
        self.digests
    }

    /// A command of this tag is with the server.
    pub(super) fn expect(&mut self, itt: u32, edtl: u32) {
        self.tasks.insert(itt, Task { edtl, ..Task::default() });
    }

    pub(super) fn forget(&mut self, itt: u32) {
        self.tasks.remove(&itt);
    }

    /// The next one.
    pub(super) fn stat_sn(&self) -> u32 {
        self.stat_sn.expect("a login was answered")
    }

    pub(super) fn exp_cmd_sn(&self) -> u32 {
        self.last.expect("a login was answered").exp_cmd_sn
    }

    /// Commands that may be sent now.
    pub(super) fn window(&self) -> u32 {
        let last = self.last.expect("a login was answered");
        last.max_cmd_sn.wrapping_sub(last.exp_cmd_sn).wrapping_add(1)
    }

    /// One PDU; if it is an R2T, what it asks for.
    pub(super) fn hear(&mut self, out: &Outgoing<HeapBuffer>, agreed: &Negotiated) -> Option<R2t> {
        let (bhs, len) = self.cut(out);
        assert!(len <= agreed.peer_segment_bytes_max, "{len} bytes in one PDU");
        let opcode = bhs.opcode().expect("an opcode of the standard's");
        if self.count(&bhs, opcode) {
            return None;
        }
        match opcode {
            Opcode::DataIn => {
                self.data_in(&DataIn::parse(&bhs).expect("readable"), len);
                None
            }
            Opcode::R2t => {
                let r2t = R2t::parse(&bhs);
                let task = self.tasks.get_mut(&r2t.itt).expect("an R2T for a command");
                let asks = (r2t.ttt, r2t.offset, r2t.bytes);
                if let Some(sent) = task.r2ts.get(r2t.r2t_sn as usize) {
                    assert!(self.statuses.is_some() && *sent == asks, "{r2t:?}");
                    return None;
                }
                assert_eq!(r2t.r2t_sn as usize, task.r2ts.len(), "{r2t:?}");
                task.r2ts.push(asks);
                let end = r2t.offset.checked_add(r2t.bytes);
                assert!(end.is_some_and(|end| end <= task.edtl), "{r2t:?} of {}", task.edtl);
                assert!((1..=agreed.burst_bytes_max).contains(&r2t.bytes), "{r2t:?}");
                assert!(r2t.ttt != TAG_NONE, "{r2t:?}");
                Some(r2t)
            }
            Opcode::ScsiResponse => {
                let task = self.tasks.remove(&bhs.itt()).expect("an answer to a command");
                let exp_data_sn = bhs.u32_at(36) as usize;
                assert_eq!(exp_data_sn, task.data.len() + task.r2ts.len(), "ExpDataSN");
                self.done.insert(bhs.itt(), task);
                None
            }
            Opcode::LoginResponse
            | Opcode::NopIn
            | Opcode::TaskResponse
            | Opcode::TextResponse
            | Opcode::LogoutResponse
            | Opcode::Async
            | Opcode::Reject => None,
            _ => panic!("a target never sends {opcode:?}"),
        }
    }

    fn cut(&mut self, out: &Outgoing<HeapBuffer>) -> (Bhs, u32) {
        let bytes = [out.header(), out.data.bytes(), out.trailer()].concat();
        let mut rest = &bytes[..];
        loop {
            let (taken, step) = self.framer.push(rest).expect("a PDU that can be cut");
            rest = &rest[taken..];
            match step {
                Step::End { digest_ok } => {
                    assert!(digest_ok && rest.is_empty());
                    let len = u32::try_from(out.data.bytes().len()).expect("short data");
                    return (self.framer.bhs(), len);
                }
                Step::More => assert!(!rest.is_empty(), "a PDU shorter than it says"),
                Step::Header | Step::Data(_) => {}
            }
        }
    }

    /// True if it was sent before.
    fn count(&mut self, bhs: &Bhs, opcode: Opcode) -> bool {
        let numbers = Numbers::parse(bhs);
        let open = numbers.max_cmd_sn.wrapping_sub(numbers.exp_cmd_sn).wrapping_add(1);
        assert!(open <= self.window, "a window of {open}: {numbers:?}");
        if let Some(last) = self.last {
            let back = |now, then| sequence::before(now, then);
            assert!(!back(numbers.exp_cmd_sn, last.exp_cmd_sn), "{last:?}, then {numbers:?}");
            assert!(!back(numbers.max_cmd_sn, last.max_cmd_sn), "{last:?}, then {numbers:?}");
        }
        self.last = Some(numbers);
        let status = opcode != Opcode::DataIn || bhs.flags() & 1 == 1;
        if !status {
            return false;
        }
        if let Some(sent) = self.statuses.as_ref().and_then(|all| all.get(&numbers.stat_sn)) {
            // The same but for the window.
            assert_eq!(*sent, bhs.put(28, [0; 8]).0, "{opcode:?}");
            return true;
        }
        let stat_sn = self.stat_sn.unwrap_or(numbers.stat_sn);
        assert_eq!(numbers.stat_sn, stat_sn, "StatSN of {opcode:?}");
        let peeks = opcode == Opcode::R2t || (opcode == Opcode::NopIn && bhs.itt() == TAG_NONE);
        self.stat_sn = Some(if peeks { stat_sn } else { stat_sn.wrapping_add(1) });
        if let Some(all) = self.statuses.as_mut().filter(|_| !peeks) {
            all.insert(stat_sn, bhs.put(28, [0; 8]).0.to_vec());
        }
        false
    }

    fn data_in(&mut self, pdu: &DataIn, len: u32) {
        let again = self.statuses.is_some();
        assert!(!pdu.acknowledge || (again && pdu.is_final && pdu.ttt != TAG_NONE), "{pdu:?}");
        assert!(pdu.status.is_none() || !again, "the status could not be sent again");
        let (at, part) = (pdu.data_sn as usize, (pdu.offset, len));
        let open = self.tasks.get(&pdu.itt).filter(|task| at < task.data.len());
        let done = self.done.get(&pdu.itt).filter(|_| !self.tasks.contains_key(&pdu.itt));
        if let Some(task) = open.or(done) {
            assert!(again && task.data[at] == part, "not as it was sent: {pdu:?}");
            return;
        }
        let task = self.tasks.get_mut(&pdu.itt).expect("data for a command");
        assert_eq!((at, pdu.offset), (task.data.len(), task.read_bytes), "{pdu:?}");
        task.data.push(part);
        task.read_bytes += len;
        assert!(task.read_bytes <= task.edtl, "more than was expected: {pdu:?}");
        if pdu.status.is_some() {
            self.tasks.remove(&pdu.itt);
        }
    }
}
