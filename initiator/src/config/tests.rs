//! What a file says, and what is said about a wrong one: line, column and cure.

use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::multipath::policy::{Failback, Grouping, NoPath, Selector};

const GOOD: &str = r#"
[daemon]
metrics = "127.0.0.1:9631"
event_hook = "hook.sh"

[defaults]
no_path_retry = "queue"
fast_io_fail = "5s"
selector = "service-time"
grouping = "failover"
failback = "immediate"
ping_after = "1s"

[[device]]
name = "vmstore"
paths = ["aoe:0.0@eth1,eth2", "iscsi:iqn.2026-11.org.example:md3@10.0.0.1:3260"]
present = "ublk"

[[device]]
name = "other"
wwid = "36001405AABBCCDDEEFF001122334455a"
paths = [{ path = "iscsi:iqn.2026-11.org.example:md4/3@[fd00::1]", weight = 50 }]
present = "nbd:unix:/run/corbel/other.nbd"
no_path_retry = 60
failback = "30s"
grouping = "group_by_prio"
selector = "round-robin"
requests_per_turn = 100
hedge = "p99.9"
"#;

fn read(text: &str) -> Result<Loaded, Problems> {
    parse(text, "t", Path::new("/base"))
}

/// Every message of a wrong file.
fn wrong(text: &str) -> String {
    read(text).expect_err("the file is wrong").to_string()
}

fn device(keys: &str) -> String {
    format!("[[device]]\nname = \"a\"\npaths = [\"aoe:0.1@eth1\"]\n{keys}\n")
}

/// The one device of a file.
fn one(text: &str) -> DeviceSettings {
    read(text).unwrap().settings.devices.remove(0)
}

#[test]
fn a_whole_file_is_read() {
    let Loaded { settings, warnings } = read(GOOD).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(settings.daemon.event_hook.as_deref(), Some(Path::new("/base/hook.sh")));
    let [first, second] = &settings.devices[..] else { panic!("two devices") };
    let names: Vec<_> = first.paths.iter().map(|path| path.spec.to_string()).collect();
    let iscsi = "iscsi:iqn.2026-11.org.example:md3/0@10.0.0.1:3260";
    assert_eq!(names, ["aoe:0.0@eth1", "aoe:0.0@eth2", iscsi]);
    assert_eq!(first.policy, Policy::default());
    assert_eq!(first.timers.get("ping_after"), Duration::from_secs(1));
    assert_eq!(second.wwid.as_deref(), Some("6001405aabbccddeeff001122334455a"));
    assert_eq!(second.paths[0].weight, Some(50));
    assert_eq!(second.present, Present::NbdUnix("/run/corbel/other.nbd".into()));
    assert_eq!(second.policy.no_path, NoPath::For(Duration::from_secs(60)));
    assert_eq!(second.policy.failback, Failback::After(Duration::from_secs(30)));
    assert_eq!(second.policy.grouping, Grouping::GroupByPrio);
    assert_eq!(second.policy.selector, Selector::RoundRobin);
    assert_eq!(second.policy.requests_per_turn, 100);
    assert_eq!(second.policy.hedge.unwrap().per_mille, 999);
}

#[test]
fn an_empty_file_is_all_defaults() {
    assert_eq!(read("").unwrap().settings, Settings::default());
}

#[test]
fn every_time_limit_tells_where_it_comes_from() {
    let text = format!("[defaults]\nping_after = \"1s\"\n{}", device("answer_within = \"4s\""));
    let limits = one(&text).limits();
    let from = |name: &str| {
        let limit = limits.iter().find(|limit| limit.name == name).expect(name);
        (limit.ms, limit.from.as_str())
    };
    assert_eq!(from("ping_after"), (1000, "[defaults]"));
    assert_eq!(from("answer_within"), (4000, "[[device]]"));
    assert_eq!(from("connect_timeout"), (1500, "default"));
    assert_eq!(from("fast_io_fail"), (5000, "default"));
}

#[test]
fn a_device_wins_over_the_defaults() {
    let text = format!("[defaults]\nno_path_retry = 10\n{}", device("no_path_retry = \"fail\""));
    assert_eq!(one(&text).policy.no_path, NoPath::Fail);
}

