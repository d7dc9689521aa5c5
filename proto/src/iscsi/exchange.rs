//! Text in full feature phase, the target's half: RFC 7143 11.10, 11.11, Appendix C.
//!
//! A request may come in several PDUs (C bit), and so may a long answer: each piece but the last
//! is sent with C set and a target transfer tag, and the initiator asks for the next with an empty
//! request of that tag. One exchange runs at a time on a connection; a new one drops the old.

use std::collections::VecDeque;

use super::pdu::text::{NO_TAG, TextRequest, TextResponse};
use super::text::{Accumulator, Keys};
use crate::error::{Malformed, Violation};

/// The longest answer, e.g. to SendTargets: some tens of thousands of targets.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

const SECTION: &str = "RFC 7143 11.10";

/// What to send. The counters of the header are for the connection to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The header.
    pub response: TextResponse,
    /// Its text.
    pub text: Vec<u8>,
}

/// Why a request is rejected. The exchange is forgotten then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The text cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The tags or flags make no sense.
    #[error(transparent)]
    Conduct(#[from] Violation),
}

/// One connection's text exchange.
#[derive(Debug, Default)]
pub struct TextExchange {
    request: Accumulator,
    /// Pieces of the answer that the initiator has yet to ask for.
    pieces: VecDeque<Vec<u8>>,
    /// The task tag of the exchange, while it runs.
    running: Option<u32>,
    next_tag: u32,
}

