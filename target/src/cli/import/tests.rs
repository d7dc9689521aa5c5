//! Files as people have them.

use std::path::Path;

use super::*;
use crate::config::{Backing, parse};

#[test]
fn inittab_lines_become_slots() {
    let text = "# storage\n\
        id:2:initdefault:\n\
        v0:2345:respawn:/usr/sbin/vblade 0 0 eth1 /dev/md3 >>/var/log/vblade.log 2>&1\n\
        v1:2345:respawn:/usr/sbin/vblade 0 0 eth2 /dev/md3 >>/var/log/vblade.log 2>&1\n\
        nohup vbladed -b 16 -r -m 00163eaabbcc -o 8 0 1 eth1 \"/dev/vg/a\" &\n\
        1 2 eth0 /srv/img\n\
        vblade 0 300 eth1 /dev/x\n";
    let made = vblade(text);
    let config = parse(&made, "made", Path::new("/")).map_err(|e| format!("{e}\n{made}")).unwrap();
    let exports = config.config.exports;
    assert_eq!(exports.len(), 3, "{made}");
    assert_eq!(exports[0].backing, Backing::Path("/dev/md3".into()));
    assert_eq!(exports[0].aoe[0].interfaces.len(), 2);
    assert!(exports[1].read_only && exports[1].offset == 4096, "{made}");
    assert_eq!((exports[1].aoe[0].buffers, exports[1].aoe[0].allow.len()), (16, 1));
    assert_eq!(exports[2].aoe[0].address.to_string(), "1.2");
    assert!(made.contains("# line 2: `id:2:initdefault:`: no vblade command"), "{made}");
    assert!(made.contains("# line 7: ") && made.contains("254"), "{made}");
}

#[test]
fn targets_conf_becomes_targets_with_the_same_luns() {
    let text = "default-driver iscsi\n\
        <target iqn.2026-11.org.example:md3>\n\
        \tbacking-store /dev/md3 # the array\n\
        \t<backing-store /srv/b.img>\n\
        \t\tlun 5\n\t\treadonly 1\n\t\twrite-cache off\n\
        \t</backing-store>\n\
        \tdirect-store /dev/sdb\n\
        \tinitiator-address 10.0.0.0/24\n\
        \tinitiator-name iqn.1993-08.org.debian:01:a\n\
        \tMaxConnections 1\n\
        </target>\n";
    let made = tgt(text);
    let config = parse(&made, "made", Path::new("/")).map_err(|e| format!("{e}\n{made}")).unwrap();
    let (exports, targets) = (config.config.exports, config.config.targets);
    let luns: Vec<_> = exports.iter().map(|export| export.iscsi[0].lun).collect();
    assert_eq!(luns, [1, 5, 2], "{made}");
    assert!(exports[1].read_only);
    assert_eq!((targets[0].initiators.len(), targets[0].addresses.len()), (1, 1));
    for note in ["line 1: `default-driver`", "line 7: `write-cache off`", "`MaxConnections 1`"] {
        assert!(made.contains(note), "{note}: {made}");
    }
}

#[test]
fn passwords_are_never_printed() {
    let text = "incominguser root topsecret0\n<target iqn.2026-11.org.example:a>\n\
        incominguser dom0 topsecret1\noutgoinguser me topsecret2\n</target>\n";
    let made = tgt(text);
    assert!(!made.contains("topsecret"), "{made}");
    assert!(made.contains("/etc/corbel/dom0.secret") && made.contains("/etc/corbel/me.mutual"));
}

#[test]
fn a_target_that_refuses_writes_makes_all_its_exports_refuse_them() {
    let text = "<target iqn.2026-11.org.example:a>\nbacking-store /a\nreadonly 1\n\
        <backing-store /b>\nreadonly 1\n</backing-store>\n</target>\n";
    let config = parse(&tgt(text), "made", Path::new("/")).unwrap().config;
    assert!(config.exports.len() == 2 && config.exports.iter().all(|export| export.read_only));
}

#[test]
fn an_access_rule_that_is_not_understood_stops_the_check() {
    let made = tgt("<target iqn.2026-11.org.example:a>\ninitiator-address dom0.lan\n</target>\n");
    let problems = parse(&made, "made", Path::new("/")).unwrap_err().to_string();
    assert!(problems.contains("dom0.lan"), "{problems}");
}