#[test]
fn shared_storage_waits_no_longer_than_a_lease_lives() {
    let of = |text: &str| {
        let found = one(text);
        (found.policy.no_path, found.policy.write_age_max, found.origins.of("no_path_retry"))
    };
    let time = |seconds| NoPath::For(Duration::from_secs(seconds));
    let age = |seconds| Some(Duration::from_secs(seconds));
    let plain = of(&device("shared = true"));
    assert_eq!(plain, (time(80), age(80), Origin::SharedDevice));
    let slow = of(&device("shared = true\nsanlock_io_timeout = 15"));
    assert_eq!(slow, (time(120), age(120), Origin::SharedDevice));
    // The same table's own words win; so do the device's over [defaults].
    let own = of(&device("shared = true\nno_path_retry = 30"));
    assert_eq!(own, (time(30), age(80), Origin::Device));
    let above = "[defaults]\nshared = true\n";
    assert_eq!(of(&format!("{above}{}", device(""))).2, Origin::SharedDefaults);
    let back = of(&format!("{above}{}", device("shared = false")));
    assert_eq!(back, (NoPath::Queue, None, Origin::Default));
    // A device that says `shared` means it, whatever holds for the others.
    let queue = "[defaults]\nno_path_retry = \"queue\"\n";
    assert_eq!(of(&format!("{queue}{}", device("shared = true"))).0, time(80));
}

#[test]
fn a_shared_device_that_outlives_its_lease_is_warned_of() {
    let warnings = read(&device("shared = true\nno_path_retry = \"queue\"")).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].to_string().contains("after 80s another host may hold the lock"));
    let warnings = read(&device("shared = true\nwrite_age_max = \"none\"")).unwrap().warnings;
    assert!(warnings[0].to_string().contains("however old"), "{warnings:?}");
}

#[test]
fn errors_tell_line_column_and_cure() {
    for (keys, message) in [
        ("readonly = true", "t:4:1: there is no key `readonly` in device; device has name,"),
        ("slector = \"x\"", "t:4:1: there is no key `slector` in device; did you mean `selector`?"),
        (
            "selector = \"fastest\"",
            "t:4:12: `fastest` is not known here; give \"service-time\" or \"round-robin\"",
        ),
        ("no_path_retry = \"later\"", "t:4:17: `later` is no time; a time is a number and"),
        ("no_path_retry = true", "t:4:17: `no_path_retry` is of type boolean; give a text"),
        ("ping_after = \"0s\"", "t:4:14: `0s` is out of range; give 100ms to 10m"),
        ("requests_per_turn = 0", "t:4:21: `0` is out of range; give 1 to 100000"),
        ("wwid = \"12\"", "t:4:8: `12` is no world-wide name"),
        ("present = \"disk\"", "t:4:11: `disk` is no way to present a device"),
        ("present = \"nbd:unix:x\"", "t:4:11: `nbd:unix:x` is no way to present a device"),
        ("present = \"nbd:127.0.0.1:1\"\nnumber = 1", "t:5:10: an NBD server has no device number"),
        ("hedge = \"p10\"", "t:4:9: `p10` is no percentile"),
        ("hedge_after_min = \"5ms\"", "t:4:19: `hedge` is off"),
        ("shared = 1", "t:4:10: `shared` is of type integer"),
        ("retry_min = \"20s\"", "t:1:1: `retry_min` is above `retry_max`"),
        ("flap_hold = \"1h\"", "t:1:1: `flap_hold` is above `flap_hold_max`"),
        ("chap = { user = \"u\" }", "t:4:8: `secret_file` is missing in chap"),
        ("chap = \"u\"", "t:4:8: `chap` is of type string; give a table"),
        ("[daemon]\nmetrics = \"9630\"", "t:5:11: `9630` is no address with a port"),
        ("[daemon]\ninitiator_name = \"dom0\"", "t:5:18: `dom0` is no iSCSI name"),
        ("[defaults]\nname = \"x\"", "t:5:1: there is no key `name` in defaults"),
        ("[[devices]]", "t:4:3: there is no key `devices` in the file; did you mean `device`?"),
        ("x = = 1", "t:4:5: "),
    ] {
        let found = wrong(&device(keys));
        assert!(found.starts_with(message), "{keys}\n expected {message}\n found    {found}");
    }
}

#[test]
fn wrong_paths_are_told_where_they_stand() {
    for (paths, message) in [
        ("\"x\"", "t:3:9: `paths` is of type string; give a list"),
        ("[]", "t:1:1: the device has no path; give at least one"),
        ("[\"disk\"]", "t:3:10: `disk` is no path"),
        ("[7]", "t:3:10: `paths` is of type integer"),
        ("[{ weight = 5 }]", "t:3:10: `path` is missing in device.paths"),
        ("[{ path = \"aoe:0.1@e\", weight = 0 }]", "t:3:41: `weight = 0` is out of range"),
        (
            "[\"aoe:0.1@eth1\", \"aoe:0.1@eth2,eth1\"]",
            "t:3:26: path aoe:0.1@eth1 was given before (line 3)",
        ),
    ] {
        let found = wrong(&format!("[[device]]\nname = \"a\"\npaths = {paths}\n"));
        assert!(found.starts_with(message), "expected {message}\n found    {found}");
    }
    assert!(wrong("[[device]]\nname = \"a\"\n").starts_with("t:1:1: `paths` is missing"));
}

