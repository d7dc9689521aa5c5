//! What a file says, and what is said about a wrong one: line, column and cure.

use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

const GOOD: &str = r#"
[daemon]
threads = 4
metrics = "127.0.0.1:9630"
isns = { servers = ["10.0.0.9", "[fd00::9]:3206"], entity = "shelf" }
limits = { sessions = 8, memory = "64MiB", login_timeout = "5s" }

[[export]]
name = "md3"
path = "/dev/md3"
aoe = [{ shelf = 0, slot = 0, interfaces = ["eth1", "eth2"], allow = ["00:16:3e:00:00:01"] }]
iscsi = [{ target = "iqn.2026-11.org.example:md3", lun = 0 }]

[[export]]
name = "ram"
path = "mem:1G"
iscsi = [{ target = "iqn.2026-11.org.example:ram" }]

[[target]]
name = "iqn.2026-11.org.example:md3"
portals = ["10.0.0.1:3260", { address = "[fd00::1]:3260", group = 2 }]
allow = { initiators = ["iqn.2026-11.org.example:dom0"], addresses = ["10.0.0.0/24"] }
"#;

fn read(text: &str) -> Result<Loaded, Problems> {
    parse(text, "t", Path::new("/base"))
}

/// Every message of a wrong file.
fn wrong(text: &str) -> String {
    read(text).expect_err("the file is wrong").to_string()
}

#[test]
fn a_whole_file_is_read() {
    let Loaded { config, warnings } = read(GOOD).unwrap();
    assert_eq!(config.daemon.threads.unwrap().get(), 4);
    assert_eq!(config.daemon.limits.memory, 64 << 20);
    let isns = config.daemon.isns.as_ref().unwrap();
    assert_eq!(isns.servers[0], "10.0.0.9:3205".parse().unwrap());
    assert_eq!((isns.servers.len(), isns.entity.as_deref()), (2, Some("shelf")));
    assert_eq!(config.exports[0].aoe[0].interfaces[1].as_str(), "eth2");
    assert_eq!(config.exports[0].aoe[0].buffers, AOE_BUFFERS);
    assert_eq!(config.exports[1].backing, Backing::Memory(1 << 30));
    let target = &config.targets[0];
    assert_eq!((target.portals[0].group, target.portals[1].group), (1, 2));
    assert!(target.admits("iqn.2026-11.org.example:dom0", "10.0.0.7".parse().unwrap()));
    assert!(!target.admits("iqn.2026-11.org.example:dom0", "10.0.1.7".parse().unwrap()));
    assert!(!target.admits("iqn.2026-11.org.example:dom1", "10.0.0.7".parse().unwrap()));
    // The target that only an export names is there, on this machine only, and that is said.
    assert_eq!(config.targets[1], Target::new("iqn.2026-11.org.example:ram".parse().unwrap()));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].to_string().starts_with("t:17:10: target `iqn.2026-11.org.example:ram`"));
}

#[test]
fn an_empty_file_is_all_defaults() {
    assert_eq!(read("").unwrap().config.daemon, Daemon::default());
}

