//! The checks, checked: each finds its own bad sample, and leaves good code alone.

use std::path::Path;

use crate::source::Source;
use crate::{Finding, conformance, crates, guards, ratchet, rooms, shape};

fn rules(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.rule).collect()
}

fn lengths_of(text: &str) -> Vec<&'static str> {
    rules(&shape::lengths(&Source::new("proto/src/a.rs", text)))
}

#[test]
fn a_long_file_a_long_line_and_a_long_function_are_found() {
    assert_eq!(lengths_of(&"//\n".repeat(601)), ["file-length"]);
    assert!(lengths_of(&"//\n".repeat(600)).is_empty());
    assert_eq!(lengths_of(&"é".repeat(101)), ["line-length"]);
    assert!(lengths_of(&"é".repeat(100)).is_empty());
    let function = |lines| format!("fn long(a: [u8; 4]) {{\n{}}}\n", "    a();\n".repeat(lines));
    assert_eq!(lengths_of(&function(69)), ["function-length"]);
    assert!(lengths_of(&function(68)).is_empty());
}

#[test]
fn braces_in_texts_and_comments_do_not_move_a_functions_end() {
    let tricky = "fn a() { let b = \"}\"; /* } */ let c = '}'; let d = r#\"}\"}\"#; }\n";
    let text = format!("{tricky}{}", "// after\n".repeat(80));
    assert!(lengths_of(&text).is_empty());
    let code = Source::new("a.rs", tricky).code;
    assert_eq!(code.matches('}').count(), 1, "{code}");
    assert_eq!(code.len(), tricky.len());
}

#[test]
fn lifetimes_are_not_characters() {
    let code = Source::new("a.rs", "fn a<'a>(b: &'a str) -> &'a str { unsafe { b } }").code;
    assert!(code.contains("unsafe"), "{code}");
    assert!(code.contains("&'a str"), "{code}");
}

#[test]
fn unfinished_work_is_found_in_code_and_in_comments() {
    for bad in ["fn a() { todo!() }", "// FIXME later", "#[ignore]", "#[allow(dead_code)]"] {
        assert_eq!(rules(&shape::unfinished(&Source::new("a.rs", bad))), ["unfinished"], "{bad}");
    }
    assert!(shape::unfinished(&Source::new("a.rs", "let todo = ignore;")).is_empty());
}

#[test]
fn a_module_without_a_head_is_found() {
    let head = |path, text| rules(&shape::module_doc(&Source::new(path, text)));
    assert_eq!(head("proto/src/a.rs", "use std::fmt;\n"), ["module-doc"]);
    assert!(head("proto/src/a.rs", "\n//! A thing.\n").is_empty());
    assert!(head("proto/src/a/tests.rs", "use super::*;\n").is_empty());
}

#[test]
fn a_clock_in_a_pure_room_is_found_and_in_a_shell_it_is_not() {
    let words = |path, text| rules(&rooms::banned_words(&Source::new(path, text)));
    for bad in [
        "use std::time::Instant;",
        "let a = std::fs::read(b);",
        "rand::random()",
        "fn f(a: OwnedFd) {}",
        "use std::net::TcpStream;",
        "std::thread::spawn(f);",
    ] {
        assert_eq!(words("proto/src/a.rs", bad).len(), 1, "{bad}");
        assert!(words("target/src/shell/mod.rs", bad).is_empty(), "{bad}");
    }
    assert!(words("proto/src/a.rs", "// unlike std::time::Instant, ours is a value").is_empty());
    assert!(words("proto/src/a.rs", "let operand::A = b;").is_empty());
}

#[test]
fn rooms_without_a_protocol_may_not_name_one_even_in_a_comment() {
    for room in ["ring/src/tcp.rs", "daemon/src/run.rs"] {
        let words = |text| rules(&rooms::banned_words(&Source::new(room, text)));
        assert_eq!(words("// as iSCSI wants it").len(), 1);
        assert_eq!(words("fn send_aoe_frame()").len(), 1);
        assert!(words("// a frame, a stream; descriptions").is_empty());
    }
}

#[test]
fn unsafe_outside_of_a_sys_file_or_without_its_reason_is_found() {
    let found = |path, text| rules(&rooms::unsafe_code(&Source::new(path, text)));
    assert_eq!(found("proto/src/a.rs", "fn a() { unsafe fn b() {} }"), ["unsafe-code"]);
    assert_eq!(found("ring/src/tcp.rs", "unsafe fn b() {}"), ["unsafe-code"]);
    assert_eq!(found("ring/src/memory/sys.rs", "let a = unsafe { b() };"), ["safety-comment"]);
    let good = "// SAFETY: the arena keeps it alive.\nlet a = unsafe { b() };";
    assert!(found("ring/src/memory/sys.rs", good).is_empty());
    assert!(found("proto/src/a.rs", "// unsafe { }\nlet a = \"unsafe {\";").is_empty());
    assert_eq!(found("proto/src/lib.rs", "//! Nothing.\n"), ["unsafe-code"]);
    assert_eq!(found("target/src/lib.rs", "#![deny(unsafe_code)]\n"), ["unsafe-code"]);
    assert!(found("ring/src/lib.rs", "#![deny(unsafe_code)]\n").is_empty());
}