#[test]
fn what_two_devices_cannot_share_is_given_once() {
    let two = |first: &str, second: &str| {
        let other = "[[device]]\nname = \"b\"\npaths = [\"aoe:0.2@eth1\"]\n";
        wrong(&format!("{}{other}{second}\n", device(first)))
    };
    let id = "wwid = \"0123456789abcdef\"";
    assert!(two(id, id).contains("t:8:8: wwid 0123456789abcdef was given before (line 4)"));
    assert!(two("number = 3", "number = 3").contains("/dev/ublkb3 was given before"));
    let nbd = "present = \"nbd:unix:/run/x\"";
    assert!(two(nbd, nbd).contains("NBD socket /run/x was given before"));
    let text = format!("{}{}", device(""), device(""));
    assert!(wrong(&text).contains("device `a` was given before"), "{}", wrong(&text));
}

#[test]
fn names_are_file_names() {
    for good in ["a", "vm-store_1.x", "0"] {
        assert_eq!(device_name(good).as_deref(), Ok(good));
    }
    for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "ä", &"x".repeat(65)] {
        assert!(device_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn world_wide_names_are_taken_as_people_have_them() {
    for (text, plain) in [
        ("naa.6001405AABBCCDDEEFF001122334455A", "6001405aabbccddeeff001122334455a"),
        ("36001405aabbccddeeff001122334455a", "6001405aabbccddeeff001122334455a"),
        ("eui.0011223344556677", "0011223344556677"),
        ("20011223344556677", "0011223344556677"),
        ("0x5000c50012345678", "5000c50012345678"),
        ("5000c50012345678", "5000c50012345678"),
    ] {
        assert_eq!(wwid(text).as_deref(), Ok(plain), "{text}");
    }
    for bad in ["", "3600", "1ATA_DISK_123456789", "naa.", "g000c50012345678", "ä"] {
        assert!(wwid(bad).is_err(), "{bad}");
    }
}

#[test]
fn secrets_come_from_files_and_must_differ() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("s");
    write(&secret, "correct horse battery\n").unwrap();
    set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let chap = "chap = { user = \"dom0\", secret_file = \"s\" }";
    let found = parse(&device(chap), "t", folder.path()).unwrap().settings.devices.remove(0);
    assert_eq!(found.chap.as_ref().map(|chap| chap.user.as_str()), Some("dom0"));
    assert!(!format!("{found:?}").contains("horse"), "a secret is shown");
    let mutual = "mutual_chap = { user = \"md3\", secret_file = \"s\" }";
    let told = |keys: &str| parse(&device(keys), "t", folder.path()).unwrap_err().to_string();
    assert!(told(&format!("{chap}\n{mutual}")).contains("the same CHAP secret"));
    assert!(told(mutual).contains("`mutual_chap` without `chap` is never used"));
    set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    assert!(told(chap).starts_with("t:4:39: everyone can reach the secret file"), "{}", told(chap));
}

#[test]
fn a_reload_changes_what_differs_and_nothing_else() {
    let old = read(GOOD).unwrap().settings;
    assert!(diff(&old, &old).is_empty());
    let text = GOOD
        .replace("aoe:0.0@eth1,eth2", "aoe:0.0@eth1,eth3")
        .replace("no_path_retry = 60", "no_path_retry = 90")
        .replace("127.0.0.1:9631", "127.0.0.1:9632");
    let new = read(&text).unwrap().settings;
    let found = diff(&old, &new);
    assert_eq!(found.needs_restart, ["daemon.metrics"]);
    assert!(found.added.is_empty() && found.removed.is_empty() && !found.event_hook);
    let [first, second] = &found.changed[..] else { panic!("two devices changed") };
    assert_eq!(first.paths_added[0].spec.to_string(), "aoe:0.0@eth3");
    assert_eq!(first.paths_removed[0].spec.to_string(), "aoe:0.0@eth2");
    assert!(!first.policy && first.needs_detach.is_empty());
    assert!(second.policy && second.paths_added.is_empty());
    let text = GOOD.replace("present = \"ublk\"", "present = \"nbd\"\nlogin_timeout = 9");
    let new = read(&text).unwrap().settings;
    assert_eq!(diff(&old, &new).changed[0].needs_detach, ["present", "login_timeout"]);
    let new = read("").unwrap().settings;
    assert_eq!(diff(&old, &new).removed.len(), 2);
}

#[test]
fn the_reference_is_the_truth() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/initiator.toml.md");
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    if stands != reference() {
        assert!(
            std::env::var_os("CORBEL_WRITE_DOCS").is_some(),
            "docs/initiator.toml.md is stale: CORBEL_WRITE_DOCS=1 cargo test writes it"
        );
        write(&path, reference()).unwrap();
    }
}
