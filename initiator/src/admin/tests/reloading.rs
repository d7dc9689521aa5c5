//! From one file to the next.

use std::path::PathBuf;

use super::fake::World;
use super::*;

const VM: &str = "[[device]]\nname = \"vm\"\npaths = [\"aoe:0.0@eth1\"]\n";
const DB: &str = "[[device]]\nname = \"db\"\npaths = [\"aoe:0.1@eth1\"]\n";

/// A daemon on a file that says `text`.
fn start(text: &str) -> (World, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("initiator.sock");
    let file = folder.path().join("initiator.toml");
    let head = format!("[daemon]\nadmin_socket = \"{}\"\n", socket.display());
    std::fs::write(&file, format!("{head}{text}")).unwrap();
    let settings = crate::config::load(&file).unwrap().settings;
    let plan = Plan { settings, source: Source::File(file.clone()) };
    (World::run(folder, plan, |_| {}).ready(), file, head)
}

fn changes(world: &World) -> Vec<String> {
    match world.ask(&Request::Reload {}) {
        Response::Reloaded { changes } => changes,
        other => panic!("{other:?}"),
    }
}

fn failure(world: &World) -> (ErrorKind, String) {
    match world.ask(&Request::Reload {}) {
        Response::Error { kind, message } => (kind, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bad_file_leaves_the_old_configuration_and_says_where_it_is_wrong() {
    let (world, file, head) = start(VM);
    std::fs::write(&file, format!("{head}{VM}colour = 1\n")).unwrap();
    let (kind, message) = failure(&world);
    assert_eq!(kind, ErrorKind::Configuration);
    assert!(message.contains("initiator.toml:6:1") && message.contains("colour"), "{message}");
    assert!(world.fake.commands().is_empty());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(failure(&world).0, ErrorKind::Configuration);
    world.stop();
}

#[test]
fn devices_come_and_go_with_the_file() {
    let (world, file, head) = start(VM);
    std::fs::write(&file, format!("{head}{DB}")).unwrap();
    let told = changes(&world);
    let attached = "device `db` attached: nbd+unix:///?socket=/db";
    assert_eq!(told, ["device `vm` detached", attached]);
    assert_eq!(world.fake.commands(), ["vm: Detach { force: false, patience: 10s }"]);
    assert!(changes(&world).is_empty());
    world.stop();
}

#[test]
fn a_device_in_use_stays_and_is_tried_again_at_the_next_reload() {
    let (world, file, head) = start(VM);
    world.fake.refuse("vm", "it is in use");
    std::fs::write(&file, &head).unwrap();
    let (kind, message) = failure(&world);
    assert_eq!((kind, message.as_str()), (ErrorKind::Failed, "device `vm` stays: it is in use"));
    assert_eq!(failure(&world).1, "device `vm` stays: it is in use");
    world.stop();
}

#[test]
fn a_device_that_was_detached_by_hand_comes_back_with_a_reload() {
    let (world, _, _) = start(VM);
    world.fake.set_names(Vec::clear);
    assert_eq!(changes(&world), ["device `vm` attached: nbd+unix:///?socket=/vm"]);
    world.stop();
}

#[test]
fn policy_and_paths_change_in_place_new_paths_first() {
    let (world, file, head) = start(VM);
    let new = VM.replace("eth1", "eth2") + "no_path_retry = \"fail\"\n";
    std::fs::write(&file, format!("{head}{new}")).unwrap();
    let told = changes(&world);
    assert_eq!(
        told,
        [
            "device `vm`: policy changed",
            "device `vm`: path aoe:0.0@eth2 added",
            "device `vm`: path aoe:0.0@eth1 removed",
        ]
    );
    let commands = world.fake.commands();
    assert!(commands[0].starts_with("vm: SetPolicy(") && commands[0].contains("no_path: Fail"));
    assert!(commands[1].starts_with("vm: AddPath(") && commands[2].starts_with("vm: RemovePath"));
    // A new weight is a new path in the old one's place.
    let new = new.replace("\"aoe:0.0@eth2\"", "{ path = \"aoe:0.0@eth2\", weight = 3 }");
    std::fs::write(&file, format!("{head}{new}")).unwrap();
    changes(&world);
    let commands = world.fake.commands();
    assert!(commands[0].starts_with("vm: RemovePath") && commands[1].contains("Some(3)"));
    world.stop();
}

#[test]
fn what_cannot_change_while_attached_is_said_and_the_rest_is_done() {
    let (world, file, head) = start(VM);
    let new = format!("{VM}present = \"nbd\"\nfailback = \"manual\"\n");
    std::fs::write(&file, format!("{head}{}", new)).unwrap();
    let (kind, message) = failure(&world);
    assert_eq!(kind, ErrorKind::Failed);
    assert!(message.starts_with("device `vm`: present cannot change while it is attached"));
    assert!(message.ends_with("done: device `vm`: policy changed"), "{message}");
    let moved = head.replace("initiator.sock", "other.sock");
    std::fs::write(&file, format!("{moved}{VM}")).unwrap();
    let told = changes(&world);
    assert_eq!(told[0], "daemon.admin_socket changes at the next start");
    world.stop();
}
