//! A status for people: names everywhere, aligned, one thing a line.

use std::fmt::Write;

use super::Status;
use super::status::{AoePort, Endpoint, EndpointKind, Export, IsnsServer, PortGroup, Session};

/// The whole status.
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    head(&mut out, status);
    exports(&mut out, &status.exports);
    encryption(&mut out, &status.exports);
    endpoints(&mut out, &status.exports);
    port_groups(&mut out, &status.exports);
    ports(&mut out, &status.aoe_ports);
    isns(&mut out, &status.isns);
    sessions(&mut out, &status.sessions);
    out
}

/// What is served where, an endpoint a line: what `export` and `vblade` print.
pub fn endpoint_lines(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    for endpoint in status.exports.iter().flat_map(|export| &export.endpoints) {
        for place in &endpoint.places {
            let port = status.aoe_ports.iter().find(|port| port.interface == *place);
            lines.push(match (endpoint.kind, port) {
                (EndpointKind::Aoe, Some(port)) => {
                    format!("{} on {place} ({})", offered(endpoint), link(port))
                }
                _ => format!("{} on {place}", offered(endpoint)),
            });
        }
    }
    lines
}

fn link(port: &AoePort) -> String {
    match &port.mac {
        Some(mac) if port.up => format!("{mac}, MTU {}", port.mtu),
        Some(mac) => format!("{mac}, MTU {}, link down", port.mtu),
        None => "interface absent".to_owned(),
    }
}

fn offered(endpoint: &Endpoint) -> String {
    match (endpoint.kind, endpoint.lun) {
        (EndpointKind::Aoe, _) => format!("aoe {}", endpoint.address),
        (EndpointKind::Iscsi, Some(lun)) => format!("iscsi {} lun {lun}", endpoint.address),
        (EndpointKind::Iscsi, None) => format!("iscsi {}", endpoint.address),
    }
}

fn head(out: &mut String, status: &Status) {
    let Status { version, pid, uptime_seconds, memory, kernel, flush_failures, .. } = status;
    let up = age(*uptime_seconds);
    line(out, &format!("corbel-target {version}, process {pid}, up {up}"));
    let (lent, mapped, max) =
        (size(memory.bytes_lent), size(memory.bytes_mapped), size(memory.bytes_max));
    line(out, &format!("memory: {lent} in use, {mapped} taken, {max} at most"));
    if memory.refused > 0 {
        let times = memory.refused;
        line(out, &format!("memory ran out {times} times; raise daemon.limits.memory"));
    }
    if *flush_failures > 0 {
        let what = "a store did not keep what it was told to; see the log";
        line(out, &format!("FLUSHES FAILED: {flush_failures}; {what}"));
    }
    for missing in &kernel.missing {
        line(out, &format!("the kernel has no {}: {}", missing.what, missing.cost));
    }
}

fn exports(out: &mut String, exports: &[Export]) {
    if exports.is_empty() {
        return line(out, "\nno exports");
    }
    let mut table = Table::new(&[
        "EXPORT",
        "DEVICE",
        "SIZE>",
        "BLOCK>",
        "MODE",
        "READS>",
        "READ>",
        "WRITES>",
        "WRITTEN>",
        "ERRORS>",
        "IN FLIGHT>",
    ]);
    for export in exports {
        table.row([
            export.name.clone(),
            export.device.clone(),
            size(export.size_bytes),
            export.block_bytes.to_string(),
            if export.read_only { "ro" } else { "rw" }.to_owned(),
            export.reads.to_string(),
            size(export.read_bytes),
            export.writes.to_string(),
            size(export.written_bytes),
            export.errors.to_string(),
            export.in_flight.to_string(),
        ]);
    }
    table.write(out);
    let mut table = Table::new(&["EXPORT", "SERIAL", "NAA", "WRITE CACHE"]);
    for export in exports {
        let Export { name, serial, naa, write_cache, .. } = export;
        table.row([name.clone(), serial.clone(), naa.clone(), write_cache.clone()]);
    }
    table.write(out);
}

/// Of all, as soon as one is encrypted: then it matters which are not.
fn encryption(out: &mut String, exports: &[Export]) {
    if exports.iter().all(|export| export.encryption.is_none()) {
        return;
    }
    let mut table = Table::new(&["EXPORT", "ENCRYPTION", "KEY SLOT>", "GENERATION>", "KEY"]);
    for export in exports {
        let name = export.name.clone();
        let none = || "-".to_owned();
        table.row(match &export.encryption {
            None => [name, "none".to_owned(), none(), none(), none()],
            Some(told) => [
                name,
                format!("{}, {} bits", told.cipher, told.key_bits),
                told.key_slot.to_string(),
                told.key_generation.to_string(),
                told.key_state.clone(),
            ],
        });
    }
    table.write(out);
}

fn endpoints(out: &mut String, exports: &[Export]) {
    let mut table = Table::new(&["EXPORT", "OFFERED AS", "WHERE"]);
    for export in exports {
        for endpoint in &export.endpoints {
            let places = endpoint.places.join(" ");
            table.row([export.name.clone(), offered(endpoint), places]);
        }
    }
    table.write(out);
}

