//! The program from outside: exit codes, and what is said on which stream.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn corbel(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_corbel-target"))
        .args(words)
        .env_remove("RUST_LOG")
        .env_remove("NOTIFY_SOCKET")
        .output()
        .unwrap()
}

/// Fails with `code`; says all of `said` on stderr, and nothing on stdout.
#[track_caller]
fn refused(words: &[&str], code: i32, said: &[&str]) {
    let output = corbel(words);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{words:?}");
    for text in said {
        assert!(stderr.contains(text), "{words:?} does not say {text:?}:\n{stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn wrong_command_lines_exit_with_2_and_say_what_would_be_right() {
    for (words, said) in [
        (&[][..], &["Usage: corbel-target"][..]),
        (&["sreve"], &["unrecognized subcommand 'sreve'", "serve"]),
        (&["export"], &["<DEVICE>"]),
        (&["export", "mem:1X"], &["mem:1X"]),
        (&["export", ""], &["name a block device or an image file"]),
        (&["export", "x", "--create", "lots"], &["lots", "--create"]),
        (&["export", "mem:1M", "--create", "1M"], &["--create makes files only"]),
        (&["export", "x", "--aoe", "0.1"], &["write it as 0.1@eth1"]),
        (&["export", "x", "--aoe", "0.255@eth1"], &["255"]),
        (&["export", "x", "--aoe", "0.1@e", "--aoe", "0.1@f"], &["given twice", "in one --aoe"]),
        (&["export", "x", "--iscsi", "disk"], &["disk"]),
        (&["export", "x", "--lun", "16384"], &["16384", "16383"]),
        (&["export", "x", "--threads", "0"], &["--threads"]),
        (&["vblade", "0", "0", "eth1"], &["<FILE>"]),
        (&["vblade", "65535", "0", "eth1", "/f"], &["65535"]),
        (&["vblade", "-m", "xyz", "0", "0", "eth1", "/f"], &["xyz"]),
        (&["status", "--socket", "a", "--config", "b"], &["cannot be used with"]),
        (&["completions", "tcl"], &["tcl", "bash"]),
        (&["check", "--log", "a=b=c"], &["--log", "corbel_target=debug"]),
    ] {
        refused(words, 2, said);
    }
}

#[test]
fn a_wrong_configuration_exits_with_2_and_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("target.toml");
    std::fs::write(&file, "[daemon]\nthreads = 0\n\n[[export]]\nname = \"a\"\n").unwrap();
    for command in ["check", "serve", "status", "stop", "reload"] {
        let said = ["target.toml:2:11: ", "target.toml:4:1: ", "`path`"];
        refused(&[command, "--config", text(&file)], 2, &said);
    }
    let absent = folder.path().join("absent.toml");
    refused(&["serve", "--config", text(&absent)], 2, &["absent.toml:1:1", "--config"]);
    std::fs::write(&file, b"\xff\xfe").unwrap();
    refused(&["check", "--config", text(&file)], 2, &["target.toml:1:1"]);
}

#[test]
fn a_good_configuration_is_called_good_and_warnings_are_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("target.toml");
    std::fs::write(&file, "[[export]]\nname = \"a\"\npath = \"mem:1M\"\n").unwrap();
    let output = corbel(&["check", "--config", text(&file)]);
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("good: 1 export, 0 iSCSI targets"), "{stdout}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("warning") && stderr.contains("nobody can reach"), "{stderr}");
}

#[test]
fn without_a_daemon_its_commands_exit_with_1_and_name_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    for command in ["status", "reload", "stop"] {
        refused(&[command, "--socket", text(&socket)], 1, &["none.sock", "--socket"]);
    }
    let file = folder.path().join("target.toml");
    std::fs::write(&file, "[daemon]\nadmin_socket = \"named.sock\"\n").unwrap();
    refused(&["status", "--config", text(&file)], 1, &["named.sock"]);
}

#[test]
fn what_is_imported_is_printed_and_passes_check() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("inittab"), folder.path().join("target.toml"));
    std::fs::write(&from, "v0:2345:respawn:/usr/sbin/vblade 0 0 eth1 /dev/md3\n").unwrap();
    let output = corbel(&["import", "vblade", text(&from)]);
    assert_eq!(output.status.code(), Some(0));
    std::fs::write(&to, output.stdout).unwrap();
    assert_eq!(corbel(&["check", "--config", text(&to)]).status.code(), Some(0));
    refused(&["import", "tgt", "/no/such/file"], 1, &["/no/such/file"]);
    refused(&["import", "lio", text(&from)], 2, &["lio"]);
}

#[test]
fn a_stream_that_nobody_reads_changes_no_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("target.toml");
    let socket = "[daemon]\nadmin_socket = \"a.sock\"\n";
    // Warned of, and not there.
    let export = "[[export]]\nname = \"a\"\npath = \"absent.img\"\n";
    std::fs::write(&file, format!("{socket}{export}")).unwrap();
    for (command, code) in [("check", 0), ("serve", 1), ("status", 1)] {
        let closed = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            drop(theirs);
            Stdio::from(OwnedFd::from(ours))
        };
        let status = Command::new(env!("CARGO_BIN_EXE_corbel-target"))
            .args([command, "--log", "trace", "--config", text(&file)])
            .stdout(closed())
            .stderr(closed())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{command}");
    }
}

#[test]
fn help_version_completions_and_man_pages_exit_with_0() {
    let folder = tempfile::tempdir().unwrap();
    for (words, said) in [
        (&["--version"][..], env!("CARGO_PKG_VERSION")),
        (&["export", "--help"], "--read-only"),
        (&["vblade", "--help"], "-o <OFFSET>"),
        (&["completions", "bash"], "complete"),
        (&["man", text(folder.path())], ""),
    ] {
        let output = corbel(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains(said), "{words:?}");
    }
    assert!(folder.path().join("corbel-target-vblade.1").exists());
    refused(&["man", "/no/such/folder"], 1, &["/no/such/folder"]);
}
