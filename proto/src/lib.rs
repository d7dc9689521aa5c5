//! What the bytes mean and how a conversation goes.
//!
//! Five protocols live here, each in a folder of its own:
//!
//! ```text
//! aoe/     ATA over Ethernet r11: frames, and the rules of both roles
//! ata/     registers to commands; the 512-byte IDENTIFY block
//! iscsi/   RFC 7143: PDUs, text keys, login, CHAP, and the connection machines of both roles
//! isns/    RFC 4171: how a target tells a server of itself
//! scsi/    SPC-4 and SBC-3: CDBs, sense, VPD pages, mode pages; transport-blind
//! ```
//!
//! Nothing in this crate performs I/O, reads a clock, draws random numbers or starts a thread.
//! A machine is handed bytes and the time, and hands back what to send and when to be woken.
//! That is why the same code runs on io_uring, in the simulator and under the fuzzer.
//!
//! No input from a peer makes this crate panic or allocate more than its stated bounds.
#![forbid(unsafe_code)]

pub mod aoe;
pub mod ata;
pub mod error;
pub mod iscsi;
pub mod isns;
pub mod memory;
pub mod reader;
pub mod scsi;
pub mod table;
pub mod time;
