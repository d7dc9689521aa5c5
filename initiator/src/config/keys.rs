//! Every key of `initiator.toml`, once. The reader refuses what is not here, and
//! `docs/initiator.toml.md` is made from here (a test compares them).

use corbel_daemon::config::{Key, Keys, key};

pub(super) const KEYS: Keys =
    Keys { list: LIST, joint: &[(COMMON, &["defaults", "device"]), (CHAP, &["chap"])] };

/// Keys that `[defaults]` and `[[device]]` both have.
const COMMON: &str = "defaults and device";

/// Keys that `chap` and `mutual_chap` both have; their tables are read as one of the name `chap`.
const CHAP: &str = "chap and mutual_chap";

const LIST: &[Key] = &[
    key("", "daemon", "table", "", "The process as a whole."),
    key("", "defaults", "table", "", "What holds for every device that says nothing else."),
    key("", "device", "tables", "", "One device each: its paths, and how it is offered here."),
    key(
        "daemon",
        "admin_socket",
        "path",
        "/run/corbel/initiator.sock",
        "Where `status`, `set`, `reload` and the others reach the daemon. Mode 0600. Read at start \
         only.",
    ),
    key(
        "daemon",
        "state_dir",
        "path",
        "/var/lib/corbel",
        "Small state that outlives a restart: device numbers, session names, our iSCSI name. Read \
         at start only.",
    ),
    key(
        "daemon",
        "metrics",
        "address:port",
        "off",
        "Answers Prometheus with the figures of `status`. No access control: keep it on an \
         address that only your monitoring reaches. Read at start only.",
    ),
    key(
        "daemon",
        "initiator_name",
        "iSCSI name",
        "/etc/corbel/initiatorname, or made from the machine's id",
        "Our name. Targets grant access by it. Read at start only.",
    ),
    key(
        "daemon",
        "event_hook",
        "path",
        "none",
        "A program that is run for each event, with CORBEL_EVENT (path-down, path-up, \
         path-quarantined, all-paths-down, recovered, queue-given-up, resized, cache-lost), \
         CORBEL_DEVICE, CORBEL_PATH and CORBEL_WHY in its environment. One at a time, for 30 s at \
         most; while 256 events wait, more are dropped and counted.",
    ),
    key(
        "daemon",
        "lock_memory",
        "true or false",
        "true",
        "Keep the whole process in memory. Without it, a machine short of memory can wait for \
         itself. Read at start only.",
    ),
    key(
        "device",
        "name",
        "text",
        "required",
        "What status, logs and metrics call it, and its name in /dev/corbel. Letters, digits, `-`, \
         `_`, `.`; at most 64.",
    ),
    key(
        "device",
        "paths",
        "texts or tables",
        "required",
        "`\"aoe:SHELF.SLOT@IFACE[,IFACE…]\"`, \
         `\"iscsi:IQN[/LUN]@ADDR[:PORT][,ADDR[:PORT]…]\"`, or a table with `path` and `weight`. \
         IPv6 addresses stand in brackets. The first path whose device answers decides which \
         device it is; others that lead elsewhere are not used.",
    ),
    key(
        "device",
        "wwid",
        "16 or 32 hex digits",
        "what the first path says",
        "The world-wide name that the device must have (`discover` shows it). A path to anything \
         else is not used.",
    ),
    key(
        "device",
        "number",
        "0 to 65535",
        "chosen once and kept",
        "N of /dev/ublkbN or /dev/nbdN, where a fixed one is needed. /dev/corbel/NAME needs none.",
    ),
    key("device.paths", "path", "text", "required", "As a text alone."),
    key(
        "device.paths",
        "weight",
        "1 to 1000",
        "what the target says (ALUA)",
        "Priority of this path for `group_by_prio` and failback; higher is better. For \
         comparison: active/optimized is 50, non-optimized 10, standby 1, the preferred bit adds \
         80.",
    ),
    key(
        COMMON,
        "present",
        "text",
        "\"ublk\"",
        "\"ublk\" (/dev/ublkbN), \"nbd\" (/dev/nbdN, the kernel's NBD client), \
         \"nbd:unix:SOCKET\" or \"nbd:ADDR:PORT\" (an NBD server, for QEMU and others; without \
         access control).",
    ),
    key(
        COMMON,
        "no_path_retry",
        "\"queue\", \"fail\" or time",
        "\"queue\"",
        "While no path works, requests wait for ever, fail after `fast_io_fail`, or wait this long \
         from the loss of the last path and then all fail at once.",
    ),
    key(
        COMMON,
        "fast_io_fail",
        "time",
        "5s",
        "With `no_path_retry = \"fail\"`: how long the last path may take to come back.",
    ),
    key(
        COMMON,
        "write_age_max",
        "time or \"none\"",
        "\"none\"",
        "A write older than this is failed and never sent (again), even if a path returns. For \
         storage that several hosts share under leases.",
    ),
    key(
        COMMON,
        "shared",
        "true or false",
        "false",
        "The device is shared under sanlock leases (lvmlockd, oVirt): `no_path_retry` and \
         `write_age_max` become 8 × `sanlock_io_timeout`, 80s as a rule. After that another host \
         may hold the lock, and a write that lands later would destroy its data. Values given in \
         the same table, or in the device's, win.",
    ),
    key(
        COMMON,
        "sanlock_io_timeout",
        "time",
        "10s",
        "sanlock's `io_timeout`, if it was told another (`lvmlockd --sanlock-timeout`).",
    ),
    key(
        COMMON,
        "grouping",
        "word",
        "\"failover\"",
        "Which paths stand in one group; one group is used at a time. \"failover\": each path its \
         own; \"multibus\": all in one; \"group_by_prio\": by priority; \"group_by_serial\": by \
         the target's serial number.",
    ),
    key(
        COMMON,
        "selector",
        "word",
        "\"service-time\"",
        "Which path of the group is next. \"service-time\": the one that will be done first; \
         \"queue-length\": the one with the fewest requests; \"round-robin\": each in turn.",
    ),
    key(
        COMMON,
        "requests_per_turn",
        "1 to 100000",
        "1",
        "With \"round-robin\": requests in a row for one path.",
    ),
    key(
        COMMON,
        "failback",
        "\"immediate\", \"manual\" or time",
        "\"immediate\"",
        "When a better group that is back is used again: at once, by `switch-group` only, or after \
         it has been well so long.",
    ),
    key(
        COMMON,
        "cache",
        "word",
        "\"trust\"",
        "How far a flush reaches. \"trust\": one path's flush covers the unit, as SCSI says; \
         \"multi\": each target node has its own cache, all that were written to are flushed; \
         \"fua\": nothing is ever left in a cache.",
    ),
    key(
        COMMON,
        "resize",
        "\"grow-only\" or \"never\"",
        "\"grow-only\"",
        "What is done about another size: grow once all paths agree, or wait for `resize`. A path \
         with a smaller size is never used.",
    ),
    key(
        COMMON,
        "flap_failures",
        "0 to 1000",
        "4",
        "So many failures within `flap_window` make a path sit out. 0 turns this off.",
    ),
    key(COMMON, "flap_window", "time", "60s", "How far back failures count."),
    key(
        COMMON,
        "flap_hold",
        "time",
        "10s",
        "How long it sits out at first; doubles with each further failure.",
    ),
    key(COMMON, "flap_hold_max", "time", "10m", "The longest it sits out."),
    key(
        COMMON,
        "hedge",
        "percentile or \"off\"",
        "\"off\"",
        "Reads slower than this share of reads (\"p99.9\") are asked for once more on another \
        path.",
    ),
    key(COMMON, "hedge_after_min", "time", "10ms", "Never earlier than this."),
    key(COMMON, "depth", "1 to 1024", "128", "Commands in flight on one path."),
    key(COMMON, "connect_timeout", "time", "1500ms", "From the first packet to a TCP connection."),
    key(
        COMMON,
        "login_timeout",
        "time",
        "3s",
        "From there to the end of the iSCSI login. After one that got no answer the next has twice \
         as long, up to 20s: a target that serves logins one by one may have others before ours.",
    ),
    key(
        COMMON,
        "identify_timeout",
        "time",
        "5s",
        "From there to a path that knows whose device it leads to. iSCSI only.",
    ),
    key(
        COMMON,
        "ping_after",
        "time",
        "400ms (AoE: 2s)",
        "A path that was silent so long, while commands are under way, is asked for a sign of \
        life.",
    ),
    key(COMMON, "ping_idle", "time", "2s", "The same, while none are. iSCSI only."),
    key(
        COMMON,
        "answer_within",
        "time",
        "700ms",
        "The sign of life must come so soon; else the path is down. `ping_after` and this make the \
         longest wait before a failover. Give more on links that are slow or shared.",
    ),
    key(
        COMMON,
        "command_timeout",
        "time",
        "20s (AoE: 1s)",
        "A command may take so long on a path that lives. AoE: it is repeated for so long before \
         another path may do it.",
    ),
    key(
        COMMON,
        "abort_timeout",
        "time",
        "2s",
        "An abort must be answered so soon, or the session is given up. iSCSI only.",
    ),
    key(
        COMMON,
        "retry_min",
        "time",
        "100ms",
        "First wait before a lost path is tried again; doubles up to `retry_max`. iSCSI only.",
    ),
    key(
        COMMON,
        "retry_max",
        "time",
        "700ms",
        "Longest wait before a lost path is tried again. iSCSI only.",
    ),
    key(
        COMMON,
        "doubt_hold",
        "time",
        "10s",
        "How long a write sent over a lost path is taken for able to land, if the target does not \
         prove the opposite. Newer writes to the same blocks wait; all others go on.",
    ),
    key(COMMON, "chap", "table", "none", "How we prove who we are."),
    key(COMMON, "mutual_chap", "table", "none", "What targets must prove to be. Needs `chap`."),
    key(
        COMMON,
        "digests",
        "word",
        "\"none\"",
        "CRC32C over headers and data of iSCSI: \"none\", \"prefer\" or \"require\".",
    ),
    key(
        COMMON,
        "reinstatement",
        "word",
        "\"portal\"",
        "What a new iSCSI login in place of a lost session proves: that nothing of the old one can \
         land any more. \"portal\": if it was at the same portal, or at another one of the same \
         portal group and process (Corbel's target tells); \"group\": at any portal of the target \
         and portal group, as RFC 7143 has it; not where two servers are configured alike; \
         \"nothing\": never, only `doubt_hold` counts: for a portal address that moves between \
         servers that do not fence one another.",
    ),
    key(CHAP, "user", "text", "required", "CHAP name, 1 to 255 bytes."),
    key(
        CHAP,
        "secret_file",
        "path",
        "required",
        "One line of 12 to 255 bytes; others may not be able to read the file. The secrets of both \
         directions must differ (RFC 7143 9.2.1).",
    ),
];

/// `docs/initiator.toml.md`.
pub fn reference() -> String {
    KEYS.reference(
        "# initiator.toml, key by key\n\n\
         Times: a number and `ms`, `s`, `m` or `h`, in quotes; a number alone is seconds. Paths \
         are absolute, or\ncount from the file's folder. A key in `[[device]]` wins over the same \
         key in `[defaults]`; `status` tells\nfor every time limit in force where it comes from. \
         `corbel-initiator check` judges a file without\nattaching anything.\n",
    )
}
