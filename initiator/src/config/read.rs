//! From the document to [`Settings`]: each table in turn, then what must hold between them.

use std::path::Path;
use std::time::Duration;

use corbel_daemon::config::{At, Findings, Problems, Reader, Span, Table, Wrong, document};
use corbel_proto::iscsi::name::Name;

use super::keys::KEYS;
use super::knob::{Origin, POLICY_KEYS, TIMER_KEYS, set_policy, within};
use super::quantity::Time;
use super::{
    Credentials, Daemon, DeviceSettings, Digests, Loaded, PathSettings, PathSpec, Present,
    SANLOCK_FAIL_FACTOR, SANLOCK_IO_TIMEOUT, Settings, device_name, present, wwid,
};
use crate::multipath::policy::NoPath;
use crate::path::iscsi::Reinstatement;

pub(super) fn read(text: &str, file: &str, base: &Path) -> Result<Loaded, Problems> {
    let (document, findings) = document(file, text)?;
    let mut reader = Reader::new(findings, base, KEYS);
    let top = reader.table("", document.get_ref(), 0..0);
    let daemon = reader
        .section(&top, "daemon", "daemon")
        .map_or_else(Daemon::default, |table| daemon(&mut reader, &table));
    let defaults = match reader.section(&top, "defaults", "defaults") {
        Some(table) => {
            let common = Common::read(&mut reader, &table);
            // Judged here, whether or not there is a device.
            let mut judged = DeviceSettings::new(String::new());
            for (span, wrong) in common.apply(&mut judged, Origin::Defaults) {
                reader.findings.error(&span, wrong);
            }
            common
        }
        None => Common::default(),
    };
    let mut links = Links::default();
    let mut devices = Vec::new();
    for table in reader.sections(&top, "device", "device") {
        devices.extend(device(&mut reader, &table, &defaults, &mut links));
    }
    links.judge(&mut reader.findings);
    let settings = Settings { daemon, devices };
    reader.findings.finish().map(|warnings| Loaded { settings, warnings })
}

fn daemon(reader: &mut Reader<'_>, table: &Table<'_>) -> Daemon {
    let metrics = reader.address(table, "metrics", "127.0.0.1:9631");
    let name = reader.with(table, "initiator_name", |text| {
        text.parse::<Name>().map_err(|error| {
            let right = "an iSCSI name looks like \"iqn.2026-11.org.example:dom0\"";
            Wrong::new(format!("`{text}` is no iSCSI name: {error}"), right)
        })
    });
    let mut daemon = Daemon {
        metrics,
        initiator_name: name.map(|at| at.value),
        event_hook: reader.path(table, "event_hook").map(|at| at.value),
        lock_memory: reader.boolean(table, "lock_memory").unwrap_or(true),
        ..Daemon::default()
    };
    if let Some(path) = reader.path(table, "admin_socket") {
        daemon.admin_socket = Some(path.value);
    }
    if let Some(path) = reader.path(table, "state_dir") {
        daemon.state_dir = path.value;
    }
    daemon
}

fn device(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    defaults: &Common,
    links: &mut Links,
) -> Option<DeviceSettings> {
    let name = reader.required(table, "name", device_name);
    let own = Common::read(reader, table);
    let mut device = DeviceSettings::new(String::new());
    let io_timeout = shared(&own, defaults);
    if let Some(io_timeout) = io_timeout.filter(|_| own.shared.is_none()) {
        device.share(io_timeout, Origin::SharedDefaults);
    }
    // What is wrong with it was said where it stands.
    defaults.apply(&mut device, Origin::Defaults);
    if let Some(io_timeout) = io_timeout.filter(|_| own.shared.is_some()) {
        device.share(io_timeout, Origin::SharedDevice);
    }
    for (span, wrong) in own.apply(&mut device, Origin::Device) {
        reader.findings.error(&span, wrong);
    }
    let id = reader.with(table, "wwid", wwid);
    device.paths = paths(reader, table, links);
    if let Some(number) = reader.integer(table, "number", 0..=65535) {
        match &mut device.present {
            Present::Ublk(slot) | Present::Nbd(slot) => *slot = u32::try_from(number.value).ok(),
            Present::NbdUnix(_) | Present::NbdTcp(_) => {
                let what = "an NBD server has no device number";
                reader.findings.error(&number.span, Wrong::new(what, "leave `number` out"));
            }
        }
        links.numbers.push((device.present.clone(), number.span));
    }
    judge(reader, table, &device, io_timeout.map(|time| time * SANLOCK_FAIL_FACTOR));
    if let Present::NbdUnix(_) | Present::NbdTcp(_) = &device.present {
        links.servers.push((device.present.clone(), table.span.clone()));
    }
    if let Some(id) = id {
        device.wwid = Some(id.value.clone());
        links.wwids.push((id.value, id.span));
    }
    let name = name?;
    links.names.push((name.value.clone(), name.span));
    device.name = name.value;
    Some(device)
}

