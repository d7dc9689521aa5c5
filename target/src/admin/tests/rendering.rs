//! What an admin reads.

use super::*;
use crate::admin::status::{
    AoePort, Encryption, Endpoint, EndpointKind, Export, IsnsServer, Kernel, Memory, Missing,
    Session,
};

fn full() -> Status {
    let aoe = Endpoint {
        kind: EndpointKind::Aoe,
        address: "e0.0".into(),
        lun: None,
        places: vec!["eth1".into(), "eth2".into()],
    };
    let iscsi = Endpoint {
        kind: EndpointKind::Iscsi,
        address: "iqn.2026-11.org.example:md3".into(),
        lun: Some(0),
        places: vec!["10.0.0.1:3260".into()],
    };
    Status {
        version: "0.1.0".into(),
        pid: 4711,
        uptime_seconds: 2 * 86400 + 3 * 3600 + 61,
        kernel: Kernel {
            missing: vec![Missing { what: "zero-copy send".into(), cost: "a copy each".into() }],
        },
        memory: Memory { bytes_max: 256 << 20, bytes_mapped: 8 << 20, bytes_lent: 0, refused: 0 },
        exports: vec![
            Export {
                name: "md3".into(),
                device: "/dev/md3".into(),
                size_bytes: (3 << 40) + (700 << 30),
                block_bytes: 512,
                serial: "0123456789abcdef".into(),
                naa: "3000000000000001".into(),
                write_cache: "write-through".into(),
                endpoints: vec![aoe, iscsi],
                reads: 12,
                read_bytes: 49152,
                ..Export::default()
            },
            Export { name: "scratch".into(), device: "mem:1M".into(), ..Export::default() },
        ],
        aoe_ports: vec![
            AoePort {
                interface: "eth1".into(),
                mac: Some("02:00:00:00:00:01".into()),
                mtu: 9000,
                up: true,
                received: 5,
                dropped: 0,
            },
            AoePort { interface: "eth2".into(), ..AoePort::default() },
        ],
        sessions: vec![Session {
            target: "iqn.2026-11.org.example:md3".into(),
            initiator: "iqn.1993-08.org.debian:01:a\x1b[2J".into(),
            address: "10.0.0.7:40000".into(),
            since_seconds: 75,
            header_digest: "CRC32C".into(),
            data_digest: "None".into(),
            commands: 99,
            luns: vec![0, 3],
            ..Session::default()
        }],
        flush_failures: 0,
        isns: Vec::new(),
    }
}

#[test]
fn encryption_and_isns_servers_are_told_where_there_are_any() {
    let mut status = full();
    status.exports[0].encryption = Some(Encryption {
        cipher: "aes-xts-plain64".into(),
        key_bits: 512,
        key_slot: 1,
        key_generation: 3,
        key_state: "settled".into(),
    });
    status.isns = vec![
        IsnsServer {
            server: "10.0.0.9:3205".into(),
            registered: true,
            since_seconds: Some(75),
            last_error: Some("no answer".into()),
            last_error_seconds: Some(3600),
        },
        IsnsServer { server: "[fd00::9]:3205".into(), ..IsnsServer::default() },
    ];
    let text = render(&status);
    for part in [
        "\
EXPORT   ENCRYPTION                 KEY SLOT  GENERATION  KEY
md3      aes-xts-plain64, 512 bits         1           3  settled
scratch  none                              -           -  -
",
        "\
ISNS SERVER     REGISTERED  SINCE  LAST ERROR
10.0.0.9:3205   yes         1m15s  1h00m ago: no answer
[fd00::9]:3205  no              -  none
",
    ] {
        assert!(text.contains(part), "\n{text}");
    }
}

#[test]
fn a_status_is_readable_by_a_tired_admin() {
    let expected = "\
corbel-target 0.1.0, process 4711, up 2d03h
memory: 0 B in use, 8.0 MiB taken, 256.0 MiB at most
the kernel has no zero-copy send: a copy each

EXPORT   DEVICE       SIZE  BLOCK  MODE  READS      READ  WRITES  WRITTEN  ERRORS  IN FLIGHT
md3      /dev/md3  3.6 TiB    512  rw       12  48.0 KiB       0      0 B       0          0
scratch  mem:1M        0 B      0  rw        0       0 B       0      0 B       0          0

EXPORT   SERIAL            NAA               WRITE CACHE
md3      0123456789abcdef  3000000000000001  write-through
scratch

EXPORT  OFFERED AS                               WHERE
md3     aoe e0.0                                 eth1 eth2
md3     iscsi iqn.2026-11.org.example:md3 lun 0  10.0.0.1:3260

AOE INTERFACE  ADDRESS             MTU  STATE   RECEIVED  DROPPED
eth1           02:00:00:00:00:01  9000  up             5        0
eth2           -                     0  absent         0        0

INITIATOR                        TARGET                       LUNS  FROM            SINCE  \
DIGESTS  COMMANDS  IN FLIGHT
iqn.1993-08.org.debian:01:a?[2J  iqn.2026-11.org.example:md3  0,3   10.0.0.7:40000  1m15s  \
header         99          0
";
    assert_eq!(render(&full()), expected, "\n{}", render(&full()));
}

#[test]
fn a_target_without_anything_says_so() {
    let text = render(&Status::default());
    assert!(text.contains("no exports") && text.contains("no iSCSI sessions"), "{text}");
    assert!(!text.contains("FLUSHES FAILED"));
}

#[test]
fn trouble_is_in_the_head() {
    let memory = Memory { refused: 3, ..Memory::default() };
    let text = render(&Status { flush_failures: 1, memory, ..Status::default() });
    let head: Vec<_> = text.lines().take(4).collect();
    assert!(head[2].starts_with("memory ran out 3 times"), "{text}");
    assert!(head[3].starts_with("FLUSHES FAILED: 1"), "{text}");
}

#[test]
fn every_endpoint_has_a_line_of_its_own() {
    assert_eq!(
        endpoint_lines(&full()),
        [
            "aoe e0.0 on eth1 (02:00:00:00:00:01, MTU 9000)",
            "aoe e0.0 on eth2 (interface absent)",
            "iscsi iqn.2026-11.org.example:md3 lun 0 on 10.0.0.1:3260",
        ]
    );
}
