//! The guards round `target/`: the crate whose name cargo would like for its build folder, where
//! `cargo clean` deletes what it finds.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Finding;

pub(crate) fn build_folder(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |path: &str, what: &str, cure| {
        let (path, what) = (path.to_owned(), what.to_owned());
        findings.push(Finding { rule: "build-folder", path, line: 0, amount: 1, what, cure });
    };
    let config = fs::read_to_string(root.join(".cargo/config.toml")).unwrap_or_default();
    if !sets_build_folder(&config) {
        add(
            ".cargo/config.toml",
            "does not set build.target-dir to .build",
            "restore it: without it cargo builds into, and cleans, the target crate",
        );
    }
    if is_inside(Path::new(env!("CARGO_TARGET_TMPDIR")), &root.join("target")) {
        add(
            "target",
            "this test was built into the target crate's folder",
            "cd into the workspace and build there; delete what was written into target/",
        );
    }
    let ignored = Command::new("git")
        .args(["check-ignore", "--no-index", "--quiet", "target/src/lib.rs"])
        .current_dir(root)
        .status()
        .expect("tidy asks git what is ignored; install git");
    if ignored.success() {
        add(
            "target/src/lib.rs",
            "git ignores the target crate",
            "take `target` out of .gitignore and of your global excludes (core.excludesFile)",
        );
    }
    for name in ["CACHEDIR.TAG", "debug", "release", ".rustc_info.json"] {
        if root.join("target").join(name).exists() {
            add(
                "target",
                "cargo has built into the target crate's folder",
                "delete what cargo wrote there by hand; never `cargo clean` it",
            );
        }
    }
    findings
}

pub(crate) fn sets_build_folder(config: &str) -> bool {
    let mut section = "";
    config.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            section = line;
        }
        section == "[build]" && line.replace(' ', "") == "target-dir=\".build\""
    })
}

pub(crate) fn is_inside(path: &Path, folder: &Path) -> bool {
    path.starts_with(folder)
}
