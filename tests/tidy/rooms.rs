//! Which words a room may not say: the walls between protocol, machine and core.

use crate::Finding;
use crate::source::{Source, has_word};

struct Room {
    /// Folders and files that are in it, as prefixes of the path.
    paths: &'static [&'static str],
    words: &'static [&'static str],
    cure: &'static str,
}

/// Whatever the same seed must replay: the protocols, and the cores of both daemons.
const PURE: &[&str] = &[
    "proto/src/",
    "target/src/aoe/",
    "target/src/ata/",
    "target/src/iscsi/",
    "target/src/scsi/",
    "target/src/volume/",
    "target/src/host.rs",
    "initiator/src/paths/",
    "initiator/src/aoe/",
    "initiator/src/iscsi/",
    "initiator/src/present/nbd/machine/",
];

const ROOMS: &[Room] = &[
    Room {
        paths: PURE,
        words: &["std::time::Instant", "time::SystemTime", "SystemTime::now", "Instant::now"],
        cure: "take `now: corbel_proto::time::Instant` as an argument",
    },
    Room {
        paths: PURE,
        words: &["std::thread", "std::process", "std::env", "tokio::", "std::sync::Mutex"],
        cure: "one owner, one event at a time; threads and the world belong to the shell",
    },
    Room {
        paths: PURE,
        words: &["std::fs", "TcpStream", "TcpListener", "UdpSocket", "UnixStream", "std::io::"],
        cure: "hand out an action and let the shell do the I/O",
    },
    Room {
        paths: PURE,
        words: &["rand::", "getrandom", "RandomState", "thread_rng"],
        cure: "take random bytes as an argument, so that a seed replays",
    },
    Room {
        paths: &["proto/src/"],
        words: &["RawFd", "OwnedFd", "BorrowedFd", "AsRawFd", "AsFd", "std::os::"],
        cure: "proto never names a file descriptor; the shell holds it",
    },
];

/// Words that rooms without a protocol may not even say in a comment.
const PROTOCOLS: &[&str] = &["aoe", "iscsi", "scsi"];

pub(crate) fn banned_words(file: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |line, word: &str, cure| {
        let (path, what) = (file.path.clone(), format!("`{word}` is banned here"));
        findings.push(Finding { rule: "banned-word", path, line, amount: 1, what, cure });
    };
    for room in ROOMS.iter().filter(|room| in_room(room.paths, &file.path)) {
        for (line, code) in (1..).zip(file.code.lines()) {
            for word in room.words.iter().filter(|word| has_word(code, word)) {
                add(line, word, room.cure);
            }
        }
    }
    if in_room(&["ring/", "daemon/src/"], &file.path) {
        for (line, text) in (1..).zip(file.text.lines()) {
            let text = text.to_lowercase();
            let parts: Vec<_> = text.split(|c: char| !c.is_alphanumeric()).collect();
            for word in PROTOCOLS.iter().filter(|word| parts.contains(*word)) {
                add(line, word, "this room knows no protocol: say what it does without one");
            }
        }
    }
    findings
}

fn in_room(paths: &[&str], path: &str) -> bool {
    paths.iter().any(|room| path.starts_with(room))
}

/// Crates that hold unsafe code, in files called `sys.rs` and nowhere else.
const UNSAFE_CRATES: &[&str] = &["ring/", "initiator/"];

/// How far above an unsafe block its SAFETY line may begin.
const SAFETY_LINES_MAX: usize = 12;

pub(crate) fn unsafe_code(file: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |rule, line, what: &str, cure| {
        let (path, what) = (file.path.clone(), what.to_owned());
        findings.push(Finding { rule, path, line, amount: 1, what, cure });
    };
    let may = in_room(UNSAFE_CRATES, &file.path);
    if is_crate_root(&file.path) {
        let forbids = file.code.contains("#![forbid(unsafe_code)]");
        let denies = may && file.code.contains("#![deny(unsafe_code)]");
        if !forbids && !denies {
            add(
                "unsafe-code",
                1,
                "a crate root that does not forbid unsafe code",
                "write #![forbid(unsafe_code)] (ring: #![deny(unsafe_code)])",
            );
        }
    }
    let lines: Vec<_> = file.text.lines().collect();
    for (at, code) in file.code.lines().enumerate() {
        if !has_word(code, "unsafe") {
            continue;
        }
        if !(may && file.path.ends_with("sys.rs")) {
            add(
                "unsafe-code",
                at + 1,
                "`unsafe` outside of a sys.rs",
                "only ring, and the initiator's sys.rs, touch memory by hand",
            );
        }
        let block = code.contains("unsafe {") || code.contains("unsafe impl");
        let above = &lines[at.saturating_sub(SAFETY_LINES_MAX)..=at];
        if block && !above.iter().any(|line| line.contains("SAFETY:")) {
            add(
                "safety-comment",
                at + 1,
                "an unsafe block without its reason",
                "write `// SAFETY:` with who keeps the memory alive, and until when",
            );
        }
    }
    findings
}

fn is_crate_root(path: &str) -> bool {
    let crate_source = ["proto", "ring", "daemon", "target", "initiator", "benches"]
        .iter()
        .any(|name| path == format!("{name}/src/lib.rs") || path == format!("{name}/src/main.rs"));
    crate_source || path == "tests/sim/lib.rs" || path == "benches/lib.rs"
}

/// Paths that exist on one machine only, and hosts that a project must not depend on by name.
/// Written in two parts, so that this file does not name them either.
const MACHINE: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
const HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("deb.", "debian.org"),
    concat!("pypi", ".org"),
    concat!("npm", "js."),
    concat!("rust-lang", ".org/dist"),
];

pub(crate) fn machine_names(file: &Source) -> Vec<Finding> {
    // Cargo's own words for its registry stand in its lock and in deny.toml.
    let (own_words, tidy) = (["Cargo.lock", "deny.toml"], file.path.starts_with("tests/tidy/"));
    let cargo = own_words.iter().any(|name| file.path.ends_with(name));
    let mut findings = Vec::new();
    for (line, text) in (1..).zip(file.text.lines()) {
        let paths = MACHINE.iter().filter(|word| text.contains(*word));
        let hosts = HOSTS.iter().filter(|word| !cargo && text.contains(*word));
        for word in paths.chain(hosts).filter(|_| !tidy) {
            findings.push(Finding {
                rule: "machine-name",
                path: file.path.clone(),
                line,
                amount: 1,
                what: format!("`{word}`"),
                cure: "name a variable, a default, or the tool that knows the place",
            });
        }
    }
    findings
}
