//! Every form of the command line, and what it means.

use clap::Parser;

use super::*;
use crate::config::{Origin, Present, Settings};
use crate::multipath::policy::{NoPath, Selector};

fn parse(line: &str) -> Result<Command, clap::Error> {
    let words = std::iter::once("corbel-initiator").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.command)
}

fn settings(line: &str) -> Result<Settings, String> {
    match parse(line).map_err(|error| error.to_string())? {
        Command::Attach(args) => args.settings().map_err(|wrong| wrong.to_string()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn clap_accepts_its_own_definition() {
    command().debug_assert();
}

#[test]
fn attach_takes_a_path_and_finds_a_name() {
    let made = settings("attach --path iscsi:iqn.2026-11.org.example:md3@10.0.0.1").unwrap();
    assert_eq!(made.devices[0].name, "md3");
    assert_eq!(made.devices[0].present, Present::Ublk(None));
    assert_eq!(made.daemon.admin_socket, None);
    let made = settings("attach --path aoe:0.1@eth1,eth2").unwrap();
    assert_eq!((made.devices[0].name.as_str(), made.devices[0].paths.len()), ("e0.1", 2));
}

#[test]
fn attach_takes_all_its_flags() {
    let made = settings(
        "attach --path aoe:0.0@eth1 --path iscsi:iqn.2026-11.org.example:md3/2@[::1]:3261 \
         --name vm --as nbd:unix:/run/x --no-path-retry 30 --selector round-robin \
         --set ping-after=1s --set hedge=p99 --wwid naa.6001405aabbccddeeff001122334455a \
         --admin-socket /run/a.sock --digests",
    );
    let made = made.unwrap();
    let device = &made.devices[0];
    assert_eq!(device.policy.no_path, NoPath::For(std::time::Duration::from_secs(30)));
    assert_eq!(device.policy.selector, Selector::RoundRobin);
    assert!(device.policy.hedge.is_some());
    assert_eq!(device.timers.get("ping_after"), std::time::Duration::from_secs(1));
    assert_eq!(device.origins.of("ping_after"), Origin::Command);
    assert_eq!(device.wwid.as_deref(), Some("6001405aabbccddeeff001122334455a"));
    assert!(made.daemon.admin_socket.is_some());
    let shared = settings("attach --path aoe:0.0@eth1 --shared").unwrap();
    let age = shared.devices[0].policy.write_age_max;
    assert_eq!(age, Some(std::time::Duration::from_secs(80)));
}

#[test]
fn every_verb_of_the_daemon_is_there() {
    for line in [
        "run",
        "run --config /x",
        "check",
        "status",
        "status vm --json",
        "fail vm aoe:0.0@eth1",
        "reinstate vm aoe:0.0@eth1",
        "add-path vm aoe:0.0@eth1 --weight 5",
        "remove-path vm aoe:0.0@eth1 --socket /x",
        "accept vm aoe:0.0@eth1",
        "set vm no-path-retry queue",
        "switch-group vm 2",
        "resize vm",
        "fence vm",
        "unfence vm",
        "detach vm",
        "detach vm --force --patience 1s",
        "reload",
        "stop",
        "import multipath /etc/multipath.conf",
        "udev-info /dev/ublkb0",
        "completions bash",
        "man /tmp",
        "discover iscsi 10.0.0.1",
        "discover aoe eth1 eth2",
    ] {
        assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
    }
}

#[test]
fn wrong_command_lines_are_wrong_usage() {
    for line in [
        "",
        "attach",
        "attach --path disk",
        "attach --path aoe:0.1@eth1 --as disk",
        "attach --path aoe:0.1@eth1 --wwid x",
        "attach --path aoe:0.1@eth1 --name a/b",
        "attach --path aoe:0.1@eth1 --chap-user x",
        "fail vm",
        "set vm selector",
        "switch-group vm 0",
        "add-path vm aoe:0.0@eth1 --weight 0",
        "detach vm --patience soon",
        "status --socket a --config b",
        "import multipath",
    ] {
        assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
    }
    for line in [
        "attach --path aoe:0.1@eth1 --path aoe:0.1@eth2,eth1",
        "attach --path aoe:0.1@eth1 --set colour=red",
        "attach --path aoe:0.1@eth1 --set selector",
        "attach --path aoe:0.1@eth1 --no-path-retry never",
        "attach --path aoe:0.1@eth1 --as nbd:127.0.0.1:1 --number 3",
    ] {
        assert!(settings(line).is_err(), "{line}");
    }
}

#[test]
fn help_and_version_are_everywhere() {
    for line in ["--help", "--version", "attach --help", "set --version", "import multipath --help"]
    {
        assert_eq!(parse(line).expect_err(line).exit_code(), 0, "{line}");
    }
}
