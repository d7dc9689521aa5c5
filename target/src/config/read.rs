//! From the document to a [`Config`]: each table in turn, then what must hold between them.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use corbel_daemon::config::{
    At, Findings, Problems, Reader, Span, Table, Wrong, document, pick, short,
};

use super::keys::KEYS;
use super::{
    ACCESS_STATES, AOE_BUFFERS, AccessState, Acknowledge, Algorithm, Alua, AoeAddress, AoeExport,
    Backing, Chap, Config, Credentials, Daemon, DigestChoice, Direct, Export, InterfaceName,
    IscsiName, Isns, LUN_MAX, Limits, Loaded, LogicalUnit, PING_TIME, PortGroup, Portal, Redirect,
    SecretKey, Size, Target, busy_poll, duration, isns_server, ping_time, portal,
};

/// Portal group tags. They are relative target port identifiers too, of which 0 is none
/// (SPC-4 7.8.6.7).
const GROUPS: RangeInclusive<i64> = 1..=65535;

pub(super) fn read(text: &str, file: &str, base: &Path) -> Result<Loaded, Problems> {
    let (document, findings) = document(file, text)?;
    let mut reader = Reader::new(findings, base, KEYS);
    let top = reader.table("", document.get_ref(), 0..0);
    let daemon = reader
        .section(&top, "daemon", "daemon")
        .map_or_else(Daemon::default, |table| daemon(&mut reader, &table));
    let mut links = Links::default();
    let mut exports = Vec::new();
    for table in reader.sections(&top, "export", "export") {
        exports.extend(export(&mut reader, &table, &mut links));
    }
    let mut targets = Vec::new();
    for table in reader.sections(&top, "target", "target") {
        targets.extend(target(&mut reader, &table, &mut links));
    }
    let mut config = Config { daemon, exports, targets };
    links.judge(&mut config, &mut reader.findings);
    reader.findings.finish().map(|warnings| Loaded { config, warnings })
}

fn daemon(reader: &mut Reader<'_>, table: &Table<'_>) -> Daemon {
    let mut daemon = Daemon {
        threads: reader.number::<u16>(table, "threads", 1..=1024).and_then(NonZeroU16::new),
        metrics: reader.address(table, "metrics", "127.0.0.1:9630"),
        ..Daemon::default()
    };
    if let Some(time) = reader.with(table, "busy_poll", busy_poll) {
        daemon.busy_poll = time.value;
    }
    if let Some(path) = reader.path(table, "admin_socket") {
        daemon.admin_socket = Some(path.value);
    }
    if let Some(path) = reader.path(table, "state_dir") {
        daemon.state_dir = path.value;
    }
    daemon.isns = reader.section(table, "isns", "daemon.isns").and_then(|table| {
        let servers = reader.list(&table, "servers", isns_server);
        if servers.is_empty() && !reader.has(&table, "servers") {
            reader.missing(&table, "servers");
        }
        let entity = reader.with(&table, "entity", |text| short(text, "an entity identifier"));
        (!servers.is_empty()).then(|| Isns { servers, entity: entity.map(|at| at.value) })
    });
    if let Some(table) = reader.section(table, "limits", "daemon.limits") {
        daemon.limits = limits(reader, &table);
    }
    daemon
}

fn limits(reader: &mut Reader<'_>, table: &Table<'_>) -> Limits {
    let mut limits = Limits::default();
    if let Some(sessions) = reader.number(table, "sessions", 1..=65535) {
        limits.sessions = sessions;
    }
    if let Some(connections) = reader.number(table, "connections", 1..=65535) {
        limits.connections = connections;
    }
    let memory = reader.with(table, "memory", |text| {
        let Size(bytes) = text.parse()?;
        if bytes < 8 << 20 {
            return Err(Wrong::new(format!("`{text}` is too little"), "give 8MiB or more"));
        }
        Ok(bytes)
    });
    if let Some(memory) = memory {
        limits.memory = memory.value;
    }
    let timeout = reader.with(table, "login_timeout", |text| {
        let time = duration(text)?;
        if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&time) {
            return Err(Wrong::new(format!("`{text}` is out of range"), "give 1s to 10m"));
        }
        Ok(time)
    });
    if let Some(timeout) = timeout {
        limits.login_timeout = timeout.value;
    }
    limits
}

