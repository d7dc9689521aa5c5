//! Every key of `target.toml`, once. The reader refuses what is not here, and
//! `docs/target.toml.md` is made from here (a test compares them).

use corbel_daemon::config::{Key, Keys, key};

pub(super) const KEYS: Keys = Keys { list: LIST, joint: &[] };

const LIST: &[Key] = &[
    key("", "daemon", "table", "", "The process as a whole."),
    key("", "export", "tables", "", "One device each, and where it is offered."),
    key("", "target", "tables", "", "iSCSI targets: portals, access, CHAP."),
    key(
        "daemon",
        "threads",
        "1 to 1024",
        "one per CPU",
        "Threads that serve; each has its own io_uring. Read at start only.",
    ),
    key(
        "daemon",
        "busy_poll",
        "time",
        "100us",
        "How long a thread that expects something within that time looks for it before it sleeps. \
         Saves a wake-up for each request that comes alone. 0 to 1ms; 0 is never. \
         Read at start only.",
    ),
    key(
        "daemon",
        "admin_socket",
        "path",
        "/run/corbel/target.sock",
        "Where `status`, `reload` and `stop` reach the daemon. Mode 0600. Read at start only.",
    ),
    key(
        "daemon",
        "state_dir",
        "path",
        "/var/lib/corbel",
        "Small state that outlives a restart: AoE config strings, masks and reservations, \
         SCSI persistent reservations. Read at start only.",
    ),
    key(
        "daemon",
        "metrics",
        "address:port",
        "off",
        "Answers Prometheus with the figures of `status`. No access control: keep it on an \
         address that only your monitoring reaches. Read at start only.",
    ),
    key("daemon", "isns", "table", "none", "Registers the iSCSI targets with iSNS servers."),
    key("daemon", "limits", "table", "", "What initiators can use up."),
    key(
        "daemon.isns",
        "servers",
        "addresses",
        "required",
        "Such as `\"10.0.0.9:3205\"`. They show every target, whoever may log in, to all that \
         their own discovery domains let see it. A portal on all addresses is registered as the \
         address that the server is reached from; one on loopback only with a \
         server that is there, too.",
    ),
    key(
        "daemon.isns",
        "entity",
        "text",
        "the host's name",
        "Entity identifier, at most 255 bytes. What another process registered under it is \
         replaced: each needs its own.",
    ),
    key("daemon.limits", "sessions", "1 to 65535", "4096", "iSCSI sessions at a time."),
    key(
        "daemon.limits",
        "connections",
        "1 to 65535",
        "8192",
        "TCP connections at a time, those in login included.",
    ),
    key(
        "daemon.limits",
        "memory",
        "size",
        "256MiB",
        "Payload memory of all threads together; it is locked. At least 8MiB. \
         Read at start only.",
    ),
    key(
        "daemon.limits",
        "login_timeout",
        "time",
        "15s",
        "A connection that has not logged in by then is closed. 1s to 10m.",
    ),
    key(
        "export",
        "name",
        "text",
        "required",
        "What status, logs and metrics call it. Letters, digits, `-`, `_`, `.`; at most 64.",
    ),
    key(
        "export",
        "path",
        "path",
        "required",
        "Block device or image file; or `mem:SIZE` (RAM), or `null:SIZE` (for measuring).",
    ),
    key("export", "read_only", "true or false", "false", "Refuse every write."),
    key(
        "export",
        "removable",
        "true or false",
        "false",
        "SCSI removable medium: START STOP UNIT can eject it.",
    ),
    key(
        "export",
        "thin",
        "true or false",
        "false",
        "Report thin provisioning; UNMAP and WRITE SAME give blocks back to the store.",
    ),
    key(
        "export",
        "sanitize_rate",
        "size",
        "no limit",
        "Bytes a second that SCSI SANITIZE writes at most, for the sake of others on the same \
         disks.",
    ),
    key(
        "export",
        "encryption",
        "table",
        "none",
        "Encrypt every block before it reaches the store, with AES-256 in XTS mode. Takes the \
         first MiB of the store for the key.",
    ),
    key(
        "export",
        "space_warning",
        "size",
        "none",
        "Tell initiators of a thin image file, by a unit attention, when less room than this is \
         left on its file system; and say so in the log.",
    ),
    key(
        "export",
        "acknowledge",
        "\"stable\" or \"cached\"",
        "\"stable\"",
        "When an AoE write is acknowledged: on stable storage, or as soon as the device took \
         it. The Linux AoE client never flushes: with \"cached\" a power cut loses \
         acknowledged writes.",
    ),
    key(
        "export",
        "direct",
        "\"auto\" or \"require\"",
        "\"auto\"",
        "Go round the page cache where the store can, or refuse to serve where it cannot.",
    ),
    key("export", "offset", "size", "0", "First byte of the store that is exported."),
    key("export", "length", "size", "to the end", "Bytes of the store that are exported."),
    key(
        "export",
        "serial",
        "1 to 20 characters",
        "made from the store's own identity",
        "Unit serial number, over SCSI and ATA.",
    ),
    key(
        "export",
        "naa",
        "16 hex digits",
        "made from the store's own identity",
        "The name by which initiators know two paths as one disk. Give it where two heads \
         export one store under different paths.",
    ),
    key(
        "export",
        "alua",
        "\"implicit\" or \"explicit\"",
        "\"implicit\"",
        "Who says how good each way to it is: `port_groups` and `corbel-target set access` alone, \
         or initiators too (SET TARGET PORT GROUPS).",
    ),
    key("export", "port_groups", "tables", "[]", "iSCSI portal groups that are not like others."),
    key("export", "aoe", "tables", "[]", "AoE addresses."),
    key("export", "iscsi", "tables", "[]", "iSCSI logical units."),
    key(
        "export.encryption",
        "key_file",
        "path",
        "required",
        "64 hex digits on a line, of `openssl rand -hex 32`; others may not be able to read the \
         file. The blocks' own key is made at random and kept on the store, wrapped under this \
         one: without this file nobody reads the export again.",
    ),
    key("export.port_groups", "group", "1 to 65535", "required", "Portal group tag."),
    key(
        "export.port_groups",
        "state",
        "state",
        "\"optimized\"",
        "`optimized`, `non-optimized`, `standby`, `unavailable` or `transitioning`. One set later \
         outlives a restart, until this says something else.",
    ),
    key(
        "export.port_groups",
        "preferred",
        "true or false",
        "false",
        "Initiators should use it if they can.",
    ),
    key("export.aoe", "shelf", "0 to 65534", "required", "Major address. Linux refuses 4095."),
    key("export.aoe", "slot", "0 to 254", "required", "Minor address."),
    key("export.aoe", "interfaces", "names", "required", "Network interfaces it answers on."),
    key(
        "export.aoe",
        "allow",
        "MAC addresses",
        "everyone",
        "Who is answered; at most 255. A MAC address is easily forged.",
    ),
    key(
        "export.aoe",
        "buffers",
        "1 to 65535",
        "64",
        "Buffer count told to clients: how many commands each keeps in flight.",
    ),
    key(
        "export.aoe",
        "config",
        "text",
        "what was last set over the wire",
        "AoE config string, at most 1024 bytes.",
    ),
    key(
        "export.iscsi",
        "target",
        "iSCSI name",
        "required",
        "The target. If no `[[target]]` has this name, one with defaults is made.",
    ),
    key("export.iscsi", "lun", "0 to 16383", "0", "Logical unit number in that target."),
    key("target", "name", "iSCSI name", "required", "`iqn.`, `eui.` or `naa.` name."),
    key("target", "alias", "text", "none", "A name for people, at most 255 bytes."),
    key(
        "target",
        "portals",
        "addresses",
        "[\"127.0.0.1:3260\"]",
        "Where it listens: `\"10.0.0.1:3260\"`, or a table with address and group. \
         Portals of one group serve as one: an initiator may end at one of them what a dead one \
         left open.",
    ),
    key("target", "portal_group_tag", "1 to 65535", "1", "Group of portals that name none."),
    key("target", "allow", "table", "everyone", "Who may log in."),
    key(
        "target",
        "chap",
        "table or tables",
        "none",
        "Initiators prove who they are; several tables are several users.",
    ),
    key(
        "target",
        "mutual_chap",
        "table",
        "none",
        "The target proves who it is to initiators that ask. Needs `chap`.",
    ),
    key(
        "target",
        "header_digest",
        "\"initiator\" or \"require\"",
        "\"initiator\"",
        "CRC32C if the initiator puts it first; \"require\" refuses a login without.",
    ),
    key(
        "target",
        "data_digest",
        "\"initiator\" or \"require\"",
        "\"initiator\"",
        "The same for data.",
    ),
    key(
        "target",
        "sessions",
        "1 to 65535",
        "as `daemon.limits`",
        "Sessions at a time. One that takes the place of another is never refused for it.",
    ),
    key(
        "target",
        "commands",
        "1 to 1024",
        "128",
        "Commands that one session may have outstanding.",
    ),
    key(
        "target",
        "ping_interval",
        "time",
        "30s",
        "Silence after which an initiator is pinged. 1s to 1h, or 0: never, and then a session \
         whose initiator died stays until TCP notices.",
    ),
    key(
        "target",
        "ping_timeout",
        "time",
        "30s",
        "Silence after a ping for which an initiator is taken for dead, and its session ends. \
         1s to 1h.",
    ),
    key(
        "target",
        "connections",
        "1 to 32",
        "1",
        "Connections that one session may have (MaxConnections). All of a session's are served by \
         one thread.",
    ),
    key(
        "target",
        "recovery_level",
        "0 to 2",
        "0",
        "The highest ErrorRecoveryLevel that is agreed on. Above 0, responses and up to 4 MiB of \
         read data a connection are kept until the initiator has acknowledged them. At 2 the tasks \
         of a lost connection wait for another one, and so does a session without any.",
    ),
    key(
        "target",
        "redirect",
        "table",
        "none",
        "Sends new logins elsewhere. Sessions that are there go on.",
    ),
    key("target.redirect", "address", "address:port", "required", "Where the target is reached."),
    key(
        "target.redirect",
        "permanent",
        "true or false",
        "false",
        "For good: the initiator may remember it.",
    ),
    key("target.portals", "address", "address:port", "required", "Where it listens."),
    key("target.portals", "group", "1 to 65535", "`portal_group_tag`", "Portal group tag."),
    key(
        "target.allow",
        "initiators",
        "names",
        "everyone",
        "Names, or heads of names with a `*` at the end. Both lists must let an initiator in.",
    ),
    key("target.allow", "addresses", "networks", "everywhere", "Such as `10.0.0.0/24`."),
    key("target.chap", "user", "text", "required", "CHAP name, 1 to 255 bytes."),
    key(
        "target.chap",
        "secret_file",
        "path",
        "required",
        "One line of 12 to 255 bytes; others may not be able to read the file.",
    ),
    key(
        "target.chap",
        "algorithms",
        "names",
        "[\"sha3-256\", \"sha256\", \"sha1\", \"md5\"]",
        "Accepted hashes, best first.",
    ),
    key("target.mutual_chap", "user", "text", "required", "CHAP name of the target."),
    key(
        "target.mutual_chap",
        "secret_file",
        "path",
        "required",
        "Must differ from every `chap` secret (RFC 7143 9.2.1).",
    ),
];

/// `docs/target.toml.md`.
pub fn reference() -> String {
    KEYS.reference(
        "# target.toml, key by key\n\n\
         Sizes: a number and `K`, `M`, `G`, `T` (powers of 1024), `kB`, `MB` … (powers of 1000) \
         or `s` (512 bytes).\nTimes: a number and `us`, `ms`, `s`, `m` or `h`. Paths are \
         absolute, or count from the file's folder.\n\
         `corbel-target check` judges a file without serving it.\n",
    )
}
