//! One suite for both twins of the file system, and what only the simulated one does.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::ErrorKind;
use std::path::Path;

use dislog_log::fs::{Fs, RealFs, SimFaults, SimFs};

fn conformance(fs: &dyn Fs, root: &Path) {
    let dir = root.join("a/b");
    assert_eq!(fs.list(&dir).unwrap_err().kind(), ErrorKind::NotFound);
    fs.create_dir_all(&dir).unwrap();
    fs.create_dir_all(&dir).unwrap();
    assert!(fs.list(&dir).unwrap().is_empty());

    let path = dir.join("file");
    assert_eq!(fs.open(&path).unwrap_err().kind(), ErrorKind::NotFound);
    let file = fs.create(&path).unwrap();
    assert_eq!(fs.create(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs.create(&root.join("none/file")).unwrap_err().kind(), ErrorKind::NotFound);
    file.write_at(&[b"he", b"", b"llo"], 0).unwrap();
    file.write_at(&[b"!"], 7).unwrap();
    let mut bytes = [9; 10];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 8);
    assert_eq!(&bytes[..8], b"hello\0\0!");
    assert_eq!(file.read_at(&mut bytes, 8).unwrap(), 0);
    assert_eq!(file.read_at(&mut bytes, 1_000).unwrap(), 0);
    let many: Vec<&[u8]> = vec![b"x"; 3_000];
    file.write_at(&many, 8).unwrap();
    assert_eq!(file.len().unwrap(), 3_008);
    let large: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
    let (first, rest) = large.split_at(64);
    file.write_at(&[first, rest, b"end"], 3_008).unwrap();
    let mut read = vec![0; large.len() + 3];
    assert_eq!(file.read_at(&mut read, 3_008).unwrap(), read.len());
    assert!(read.starts_with(&large) && read.ends_with(b"end"));
    file.sync_data().unwrap();
    fs.sync_dir(&dir).unwrap();

    let mapping = fs.map(&path, 1 << 20).unwrap();
    let mut mapped = [0; 5];
    mapping.copy_to(&mut mapped, 0);
    assert_eq!(&mapped, b"hello");
    file.write_at(&[b"HE"], 0).unwrap();
    mapping.copy_to(&mut mapped, 0);
    assert_eq!(&mapped, b"HEllo", "later writes show through");

    file.set_len(3).unwrap();
    file.set_len(5).unwrap();
    assert_eq!(fs.open(&path).unwrap().read_at(&mut bytes, 0).unwrap(), 5);
    assert_eq!(&bytes[..5], b"HEl\0\0");

    let other = dir.join("other");
    fs.create(&other).unwrap();
    assert_eq!(fs.list(&dir).unwrap(), [path.clone(), other.clone()]);
    fs.rename(&path, &other).unwrap();
    assert_eq!(fs.list(&dir).unwrap(), std::slice::from_ref(&other));
    assert_eq!(fs.open(&other).unwrap().len().unwrap(), 5);
    fs.remove(&other).unwrap();
    assert_eq!(fs.remove(&other).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 5, "an open file outlives its name");

    fs.create(&dir.join("last")).unwrap();
    assert_eq!(fs.list(root).unwrap(), [root.join("a")]);
    fs.remove_dir_all(&root.join("a")).unwrap();
    assert!(fs.list(root).unwrap().is_empty());
    assert!(fs.available_bytes(root).unwrap() > 0);
    assert_ne!(fs.random(), fs.random());
}

#[test]
fn the_real_file_system_conforms() {
    let temp = tempfile::tempdir().unwrap();
    conformance(&RealFs, temp.path());
}

#[test]
fn the_simulated_file_system_conforms() {
    conformance(&SimFs::new(1), Path::new("/"));
}

/// What is left of `"old"` after `"new"` was written over it and the power was cut.
fn after_crash(seed: u64, sync: bool) -> Vec<u8> {
    let fs = SimFs::new(seed);
    let path = Path::new("/file");
    fs.put(path, b"old");
    let file = fs.open(path).unwrap();
    file.write_at(&[b"new"], 0).unwrap();
    if sync {
        file.sync_data().unwrap();
    }
    fs.crash();
    fs.content(path)
}

#[test]
fn only_what_is_synced_survives_for_certain() {
    let lost = (0..100).filter(|&seed| after_crash(seed, false) == b"old").count();
    assert!((10..90).contains(&lost), "{lost} of 100 unsynced writes lost");
    assert!((0..100).all(|seed| after_crash(seed, true) == b"new"));
}

#[test]
fn names_survive_for_certain_only_once_their_directory_is_synced() {
    let survives = |seed: u64, sync: bool| {
        let fs = SimFs::new(seed);
        fs.create(Path::new("/file")).unwrap();
        if sync {
            fs.sync_dir(Path::new("/")).unwrap();
        }
        fs.crash();
        !fs.list(Path::new("/")).unwrap().is_empty()
    };
    let lost = (0..100).filter(|&seed| !survives(seed, false)).count();
    assert!((10..90).contains(&lost), "{lost} of 100 names lost");
    assert!((0..100).all(|seed| survives(seed, true)));
}

#[test]
fn long_writes_are_torn() {
    let torn = (0..100).filter(|&seed| {
        let fs = SimFs::new(seed);
        fs.put(Path::new("/file"), &[0; 4_096]);
        fs.open(Path::new("/file")).unwrap().write_at(&[&[1; 4_096]], 0).unwrap();
        fs.crash();
        let content = fs.content(Path::new("/file"));
        content.contains(&0) && content.contains(&1)
    });
    assert!(torn.count() > 20);
}

#[test]
fn faults_come_when_they_are_due() {
    let fs = SimFs::new(1);
    let file = fs.create(Path::new("/file")).unwrap();
    fs.arm(SimFaults { space_bytes: Some(4), ..SimFaults::default() });
    assert_eq!(file.write_at(&[b"12345"], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    fs.arm(SimFaults { fail_sync_after: Some(1), ..SimFaults::default() });
    file.sync_data().unwrap();
    file.write_at(&[b"lost"], 0).unwrap();
    file.sync_data().unwrap_err();
    fs.arm(SimFaults { crash_after: Some(1), ..SimFaults::default() });
    file.sync_data().unwrap();
    file.write_at(&[b"x"], 0).unwrap_err();
    assert!(fs.is_down());
    file.sync_data().unwrap_err();
    file.read_at(&mut [0], 0).unwrap_err();
    fs.crash();
    assert!(!fs.is_down());
}