/// Those that are not like any other.
fn port_groups(out: &mut String, exports: &[Export]) {
    let mut table = Table::new(&["EXPORT", "PORT GROUP>", "STATE", "PREFERRED"]);
    for export in exports {
        let odd = |group: &&PortGroup| group.preferred || group.state != "optimized";
        for group in export.port_groups.iter().filter(odd) {
            let preferred = if group.preferred { "yes" } else { "no" }.to_owned();
            let (name, tag) = (export.name.clone(), group.group.to_string());
            table.row([name, tag, group.state.clone(), preferred]);
        }
    }
    table.write(out);
}

fn ports(out: &mut String, ports: &[AoePort]) {
    let columns = ["AOE INTERFACE", "ADDRESS", "MTU>", "STATE", "RECEIVED>", "DROPPED>"];
    let mut table = Table::new(&columns);
    for port in ports {
        let state = match (&port.mac, port.up) {
            (None, _) => "absent",
            (Some(_), true) => "up",
            (Some(_), false) => "down",
        };
        table.row([
            port.interface.clone(),
            port.mac.clone().unwrap_or_else(|| "-".to_owned()),
            port.mtu.to_string(),
            state.to_owned(),
            port.received.to_string(),
            port.dropped.to_string(),
        ]);
    }
    table.write(out);
}

fn isns(out: &mut String, servers: &[IsnsServer]) {
    let mut table = Table::new(&["ISNS SERVER", "REGISTERED", "SINCE>", "LAST ERROR"]);
    for told in servers {
        let error = match (&told.last_error, told.last_error_seconds) {
            (Some(why), Some(seconds)) => format!("{} ago: {why}", age(seconds)),
            (Some(why), None) => why.clone(),
            (None, _) => "none".to_owned(),
        };
        table.row([
            told.server.clone(),
            if told.registered { "yes" } else { "no" }.to_owned(),
            told.since_seconds.map_or_else(|| "-".to_owned(), age),
            error,
        ]);
    }
    table.write(out);
}

fn sessions(out: &mut String, sessions: &[Session]) {
    if sessions.is_empty() {
        return line(out, "\nno iSCSI sessions");
    }
    let mut table = Table::new(&[
        "INITIATOR",
        "TARGET",
        "LUNS",
        "FROM",
        "SINCE>",
        "DIGESTS",
        "COMMANDS>",
        "IN FLIGHT>",
    ]);
    for session in sessions {
        let discovery = session.target.is_empty();
        let luns: Vec<_> = session.luns.iter().map(u16::to_string).collect();
        table.row([
            session.initiator.clone(),
            if discovery { "(discovery)".to_owned() } else { session.target.clone() },
            if luns.is_empty() { "-".to_owned() } else { luns.join(",") },
            session.address.clone(),
            age(session.since_seconds),
            digests(session),
            session.commands.to_string(),
            session.in_flight.to_string(),
        ]);
    }
    table.write(out);
}

fn digests(session: &Session) -> String {
    let header = (session.header_digest == "CRC32C").then_some("header");
    let data = (session.data_digest == "CRC32C").then_some("data");
    let both: Vec<_> = header.into_iter().chain(data).collect();
    if both.is_empty() { "none".to_owned() } else { both.join("+") }
}

/// Bytes in the largest unit that leaves a number of at least 1: `1.5 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = None;
    let (mut whole, mut rest) = (bytes, 0);
    for name in UNITS {
        if whole < 1024 {
            break;
        }
        (whole, rest) = (whole / 1024, whole % 1024);
        unit = Some(name);
    }
    match unit {
        None => format!("{bytes} B"),
        // Cut off, not rounded: never more than there is.
        Some(unit) => format!("{whole}.{} {unit}", rest * 10 / 1024),
    }
}

fn age(seconds: u64) -> String {
    let (days, hours) = (seconds / 86400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{rest:02}s"),
        (0, _) => format!("{hours}h{minutes:02}m"),
        (_, _) => format!("{days}d{hours:02}h"),
    }
}

/// A line; what came over a network must not steer the terminal.
fn line(out: &mut String, text: &str) {
    out.extend(text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }));
    out.push('\n');
}

/// Columns as wide as their widest cell. A title that ends in `>` aligns to the right.
struct Table {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(titles: &[&str]) -> Self {
        let right = titles.iter().map(|title| title.ends_with('>')).collect();
        let titles = titles.iter().map(|title| title.trim_end_matches('>').to_owned());
        Self { right, rows: vec![titles.collect()] }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    fn write(&self, out: &mut String) {
        if self.rows.len() == 1 {
            return;
        }
        out.push('\n');
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.right.len()).map(width).collect();
        for row in &self.rows {
            let mut text = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                let written = if *right {
                    write!(text, "{cell:>width$}  ")
                } else {
                    write!(text, "{cell:<width$}  ")
                };
                written.expect("a string takes any text");
            }
            line(out, text.trim_end());
        }
    }
}
