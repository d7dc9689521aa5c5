//! Frames to be sent, and how they are put together.

use corbel_proto::aoe::{ATA_DATA_OFFSET, AtaRepr, HEADER_BYTES, HeaderPacket, HeaderRepr};
use corbel_proto::memory::Segments;

use super::PortId;

/// A frame to be sent: header, then body, then payload. The host pads it to 60 bytes.
#[derive(Debug, Clone)]
pub struct Frame<B> {
    /// Where.
    pub port: PortId,
    header: [u8; ATA_DATA_OFFSET],
    header_len: u8,
    /// Small data that no arena lent; empty for reads and writes.
    pub body: Vec<u8>,
    /// What was read.
    pub payload: Segments<B>,
}

impl<B> Frame<B> {
    /// Ethernet and AoE header, and the ATA registers if there are any: 24 or 36 bytes.
    pub fn header(&self) -> &[u8] {
        &self.header[..usize::from(self.header_len)]
    }

    /// A frame that is `header` and `body`.
    pub(super) fn plain(port: PortId, header: &HeaderRepr, body: Vec<u8>) -> Self {
        let mut bytes = [0; ATA_DATA_OFFSET];
        header.emit(&mut HeaderPacket::new_unwritten(&mut bytes[..]));
        let header_len = u8::try_from(HEADER_BYTES).expect("a small constant");
        Self { port, header: bytes, header_len, body, payload: Segments::new() }
    }

    /// A frame with ATA registers.
    pub(super) fn ata(
        port: PortId,
        header: &HeaderRepr,
        ata: &AtaRepr,
        body: Vec<u8>,
        payload: Segments<B>,
    ) -> Self {
        let mut frame = Self::plain(port, header, body);
        ata.emit(&mut frame.header[HEADER_BYTES..]);
        frame.header_len = u8::try_from(ATA_DATA_OFFSET).expect("a small constant");
        frame.payload = payload;
        frame
    }
}