fn export(reader: &mut Reader<'_>, table: &Table<'_>, links: &mut Links) -> Option<Export> {
    let name = reader.required(table, "name", export_name);
    let backing = reader.required(table, "path", Backing::parse);
    let at = backing.as_ref().map(|at| at.span.clone());
    let backing = backing.map(|at| match at.value {
        Backing::Path(path) => Backing::Path(reader.based(&path)),
        other => other,
    });
    let whole = |text: &str| {
        let Size(bytes) = text.parse()?;
        if bytes % 512 != 0 {
            let what = format!("`{text}` is not a whole number of sectors");
            return Err(Wrong::new(what, "give a multiple of 512 bytes"));
        }
        Ok(bytes)
    };
    let mut export = Export::new(String::new(), Backing::Null(512));
    export.offset = reader.with(table, "offset", whole).map_or(0, |at| at.value);
    export.length = reader
        .with(table, "length", |text| {
            let bytes = whole(text)?;
            if bytes == 0 {
                let right = "give a length, or leave it out";
                return Err(Wrong::new("a length of 0 exports nothing", right));
            }
            Ok(bytes)
        })
        .map(|at| at.value);
    export.read_only = reader.boolean(table, "read_only").unwrap_or(false);
    export.removable = reader.boolean(table, "removable").unwrap_or(false);
    export.thin = reader.boolean(table, "thin").unwrap_or(false);
    let size = |text: &str| text.parse().map(|Size(bytes)| bytes);
    export.sanitize_rate = reader.with(table, "sanitize_rate", size).map_or(0, |at| at.value);
    export.encryption = encryption(reader, table, &backing);
    export.space_warning = reader.with(table, "space_warning", size).map_or(0, |at| at.value);
    let acknowledge = [("stable", Acknowledge::Stable), ("cached", Acknowledge::Cached)];
    export.acknowledge = reader.choice(table, "acknowledge", &acknowledge).unwrap_or_default();
    let direct = [("auto", Direct::Auto), ("require", Direct::Require)];
    export.direct = reader.choice(table, "direct", &direct).unwrap_or_default();
    export.serial = reader.with(table, "serial", serial).map(|at| at.value);
    export.naa = reader.with(table, "naa", naa).map(|at| at.value);
    let alua = [("implicit", Alua::Implicit), ("explicit", Alua::Explicit)];
    export.alua = reader.choice(table, "alua", &alua).unwrap_or_default();
    let groups = port_groups(reader, table);
    export.port_groups = groups.iter().map(|(group, _)| *group).collect();
    for place in reader.sections(table, "aoe", "export.aoe") {
        if let Some(aoe) = aoe(reader, &place) {
            links.aoe.push((aoe.address, aoe.interfaces.clone(), place.span.clone()));
            export.aoe.push(aoe);
        }
    }
    for place in reader.sections(table, "iscsi", "export.iscsi") {
        let target = reader.required(&place, "target", str::parse::<IscsiName>);
        let lun = reader.number(&place, "lun", 0..=i64::from(LUN_MAX)).unwrap_or(0);
        if let Some(At { value: target, .. }) = target {
            links.luns.push((target.clone(), lun, place.span.clone()));
            export.iscsi.push(LogicalUnit { target, lun });
        }
    }
    let name = name?;
    links.exports.push((name.value.clone(), name.span));
    let groups = groups.into_iter().map(|(one, span)| ((name.value.clone(), one.group), span));
    links.groups.extend(groups);
    links.stores.push((backing.clone()?, export.offset, export.length, at?));
    if export.aoe.is_empty() && export.iscsi.is_empty() {
        let what = format!("nobody can reach export `{}`", name.value);
        reader.findings.warn(&table.span, Wrong::new(what, "give it `aoe` or `iscsi`"));
    }
    Some(Export { name: name.value, backing: backing?, ..export })
}

fn encryption(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    backing: &Option<Backing>,
) -> Option<SecretKey> {
    let place = reader.section(table, "encryption", "export.encryption")?;
    if let Some(Backing::Null(_)) = backing {
        let what = "`null:` keeps nothing that could be encrypted";
        reader.findings.error(&place.span, Wrong::new(what, "leave `encryption` out"));
    }
    reader.key_file(&place, "key_file")
}

