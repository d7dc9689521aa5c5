//! A byte stream to headers and data (RFC 7143 4.2.3, 11.1).
//!
//! The framer is told the stream in pieces of any length and never holds payload: a header is
//! gathered (it is small), then the data passes by as borrowed pieces. A host that receives
//! payload straight to its place tells [`Framer::placed`] instead of passing the bytes through.
//! Digests are computed over what passes, whichever way it came.
//!
//! For one PDU the steps are: [`Step::Header`], any number of [`Step::Data`], [`Step::End`].

use super::ahs::AHS_BYTES_MAX;
use super::bhs::{BHS_BYTES, Bhs};
use super::digest::{DIGEST_BYTES, Digest};
use crate::error::Malformed;

/// What the stream has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// All bytes given were taken; the PDU goes on.
    More,
    /// A header is complete: see [`Framer::bhs`] and [`Framer::ahs`]. Its digest was right.
    Header,
    /// The next bytes of the data segment.
    Data(&'a [u8]),
    /// The PDU is complete. `digest_ok` is false if a data digest was there and wrong.
    End {
        /// The data digest was right, or there was none.
        digest_ok: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Gathering BHS, AHS and header digest.
    Header,
    /// This many data bytes are still to come.
    Data(u32),
    /// Gathering padding and data digest.
    Trailer,
}

/// The receiving end of one TCP stream.
#[derive(Debug)]
pub struct Framer {
    state: State,
    /// BHS, AHS and header digest as they come.
    header: Vec<u8>,
    /// Padding and data digest as they come.
    trailer: [u8; 3 + DIGEST_BYTES],
    trailer_filled: usize,
    data_digest: Digest,
    header_digests: bool,
    data_digests: bool,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer {
    /// At the start of a stream, without digests (none are used during login).
    pub fn new() -> Self {
        Self {
            state: State::Header,
            header: Vec::with_capacity(BHS_BYTES + 2 * DIGEST_BYTES),
            trailer: [0; 3 + DIGEST_BYTES],
            trailer_filled: 0,
            data_digest: Digest::new(),
            header_digests: false,
            data_digests: false,
        }
    }

    /// Digests from the next header that completes. Not while a PDU's data is coming.
    pub fn set_digests(&mut self, header: bool, data: bool) {
        (self.header_digests, self.data_digests) = (header, data);
    }

    /// No byte of the next PDU has come yet.
    pub fn is_between_pdus(&self) -> bool {
        self.state == State::Header && (self.header.is_empty() || self.trailer_filled == DONE)
    }

    /// The header last completed, until [`Step::End`] and the next byte after it.
    ///
    /// # Panics
    /// If no header was completed.
    pub fn bhs(&self) -> Bhs {
        Bhs(self.header[..BHS_BYTES].try_into().expect("a header was completed"))
    }

    /// The additional headers that came with it.
    pub fn ahs(&self) -> &[u8] {
        &self.header[BHS_BYTES..BHS_BYTES + self.bhs().ahs_bytes()]
    }

    /// Data bytes of the current PDU still to come.
    pub fn data_left(&self) -> u32 {
        match self.state {
            State::Data(left) => left,
            State::Header | State::Trailer => 0,
        }
    }

    /// The next data bytes of the current PDU came another way; they were these.
    ///
    /// # Panics
    /// If they are more than [`Self::data_left`].
    pub fn placed(&mut self, bytes: &[u8]) {
        let State::Data(left) = &mut self.state else {
            panic!("no data segment is being received");
        };
        let len = u32::try_from(bytes.len()).expect("data segments are far below 4 GiB");
        *left = left.checked_sub(len).expect("no more than is left of the data segment");
        if self.data_digests {
            self.data_digest.update(bytes);
        }
        if *left == 0 {
            self.state = State::Trailer;
        }
    }

    /// Takes stream bytes up to the next step; returns how many, and the step. Call it again with
    /// the rest (even if that is empty) until it says [`Step::More`].
    ///
    /// An error is a wrong header digest: nothing after it can be trusted.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, Step<'a>), Malformed> {
        match self.state {
            State::Header => self.push_header(bytes),
            State::Data(left) => {
                let len = bytes.len().min(left as usize);
                if len == 0 {
                    return Ok((0, Step::More));
                }
                self.placed(&bytes[..len]);
                Ok((len, Step::Data(&bytes[..len])))
            }
            State::Trailer => Ok(self.push_trailer(bytes)),
        }
    }

    fn push_header<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, Step<'a>), Malformed> {
        if self.trailer_filled == DONE {
            self.trailer_filled = 0;
            self.header.clear();
        }
        let mut taken = 0;
        loop {
            let wanted = self.header_bytes();
            let part = (wanted - self.header.len()).min(bytes.len() - taken);
            self.header.extend_from_slice(&bytes[taken..taken + part]);
            taken += part;
            if self.header.len() < wanted {
                return Ok((taken, Step::More));
            }
            if self.header.len() == self.header_bytes() {
                break;
            }
        }
        if self.header_digests {
            let (covered, digest) = self.header.split_at(self.header.len() - DIGEST_BYTES);
            if Digest::of(covered).to_wire() != digest {
                return Err(Malformed::new("header", "its digest is wrong", "RFC 7143 7.7"));
            }
        }
        self.data_digest = Digest::new();
        self.state = match self.bhs().data_bytes() {
            0 => State::Trailer,
            bytes => State::Data(bytes),
        };
        Ok((taken, Step::Header))
    }

    /// Length of BHS, AHS and header digest, as far as it is known by now.
    fn header_bytes(&self) -> usize {
        if self.header.len() < BHS_BYTES {
            return BHS_BYTES;
        }
        let ahs = self.bhs().ahs_bytes();
        debug_assert!(ahs <= AHS_BYTES_MAX);
        BHS_BYTES + ahs + if self.header_digests { DIGEST_BYTES } else { 0 }
    }

    fn push_trailer<'a>(&mut self, bytes: &'a [u8]) -> (usize, Step<'a>) {
        let data = self.bhs().data_bytes();
        let padding = padding(data);
        let digest = if self.data_digests && data > 0 { DIGEST_BYTES } else { 0 };
        let wanted = padding + digest;
        let part = (wanted - self.trailer_filled).min(bytes.len());
        self.trailer[self.trailer_filled..self.trailer_filled + part]
            .copy_from_slice(&bytes[..part]);
        self.trailer_filled += part;
        if self.trailer_filled < wanted {
            return (part, Step::More);
        }
        let mut digest_ok = true;
        if digest > 0 {
            self.data_digest.update(&self.trailer[..padding]);
            digest_ok = self.data_digest.to_wire() == self.trailer[padding..wanted];
        }
        self.state = State::Header;
        // The header stays readable until the next byte; this mark clears it then.
        self.trailer_filled = DONE;
        (part, Step::End { digest_ok })
    }
}