#[test]
fn errors_tell_line_column_and_cure() {
    let export = "[[export]]\nname = \"a\"\npath = \"/a\"\n";
    for (tail, message) in [
        (
            "readonly = true",
            "t:4:1: there is no key `readonly` in export; did you mean `read_only`?",
        ),
        (
            "thin = \"yes\"",
            "t:4:8: `thin` is of type string; give `true` or `false` without quotes",
        ),
        ("  serial = \"\"", "t:4:12: `` cannot be a serial number; serials have 1 to 20"),
        ("naa = \"12\"", "t:4:7: `12` is no NAA name"),
        (
            "acknowledge = \"never\"",
            "t:4:15: `never` is not known here; give \"stable\" or \"cached\"",
        ),
        ("offset = \"100\"", "t:4:10: `100` is not a whole number of sectors"),
        (
            "aoe = [{ shelf = 65535, slot = 0, interfaces = [\"e\"] }]",
            "t:4:18: `shelf = 65535` is out of range; give 0 to 65534",
        ),
        (
            "aoe = [{ shelf = 1, slot = 255, interfaces = [\"e\"] }]",
            "t:4:28: `slot = 255` is out of range; give 0 to 254",
        ),
        ("aoe = [{ shelf = 1, interfaces = [\"e\"] }]", "t:4:8: `slot` is missing in export.aoe"),
        ("aoe = [{ shelf = 1, slot = 1, interfaces = [] }]", "t:4:44: `interfaces` is empty"),
        (
            "aoe = [{ shelf = 1, slot = 1, interfaces = [\"e/1\"] }]",
            "t:4:45: `e/1` is no interface name",
        ),
        (
            "aoe = [{ shelf = 1, slot = 1, interfaces = [\"e\"], allow = [\"x\"] }]",
            "t:4:60: `x` is no MAC address",
        ),
        ("iscsi = [{ target = \"disk\" }]", "t:4:21: `disk` is no iSCSI name"),
        (
            "iscsi = [{ target = \"iqn.2026-11.org:x\", lun = 16384 }]",
            "t:4:48: `lun = 16384` is out of range; give 0 to 16383",
        ),
        ("iscsi = 7", "t:4:9: `iscsi` is of type integer"),
        ("[daemon]\nthreads = 0", "t:5:11: `threads = 0` is out of range"),
        ("[daemon.limits]\nmemory = \"1M\"", "t:5:10: `1M` is too little"),
        ("[daemon]\nmetrics = \"9630\"", "t:5:11: `9630` is no address with a port"),
        (
            "[[target]]\nname = \"iqn.2026-11.org:x\"\nportals = [\"10.0.0.1:99999\"]",
            "t:6:12: `10.0.0.1:99999` is no portal",
        ),
        (
            "[[target]]\nname = \"iqn.2026-11.org:x\"\nallow = { addresses = [\"10.0.0.1/8\"] }",
            "t:6:24: `10.0.0.1/8` is no network",
        ),
        ("[[targets]]", "t:4:3: there is no key `targets` in the file; did you mean `target`?"),
        ("x = = 1", "t:4:5: "),
    ] {
        let message_given = wrong(&format!("{export}{tail}"));
        assert!(message_given.starts_with(message), "{tail}\n{message_given}\n{message}");
    }
}

#[test]
fn all_errors_are_told_at_once_in_order() {
    let told = wrong("[[export]]\nthin = 1\nnam = \"x\"\n[daemon]\nthreads = 0\n");
    let lines: Vec<&str> = told.lines().map(|line| &line[..4]).collect();
    assert_eq!(lines, ["t:1:", "t:1:", "t:2:", "t:3:", "t:5:"], "{told}");
}

#[test]
fn nothing_is_given_twice() {
    let two = |a: &str, b: &str| {
        wrong(&format!(
            "[[export]]\nname = \"a\"\npath = \"/a\"\n{a}\n\
             [[export]]\nname = \"b\"\npath = \"/b\"\n{b}"
        ))
    };
    let aoe = "aoe = [{ shelf = 1, slot = 2, interfaces = [\"eth1\"] }]";
    assert!(two(aoe, aoe).starts_with("t:8:8: AoE 1.2 on eth1 was given before (line 4)"));
    let lun = "iscsi = [{ target = \"iqn.2026-11.org:x\", lun = 3 }]";
    let told = two(lun, lun);
    assert!(told.starts_with("t:8:10: LUN 3 of `iqn.2026-11.org:x` was given before"), "{told}");
    let same = "[[export]]\nname = \"a\"\npath = \"/a\"\n";
    let told = wrong(&format!("{same}{same}"));
    assert!(told.contains("t:5:8: export `a` was given before (line 2)"), "{told}");
    assert!(told.contains("t:6:8: /a is exported already (line 3)"), "{told}");
    let target = "[[target]]\nname = \"iqn.2026-11.org:x\"\n";
    assert!(wrong(&format!("{target}{target}")).starts_with("t:4:8: target `iqn.2026-11.org:x`"));
}

#[test]
fn one_address_on_two_interfaces_is_two_places() {
    let text = "[[export]]\nname = \"a\"\npath = \"/a\"\n\
        aoe = [{ shelf = 1, slot = 2, interfaces = [\"eth1\"] }]\n\
        [[export]]\nname = \"b\"\npath = \"/b\"\n\
        aoe = [{ shelf = 1, slot = 2, interfaces = [\"eth2\"] }]\n";
    assert_eq!(read(text).unwrap().config.exports.len(), 2);
}

