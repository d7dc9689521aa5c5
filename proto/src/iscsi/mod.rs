//! iSCSI, RFC 7143: PDUs, text keys, login, CHAP, and the connection machines.
//!
//! ```text
//! bhs.rs       the 48-byte header every PDU starts with; logical unit numbers
//! ahs.rs       additional header segments: long CDBs, the read half of a bidirectional command
//! digest.rs    CRC32C as iSCSI puts it on the wire
//! framer.rs    a byte stream to headers and data, with digests checked
//! pdu/         one file per exchange, request and response together
//! name.rs      iSCSI names and their normal form
//! sequence.rs  serial numbers and the command window
//! ```

pub mod ahs;
pub mod bhs;
pub mod digest;
pub mod framer;
pub mod name;
pub mod pdu;
pub mod sequence;
