//! Rules that cross crates: who may depend on whom, and what keeps a fuzz finding dead.

use std::fs;
use std::path::Path;

use crate::Finding;
use crate::source::Source;

/// A crate, the crates of ours it may use, and crates of others it may not.
struct Direction {
    name: &'static str,
    ours: &'static [&'static str],
    never: &'static [&'static str],
}

/// What needs an operating system; a pure crate does not.
const SYSTEM: &[&str] =
    &["libc", "rustix", "io-uring", "socket2", "tokio", "getrandom", "rand", "pnet_datalink"];

/// What a program may build on; the other program is not among it.
const SHELL: &[&str] = &["corbel-proto", "corbel-ring", "corbel-daemon"];

const DIRECTIONS: &[Direction] = &[
    Direction { name: "proto", ours: &[], never: SYSTEM },
    // It speaks the shared vocabulary of memory; protocol names are for rooms.rs to refuse.
    Direction { name: "ring", ours: &["corbel-proto"], never: &["tokio"] },
    // No protocol, no ring: a program hands in what differs, so nothing of ours is needed.
    Direction { name: "daemon", ours: &[], never: &["libc", "io-uring"] },
    Direction { name: "target", ours: SHELL, never: &["libc"] },
    Direction { name: "initiator", ours: SHELL, never: &[] },
];

pub(crate) fn dependencies(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for direction in DIRECTIONS {
        let path = format!("{}/Cargo.toml", direction.name);
        let manifest = fs::read_to_string(root.join(&path)).expect("every crate has a manifest");
        findings.extend(breaches(direction.name, &path, &manifest));
    }
    findings
}

/// Breaches in one manifest. Development dependencies may be of any kind but another crate of ours.
pub(crate) fn breaches(name: &str, path: &str, manifest: &str) -> Vec<Finding> {
    let direction = DIRECTIONS.iter().find(|direction| direction.name == name);
    let direction = direction.expect("only called for the crates of the table");
    let (mut findings, mut section) = (Vec::new(), "");
    for (line, text) in (1..).zip(manifest.lines()) {
        let text = text.trim();
        if let Some(header) = text.strip_prefix('[') {
            section = header.trim_end_matches(']');
            continue;
        }
        if !section.ends_with("dependencies") {
            continue;
        }
        let key = text.split(['=', '.', ' ']).next().unwrap_or("");
        let ours = key.starts_with("corbel-");
        let builds_in = section == "dependencies" || section.starts_with("target.");
        let wrong_way = ours && !direction.ours.contains(&key);
        let impure = builds_in && direction.never.contains(&key);
        if wrong_way || impure {
            findings.push(Finding {
                rule: "direction",
                path: path.to_owned(),
                line,
                amount: 1,
                what: format!("{name} depends on {key}"),
                cure: "proto <- cores <- shells -> ring and daemon; both programs: tests/",
            });
        }
    }
    findings
}

/// Every fuzz target has a corpus in git, and plain `cargo test` replays it.
pub(crate) fn fuzz_targets(root: &Path, files: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let Some(name) = file.path.strip_prefix("fuzz/fuzz_targets/") else { continue };
        let name = name.trim_end_matches(".rs");
        let mut add = |what: String, cure| {
            let path = file.path.clone();
            findings.push(Finding { rule: "fuzz-corpus", path, line: 0, amount: 1, what, cure });
        };
        let corpus = root.join("fuzz/corpus").join(name);
        if !fs::read_dir(&corpus).is_ok_and(|mut entries| entries.next().is_some()) {
            add(
                format!("no input in fuzz/corpus/{name}/"),
                "keep a few hand-made inputs and every one that ever found something",
            );
        }
        if !is_replayed(name, files) {
            add(
                format!("no test replays fuzz/corpus/{name}"),
                "name the corpus in a test, so that plain `cargo test` replays it",
            );
        }
    }
    findings
}

pub(crate) fn is_replayed(name: &str, files: &[Source]) -> bool {
    let quoted = format!("\"{name}\"");
    let tests = files.iter().filter(|file| !file.path.starts_with("fuzz/"));
    tests.filter(|file| file.text.contains("corpus")).any(|file| file.text.contains(&quoted))
}
