//! The house rules that a machine can check. A failure says where, what, and the cure.
//!
//! Each rule is proved on samples first: a check that finds nothing in bad code checks nothing.
//! What the house tolerates for now stands in `ratchet.txt`, with an amount that may only shrink.
#![forbid(unsafe_code)]

mod conformance;
mod crates;
mod guards;
mod ratchet;
mod rooms;
mod samples;
mod shape;
mod source;

use std::fmt;
use std::path::{Path, PathBuf};

/// One breach of one rule.
#[derive(Debug)]
pub(crate) struct Finding {
    /// The rule's name, as it stands in the ratchet.
    pub(crate) rule: &'static str,
    /// Path from the workspace's root.
    pub(crate) path: String,
    /// Line number from 1; 0 for the file as a whole.
    pub(crate) line: usize,
    /// What the ratchet counts: lines for lengths, 1 for the rest.
    pub(crate) amount: usize,
    pub(crate) what: String,
    pub(crate) cure: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, path, line, what, cure, .. } = self;
        write!(f, "{path}:{line}: {rule}: {what}; {cure}")
    }
}

/// The folder that holds the workspace.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests crate is a folder of the workspace").to_path_buf()
}

/// Fails with every finding the ratchet does not cover.
fn assert_tidy(findings: Vec<Finding>) {
    let left = ratchet::apply(findings);
    assert!(left.is_empty(), "\n{}\n", left.join("\n"));
}

#[test]
fn files_functions_and_lines_are_short() {
    assert_tidy(source::rust_files().iter().flat_map(shape::lengths).collect());
}

#[test]
fn nothing_unfinished_or_silenced_is_left() {
    assert_tidy(source::rust_files().iter().flat_map(shape::unfinished).collect());
}

#[test]
fn every_module_says_what_it_is() {
    assert_tidy(source::rust_files().iter().flat_map(shape::module_doc).collect());
}

#[test]
fn every_room_keeps_to_its_words() {
    assert_tidy(source::rust_files().iter().flat_map(rooms::banned_words).collect());
}

#[test]
fn unsafe_stands_only_where_it_may_and_says_why() {
    assert_tidy(source::rust_files().iter().flat_map(rooms::unsafe_code).collect());
}

#[test]
fn no_file_names_this_machine_or_a_registry() {
    assert_tidy(source::text_files().iter().flat_map(rooms::machine_names).collect());
}

#[test]
fn crates_depend_in_one_direction() {
    assert_tidy(crates::dependencies(&root()));
}

#[test]
fn every_fuzz_target_has_a_corpus_that_is_replayed() {
    assert_tidy(crates::fuzz_targets(&root(), &source::rust_files()));
}

#[test]
fn cargo_builds_nowhere_near_the_target_crate() {
    assert_tidy(guards::build_folder(&root()));
}

#[test]
fn every_command_and_key_has_its_row_and_every_test_that_docs_name_exists() {
    assert_tidy(conformance::all(&source::text_files()));
}

#[test]
fn the_ratchet_has_no_stale_line() {
    let stale = ratchet::stale();
    assert!(stale.is_empty(), "\n{}\n", stale.join("\n"));
}
