//! What the fuzzer drives. One function per target in `fuzz/fuzz_targets/`; `tests/corpus.rs`
//! replays every input of `fuzz/corpus/` through the same functions on every test run.
//!
//! A function returns if the code under test kept its promises and panics if not. Inputs are
//! bytes as a peer could send them; targets of state machines read operations from them.
//!
//! ```text
//! script.rs      operations read from bytes
//! host.rs        a shard's surroundings, in which nothing happens until the script says so
//! iscsi_path/    the client's path over iSCSI
//! wire.rs        AoE and ATA: parsers, the disk's commands, the state file, a path's commands
//! iscsi_wire.rs  PDUs, keys and values
//! isns.rs        the client of iSNS servers, and their messages
//! files.rs       configuration
//! locks.rs       the range lock
//! engine.rs      requests in flight
//! aoe_client.rs  the initiator's AoE path
//! aoe_server.rs  shelves and slots on the engine
//! login.rs       the target's half of an iSCSI login
//! connection/    the target's end of an iSCSI connection
//! multipath/     the multipath engine, on paths that fail in every way
//! scsi.rs        the logical unit
//! nbd.rs         the server's end of an NBD connection
//! server/        the whole iSCSI server on two shards
//! ```

mod aoe_client;
mod aoe_server;
mod connection;
mod engine;
mod files;
mod host;
mod iscsi_path;
mod iscsi_wire;
mod isns;
mod locks;
mod login;
mod multipath;
mod nbd;
mod script;
mod scsi;
mod server;
mod wire;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("aoe_client", aoe_client::aoe_client),
    ("aoe_frame", wire::aoe_frame),
    ("aoe_path", wire::aoe_path),
    ("aoe_server", aoe_server::aoe_server),
    ("aoe_snapshot", wire::aoe_snapshot),
    ("ata_command", wire::ata_command),
    ("ata_identify", wire::ata_identify),
    ("engine", engine::engine),
    ("initiator_config", files::initiator_config),
    ("iscsi_connection", connection::iscsi_connection),
    ("iscsi_login", login::iscsi_login),
    ("iscsi_login_pdu", iscsi_wire::iscsi_login_pdu),
    ("iscsi_path", iscsi_path::iscsi_path),
    ("iscsi_server", server::iscsi_server),
    ("iscsi_stream", iscsi_wire::iscsi_stream),
    ("iscsi_text", iscsi_wire::iscsi_text),
    ("isns_client", isns::isns_client),
    ("multipath_engine", multipath::multipath_engine),
    ("nbd_server", nbd::nbd_server),
    ("range_lock", locks::range_lock),
    ("scsi_cdb", scsi::scsi_cdb),
    ("target_config", files::target_config),
];

/// Runs the target called `name`.
///
/// # Panics
/// If there is none, or it finds something.
pub fn run(name: &str, input: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(other, _)| *other == name).expect("a target's name");
    target(input);
}
