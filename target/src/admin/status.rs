//! What is known of a running target. The JSON of `status --json` is made from these types:
//! fields are added, but what is here keeps its name and meaning.

use serde::{Deserialize, Serialize};

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started to serve.
    pub uptime_seconds: u64,
    /// What the kernel offers.
    pub kernel: Kernel,
    /// Payload memory.
    pub memory: Memory,
    /// Devices, by name.
    pub exports: Vec<Export>,
    /// Network interfaces that AoE is served on, by name.
    pub aoe_ports: Vec<AoePort>,
    /// iSCSI sessions, by target and initiator.
    pub sessions: Vec<Session>,
    /// Flushes that failed since the start: each left data that may be lost in a power cut.
    pub flush_failures: u64,
    /// iSNS servers that are told of the targets, by address.
    #[serde(default)]
    pub isns: Vec<IsnsServer>,
}

/// What the kernel offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// What it does not; empty is as fast as it gets.
    pub missing: Vec<Missing>,
}

/// Something that the kernel does not offer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    pub what: String,
    /// What that costs.
    pub cost: String,
}

/// Payload memory of all shards together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Upper bound of `bytes_mapped`.
    pub bytes_max: u64,
    /// Taken from the system.
    pub bytes_mapped: u64,
    /// In use now.
    pub bytes_lent: u64,
    /// How often there was none left.
    pub refused: u64,
}

/// A device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Unique name.
    pub name: String,
    /// Path of the store, or `mem:SIZE`, `null:SIZE`.
    pub device: String,
    /// Exported bytes.
    pub size_bytes: u64,
    /// Logical block.
    pub block_bytes: u32,
    /// Refuses every write.
    pub read_only: bool,
    /// Unit serial number.
    pub serial: String,
    /// NAA name, 16 hex digits.
    pub naa: String,
    /// In words: when an acknowledged write is safe.
    pub write_cache: String,
    /// How its blocks are encrypted at rest; `null` if they are not.
    #[serde(default)]
    pub encryption: Option<Encryption>,
    /// Where it is offered.
    pub endpoints: Vec<Endpoint>,
    /// How good each iSCSI portal group is as a way to it.
    #[serde(default)]
    pub port_groups: Vec<PortGroup>,
    /// Reads that succeeded.
    pub reads: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Commands that failed at the store.
    pub errors: u64,
    /// Commands being carried out.
    pub in_flight: u64,
}

/// Encryption at rest. Of the keys themselves nothing is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// Linux's name for it: `aes-xts-plain64`.
    pub cipher: String,
    /// Length of the media key.
    pub key_bits: u32,
    /// Slot of the store's header that holds the media key in force: 0 or 1.
    pub key_slot: u8,
    /// Media keys that the store had before this one: each SANITIZE makes another.
    pub key_generation: u64,
    /// `settled`; or `unsettled` while the key is replaced, and after that failed: then the blocks
    /// are closed until a SANITIZE comes to its end.
    pub key_state: String,
}

/// An iSNS server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsnsServer {
    /// Where it is, `address:port`.
    pub server: String,
    /// The targets are registered with it, as far as it has not said otherwise.
    pub registered: bool,
    /// For how long; `null` if they are not registered.
    pub since_seconds: Option<u64>,
    /// Why they were not registered the last time they were not; `null` if that never was.
    pub last_error: Option<String>,
    /// How long ago that began. What fails the same way again and again began once.
    pub last_error_seconds: Option<u64>,
}

/// A place where a device is offered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// By which protocol.
    pub kind: EndpointKind,
    /// `e0.1`, or the target's name.
    pub address: String,
    /// Logical unit number; iSCSI only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lun: Option<u16>,
    /// Interfaces, or portals as `address:port`.
    #[serde(rename = "where")]
    pub places: Vec<String>,
}

/// An iSCSI portal group as a way to a device (SPC-4 5.15).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortGroup {
    /// Portal group tag.
    pub group: u16,
    /// `optimized`, `non-optimized`, `standby`, `unavailable` or `transitioning`.
    pub state: String,
    /// Initiators should use it if they can.
    pub preferred: bool,
}

/// A protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointKind {
    /// ATA over Ethernet.
    Aoe,
    /// iSCSI.
    #[default]
    Iscsi,
}

/// A network interface that AoE is served on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AoePort {
    /// Its name.
    pub interface: String,
    /// Its address as `02:00:00:00:00:01`; `null` while the interface is not there.
    pub mac: Option<String>,
    /// Largest payload of a frame.
    pub mtu: u32,
    /// Frames can pass.
    pub up: bool,
    /// AoE frames that arrived.
    pub received: u64,
    /// Of those, lost for want of room.
    pub dropped: u64,
}

/// An iSCSI session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Target's name; empty in a discovery session.
    pub target: String,
    /// Initiator's name.
    pub initiator: String,
    /// Where it comes from, `address:port`.
    pub address: String,
    /// Initiator session identifier, 12 hex digits (RFC 7143 11.12.5).
    pub isid: String,
    /// Target session identifying handle (RFC 7143 11.12.6).
    pub tsih: u16,
    /// The thread that serves it.
    pub shard: u16,
    /// Age.
    pub since_seconds: u64,
    /// `None` or `CRC32C`.
    pub header_digest: String,
    /// `None` or `CRC32C`.
    pub data_digest: String,
    /// SCSI commands so far.
    pub commands: u64,
    /// Logical units that it can see.
    pub luns: Vec<u16>,
    /// Commands being carried out.
    pub in_flight: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_told_by_the_names_that_scripts_know() {
        let endpoint = Endpoint {
            kind: EndpointKind::Aoe,
            address: "e0.1".into(),
            lun: None,
            places: vec!["eth1".into()],
        };
        let json = serde_json::to_string(&endpoint).unwrap();
        assert_eq!(json, r#"{"kind":"aoe","address":"e0.1","where":["eth1"]}"#);
    }

    #[test]
    fn a_status_reads_back_as_it_was_written() {
        let status = Status {
            exports: vec![Export {
                endpoints: vec![Endpoint::default()],
                encryption: Some(Encryption::default()),
                ..Export::default()
            }],
            isns: vec![IsnsServer { since_seconds: Some(7), ..IsnsServer::default() }],
            aoe_ports: vec![AoePort::default()],
            sessions: vec![Session::default()],
            ..Status::default()
        };
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }

    /// A client of this version reads what an older daemon says.
    #[test]
    fn what_an_older_daemon_does_not_tell_is_not_there() {
        let status = Status { exports: vec![Export::default()], ..Status::default() };
        let mut json = serde_json::to_value(&status).unwrap();
        assert!(json["exports"][0]["encryption"].is_null());
        json.as_object_mut().unwrap().remove("isns").unwrap();
        json["exports"][0].as_object_mut().unwrap().remove("encryption").unwrap();
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }
}
