//! iSCSI, on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use serde_json::json;

use super::{Ready, Started, config, words};
use crate::compare::bout::Store;
use crate::compare::kind::{Kind, find};
use crate::compare::server::Setup;

const IQN: &str = "iqn.2026-11.org.example:bench";
/// What SPDK wants besides what its bdev holds, MiB. It takes what it uses.
const SPDK_MIB: u64 = 1024;

pub(super) fn command(setup: &Setup<'_>) -> Result<(Started, String), String> {
    let address = free_address().map_err(|error| error.to_string())?;
    if setup.kind == Kind::Corbel {
        Ok(corbel(setup, address))
    } else if setup.kind.is_spdk() {
        spdk(setup, address)
    } else {
        tgt(setup, address)
    }
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn corbel(setup: &Setup<'_>, address: SocketAddr) -> (Started, String) {
    let (program, place) = (setup.program.display().to_string(), format!("{IQN}@{address}"));
    let store = match setup.bout.store {
        Store::Own => format!("mem:{}", setup.image.bytes),
        Store::Ram | Store::Disk => setup.image.path.display().to_string(),
    };
    let threads = setup.cores.len().max(1).to_string();
    let line = ["export", &store, "--iscsi", &place, "--threads", &threads];
    let words = [program].into_iter().chain(words(&line)).collect();
    (Started { words, ready: Ready::Says }, format!("iscsi:{IQN}/0@{address}"))
}

fn tgt(setup: &Setup<'_>, address: SocketAddr) -> Result<(Started, String), String> {
    let program = setup.program.display().to_string();
    let image = setup.image.path.display().to_string();
    let threads = if setup.kind == Kind::TgtOne { "1" } else { "16" };
    // Its control socket has this number in its name, which ends at 32767.
    let (number, portal) = (address.port() % 32_000 + 100, format!("portal={address}"));
    let number = number.to_string();
    let line = ["-f", "-C", &number, "-t", threads, "--iscsi", &portal];
    let daemon = [program].into_iter().chain(words(&line)).collect();
    let admin = find("tgtadm").ok_or("tgtadm is not installed")?.display().to_string();
    let admin = |line: &[&str]| {
        let head = [admin.as_str(), "-C", &number, "--lld", "iscsi", "--mode"];
        words(&head).into_iter().chain(words(line)).collect::<Vec<_>>()
    };
    let mut unit = vec!["logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", &image];
    unit.extend(["-E", "rdwr"]);
    if setup.bout.store == Store::Disk {
        unit.extend(["--bsoflags", "direct"]);
    }
    let then = vec![
        admin(&["target", "--op", "new", "--tid", "1", "-T", IQN]),
        admin(&unit),
        admin(&["target", "--op", "bind", "--tid", "1", "-I", "ALL"]),
    ];
    let ready = Ready::Listens(address, then);
    Ok((Started { words: daemon, ready }, format!("iscsi:{IQN}/1@{address}")))
}

fn spdk(setup: &Setup<'_>, address: SocketAddr) -> Result<(Started, String), String> {
    let program = setup.program.display().to_string();
    let config = config(setup, "json", &spdk_config(setup, address).to_string())?;
    let socket = setup.image.beside("sock").display().to_string();
    let cores: Vec<_> = setup.cores.iter().map(usize::to_string).collect();
    let cores = format!("[{}]", cores.join(","));
    let memory = (SPDK_MIB + (setup.image.bytes >> 20)).to_string();
    // Several of them share a core here, each while the others are stopped.
    let mut line = vec!["-m", &cores, "--disable-cpumask-locks", "-r", &socket, "-c", &config];
    line.extend(["--no-pci", "--no-huge", "-s", &memory]);
    if setup.kind == Kind::SpdkInterrupt {
        line.push("--interrupt-mode");
    }
    // Also where all this was started with a real-time policy: its threads wait for each other by
    // yielding, and on one core the other one then never runs.
    let start = words(&["chrt", "--other", "0", &program]);
    let words = start.into_iter().chain(words(&line)).collect();
    // It makes the target a moment after it listens.
    let ready = Ready::Listens(address, vec![super::words(&["sleep", "0.5"])]);
    Ok((Started { words, ready }, format!("iscsi:{IQN}/0@{address}")))
}

/// A queue as deep as the deepest load, and no MSG_ZEROCOPY, which on loopback copies and tells
/// of it besides.
fn spdk_config(setup: &Setup<'_>, address: SocketAddr) -> serde_json::Value {
    let image = setup.image.path.display().to_string();
    let blocks = setup.image.bytes / 512;
    let (method, params) = match (setup.bout.store, setup.kind) {
        (Store::Disk, Kind::SpdkAio) => {
            ("bdev_aio_create", json!({ "name": "store", "filename": image, "block_size": 512 }))
        }
        (Store::Disk, _) => {
            ("bdev_uring_create", json!({ "name": "store", "filename": image, "block_size": 512 }))
        }
        _ => (
            "bdev_malloc_create",
            json!({ "name": "store", "num_blocks": blocks, "block_size": 512 }),
        ),
    };
    let portal = json!({ "host": address.ip().to_string(), "port": address.port().to_string() });
    let call = |method: &str, params| json!({ "method": method, "params": params });
    json!({ "subsystems": [
        { "subsystem": "sock", "config": [
            call("sock_impl_set_options",
                 json!({ "impl_name": "posix", "enable_zerocopy_send_server": false })),
        ] },
        { "subsystem": "bdev", "config": [call(method, params)] },
        { "subsystem": "iscsi", "config": [
            call("iscsi_set_options", json!({
                "node_base": "iqn.2026-11.org.example", "max_sessions": 16,
                "max_queue_depth": 128, "pdu_pool_size": 8192,
                "immediate_data_pool_size": 4096, "data_out_pool_size": 1024,
            })),
            call("iscsi_create_portal_group", json!({ "tag": 1, "portals": [portal] })),
            call("iscsi_create_initiator_group",
                 json!({ "tag": 1, "initiators": ["ANY"], "netmasks": ["ANY"] })),
            call("iscsi_create_target_node", json!({
                "name": IQN, "alias_name": "bench", "queue_depth": 128, "disable_chap": true,
                "pg_ig_maps": [{ "pg_tag": 1, "ig_tag": 1 }],
                "luns": [{ "bdev_name": "store", "lun_id": 0 }],
            })),
        ] },
    ] })
}