#[test]
fn parts_of_one_store_can_be_two_exports() {
    let text = "[[export]]\nname = \"a\"\npath = \"/a\"\nlength = \"1M\"\n\
        [[export]]\nname = \"b\"\npath = \"/a\"\noffset = \"1M\"\n";
    assert_eq!(read(text).unwrap().config.exports[1].offset, 1 << 20);
    assert!(wrong(&text.replace("offset = \"1M\"", "offset = \"512K\"")).starts_with("t:7:8: "));
}

#[test]
fn shelf_4095_is_warned_about() {
    let text = "[[export]]\nname = \"a\"\npath = \"/a\"\n\
        aoe = [{ shelf = 4095, slot = 2, interfaces = [\"eth1\"] }]\n";
    assert!(read(text).unwrap().warnings[0].to_string().starts_with("t:4:18: Linux ignores"));
}

#[test]
fn an_open_target_on_a_network_is_warned_about() {
    let text = "[[target]]\nname = \"iqn.2026-11.org:x\"\nportals = [\"10.0.0.1\"]\n";
    let warnings = read(text).unwrap().warnings;
    assert!(warnings.iter().any(|w| w.to_string().contains("whoever reaches")), "{warnings:?}");
}

#[test]
fn chap_secrets_come_from_files_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    for (name, secret) in [("one", "first secret 1"), ("two", "second secret 2")] {
        write(folder.path().join(name), secret).unwrap();
        set_permissions(folder.path().join(name), Permissions::from_mode(0o600)).unwrap();
    }
    let file = |mutual: &str| {
        let text = format!(
            "[[target]]\nname = \"iqn.2026-11.org:x\"\n\
             chap = {{ user = \"u\", secret_file = \"one\", algorithms = [\"sha256\"] }}\n\
             mutual_chap = {{ user = \"t\", secret_file = \"{mutual}\" }}\n"
        );
        parse(&text, "t", folder.path())
    };
    let target = file("two").unwrap().config.targets.remove(0);
    assert_eq!(target.chap[0].credentials.secret.bytes(), b"first secret 1");
    assert_eq!(target.chap[0].algorithms, [Algorithm::Sha256]);
    assert!(!format!("{target:?}").contains("first secret"));
    let same = file("one").unwrap_err().to_string();
    assert!(same.starts_with("t:4:15: both directions have the same"), "{same}");
    let none = file("three").unwrap_err().to_string();
    assert!(none.starts_with("t:4:43: the secret file"), "{none}");
}

#[test]
fn a_reload_is_a_list_of_differences() {
    let old = read(GOOD).unwrap().config;
    assert!(diff(&old, &old).is_empty());
    let text = GOOD
        .replace("threads = 4", "threads = 2")
        .replace("sessions = 8", "sessions = 9")
        .replace("path = \"/dev/md3\"", "path = \"/dev/md4\"")
        .replace("name = \"ram\"", "name = \"ram2\"");
    let new = read(&text).unwrap().config;
    let diff = diff(&old, &new);
    assert_eq!(diff.needs_restart, ["daemon.threads"]);
    assert!(diff.limits && diff.targets.is_empty());
    assert_eq!(diff.exports.added[0].name, "ram2");
    assert_eq!(diff.exports.removed[0].name, "ram");
    assert_eq!(diff.exports.changed[0].1.backing, Backing::Path("/dev/md4".into()));
}

#[test]
fn the_reference_is_the_truth() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/target.toml.md");
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    if stands != reference() {
        assert!(
            std::env::var_os("CORBEL_WRITE_DOCS").is_some(),
            "docs/target.toml.md is stale: CORBEL_WRITE_DOCS=1 cargo test writes it"
        );
        write(&path, reference()).unwrap();
    }
}

