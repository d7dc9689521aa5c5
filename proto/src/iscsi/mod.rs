//! iSCSI, RFC 7143: PDUs, text keys, login, CHAP, and the connection machines.
//!
//! ```text
//! bhs.rs       the 48-byte header every PDU starts with; logical unit numbers
//! ahs.rs       additional header segments: long CDBs, the read half of a bidirectional command
//! digest.rs    CRC32C as iSCSI puts it on the wire
//! framer.rs    a byte stream to headers and data, with digests checked
//! pdu/         one file per exchange, request and response together
//! chap.rs      CHAP: challenges, responses, secrets
//! params.rs    the operational keys and how each is settled
//! text.rs      key=value text
//! login/       the login phase
//! exchange.rs  text in full feature phase, in any number of PDUs
//! initiator/   the initiator's connection after login
//! name.rs      iSCSI names and their normal form
//! sequence.rs  serial numbers and the command window
//! transfer.rs  write data: unsolicited bursts, R2Ts, and where each byte belongs
//! target/      the target's end of a connection
//! ```

pub mod ahs;
pub mod bhs;
pub mod chap;
pub mod digest;
pub mod exchange;
pub mod framer;
pub mod initiator;
pub mod login;
pub mod name;
pub mod params;
pub mod pdu;
pub mod sequence;
pub mod target;
pub mod text;
pub mod transfer;
