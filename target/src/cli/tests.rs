//! Every form of the command line, and what it means.

use clap::Parser;

use super::*;
use crate::config::{Backing, Config, Direct};

fn parse(line: &str) -> Result<Command, clap::Error> {
    let words = std::iter::once("corbel-target").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.command)
}

fn config(line: &str) -> Result<Config, String> {
    match parse(line).map_err(|error| error.to_string())? {
        Command::Export(args) => args.config("node1").map_err(|wrong| wrong.to_string()),
        Command::Vblade(args) => args.config().map_err(|wrong| wrong.to_string()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn clap_accepts_its_own_definition() {
    command().debug_assert();
}

#[test]
fn export_without_endpoints_is_iscsi_on_this_machine() {
    let config = config("export demo.img --create 1G").unwrap();
    assert_eq!(config.exports[0].create, Some(1 << 30));
    assert_eq!(config.exports[0].backing, Backing::Path("demo.img".into()));
    let target = &config.targets[0];
    assert_eq!(target.name.as_str(), "iqn.2026-11.internal.node1:demo.img");
    assert_eq!(target.portals[0].address.to_string(), "127.0.0.1:3260");
    assert_eq!(config.daemon.admin_socket, None);
}

#[test]
fn export_takes_all_its_flags() {
    let line = "export mem:64M --aoe 0.1@eth1,eth2 --aoe 7.3@eth1 --lun 5 --read-only --removable \
                --thin --threads 2 --iscsi iqn.2026-11.org.example:x@[::1]:3261";
    let config = config(line).unwrap();
    let export = &config.exports[0];
    assert_eq!(export.backing, Backing::Memory(64 << 20));
    assert_eq!(export.aoe.len(), 2);
    assert_eq!(export.aoe[0].interfaces.len(), 2);
    assert!(export.read_only && export.removable && export.thin);
    assert_eq!(export.iscsi[0].lun, 5);
    assert_eq!(config.targets[0].portals[0].address.to_string(), "[::1]:3261");
    assert_eq!(config.daemon.threads.unwrap().get(), 2);
}

#[test]
fn export_with_aoe_alone_opens_no_iscsi() {
    assert!(config("export null:1G --aoe 0.1@eth1").unwrap().targets.is_empty());
}

#[test]
fn wrong_command_lines_are_wrong_usage() {
    for line in [
        "",
        "export",
        "export x --create 1X",
        "export x --aoe 0.1",
        "export x --aoe 65535.0@eth1",
        "export x --aoe 0.255@eth1",
        "export x --aoe 0.1@eth1,eth1",
        "export x --iscsi disk",
        "export x --lun 16384",
        "export x --threads 0",
        "add",
        "vblade 0 0 eth1",
        "vblade -b 0 0 0 eth1 /f",
        "vblade -m xyz 0 0 eth1 /f",
    ] {
        assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
    }
    assert!(config("export mem:1G --create 1G").is_err());
    assert!(config("export x --aoe 0.1@a --aoe 0.1@b").is_err());
    assert!(config("vblade 65535 0 eth1 /f").is_err());
}

#[test]
fn vblade_takes_vblades_options() {
    let line = "vblade -b16 -dsr -m 00163EAABBCC,00:16:3e:aa:bb:cd -o 8 -l 100 11 1 eth0 /data/3TB";
    let config = config(line).unwrap();
    let export = &config.exports[0];
    assert_eq!((export.offset, export.length), (4096, Some(51200)));
    assert_eq!(export.direct, Direct::Require);
    assert!(export.read_only && export.iscsi.is_empty());
    let aoe = &export.aoe[0];
    assert_eq!((aoe.address.shelf(), aoe.address.slot(), aoe.buffers), (11, 1, 16));
    assert_eq!(aoe.allow.len(), 2);
    assert!(parse("vblade 0 0 eth1 /dev/md3").is_ok());
}

#[test]
fn help_and_version_are_everywhere() {
    for line in ["--help", "--version", "export --help", "vblade --version", "status --help"] {
        assert_eq!(parse(line).expect_err(line).exit_code(), 0, "{line}");
    }
}

#[test]
fn man_pages_and_completions_come_from_the_same_source() {
    let folder = tempfile::tempdir().unwrap();
    man(folder.path()).unwrap();
    assert!(folder.path().join("corbel-target-export.1").exists());
    let mut out = Vec::new();
    completions(clap_complete::Shell::Bash, &mut out);
    assert!(String::from_utf8(out).unwrap().contains("--read-only"));
}