fn port_groups(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<(PortGroup, Span)> {
    let mut groups = Vec::new();
    for place in reader.sections(table, "port_groups", "export.port_groups") {
        let group = reader.number(&place, "group", GROUPS);
        let state = reader.choice(&place, "state", &ACCESS_STATES);
        let preferred = reader.boolean(&place, "preferred").unwrap_or(false);
        match group {
            Some(group) => {
                let state = state.unwrap_or(AccessState::Optimized);
                groups.push((PortGroup { group, state, preferred }, place.span));
            }
            None if !reader.has(&place, "group") => reader.missing(&place, "group"),
            None => {}
        }
    }
    groups
}

fn export_name(text: &str) -> Result<String, Wrong> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !(1..=64).contains(&text.len()) || !text.chars().all(good) {
        let right = "names have 1 to 64 letters, digits, `-`, `_` or `.`";
        return Err(Wrong::new(format!("`{text}` cannot be an export's name"), right));
    }
    Ok(text.to_owned())
}

fn serial(text: &str) -> Result<String, Wrong> {
    let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if !(1..=20).contains(&text.len()) || !printable || text.trim() != text {
        let right = "serials have 1 to 20 printable ASCII characters";
        return Err(Wrong::new(format!("`{text}` cannot be a serial number"), right));
    }
    Ok(text.to_owned())
}

fn naa(text: &str) -> Result<u64, Wrong> {
    let digits = text.strip_prefix("naa.").or_else(|| text.strip_prefix("0x")).unwrap_or(text);
    let hex = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u64::from_str_radix(digits, 16).ok().filter(|_| hex);
    // NAA 2 (extended), 3 (local) and 5 (registered) have eight bytes: SPC-4 7.8.6.6.
    number.filter(|n| matches!(n >> 60, 2 | 3 | 5)).ok_or_else(|| {
        let right = "give 16 hex digits of which the first is 2, 3 or 5";
        Wrong::new(format!("`{text}` is no NAA name"), right)
    })
}

