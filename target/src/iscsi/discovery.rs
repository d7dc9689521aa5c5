//! Text negotiation in the full feature phase (RFC 7143 7.2 and 13.3): SendTargets.
//!
//! An answer longer than the initiator takes in one PDU is sent in pieces; it asks for each with an
//! empty request. At most one such answer is kept per connection.

use std::net::SocketAddr;

use corbel_proto::iscsi::name::Name;
use corbel_proto::iscsi::pdu::text::{NO_TAG, TextRequest, TextResponse};
use corbel_proto::iscsi::text::{Accumulator, Keys, put};

use super::model::Targets;

/// The text exchange of one connection.
#[derive(Debug, Default)]
pub struct Exchange {
    question: Accumulator,
    rest: Vec<u8>,
    tag: u32,
}

/// Who asks.
#[derive(Debug)]
pub struct Asker<'a> {
    /// Its name.
    pub initiator: &'a Name,
    /// The target of its session; `None` in discovery.
    pub target: Option<&'a Name>,
    /// Where it is.
    pub peer: SocketAddr,
    /// What it reached.
    pub local: SocketAddr,
    /// The longest text it takes in one PDU.
    pub bytes_max: usize,
}

impl Exchange {
    /// The answer to one request; `None` if it makes no sense and has to be rejected.
    pub fn handle<D>(
        &mut self,
        request: &TextRequest,
        text: &[u8],
        asker: &Asker<'_>,
        targets: &Targets<D>,
    ) -> Option<(TextResponse, Vec<u8>)> {
        if request.transfer_tag == NO_TAG {
            self.rest.clear();
        } else if request.transfer_tag != self.tag || !text.is_empty() && !self.rest.is_empty() {
            return None;
        }
        if !self.rest.is_empty() {
            return Some(self.piece(request, asker.bytes_max));
        }
        let whole = self.question.push(text, request.continues).ok()?;
        let Some(whole) = whole else {
            self.tag = self.tag.wrapping_add(1) & 0x7fff_ffff;
            let answer = self.header(request, false, false);
            return Some((answer, Vec::new()));
        };
        self.rest = answer(&Keys::parse(&whole).ok()?, asker, targets)?;
        Some(self.piece(request, asker.bytes_max))
    }

    fn piece(&mut self, request: &TextRequest, bytes_max: usize) -> (TextResponse, Vec<u8>) {
        let piece: Vec<u8> = self.rest.drain(..self.rest.len().min(bytes_max)).collect();
        let done = self.rest.is_empty();
        if !done {
            self.tag = self.tag.wrapping_add(1) & 0x7fff_ffff;
        }
        (self.header(request, done, !done), piece)
    }

    fn header(&self, request: &TextRequest, last: bool, continues: bool) -> TextResponse {
        TextResponse {
            last,
            continues,
            data_len: 0,
            lun: 0,
            task_tag: request.task_tag,
            transfer_tag: if last { NO_TAG } else { self.tag },
            stat_sn: 0,
            exp_cmd_sn: 0,
            max_cmd_sn: 0,
        }
    }
}

fn answer<D>(keys: &Keys<'_>, asker: &Asker<'_>, targets: &Targets<D>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for (key, value) in keys.iter() {
        if key != "SendTargets" {
            put(&mut text, key, "NotUnderstood");
            continue;
        }
        let wanted: Option<Name> = match (value, asker.target) {
            ("All", None) => None,
            ("All", Some(_)) => return None,
            ("", own) => Some(own?.clone()),
            (name, own) => {
                let name: Name = name.parse().ok()?;
                if own.is_some_and(|own| *own != name) {
                    continue;
                }
                Some(name)
            }
        };
        for target in targets.visible_to(asker.initiator, asker.peer) {
            if wanted.as_ref().is_some_and(|wanted| *wanted != target.name) {
                continue;
            }
            put(&mut text, "TargetName", target.name.as_str());
            for (address, tag) in target.addresses(asker.local) {
                put(&mut text, "TargetAddress", &format!("{address},{tag}"));
            }
        }
    }
    Some(text)
}
