use std::sync::Arc;

use super::*;

fn image(bytes: u64) -> (tempfile::TempDir, Spec) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    (dir, Spec::Path(path))
}

fn error(spec: &Spec) -> String {
    Store::open(spec, Options::default()).unwrap_err().to_string()
}

#[test]
fn specs_are_read_and_misreadings_explained() {
    assert_eq!("mem:2M".parse(), Ok(Spec::Memory(2 << 20)));
    assert_eq!("null:1TiB".parse(), Ok(Spec::Null(1 << 40)));
    assert_eq!("/dev/md3".parse(), Ok(Spec::Path("/dev/md3".into())));
    let wrong: Result<Spec, _> = "mem:513".parse();
    assert!(wrong.unwrap_err().to_string().contains("multiple of 512"));
    assert!("mem:lots".parse::<Spec>().is_err());
    assert!("mem:99999999999999T".parse::<Spec>().is_err());
}

#[test]
fn wrong_things_are_refused_by_name() {
    assert!(error(&Spec::Path("/nonexistent/x".into())).contains("no such file"));
    assert!(error(&Spec::Path("/var/tmp".into())).contains("is a directory"));
    assert!(error(&Spec::Path("/dev/null".into())).contains("is a character device"));
    let (_dir, odd) = image(1000);
    assert!(error(&odd).contains("1024 would be right"));
    let (_dir, empty) = image(0);
    assert!(error(&empty).contains("nothing to serve"));
}

#[test]
fn an_image_is_served_once_and_its_holder_is_named() {
    let (_dir, spec) = image(1 << 20);
    let first = Store::open(&spec, Options::default()).unwrap();
    let text = error(&spec);
    assert!(text.contains("busy") && text.contains(&std::process::id().to_string()), "{text}");
    drop(first);
    Store::open(&spec, Options::default()).unwrap();
}

#[test]
fn an_image_keeps_its_name_when_it_moves() {
    let (dir, spec) = image(1 << 20);
    let Spec::Path(path) = &spec else { unreachable!() };
    let source = Store::open(&spec, Options::default()).unwrap().source().to_owned();
    let moved = dir.path().join("moved.img");
    std::fs::rename(path, &moved).unwrap();
    let store = Store::open(&Spec::Path(moved), Options::default()).unwrap();
    assert_eq!(store.source(), source);
    assert!(source.starts_with("image:"), "{source}");
}

#[test]
fn a_resize_is_seen() {
    let (_dir, spec) = image(1 << 20);
    let store = Store::open(&spec, Options::default()).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(store.path().unwrap())
        .unwrap()
        .set_len(2 << 20)
        .unwrap();
    assert_eq!(store.facts().size_bytes, 1 << 20);
    assert_eq!(store.current_size().unwrap(), 2 << 20);
}

#[test]
fn an_absent_image_is_made_when_asked() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let spec = Spec::Path(dir.path().join("new.img"));
    let options = Options { create_bytes: Some(4 << 20), ..Options::default() };
    let store = Store::open(&spec, options).unwrap();
    assert_eq!(store.facts().size_bytes, 4 << 20);
    assert!(store.facts().volatile_cache);
}

#[test]
fn memory_tells_which_pages_it_holds_and_gives_whole_ones_back() {
    let store = Store::open(&Spec::Memory(1 << 16), Options::default()).unwrap();
    assert_eq!(store.extent(0).unwrap(), (1 << 16, false));
    store.write_memory(4096 + 512, &[7; 8192]).unwrap(); // pages 1 to 3
    assert_eq!(store.extent(0).unwrap(), (4096, false));
    assert_eq!(store.extent(4096).unwrap(), (3 * 4096, true));
    store.clear_memory(libc::FALLOC_FL_PUNCH_HOLE, 4608, 8192).unwrap(); // only page 2 wholly
    assert_eq!(store.extent(4096).unwrap(), (4096, true));
    assert_eq!(store.extent(8192 + 512).unwrap(), (4096 - 512, false));
    let mut data = [1; 16384];
    store.read_memory(0, &mut data).unwrap();
    assert_eq!(data, [0; 16384]);
    store.clear_memory(libc::FALLOC_FL_ZERO_RANGE, 0, 4096).unwrap();
    assert_eq!(store.extent(0).unwrap(), (8192, true));
}

#[test]
fn memory_is_shared_by_threads_and_bounded() {
    let store = Arc::new(Store::open(&Spec::Memory(1 << 16), Options::default()).unwrap());
    let writers: Vec<_> = (1..=4u8)
        .map(|n| {
            let store = store.clone();
            std::thread::spawn(move || {
                for _ in 0..200 {
                    store.write_memory(0, &[n; 4096]).unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|w| w.join().unwrap());
    let mut data = [0; 4097];
    store.read_memory(0, &mut data).unwrap();
    assert!(data[..4096].iter().all(|b| (1..=4).contains(b)));
    assert_eq!(data[4096], 0);
    store.clear_memory(0, 1, 100).unwrap();
    assert_eq!(store.write_memory(1 << 16, &[0]), Err(libc::EINVAL));
    assert_eq!(store.write_memory(u64::MAX, &[0]), Err(libc::EINVAL));
}

#[test]
fn a_file_in_memory_is_worked_on_within_the_call() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let store = Store::open(&Spec::Path(path.clone()), Options::default()).unwrap();
    assert!(store.is_prompt() && !store.facts().volatile_cache);
    assert_eq!(store.write_memory(4096, &[7; 8192]), Ok(8192));
    assert_eq!(store.clear_memory(libc::FALLOC_FL_PUNCH_HOLE | 1, 4096, 4096), Ok(()));
    let mut data = vec![1; 12288];
    assert_eq!(store.read_memory(0, &mut data), Ok(12288));
    assert!(data[..8192].iter().all(|b| *b == 0) && data[8192..].iter().all(|b| *b == 7));
    // It ends where the file now ends, not where it ended when it was opened.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 19).unwrap();
    assert_eq!(store.read_memory((1 << 19) - 512, &mut data), Ok(512));
}

#[test]
fn a_file_on_a_disk_is_left_to_the_ring() {
    let (_dir, spec) = image(1 << 20);
    assert!(!Store::open(&spec, Options::default()).unwrap().is_prompt());
}