#[test]
fn names_of_a_machine_are_found() {
    let found = |text| rooms::machine_names(&Source::new("README.md", text)).len();
    assert_eq!(found(concat!("cd /ro", "ot/corbel")), 1);
    assert_eq!(found(concat!("from crates", ".io")), 1);
    assert_eq!(found("cd corbel; /usr/bin/env, /etc/corbel"), 0);
}

#[test]
fn a_dependency_against_the_stream_is_found() {
    let found = |name, line: &str| {
        let manifest = format!("[package]\nname = \"x\"\n\n[dependencies]\n{line}\n");
        crates::breaches(name, "x/Cargo.toml", &manifest).len()
    };
    assert_eq!(found("proto", "corbel-ring.workspace = true"), 1);
    assert_eq!(found("proto", "libc = \"0.2\""), 1);
    assert_eq!(found("daemon", "corbel-proto.workspace = true"), 1);
    assert_eq!(found("initiator", "corbel-target.workspace = true"), 1);
    assert_eq!(found("ring", "corbel-target = { path = \"../target\" }"), 1);
    assert_eq!(found("initiator", "corbel-target.workspace = true"), 1);
    assert_eq!(found("target", "corbel-proto.workspace = true"), 0);
}

#[test]
fn a_fuzz_target_without_corpus_or_replay_is_found() {
    let target = Source::new("fuzz/fuzz_targets/no_such_target.rs", "#![no_main]\n");
    let nowhere = Path::new("/nonexistent");
    assert_eq!(crates::fuzz_targets(nowhere, &[target]).len(), 2);
    let replay = Source::new("tests/corpus.rs", "#[test] fn a() { corpus(\"no_such_target\") }");
    assert!(crates::is_replayed("no_such_target", &[replay]));
}

#[test]
fn a_lost_build_folder_setting_is_found() {
    assert!(guards::sets_build_folder("# why\n[build]\ntarget-dir = \".build\"\n"));
    assert!(!guards::sets_build_folder("[build]\n"));
    assert!(!guards::sets_build_folder("[term]\ntarget-dir = \".build\"\n"));
    let target = Path::new("/a/target");
    assert!(guards::is_inside(Path::new("/a/target/tmp"), target));
    assert!(!guards::is_inside(Path::new("/a/.build/tmp"), target));
}

#[test]
fn the_ratchet_holds_and_only_loosens_downwards() {
    let finding = |amount| Finding {
        rule: "file-length",
        path: "a.rs".to_owned(),
        line: 0,
        amount,
        what: format!("{amount} lines"),
        cure: "split it",
    };
    let ratchet = "# comment\nfile-length a.rs 700\n";
    assert!(ratchet::compare(vec![finding(700)], ratchet).is_empty());
    assert!(ratchet::compare(vec![finding(701)], ratchet)[0].contains("701 lines; split it"));
    assert!(ratchet::compare(vec![finding(650)], ratchet)[0].contains("lower"));
    assert_eq!(ratchet::compare(vec![finding(601)], "").len(), 1);
}

#[test]
fn a_command_without_row_section_or_test_is_found() {
    assert_eq!(conformance::names("A, B (6, 10), C"), ["A(6)", "A(10)", "B(6)", "B(10)", "C"]);
    let page = "| command | section | notes | tests |\n|---|---|---|---|\n\
                | READ (6, 10) | SBC 5.11 | | cu Read* |\n\
                | RESERVE IN | SPC 6.15 | | `reservation/tests.rs` |\n\
                | UNMAP | SBC 5.28 | if thin | |\n| VERIFY (16) | | | cu Verify |\n";
    let found = |command, is_action| conformance::commands(page, &[(command, is_action)]).len();
    for (command, is_action) in
        [("READ(6)", false), ("READ(10)", false), ("RESERVE IN READ KEYS", true)]
    {
        assert_eq!(found(command, is_action), 0, "{command}");
    }
    for command in ["READ(12)", "READ CAPACITY(10)", "UNMAP", "VERIFY(16)", "RESERVE IN READ"] {
        assert_eq!(found(command, false), 1, "{command}");
    }
}

#[test]
fn a_key_without_a_row_is_found() {
    let page = "| HeaderDigest, DataDigest | 13.1 | agreed | test |\n| Markers | obsolete |\n";
    let rules =
        "rule(\"DataDigest\", Kind::Digest)\nrule(\"Markers\", Kind::Fixed)\nrule(SEGMENT, 1)";
    let found: Vec<_> =
        conformance::keys(page, rules).into_iter().map(|finding| finding.what).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("Markers ") && found[1].starts_with("MaxRecvData"), "{found:?}");
}

#[test]
fn a_test_that_is_named_and_not_there_is_found() {
    let page = "the_test_is_there, the_test_is_gone; a_config_key `scsi/tests.rs` `scsi/none.rs`";
    let found = conformance::names_of_tests(
        &Source::new("docs/scsi.md", page),
        |name| name == "the_test_is_there",
        |path| path == "scsi/tests.rs",
    );
    let found: Vec<_> = found.into_iter().map(|finding| finding.what).collect();
    assert_eq!(found, ["there is no test the_test_is_gone", "there is no file scsi/none.rs"]);
}