#[test]
fn the_shipped_example_is_read_without_errors() {
    let text = include_str!("../../../packaging/target.toml");
    read(text).unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn a_target_says_where_it_went_and_how_much_it_lets_in() {
    let text = r#"
        [[target]]
        name = "iqn.2026-11.org.example:a"
        sessions = 2
        commands = 16
        redirect = { address = "10.0.0.2", permanent = true }
    "#;
    let target = read(text).unwrap().config.targets.remove(0);
    assert_eq!((target.sessions, target.commands), (Some(2), Some(16)));
    let redirect = target.redirect.unwrap();
    assert_eq!(
        (redirect.address.to_string().as_str(), redirect.permanent),
        ("10.0.0.2:3260", true)
    );
    for wrong in ["sessions = 0", "commands = 1025", "redirect = { permanent = true }"] {
        let text = format!("[[target]]\nname = \"iqn.2026-11.org.example:a\"\n{wrong}\n");
        assert!(read(&text).is_err(), "{wrong}");
    }
}

#[test]
fn a_target_says_when_a_silent_initiator_is_asked_and_given_up() {
    let times = |lines: &str| {
        let text = format!("[[target]]\nname = \"iqn.2026-11.org.example:a\"\n{lines}\n");
        let target = read(&text).ok()?.config.targets.remove(0);
        Some((target.ping_interval.as_secs(), target.ping_timeout.as_secs()))
    };
    assert_eq!(times(""), Some((30, 30)));
    assert_eq!(times("ping_interval = \"0\"\nping_timeout = \"3m\""), Some((0, 180)));
    assert_eq!(times("ping_interval = \"1s\""), Some((1, 30)));
    for wrong in ["ping_timeout = \"0\"", "ping_interval = \"999ms\"", "ping_timeout = \"61m\""] {
        assert_eq!(times(wrong), None, "{wrong}");
    }
}

#[test]
fn an_exports_key_comes_from_a_file_that_others_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("key"), "5a".repeat(32)).unwrap();
    let text = |path: &str, rest: &str| {
        format!(
            "[[export]]\nname = \"a\"\npath = \"{path}\"\n{rest}\n\
             iscsi = [{{ target = \"iqn.2026-11.org.example:a\" }}]\n"
        )
    };
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(folder.path().join("key"), permissions).unwrap();
    };
    let try_it = |path: &str, rest: &str| parse(&text(path, rest), "t", folder.path());
    let with = "encryption = { key_file = \"key\" }";
    mode(0o640);
    let config = try_it("/dev/md3", with).unwrap().config;
    assert_eq!(config.exports[0].encryption.as_ref().unwrap().bytes(), &[0x5a; 32]);
    assert!(!format!("{config:?}").contains("90, 90"));
    assert_eq!(try_it("/dev/md3", "").unwrap().config.exports[0].encryption, None);
    assert!(try_it("null:1MiB", with).is_err());
    assert!(try_it("/dev/md3", "encryption = {}").is_err());
    assert!(try_it("/dev/md3", "encryption = { key_file = \"gone\" }").is_err());
    mode(0o644);
    let open = try_it("/dev/md3", with).unwrap_err().to_string();
    assert!(open.contains("everyone can reach"), "{open}");
}

const GROUPS: &str = r#"
[[export]]
name = "a"
path = "/dev/md3"
alua = "explicit"
port_groups = [{ group = 2, state = "standby" }, { group = 1, preferred = true }]
iscsi = [{ target = "iqn.2026-11.org.example:a" }]

[[target]]
name = "iqn.2026-11.org.example:a"
portals = ["127.0.0.1:3260", { address = "127.0.0.1:3261", group = 2 }]
"#;

#[test]
fn port_groups_have_a_state_and_must_lead_to_the_export() {
    let config = read(GROUPS).unwrap().config;
    let export = &config.exports[0];
    assert_eq!(export.alua, Alua::Explicit);
    let group = |group, state, preferred| PortGroup { group, state, preferred };
    let standby = group(2, AccessState::Standby, false);
    assert_eq!(export.port_groups, [standby, group(1, AccessState::Optimized, true)]);
    assert_eq!(config.port_groups("a").into_iter().collect::<Vec<_>>(), [1, 2]);
    for (from, to, said) in [
        ("{ group = 2, state", "{ group = 3, state", "no portal in group 3"),
        ("{ group = 2, state", "{ group = 1, state", "port group 1 of `a`"),
        ("\"standby\"", "\"offline\"", "offline"),
        ("{ group = 1, preferred", "{ preferred", "group"),
        (", group = 2 }]", ", group = 0 }]", "0"),
    ] {
        let problems = read(&GROUPS.replace(from, to)).unwrap_err().to_string();
        assert!(problems.contains(said), "{said} is not in: {problems}");
    }
}
