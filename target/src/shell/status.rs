//! What all shards tell, put together for people and programs.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use corbel_proto::iscsi::params::Digest;

use super::letter::Letter;
use super::report::ShardReport;
use super::volumes::Opened;
use super::{Inner, Running};
use crate::admin::status::{
    AoePort, Encryption, Endpoint, EndpointKind, Export, Kernel, Memory, Missing, PortGroup,
    Session, Status,
};
use crate::admin::{AccessOrder, Daemon};
use crate::config::{Acknowledge, Backing, Config};
use crate::volume::cipher::{Cipher, MEDIA_KEY_BYTES, slot_offset};

/// How long shards may take to tell how they are.
const REPORT_MAX: Duration = Duration::from_secs(5);

impl Daemon for Running {
    fn status(&self) -> Status {
        let reports = self.reports();
        let inner = self.inner();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            kernel: Kernel {
                missing: self
                    .features
                    .missing
                    .iter()
                    .map(|m| Missing { what: m.what.to_string(), cost: m.cost.to_string() })
                    .collect(),
            },
            memory: memory(&reports),
            exports: inner.volumes.iter().map(|opened| export(opened, &inner, &reports)).collect(),
            aoe_ports: ports(&reports),
            sessions: sessions(&reports),
            flush_failures: inner.volumes.iter().map(|o| o.volume.flush_failures()).sum(),
            // The control plane tells of these.
            isns: Vec::new(),
        }
    }

    fn apply(&self, config: &Config) -> Result<Vec<String>, String> {
        Self::apply(self, config).map_err(|error| error.to_string())
    }

    fn set_access(&self, order: &AccessOrder) -> Result<Vec<String>, String> {
        Self::set_access(self, order)
    }

    fn stop(&self) {
        Self::stop(self);
    }

    fn wait(&self) {
        Self::wait(self);
    }
}

impl Running {
    /// What every shard that answers tells.
    fn reports(&self) -> Vec<ShardReport> {
        let (answer, answers) = mpsc::channel();
        self.mailboxes.send_all(|| Letter::Report(answer.clone()));
        drop(answer);
        let deadline = Instant::now() + REPORT_MAX;
        let mut reports = Vec::new();
        for _ in 0..self.mailboxes.shards() {
            match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(report) => reports.push(report),
                Err(_) => break,
            }
        }
        reports.sort_by_key(|report| report.shard);
        reports
    }
}

fn memory(reports: &[ShardReport]) -> Memory {
    let mut sum = Memory::default();
    for arena in reports.iter().map(|report| &report.arena) {
        sum.bytes_max += arena.bytes_max as u64;
        sum.bytes_mapped += arena.bytes_mapped as u64;
        sum.bytes_lent += arena.bytes_lent as u64;
        sum.refused += arena.refused;
    }
    sum
}

fn export(opened: &Opened, inner: &Inner, reports: &[ShardReport]) -> Export {
    let (volume, config) = (&opened.volume, &opened.export);
    let counters = volume.counters();
    Export {
        name: config.name.clone(),
        device: match &config.backing {
            Backing::Path(path) => path.display().to_string(),
            Backing::Memory(bytes) => format!("mem:{bytes}"),
            Backing::Null(bytes) => format!("null:{bytes}"),
        },
        size_bytes: volume.size_bytes(),
        block_bytes: volume.facts.block_bytes,
        read_only: volume.options.read_only,
        serial: volume.identity.serial.clone(),
        naa: format!("{:016x}", volume.identity.naa),
        write_cache: write_cache(opened),
        encryption: volume.cipher.as_deref().map(encryption),
        endpoints: endpoints(opened, &inner.config),
        port_groups: port_groups(opened, inner),
        reads: counters.reads,
        writes: counters.writes,
        read_bytes: counters.read_bytes,
        written_bytes: counters.written_bytes,
        errors: counters.errors,
        in_flight: reports
            .iter()
            .flat_map(|report| &report.in_flight)
            .filter(|(id, _)| *id == volume.id)
            .map(|(_, requests)| requests)
            .sum(),
    }
}

fn encryption(cipher: &Cipher) -> Encryption {
    let (settled, generation) = (cipher.is_settled(), cipher.generation());
    Encryption {
        cipher: "aes-xts-plain64".to_owned(),
        key_bits: u32::try_from(MEDIA_KEY_BYTES * 8).expect("two keys of 256 bits"),
        key_slot: u8::from(slot_offset(generation) != slot_offset(0)),
        key_generation: generation,
        key_state: if settled { "settled" } else { "unsettled" }.to_owned(),
    }
}