/// In `trailer_filled`: the PDU is complete and its header is only kept to be looked at.
const DONE: usize = usize::MAX;

/// Zero bytes after a data segment of this length, to the next word.
pub const fn padding(data_bytes: u32) -> usize {
    (data_bytes.wrapping_neg() & 3) as usize
}

/// Padding and, if asked for, data digest behind data whose digest so far is `digest`.
/// Returns the bytes and how many of them count.
pub fn trailer(data_bytes: u32, digest: Option<Digest>) -> ([u8; 7], usize) {
    let mut bytes = [0; 7];
    let mut len = padding(data_bytes);
    if let Some(mut digest) = digest.filter(|_| data_bytes > 0) {
        digest.update(&bytes[..len]);
        bytes[len..len + DIGEST_BYTES].copy_from_slice(&digest.to_wire());
        len += DIGEST_BYTES;
    }
    (bytes, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::bhs::{FINAL, Opcode};
    use proptest::prelude::*;

    /// One PDU as it goes over the wire.
    fn wire(ahs: &[u8], data: &[u8], header_digest: bool, data_digest: bool) -> Vec<u8> {
        let len = u32::try_from(data.len()).unwrap();
        let bhs = Bhs::new(Opcode::NopOut, FINAL).with_ahs_bytes(ahs.len()).with_data_bytes(len);
        let mut bytes = bhs.0.to_vec();
        bytes.extend(ahs);
        if header_digest {
            bytes.extend(Digest::of(&bytes).to_wire());
        }
        bytes.extend(data);
        let (tail, len) = trailer(len, data_digest.then(|| Digest::of(data)));
        bytes.extend(&tail[..len]);
        bytes
    }

    /// All data, and the digest verdicts, of a stream cut into pieces of `piece` bytes.
    fn run(framer: &mut Framer, stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Vec<bool>) {
        let (mut data, mut verdicts) = (Vec::new(), Vec::new());
        for mut bytes in stream.chunks(piece) {
            loop {
                let (taken, step) = framer.push(bytes).unwrap();
                bytes = &bytes[taken..];
                match step {
                    Step::More => break,
                    Step::Header => data.push(Vec::new()),
                    Step::Data(part) => data.last_mut().unwrap().extend(part),
                    Step::End { digest_ok } => verdicts.push(digest_ok),
                }
            }
            assert!(bytes.is_empty());
        }
        (data, verdicts)
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_pdus() {
        let mut stream = wire(&[0; 8], b"hello", true, true);
        stream.extend(wire(&[], b"", true, true));
        stream.extend(wire(&[], b"four", true, true));
        for piece in 1..=stream.len() {
            let mut framer = Framer::new();
            framer.set_digests(true, true);
            let (data, verdicts) = run(&mut framer, &stream, piece);
            assert_eq!(data, [b"hello".to_vec(), Vec::new(), b"four".to_vec()]);
            assert_eq!(verdicts, [true; 3]);
        }
    }

    #[test]
    fn wrong_data_digest_is_told_and_the_stream_goes_on() {
        let mut stream = wire(&[], b"hello", false, true);
        stream[50] ^= 1;
        stream.extend(wire(&[], b"again", false, true));
        let mut framer = Framer::new();
        framer.set_digests(false, true);
        assert_eq!(run(&mut framer, &stream, 1000).1, [false, true]);
    }

    #[test]
    fn wrong_header_digest_is_an_error() {
        let mut stream = wire(&[], b"", true, false);
        stream[20] ^= 1;
        let mut framer = Framer::new();
        framer.set_digests(true, false);
        assert!(framer.push(&stream).is_err());
    }

    #[test]
    fn data_may_come_another_way_at_any_boundary() {
        let stream = wire(&[], b"0123456789", false, true);
        for direct in 1..=10 {
            let mut framer = Framer::new();
            framer.set_digests(false, true);
            assert_eq!(framer.push(&stream).unwrap(), (48, Step::Header));
            assert_eq!(framer.data_left(), 10);
            framer.placed(&stream[48..48 + direct]);
            let (mut rest, mut ends) = (&stream[48 + direct..], 0);
            loop {
                let (taken, step) = framer.push(rest).unwrap();
                rest = &rest[taken..];
                match step {
                    Step::More => break,
                    Step::End { digest_ok } => ends += usize::from(digest_ok),
                    Step::Header | Step::Data(_) => {}
                }
            }
            assert_eq!(ends, 1);
            assert!(framer.is_between_pdus());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_stall(
            stream: Vec<u8>,
            piece in 1_usize..64,
            digests: (bool, bool),
        ) {
            let mut framer = Framer::new();
            framer.set_digests(digests.0, digests.1);
            for mut bytes in stream.chunks(piece) {
                while let Ok((taken, step)) = framer.push(bytes) {
                    bytes = &bytes[taken..];
                    if step == Step::More {
                        prop_assert!(bytes.is_empty());
                        break;
                    }
                }
            }
            prop_assert!(framer.header.capacity() < 4096);
        }
    }
}
