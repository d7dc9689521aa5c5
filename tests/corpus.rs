//! Every input the fuzzer ever found interesting, through the same code, on every run.

use std::fs;
use std::path::Path;

use corbel_tests::fuzzing::TARGETS;

fn fuzz_folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

#[test]
fn every_corpus_input_is_survived() {
    for (name, target) in TARGETS {
        let folder = fuzz_folder().join("corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            if std::panic::catch_unwind(|| target(&input)).is_err() {
                panic!("{} makes target {name} panic", path.display());
            }
            inputs += 1;
        }
        assert!(
            inputs > 0,
            "{} is empty: give the fuzzer something to start from",
            folder.display()
        );
    }
}

#[test]
fn every_fuzz_target_is_replayed_here() {
    for entry in fs::read_dir(fuzz_folder().join("fuzz_targets")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let known = TARGETS.iter().any(|(target, _)| *target == name);
        assert!(known, "add {name} to corbel_tests::fuzzing::TARGETS");
    }
}
