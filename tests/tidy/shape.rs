//! Rules about the shape of a file: lengths, nothing unfinished, a head that says what it is.

use crate::Finding;
use crate::source::{Source, has_word};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARACTERS_MAX: usize = 100;

pub(crate) fn lengths(file: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |rule, line, amount, what, cure| {
        findings.push(Finding { rule, path: file.path.clone(), line, amount, what, cure });
    };
    let lines = file.text.lines().count();
    if lines > FILE_LINES_MAX {
        let what = format!("{lines} lines, {FILE_LINES_MAX} allowed");
        add("file-length", 0, lines, what, "split the concept, then the file");
    }
    for (number, line) in (1..).zip(file.text.lines()) {
        let length = line.chars().count();
        if length > LINE_CHARACTERS_MAX {
            let what = format!("{length} characters, {LINE_CHARACTERS_MAX} allowed");
            add("line-length", number, 1, what, "run cargo fmt, or break the text");
        }
    }
    for (number, name, length) in functions(&file.code) {
        if length > FUNCTION_LINES_MAX {
            let what = format!("`{name}` has {length} lines, {FUNCTION_LINES_MAX} allowed");
            add("function-length", number, length, what, "give its steps names of their own");
        }
    }
    findings
}

/// First line, name and number of lines of every function with a body.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + 3..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue; // a function type, `Box<dyn Fn ..>` and the like
        }
        let Some(length) = body_end(rest).map(|end| rest[..end].matches('\n').count() + 1) else {
            continue;
        };
        let line = code[..at].matches('\n').count() + 1;
        found.push((line, name, length));
    }
    found
}

/// Where the body that follows a function's name ends; none for a declaration (`;` first).
fn body_end(rest: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0usize, 0usize);
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' if braces == 0 => brackets += 1,
            ')' | ']' if braces == 0 => brackets = brackets.saturating_sub(1),
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// What may not be landed, the reason being the cure. Looked for in the text, comments included.
const UNFINISHED: &[(&str, &str)] = &[
    ("todo!", "finish it or leave it out"),
    ("unimplemented!", "finish it or leave it out"),
    ("dbg!", "take it out; tracing is for what operators need"),
    ("FIXME", "mend it, or say in plain words what is missing and why"),
    ("XXX", "mend it, or say in plain words what is missing and why"),
    ("#[ignore", "make the test fit for every run, or take it out"),
    ("allow(dead_code)", "take the unused code out"),
    ("allow(unused", "take the unused code out"),
    ("allow(clippy::all", "allow one lint by name, with its reason"),
    ("--manifest-path", "cd instead: cargo looks for .cargo/config.toml from the current folder"),
];

pub(crate) fn unfinished(file: &Source) -> Vec<Finding> {
    if file.path.starts_with("tests/tidy/") {
        return Vec::new(); // it names them all
    }
    let mut findings = Vec::new();
    for (line, text) in (1..).zip(file.text.lines()) {
        for &(word, cure) in UNFINISHED {
            if has_word(text, word) {
                let what = format!("`{word}`");
                let path = file.path.clone();
                findings.push(Finding { rule: "unfinished", path, line, amount: 1, what, cure });
            }
        }
    }
    findings
}

pub(crate) fn module_doc(file: &Source) -> Vec<Finding> {
    let first = file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
    // A test module in a file of its own is described by the module that includes it.
    let tests = file.path.ends_with("tests.rs") || file.path.contains("/tests/");
    if tests || first.starts_with("//!") || first.starts_with("#![no_main]") {
        return Vec::new();
    }
    vec![Finding {
        rule: "module-doc",
        path: file.path.clone(),
        line: 1,
        amount: 1,
        what: "no `//!` at its head".to_owned(),
        cure: "say what the module promises, and when",
    }]
}
