//! What the tables of `docs/` claim: each command and key has its row, and each test that a row
//! names exists. A row without its test would be a promise that nobody keeps.

use corbel_proto::scsi::opcode::OPCODES;

use crate::Finding;
use crate::source::Source;

const COMMANDS: &str = "docs/scsi.md";
const KEYS: &str = "docs/iscsi.md";
/// Where the rules of the operational keys stand, each as `rule("…"`.
const RULES: &str = "proto/src/iscsi/params.rs";
/// The pages whose tables name tests.
const TABLES: [&str; 3] = [COMMANDS, KEYS, "docs/peers.md"];

fn finding(path: &str, line: usize, what: String, cure: &'static str) -> Finding {
    Finding { rule: "conformance", path: path.to_owned(), line, amount: 1, what, cure }
}

/// The rows of all tables of a page: line number and cells.
fn rows(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    numbered.filter_map(|(at, line)| {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some((at, inner.split('|').map(str::trim).collect()))
    })
}

/// `READ (6, 10), VERIFY (16)` are READ(6), READ(10) and VERIFY(16); in `RESERVE, RELEASE (6)` both
/// are of that size.
pub(crate) fn names(cell: &str) -> Vec<String> {
    let (mut done, mut open) = (Vec::new(), Vec::new());
    let mut rest = cell;
    while !rest.is_empty() {
        let end = rest.find([',', '(']).unwrap_or(rest.len());
        let name = rest[..end].trim();
        rest = &rest[end..];
        if !name.is_empty() {
            open.push(name.to_owned());
        }
        if let Some(inner) = rest.strip_prefix('(') {
            let (sizes, after) = inner.split_once(')').unwrap_or((inner, ""));
            for name in open.drain(..) {
                done.extend(sizes.split(',').map(|size| format!("{name}({})", size.trim())));
            }
            rest = after;
        }
        rest = rest.trim_start_matches([',', ' ']);
    }
    done.extend(open);
    done
}

/// Commands of `table`, as name and whether it is a service action, that have no row in `page`; and
/// rows of commands without section or test.
pub(crate) fn commands(page: &str, table: &[(&str, bool)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let known: Vec<_> = rows(page).map(|(at, cells)| (at, names(cells[0]), cells)).collect();
    for &(command, is_action) in table {
        // One row may speak of all service actions.
        let is = |name: &String| {
            let rest = command.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || is_action && rest.starts_with(' '))
        };
        match known.iter().find(|(_, names, _)| names.iter().any(is)) {
            None => {
                let what = format!("{command} is served and has no row");
                findings.push(finding(COMMANDS, 0, what, "say what it does, and which test shows"));
            }
            Some((at, _, cells)) if cells.len() != 4 || cells[1].is_empty() => {
                let what = format!("{command} has no section of a standard");
                findings.push(finding(COMMANDS, *at, what, "name it in the second column"));
            }
            Some((at, _, cells)) if cells[3].is_empty() => {
                let what = format!("{command} has no test");
                findings.push(finding(COMMANDS, *at, what, "name it in the last column"));
            }
            Some(_) => {}
        }
    }
    findings
}

/// Keys that `rules` negotiates and that have no row in `page`.
pub(crate) fn keys(page: &str, rules: &str) -> Vec<Finding> {
    let has_row = |key: &str| {
        rows(page).any(|(_, cells)| cells.len() == 4 && names(cells[0]).iter().any(|n| n == key))
    };
    let quoted = rules.split("rule(").skip(1).filter_map(|rule| {
        let name = rule.split([',', ')']).next()?.trim();
        // The one key that has a name of its own in the code.
        let name = if name == "SEGMENT" { "\"MaxRecvDataSegmentLength\"" } else { name };
        name.strip_prefix('"')?.strip_suffix('"')
    });
    quoted
        .filter(|key| !has_row(key))
        .map(|key| finding(KEYS, 0, format!("{key} is negotiated and has no row"), "add it"))
        .collect()
}

/// Tests and files that `page` names and that are not among `functions` and `files`. A word with
/// three underscores or more is a test's name.
pub(crate) fn names_of_tests(
    page: &Source,
    has_function: impl Fn(&str) -> bool,
    has_file: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in page.text.lines().enumerate() {
        let mut missing = |what: String| {
            let cure = "name the test that is there, or write it";
            findings.push(finding(&page.path, at + 1, what, cure));
        };
        let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|word| word.matches('_').count() > 2) {
            if !has_function(word) {
                missing(format!("there is no test {word}"));
            }
        }
        for path in line.split('`').skip(1).step_by(2) {
            let is_path =
                path.contains('/') && [".rs", ".sh", ".txt"].iter().any(|e| path.ends_with(e));
            if is_path && !has_file(path) {
                missing(format!("there is no file {path}"));
            }
        }
    }
    findings
}

/// All of the above, on the project.
pub(crate) fn all(files: &[Source]) -> Vec<Finding> {
    let text = |path: &str| {
        let file = files.iter().find(|file| file.path == path);
        file.unwrap_or_else(|| panic!("{path} is gone; this rule reads it")).text.as_str()
    };
    let table: Vec<_> = OPCODES.iter().map(|op| (op.name, op.service_action.is_some())).collect();
    let mut findings = commands(text(COMMANDS), &table);
    findings.extend(keys(text(KEYS), text(RULES)));
    let code: Vec<_> = files.iter().filter(|file| file.path.ends_with(".rs")).collect();
    let has_function = |name: &str| {
        let signature = format!("fn {name}(");
        code.iter().any(|file| file.code.contains(&signature))
    };
    let has_file = |path: &str| {
        ["", "target/src/"].iter().any(|base| {
            let whole = format!("{base}{path}");
            files.iter().any(|file| file.path == whole)
        })
    };
    for page in TABLES {
        let page = files.iter().find(|file| file.path == page).expect("looked for above");
        findings.extend(names_of_tests(page, has_function, has_file));
    }
    findings
}
