//! Files as people have them.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{DeviceSettings, Settings, parse};
use crate::multipath::policy::{Failback, Grouping, NoPath, Selector};

/// A two-node site on SLES with an EVA behind it.
const SLES: &str = include_str!("tests/sles.conf");

/// Every section, and most keywords.
const FULL: &str = include_str!("tests/full.conf");

fn read(made: &Imported) -> Settings {
    // Each device is given a path, as its comment asks for.
    let mut count = 0;
    let toml: String = made
        .toml
        .lines()
        .map(|line| {
            if line.starts_with("# paths = ") {
                count += 1;
                format!("paths = [\"aoe:0.{count}@eth1\"]\n")
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    match parse(&toml, "made", Path::new("/")) {
        Ok(loaded) => loaded.settings,
        Err(problems) => panic!("{problems}\n{toml}"),
    }
}

fn one(text: &str) -> DeviceSettings {
    let device = "multipaths {\nmultipath {\nwwid 36001405aabbccddeeff001122334455a\n}\n}\n";
    read(&multipath(&format!("{text}\n{device}"), "f")).devices.remove(0)
}

/// Every line that says something is named by its number, once or more.
fn every_line_is_named(text: &str, made: &Imported) {
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split(['#', '!']).next().unwrap_or_default().trim();
        let section = code.ends_with('{') || code == "}" || code.is_empty();
        let own =
            code.starts_with("alias") || code.starts_with("vendor") || code.starts_with("product");
        if section || own {
            continue;
        }
        let said = |found: &str| {
            found.contains(&format!("line {number}:")) || found.ends_with(&format!("line {number}"))
        };
        assert!(made.toml.lines().any(said), "line {number} `{line}` is lost in:\n{}", made.toml);
    }
}

#[test]
fn the_sles_sites_file_is_read_as_it_stands() {
    let made = multipath(SLES, "multipath.conf");
    assert!(made.warnings.is_empty(), "{:?}", made.warnings);
    every_line_is_named(SLES, &made);
    let settings = read(&made);
    let names: Vec<_> = settings.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["vmstore", "quorum"]);
    for device in &settings.devices {
        assert_eq!(device.policy.grouping, Grouping::GroupByPrio);
        assert_eq!(device.policy.failback, Failback::Immediate);
        assert_eq!(device.policy.requests_per_turn, 100);
        assert_eq!(device.policy.selector, Selector::RoundRobin);
        // 60 checks, 5 s apart.
        assert_eq!(device.policy.no_path, NoPath::For(Duration::from_secs(300)));
    }
    assert_eq!(settings.devices[0].wwid.as_deref(), Some("600508b4000971ca0000f00002640000"));
    for note in [
        "# line 4: `blacklist devnode ^(ram|raw|loop|fd|md|dm-|sr|scd|st)[0-9]*`: not applicable: \
         no device is taken that no [[device]] names",
        "`prio_callout /sbin/mpath_prio_alua /dev/%n`: needs no key: targets are asked for",
        "`path_checker tur`: needs no key",
    ] {
        assert!(made.toml.contains(note), "{note} is not in\n{}", made.toml);
    }
}

#[test]
fn a_full_file_is_carried_over_or_named_line_by_line() {
    let made = multipath(FULL, "multipath.conf");
    assert!(made.warnings.is_empty(), "{:?}", made.warnings);
    every_line_is_named(FULL, &made);
    let settings = read(&made);
    assert_eq!(settings.devices.len(), 3);
    // What a multipath says wins over `overrides`, and that over `defaults`.
    let [first, second, third] = &settings.devices[..] else { panic!() };
    assert_eq!(first.policy.no_path, NoPath::Fail);
    assert_eq!(second.policy.no_path, NoPath::Queue);
    assert_eq!(second.policy.failback, Failback::After(Duration::from_secs(30)));
    assert_eq!(third.policy.grouping, Grouping::Multibus);
    assert_eq!(third.wwid, None);
    // Two vendors: neither is taken for every device.
    assert!(made.toml.contains("device \"NETAPP\" \"LUN.*\": put what follows into each"));
    assert!(made.toml.contains("\n# failback = \"manual\""), "{}", made.toml);
}

#[test]
fn each_keyword_is_the_key_that_means_the_same() {
    let defaults = |line: &str| one(&format!("defaults {{\n{line}\n}}")).policy;
    assert_eq!(defaults("no_path_retry queue").no_path, NoPath::Queue);
    assert_eq!(defaults("no_path_retry 0").no_path, NoPath::Fail);
    let minute = NoPath::For(Duration::from_secs(60));
    assert_eq!(defaults("no_path_retry 6\npolling_interval 10").no_path, minute);
    assert_eq!(defaults("features \"1 queue_if_no_path\"").no_path, NoPath::Queue);
    // As multipathd has it, in either order.
    assert_eq!(
        defaults("features \"1 queue_if_no_path\"\nno_path_retry fail").no_path,
        NoPath::Fail
    );
    assert_eq!(
        defaults("no_path_retry fail\nfeatures \"1 queue_if_no_path\"").no_path,
        NoPath::Fail
    );
    assert_eq!(defaults("rr_min_io_rq 7\nrr_min_io 1000").requests_per_turn, 7);
    assert_eq!(defaults("path_selector \"queue-length 0\"").selector, Selector::QueueLength);
    assert_eq!(defaults("failback followover").failback, Failback::Immediate);
    assert_eq!(defaults("fast_io_fail_tmo 10").fast_io_fail, Duration::from_secs(10));
    assert_eq!(defaults("san_path_err_threshold 3").flap.failures, 3);
    let device = one("defaults {\nchecker_timeout 7\n}");
    assert_eq!(device.timers.get("answer_within"), Duration::from_secs(7));
}

#[test]
fn unknown_keywords_and_values_are_told_with_their_line() {
    for (text, warning) in [
        ("defaults {\n\n  colour red\n}", "f:3: `colour red`: unknown keyword"),
        ("defaults {\nfailback soon\n}", "f:2: `failback soon`: not understood"),
        ("defaults {\npath_grouping_policy all\n}", "f:2: `path_grouping_policy all`: not under"),
        ("no_path_retry 5", "f:1: `no_path_retry 5`: it stands in no section"),
        ("cache {\nsize 5\n}", "f:1: section `cache` is not known here"),
        ("devices {\nvendor x\n}", "f:2: `vendor x`: it stands outside of a device section"),
        ("defaults {\n", "f:1: section `defaults` has no end"),
        ("}\n", "f:1: `}` closes nothing"),
        ("{\n}\n", "f:1: `{` without a section's name"),
        ("defaults {\nfeatures \"1 x\n}", "f:2: a quote has no end on its line"),
    ] {
        let made = multipath(text, "f");
        assert!(
            made.warnings.iter().any(|told| told.starts_with(warning)),
            "{warning} is not in {:?}",
            made.warnings
        );
    }
}

#[test]
fn quotes_comments_and_braces_are_read_as_multipath_reads_them() {
    let text = "! a comment\ndefaults{ # one\n  path_selector  \"round-robin 0\" ! two\n}\n\
                blacklist\n{\n  wwid \"2.5\"\" SSD # !\"\n}\n";
    let made = multipath(text, "f");
    assert!(made.warnings.is_empty(), "{:?}", made.warnings);
    assert!(made.toml.contains("`blacklist wwid 2.5\" SSD # !`"), "{}", made.toml);
    assert_eq!(one(text).policy.selector, Selector::RoundRobin);
}

#[test]
fn names_and_wwids_that_cannot_be_kept_are_named() {
    let text = "multipaths {\nmultipath {\nwwid 1ATA_DISK_1\nalias a/b\n}\n}\n";
    let made = multipath(text, "f");
    let settings = read(&made);
    assert_eq!(
        (settings.devices[0].name.as_str(), &settings.devices[0].wwid),
        ("mpath1-ab", &None)
    );
    assert!(made.toml.contains("# line 3: `wwid 1ATA_DISK_1`: not applicable"), "{}", made.toml);
    assert!(made.toml.contains("# line 4: `a/b` cannot be a name here"), "{}", made.toml);
}

proptest! {
    #[test]
    fn no_text_makes_the_import_panic_or_its_output_unreadable(
        words in proptest::collection::vec(
            prop_oneof![
                Just("defaults {\n"), Just("devices {\n"), Just("device {\n"), Just("}\n"),
                Just("multipaths {\n"), Just("multipath {\n"), Just("overrides {\n"), Just("{"),
                Just("wwid 36001405aabbccddeeff001122334455a\n"), Just("alias \"x\u{7}\"\n"),
                Just("no_path_retry 99999999999\n"), Just("failback 3\n"), Just("\"\"\"\n"),
                Just("features \"1 queue_if_no_path\"\n"), Just("# x\n"), Just("é \u{85}\n"),
                Just("protocol {\n"), Just("blacklist {\n"), Just("checker_timeout 900\n"),
            ],
            0..40,
        )
    ) {
        let made = multipath(&words.concat(), "f");
        // It is TOML, whatever `check` then says about the values.
        prop_assert!(toml::from_str::<toml::Table>(&made.toml).is_ok() , "{}", made.toml);
    }
}