fn paths(reader: &mut Reader<'_>, table: &Table<'_>, links: &mut Links) -> Vec<PathSettings> {
    let mut paths = Vec::new();
    for item in reader.texts_or_tables(table, "paths", "device.paths") {
        let (specs, weight, span) = match item {
            Ok(text) => match PathSpec::parse_all(text.value) {
                Ok(specs) => (specs, None, text.span),
                Err(wrong) => {
                    reader.findings.error(&text.span, wrong);
                    continue;
                }
            },
            Err(place) => {
                let weight = reader.number(&place, "weight", 1..=1000);
                match reader.required(&place, "path", PathSpec::parse_all) {
                    Some(specs) => (specs.value, weight, specs.span),
                    None => continue,
                }
            }
        };
        for spec in specs {
            links.paths.push((spec.clone(), span.clone()));
            paths.push(PathSettings { spec, weight });
        }
    }
    if !reader.has(table, "paths") {
        reader.missing(table, "paths");
    } else if reader.is_empty_list(table, "paths") {
        let right = "give at least one; `corbel-initiator discover` lists what is there";
        let wrong = Wrong::new("the device has no path", right);
        reader.findings.error(&table.span, wrong);
    }
    paths
}

/// What `[defaults]` and `[[device]]` both may say, as it was said.
#[derive(Debug, Default)]
struct Common {
    /// Keys of the policy and their texts.
    policy: Vec<(&'static str, At<String>)>,
    /// Timers and their texts.
    timers: Vec<(&'static str, At<String>)>,
    shared: Option<bool>,
    sanlock_io_timeout: Option<Duration>,
    present: Option<Present>,
    depth: Option<u16>,
    digests: Option<Digests>,
    reinstatement: Option<Reinstatement>,
    chap: Option<Credentials>,
    mutual_chap: Option<Credentials>,
}

impl Common {
    fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Self {
        let mut given = |keys: &[&'static str]| -> Vec<_> {
            let text = |key: &&'static str| Some((*key, reader.scalar(table, key)?));
            keys.iter().filter_map(text).collect()
        };
        let policy = given(&POLICY_KEYS);
        let timers = given(&TIMER_KEYS);
        let digests =
            [("none", Digests::None), ("prefer", Digests::Prefer), ("require", Digests::Require)];
        let reinstatement = [
            ("portal", Reinstatement::Portal),
            ("group", Reinstatement::Group),
            ("nothing", Reinstatement::Nothing),
        ];
        let sanlock_io_timeout = reader.scalar(table, "sanlock_io_timeout").and_then(|text| {
            let found = within(&text.value, Duration::from_secs(1), Duration::from_secs(600));
            found.map_err(|wrong| reader.findings.error(&text.span, wrong)).ok()
        });
        Self {
            policy,
            timers,
            sanlock_io_timeout,
            shared: reader.boolean(table, "shared"),
            present: reader.with(table, "present", present).map(|at| at.value),
            depth: reader.number(table, "depth", 1..=1024),
            digests: reader.choice(table, "digests", &digests),
            reinstatement: reader.choice(table, "reinstatement", &reinstatement),
            chap: credentials(reader, table, "chap"),
            mutual_chap: credentials(reader, table, "mutual_chap"),
        }
    }

    /// Lays it over what `device` has; gives what is wrong with it.
    fn apply(&self, device: &mut DeviceSettings, origin: Origin) -> Vec<(Span, Wrong)> {
        let mut errors = Vec::new();
        let mut note = |key, text: &At<String>, done: Result<(), Wrong>| match done {
            Ok(()) => device.origins.note(key, origin),
            Err(wrong) => errors.push((text.span.clone(), wrong)),
        };
        for (key, text) in &self.policy {
            note(key, text, set_policy(&mut device.policy, key, &text.value));
        }
        for (key, text) in &self.timers {
            note(key, text, device.timers.set(key, &text.value));
        }
        if let Some(present) = &self.present {
            device.present = present.clone();
        }
        device.depth = self.depth.unwrap_or(device.depth);
        device.digests = self.digests.unwrap_or(device.digests);
        device.reinstatement = self.reinstatement.unwrap_or(device.reinstatement);
        for (from, to) in
            [(&self.chap, &mut device.chap), (&self.mutual_chap, &mut device.mutual_chap)]
        {
            if from.is_some() {
                to.clone_from(from);
            }
        }
        errors
    }
}

/// sanlock's `io_timeout`, if the device is shared.
fn shared(own: &Common, defaults: &Common) -> Option<Duration> {
    let io_timeout = own.sanlock_io_timeout.or(defaults.sanlock_io_timeout);
    let shared = own.shared.or(defaults.shared).unwrap_or(false);
    shared.then(|| io_timeout.unwrap_or(SANLOCK_IO_TIMEOUT))
}

/// What must hold between the values of one device.
fn judge(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    device: &DeviceSettings,
    lease: Option<Duration>,
) {
    let mut error = |what: &str, right: &str| {
        reader.findings.error(&table.span, Wrong::new(what, right));
    };
    if device.timers.get("retry_min") > device.timers.get("retry_max") {
        error("`retry_min` is above `retry_max`", "give a smaller `retry_min`");
    }
    if device.policy.flap.hold > device.policy.flap.hold_max {
        error("`flap_hold` is above `flap_hold_max`", "give a smaller `flap_hold`");
    }
    if let Some(mutual) = &device.mutual_chap {
        match &device.chap {
            None => error("`mutual_chap` without `chap` is never used", "give `chap` too"),
            Some(chap) if chap.secret == mutual.secret => error(
                "both directions have the same CHAP secret",
                "give each direction its own (RFC 7143 9.2.1)",
            ),
            Some(_) => {}
        }
    }
    let Some(lease) = lease else { return };
    let shown = Time(lease);
    let mut warn = |what: String| {
        let right = format!("after {shown} another host may hold the lock; leave the key out");
        reader.findings.warn(&table.span, Wrong::new(what, right));
    };
    match device.policy.no_path {
        NoPath::Queue => warn("a shared device queues for ever".to_owned()),
        NoPath::For(time) if time > lease => {
            warn(format!("a shared device queues for {}", Time(time)));
        }
        _ => {}
    }
    if device.policy.write_age_max.is_none_or(|age| age > lease) {
        warn("writes to a shared device are sent however old they are".to_owned());
    }
}

fn credentials(reader: &mut Reader<'_>, table: &Table<'_>, key: &str) -> Option<Credentials> {
    let table = reader.section(table, key, "chap")?;
    reader.credentials(&table).map(|(user, secret)| Credentials { user, secret })
}

/// What must hold between devices, with the place where each was said.
#[derive(Debug, Default)]
struct Links {
    names: Vec<(String, Span)>,
    wwids: Vec<(String, Span)>,
    paths: Vec<(PathSpec, Span)>,
    numbers: Vec<(Present, Span)>,
    servers: Vec<(Present, Span)>,
}

impl Links {
    fn judge(&self, findings: &mut Findings<'_>) {
        findings.unique(spanned(&self.names), |name| format!("device `{name}`"));
        findings.unique(spanned(&self.wwids), |wwid| format!("wwid {wwid}"));
        findings.unique(spanned(&self.paths), |path| format!("path {path}"));
        findings.unique(spanned(&self.numbers), |present| match present {
            Present::Ublk(Some(number)) => format!("/dev/ublkb{number}"),
            Present::Nbd(Some(number)) => format!("/dev/nbd{number}"),
            other => format!("{other:?}"),
        });
        findings.unique(spanned(&self.servers), |present| match present {
            Present::NbdUnix(path) => format!("NBD socket {}", path.display()),
            Present::NbdTcp(address) => format!("NBD address {address}"),
            other => format!("{other:?}"),
        });
    }
}

fn spanned<K>(items: &[(K, Span)]) -> impl Iterator<Item = (&K, &Span)> {
    items.iter().map(|(item, span)| (item, span))
}