fn write_cache(opened: &Opened) -> String {
    let volatile = opened.volume.facts.volatile_cache;
    match (volatile, opened.export.acknowledge) {
        (false, _) => "none: a write is stable once acknowledged".to_owned(),
        (true, Acknowledge::Stable) => {
            "volatile: AoE writes and FUA are flushed before they are acknowledged; others at the \
             next flush"
                .to_owned()
        }
        (true, Acknowledge::Cached) => {
            "volatile, and AoE writes are acknowledged without a flush: a power cut loses some"
                .to_owned()
        }
    }
}

fn port_groups(opened: &Opened, inner: &Inner) -> Vec<PortGroup> {
    let name = &opened.export.name;
    let Some(unit) = inner.planner.unit(name) else { return Vec::new() };
    let groups = inner.config.port_groups(name).into_iter();
    groups
        .map(|tag| {
            let (group, _) = unit.port_groups.of(tag);
            let state = group.state.name().to_owned();
            PortGroup { group: tag, state, preferred: group.preferred }
        })
        .collect()
}

fn endpoints(opened: &Opened, config: &Config) -> Vec<Endpoint> {
    let mut all = Vec::new();
    for aoe in &opened.export.aoe {
        all.push(Endpoint {
            kind: EndpointKind::Aoe,
            address: format!("e{}.{}", aoe.address.shelf(), aoe.address.slot()),
            lun: None,
            places: aoe.interfaces.iter().map(|name| name.as_str().to_owned()).collect(),
        });
    }
    for logical in &opened.export.iscsi {
        let target = config.targets.iter().find(|target| target.name == logical.target);
        let portals = target.map_or(&[][..], |target| &target.portals);
        all.push(Endpoint {
            kind: EndpointKind::Iscsi,
            address: logical.target.as_str().to_owned(),
            lun: Some(logical.lun),
            places: portals.iter().map(|portal| portal.address.to_string()).collect(),
        });
    }
    all
}

/// A port that several shards share counts once, with the sum of their figures.
fn ports(reports: &[ShardReport]) -> Vec<AoePort> {
    let mut all: BTreeMap<&str, AoePort> = BTreeMap::new();
    for port in reports.iter().flat_map(|report| &report.ports) {
        let entry = all.entry(&port.name).or_default();
        entry.interface.clone_from(&port.name);
        entry.mac = port.mac.map(|mac| mac.to_string());
        entry.mtu = port.mtu;
        entry.up = port.up;
        entry.received += port.statistics.received;
        entry.dropped += port.statistics.dropped + port.statistics.no_memory;
    }
    all.into_values().collect()
}

fn sessions(reports: &[ShardReport]) -> Vec<Session> {
    let digest = |digest| match digest {
        Digest::None => "None".to_owned(),
        Digest::Crc32c => "CRC32C".to_owned(),
    };
    let mut all = Vec::new();
    for report in reports {
        for session in &report.sessions {
            all.push(Session {
                target: session.target.clone().unwrap_or_default(),
                initiator: session.initiator.clone(),
                address: session.peer.map(|peer| peer.to_string()).unwrap_or_default(),
                isid: session.isid.0.iter().map(|byte| format!("{byte:02x}")).collect(),
                tsih: session.tsih,
                shard: report.shard,
                since_seconds: report.now.since(session.since).as_secs(),
                header_digest: digest(session.agreed.header_digest),
                data_digest: digest(session.agreed.data_digest),
                commands: session.commands,
                luns: session.luns.clone(),
                in_flight: session.tasks as u64,
            });
        }
    }
    all.sort_by(|a, b| (&a.target, &a.initiator, a.tsih).cmp(&(&b.target, &b.initiator, b.tsih)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::cipher::WrappingKey;

    #[test]
    fn encryption_tells_slot_and_state_of_the_key_and_nothing_of_the_key() {
        let mut random = |bytes: &mut [u8]| bytes.fill(0xa7);
        let (cipher, _) = Cipher::fresh(WrappingKey::new(&[0x5c; 32]), &mut random);
        let told = encryption(&cipher);
        let json = serde_json::to_string(&told).unwrap();
        assert_eq!(
            json,
            "{\"cipher\":\"aes-xts-plain64\",\"key_bits\":512,\"key_slot\":0,\
             \"key_generation\":0,\"key_state\":\"settled\"}"
        );
        for (slot, generation) in [(1, 1), (0, 2), (1, 3)] {
            let next = cipher.successor(&mut random);
            cipher.unsettle();
            let told = encryption(&cipher);
            assert_eq!(told.key_state, "unsettled");
            assert_eq!((told.key_slot, told.key_generation), (1 - slot, generation - 1));
            cipher.install(&next);
            let told = encryption(&cipher);
            assert_eq!(told.key_state, "settled");
            assert_eq!((told.key_slot, told.key_generation), (slot, generation));
        }
    }
}
