//! iSCSI, RFC 7143: PDUs, text keys, login, CHAP, and the connection machines.

pub mod name;
pub mod pdu;