impl TextExchange {
    /// Takes one Text Request with its data segment (padding cut off). Once the whole text is
    /// there, `answer` appends what we say to each of its keys; it is cut to pieces of at most
    /// `piece_bytes_max`, what the initiator can receive.
    ///
    /// # Errors
    /// What the request is rejected for.
    pub fn handle(
        &mut self,
        request: &TextRequest,
        text: &[u8],
        piece_bytes_max: usize,
        answer: impl FnOnce(&Keys<'_>, &mut Vec<u8>),
    ) -> Result<Reply, Fault> {
        let reply = self.step(request, text, piece_bytes_max.max(1), answer);
        if reply.is_err() {
            *self = Self { next_tag: self.next_tag, ..Self::default() };
        }
        reply
    }

    fn step(
        &mut self,
        request: &TextRequest,
        text: &[u8],
        piece_bytes_max: usize,
        answer: impl FnOnce(&Keys<'_>, &mut Vec<u8>),
    ) -> Result<Reply, Fault> {
        let conduct = |why| Fault::Conduct(Violation::new("a Text Request", why, SECTION));
        if request.transfer_tag == NO_TAG {
            *self = Self { next_tag: self.next_tag, ..Self::default() };
            self.running = Some(request.task_tag);
        } else if self.running != Some(request.task_tag) || request.transfer_tag != self.next_tag {
            return Err(conduct("its transfer tag names no exchange of ours"));
        }
        if let Some(piece) = self.pieces.pop_front() {
            if !text.is_empty() || request.continues {
                return Err(conduct("it has text while the answer is not over"));
            }
            return Ok(self.reply(request, piece));
        }
        let Some(whole) = self.request.push(text, request.continues)? else {
            // An empty answer asks for the rest.
            let mut reply = self.reply(request, Vec::new());
            (reply.response.last, reply.response.transfer_tag) = (false, self.new_tag());
            return Ok(reply);
        };
        let mut said = Vec::new();
        answer(&Keys::parse(&whole)?, &mut said);
        if said.len() > ANSWER_BYTES_MAX {
            return Err(conduct("it asks for more than one answer holds"));
        }
        self.pieces = said.chunks(piece_bytes_max).map(<[u8]>::to_vec).collect();
        let first = self.pieces.pop_front().unwrap_or_default();
        Ok(self.reply(request, first))
    }

    fn reply(&mut self, request: &TextRequest, text: Vec<u8>) -> Reply {
        let continues = !self.pieces.is_empty();
        // An initiator that has more to negotiate (F not set) is not cut short.
        let last = !continues && request.last;
        let transfer_tag = if last {
            self.running = None;
            NO_TAG
        } else {
            self.new_tag()
        };
        let response = TextResponse {
            last,
            continues,
            data_len: u32::try_from(text.len()).expect("pieces fit a PDU"),
            lun: request.lun,
            task_tag: request.task_tag,
            transfer_tag,
            stat_sn: 0,
            exp_cmd_sn: 0,
            max_cmd_sn: 0,
        };
        Reply { response, text }
    }

    fn new_tag(&mut self) -> u32 {
        self.next_tag = self.next_tag.wrapping_add(1) % NO_TAG;
        self.next_tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::text::put;

    fn ask(text: &[u8], transfer_tag: u32, last: bool, continues: bool) -> TextRequest {
        TextRequest {
            immediate: false,
            last,
            continues,
            data_len: u32::try_from(text.len()).unwrap(),
            lun: 0,
            task_tag: 7,
            transfer_tag,
            cmd_sn: 1,
            exp_stat_sn: 1,
        }
    }

    fn echo(keys: &Keys<'_>, out: &mut Vec<u8>) {
        keys.iter().for_each(|(key, value)| put(out, key, value));
    }

    fn handle(
        exchange: &mut TextExchange,
        text: &[u8],
        tag: u32,
        last: bool,
        continues: bool,
    ) -> Result<Reply, Fault> {
        exchange.handle(&ask(text, tag, last, continues), text, 10, echo)
    }

    #[test]
    fn a_short_answer_is_one_final_response() {
        let reply = handle(&mut TextExchange::default(), b"a=b\0", NO_TAG, true, false).unwrap();
        assert_eq!(reply.text, b"a=b\0");
        let response = reply.response;
        assert!(response.last && !response.continues && response.transfer_tag == NO_TAG);
    }

    #[test]
    fn a_long_answer_is_asked_for_piece_by_piece() {
        let mut exchange = TextExchange::default();
        let text = b"key=123456789012345678\0";
        let mut reply = handle(&mut exchange, text, NO_TAG, true, false).unwrap();
        let mut all = reply.text.clone();
        while !reply.response.last {
            assert!(reply.response.continues && reply.text.len() == 10);
            let tag = reply.response.transfer_tag;
            reply = handle(&mut exchange, b"", tag, true, false).unwrap();
            all.extend(&reply.text);
        }
        assert_eq!(all, text);
        assert_eq!(reply.response.transfer_tag, NO_TAG);
    }

    #[test]
    fn a_request_in_pieces_is_answered_once_it_is_whole() {
        let mut exchange = TextExchange::default();
        let first = handle(&mut exchange, b"a=", NO_TAG, false, true).unwrap();
        assert!(first.text.is_empty() && !first.response.last && !first.response.continues);
        let tag = first.response.transfer_tag;
        let second = handle(&mut exchange, b"b\0", tag, true, false).unwrap();
        assert_eq!((second.text.as_slice(), second.response.last), (&b"a=b\0"[..], true));
    }

    #[test]
    fn continue_without_data_and_strange_tags_are_refused_not_crashed_on() {
        let mut exchange = TextExchange::default();
        for _ in 0..3 {
            handle(&mut exchange, b"", NO_TAG, false, true).unwrap();
        }
        assert!(handle(&mut exchange, b"", 0x1234, true, false).is_err());
        assert!(handle(&mut exchange, b"x", NO_TAG, true, false).is_err());
    }

    #[test]
    fn endless_text_is_refused() {
        let mut exchange = TextExchange::default();
        let piece = vec![b'a'; 8192];
        let mut tag = NO_TAG;
        let refused = (0..100).any(|_| {
            match handle(&mut exchange, &piece, tag, false, true) {
                Ok(reply) => tag = reply.response.transfer_tag,
                Err(_) => return true,
            }
            false
        });
        assert!(refused);
    }
}