fn aoe(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<AoeExport> {
    let shelf = reader.integer(table, "shelf", 0..=65534);
    let slot = reader.integer(table, "slot", 0..=254);
    for (key, found) in [("shelf", &shelf), ("slot", &slot)] {
        if found.is_none() && !reader.has(table, key) {
            reader.missing(table, key);
        }
    }
    let interfaces = reader.list(table, "interfaces", str::parse::<InterfaceName>);
    if interfaces.is_empty() && !reader.has(table, "interfaces") {
        reader.missing(table, "interfaces");
    }
    let allow = reader.list(table, "allow", str::parse);
    if allow.len() > 255 {
        let what = format!("`allow` has {} addresses", allow.len());
        reader.findings.error(&table.span, Wrong::new(what, "AoE masks have 255 at most"));
    }
    let buffers = reader.number(table, "buffers", 1..=65535).unwrap_or(AOE_BUFFERS);
    let config = reader.with(table, "config", config_string).map(|at| at.value);
    let (shelf, slot) = (shelf?, slot?);
    let address = AoeAddress::new(shelf.value, slot.value).ok()?;
    if shelf.value == 0xfff {
        let wrong = Wrong::new("Linux ignores AoE shelf 4095", "choose another shelf");
        reader.findings.warn(&shelf.span, wrong);
    }
    Some(AoeExport { address, interfaces, allow, buffers, config })
}

/// An AoE config string (AoE r11 3.2).
pub(crate) fn config_string(text: &str) -> Result<String, Wrong> {
    if text.len() > 1024 {
        let what = format!("the config string has {} bytes", text.len());
        return Err(Wrong::new(what, "AoE config strings have 1024 bytes at most"));
    }
    Ok(text.to_owned())
}

fn target(reader: &mut Reader<'_>, table: &Table<'_>, links: &mut Links) -> Option<Target> {
    let name = reader.required(table, "name", str::parse::<IscsiName>);
    let alias = reader.with(table, "alias", |text| short(text, "an alias")).map(|at| at.value);
    let group = reader.number(table, "portal_group_tag", GROUPS).unwrap_or(1);
    let portals = portals(reader, table, group);
    let (mut initiators, mut addresses) = (Vec::new(), Vec::new());
    if let Some(allow) = reader.section(table, "allow", "target.allow") {
        initiators = reader.list(&allow, "initiators", str::parse);
        addresses = reader.list(&allow, "addresses", str::parse);
    }
    let mut chap = Vec::new();
    for user in reader.sections(table, "chap", "target.chap") {
        let algorithms = reader.list(&user, "algorithms", algorithm);
        let algorithms = if algorithms.is_empty() { Algorithm::ALL.to_vec() } else { algorithms };
        if let Some(credentials) = credentials(reader, &user) {
            chap.push((Chap { credentials, algorithms }, user.span));
        }
    }
    let mutual = reader
        .section(table, "mutual_chap", "target.mutual_chap")
        .and_then(|place| Some((credentials(reader, &place)?, place.span)));
    judge_chap(reader, &chap, mutual.as_ref());
    let digests = [("initiator", DigestChoice::Initiator), ("require", DigestChoice::Require)];
    let header_digest = reader.choice(table, "header_digest", &digests).unwrap_or_default();
    let data_digest = reader.choice(table, "data_digest", &digests).unwrap_or_default();
    let sessions = reader.number(table, "sessions", 1..=65535);
    let commands = reader.number(table, "commands", 1..=1024);
    let connections = reader.number(table, "connections", 1..=32).unwrap_or(1);
    let recovery_level = reader.number(table, "recovery_level", 0..=2).unwrap_or(0);
    let interval = |text: &str| if text == "0" { Ok(Duration::ZERO) } else { ping_time(text) };
    let ping_interval = reader.with(table, "ping_interval", interval);
    let ping_timeout = reader.with(table, "ping_timeout", ping_time);
    let redirect = reader.section(table, "redirect", "target.redirect").and_then(|place| {
        let permanent = reader.boolean(&place, "permanent").unwrap_or(false);
        let address = reader.required(&place, "address", portal)?.value;
        Some(Redirect { address, permanent })
    });
    let name = name?;
    let open = initiators.is_empty() && addresses.is_empty() && chap.is_empty();
    if open && portals.iter().any(|p| !p.address.ip().is_loopback()) {
        let what = format!("whoever reaches a portal of `{}` can write to it", name.value);
        let right = "give it `allow` or `chap` unless its network is protected";
        reader.findings.warn(&name.span, Wrong::new(what, right));
    }
    links.targets.push((name.value.clone(), name.span));
    Some(Target {
        alias,
        portals: if portals.is_empty() { Target::new(name.value.clone()).portals } else { portals },
        name: name.value,
        initiators,
        addresses,
        chap: chap.into_iter().map(|(chap, _)| chap).collect(),
        mutual_chap: mutual.map(|(credentials, _)| credentials),
        header_digest,
        data_digest,
        sessions,
        commands,
        ping_interval: ping_interval.map_or(PING_TIME, |at| at.value),
        ping_timeout: ping_timeout.map_or(PING_TIME, |at| at.value),
        redirect,
        connections,
        recovery_level,
    })
}

fn portals(reader: &mut Reader<'_>, table: &Table<'_>, group: u16) -> Vec<Portal> {
    let mut portals: Vec<Portal> = Vec::new();
    for item in reader.texts_or_tables(table, "portals", "target.portals") {
        let (address, group, span) = match item {
            Ok(text) => match portal(text.value) {
                Ok(address) => (address, group, text.span),
                Err(wrong) => {
                    reader.findings.error(&text.span, wrong);
                    continue;
                }
            },
            Err(place) => {
                let group = reader.number(&place, "group", GROUPS).unwrap_or(group);
                match reader.required(&place, "address", portal) {
                    Some(address) => (address.value, group, address.span),
                    None => continue,
                }
            }
        };
        if portals.iter().any(|known| known.address == address) {
            let what = format!("portal {address} is listed twice");
            reader.findings.error(&span, Wrong::new(what, "list it once"));
            continue;
        }
        portals.push(Portal { address, group });
    }
    portals
}

fn credentials(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Credentials> {
    reader.credentials(table).map(|(user, secret)| Credentials { user, secret })
}

fn judge_chap(
    reader: &mut Reader<'_>,
    chap: &[(Chap, Span)],
    mutual: Option<&(Credentials, Span)>,
) {
    for (index, (user, span)) in chap.iter().enumerate() {
        let name = &user.credentials.user;
        if chap[..index].iter().any(|(other, _)| other.credentials.user == *name) {
            let what = format!("CHAP user `{name}` is listed twice");
            reader.findings.error(span, Wrong::new(what, "list it once"));
        }
    }
    let Some((mutual, span)) = mutual else { return };
    if chap.is_empty() {
        let what = "`mutual_chap` without `chap` is never used";
        reader.findings.error(span, Wrong::new(what, "give the target `chap` too"));
    }
    if chap.iter().any(|(user, _)| user.credentials.secret == mutual.secret) {
        let what = "both directions have the same CHAP secret";
        let right = "give each direction its own (RFC 7143 9.2.1)";
        reader.findings.error(span, Wrong::new(what, right));
    }
}

fn algorithm(text: &str) -> Result<Algorithm, Wrong> {
    let [sha3, sha256, sha1, md5] = Algorithm::ALL;
    pick(text, &[("sha3-256", sha3), ("sha256", sha256), ("sha1", sha1), ("md5", md5)])
}

/// What must hold between objects, with the place where each was said.
#[derive(Debug, Default)]
struct Links {
    exports: Vec<(String, Span)>,
    stores: Vec<(Backing, u64, Option<u64>, Span)>,
    aoe: Vec<(AoeAddress, Vec<InterfaceName>, Span)>,
    luns: Vec<(IscsiName, u16, Span)>,
    targets: Vec<(IscsiName, Span)>,
    /// Port groups that an export, by name, speaks of.
    groups: Vec<((String, u16), Span)>,
}

impl Links {
    fn judge(&self, config: &mut Config, findings: &mut Findings<'_>) {
        let exports = self.exports.iter().map(|(name, span)| (name, span));
        findings.unique(exports, |name| format!("export `{name}`"));
        let targets = self.targets.iter().map(|(name, span)| (name, span));
        findings.unique(targets, |name| format!("target `{name}`"));
        let luns = self.luns.iter().map(|(target, lun, span)| ((target, *lun), span));
        findings.unique(luns, |(target, lun)| format!("LUN {lun} of `{target}`"));
        let addresses = self.aoe.iter().flat_map(|(address, interfaces, span)| {
            interfaces.iter().map(move |interface| ((*address, interface), span))
        });
        findings.unique(addresses, |(address, on)| format!("AoE {address} on {on}"));
        let groups = self.groups.iter().map(|(group, span)| (group, span));
        findings.unique(groups, |(export, group)| format!("port group {group} of `{export}`"));
        self.judge_stores(findings);
        for (name, lun, span) in &self.luns {
            if config.targets.iter().any(|target| target.name == *name) {
                continue;
            }
            // A [[target]] of that name with an error in it was already told.
            if !self.targets.iter().any(|(known, _)| known == name) {
                let what = format!("target `{name}` of LUN {lun} has no [[target]]");
                let right = "it is served on 127.0.0.1:3260 only; add a [[target]] for more";
                findings.warn(span, Wrong::new(what, right));
            }
            config.targets.push(Target::new(name.clone()));
        }
        for ((export, group), span) in &self.groups {
            if !config.port_groups(export).contains(group) {
                let what = format!("`{export}` has no portal in group {group}");
                let right = "name the group of a portal of one of its targets";
                findings.error(span, Wrong::new(what, right));
            }
        }
        for (name, span) in &self.targets {
            let mut luns = self.luns.iter().filter(|(target, ..)| target == name).peekable();
            if luns.peek().is_none() {
                let wrong = Wrong::new(
                    format!("no export is a LUN of target `{name}`"),
                    "name it in an export's `iscsi`, or remove it",
                );
                findings.warn(span, wrong);
            } else if luns.all(|(_, lun, _)| *lun != 0) {
                let what = format!("target `{name}` has no LUN 0");
                let right = "some initiators look no further; give one export LUN 0";
                findings.warn(span, Wrong::new(what, right));
            }
        }
    }

    /// One store exported twice as two devices would order neither against the other.
    fn judge_stores(&self, findings: &mut Findings<'_>) {
        for (index, (backing, offset, length, span)) in self.stores.iter().enumerate() {
            let Backing::Path(path) = backing else { continue };
            let end =
                |offset: u64, len: Option<u64>| len.map_or(u64::MAX, |l| offset.saturating_add(l));
            let earlier = self.stores[..index].iter().find(|(other, from, len, _)| {
                other == backing && *from < end(*offset, *length) && *offset < end(*from, *len)
            });
            if let Some((.., first)) = earlier {
                let what =
                    format!("{} is exported already ({})", path.display(), findings.place(first));
                let right = "give that one export every `aoe` and `iscsi` endpoint";
                findings.error(span, Wrong::new(what, right));
            }
        }
    }
}
