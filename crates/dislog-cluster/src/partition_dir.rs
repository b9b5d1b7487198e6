//! The directory of a partition: whose it is.
//!
//! ```text
//! data/partitions/<topic>-<p>/topic    the id of the topic, in decimal
//! ```
//!
//! A topic that is deleted and created anew has the same name and another id, and so a directory is
//! never taken for that of the other. Nothing is removed because it is not recognised: only what
//! belongs to a topic known to be deleted.
//!
//! Creating: directory, then `topic`, then the log. Removing: everything else, then `topic`, then
//! the directory. A crash between two steps leaves a directory that the next start finishes
//! creating or removing.

use std::io;
use std::path::{Path, PathBuf};

use dislog_log::fs::Fs;

use crate::atomic_file;

/// The name of the file.
const FILE_NAME: &str = "topic";

/// What a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It is not there.
    Absent,
    /// It has no log and no owner yet.
    Nobody,
    /// It belongs to the topic of this id.
    Topic(u64),
    /// It has a log and does not say whose.
    Unknown,
}

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{} holds the log of a topic that the metadata does not know; move it away to start anew",
        .0.display()
    )]
    Foreign(PathBuf),
}

/// Makes `dir` the directory of the topic `topic_id`; one that belonged to a deleted topic is
/// removed first.
pub(crate) fn claim(
    fs: &dyn Fs,
    dir: &Path,
    topic_id: u64,
    was_deleted: impl Fn(u64) -> bool,
) -> Result<(), ClaimError> {
    let io = |error| ClaimError::Io { path: dir.to_owned(), error };
    match owner(fs, dir).map_err(io)? {
        Owner::Topic(id) if id == topic_id => Ok(()),
        Owner::Topic(id) if was_deleted(id) => {
            remove(fs, dir).map_err(io)?;
            create(fs, dir, topic_id).map_err(io)
        }
        Owner::Topic(_) | Owner::Unknown => Err(ClaimError::Foreign(dir.to_owned())),
        Owner::Absent | Owner::Nobody => create(fs, dir, topic_id).map_err(io),
    }
}

/// Removes the directories in `partitions_dir` whose topic was deleted.
pub(crate) fn remove_deleted(
    fs: &dyn Fs,
    partitions_dir: &Path,
    was_deleted: impl Fn(u64) -> bool,
) -> io::Result<()> {
    for dir in fs.list(partitions_dir)? {
        match owner(fs, &dir) {
            Ok(Owner::Topic(id)) if was_deleted(id) => {
                tracing::info!(dir = %dir.display(), "removing what is left of a deleted topic");
                if let Err(error) = remove(fs, &dir) {
                    tracing::error!(dir = %dir.display(), %error, "left for the next start");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(dir = %dir.display(), %error, "left as it is"),
        }
    }
    Ok(())
}

/// Removes `dir` with all that is in it, if it is the directory of the topic `topic_id`.
pub(crate) fn remove_own(fs: &dyn Fs, dir: &Path, topic_id: u64) -> io::Result<()> {
    match owner(fs, dir)? {
        Owner::Topic(id) if id == topic_id => remove(fs, dir),
        _ => Ok(()),
    }
}

fn remove(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    for path in fs.list(dir)? {
        if path.file_name().is_some_and(|name| name != FILE_NAME) {
            fs.remove(&path)?;
        }
    }
    fs.sync_dir(dir)?;
    fs.remove_dir_all(dir)?;
    sync_parent(fs, dir)
}

fn create(fs: &dyn Fs, dir: &Path, topic_id: u64) -> io::Result<()> {
    fs.create_dir_all(dir)?;
    atomic_file::replace(fs, &dir.join(FILE_NAME), format!("{topic_id}\n").as_bytes())?;
    sync_parent(fs, dir)
}

fn sync_parent(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    fs.sync_dir(dir.parent().expect("a partition's directory has a parent"))
}

fn owner(fs: &dyn Fs, dir: &Path) -> io::Result<Owner> {
    let paths = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Owner::Absent),
        paths => paths?,
    };
    let content = atomic_file::read(fs, &dir.join(FILE_NAME))?;
    let id = content.and_then(|content| std::str::from_utf8(&content).ok()?.trim().parse().ok());
    let has_log = paths.iter().any(|path| path.extension().is_some_and(|name| name == "store"));
    Ok(match id {
        Some(id) => Owner::Topic(id),
        None if has_log => Owner::Unknown,
        None => Owner::Nobody,
    })
}

#[cfg(test)]
mod tests {
    use dislog_log::fs::SimFs;

    use super::*;

    const PARTITIONS: &str = "/data/partitions";

    fn dir() -> PathBuf {
        Path::new(PARTITIONS).join("a-0")
    }

    fn disk(seed: u64) -> SimFs {
        let fs = SimFs::new(seed);
        fs.create_dir_all(Path::new(PARTITIONS)).unwrap();
        for dir in ["/", "/data"] {
            fs.sync_dir(Path::new(dir)).unwrap();
        }
        fs
    }

    #[test]
    fn a_claimed_directory_stays_claimed() {
        let fs = disk(1);
        claim(&fs, &dir(), 7, |_| false).unwrap();
        fs.crash();
        claim(&fs, &dir(), 7, |_| false).unwrap();
        assert_eq!(owner(&fs, &dir()).unwrap(), Owner::Topic(7));
        assert!(matches!(claim(&fs, &dir(), 8, |_| false), Err(ClaimError::Foreign(_))));
        assert_eq!(owner(&fs, &dir()).unwrap(), Owner::Topic(7));
    }

    #[test]
    fn what_a_deleted_topic_left_makes_room() {
        let fs = disk(1);
        claim(&fs, &dir(), 7, |_| false).unwrap();
        fs.put(&dir().join("00000000000000000000.store"), b"old");
        claim(&fs, &dir(), 8, |id| id == 7).unwrap();
        assert_eq!(owner(&fs, &dir()).unwrap(), Owner::Topic(8));
        assert_eq!(fs.list(&dir()).unwrap(), [dir().join(FILE_NAME)]);
    }

    #[test]
    fn a_topic_never_removes_what_is_not_its_own() {
        let fs = disk(1);
        claim(&fs, &dir(), 7, |_| false).unwrap();
        remove_own(&fs, &dir(), 8).unwrap();
        assert_eq!(owner(&fs, &dir()).unwrap(), Owner::Topic(7));
        remove_own(&fs, &dir(), 7).unwrap();
        assert_eq!(owner(&fs, &dir()).unwrap(), Owner::Absent);
        remove_own(&fs, &dir(), 7).unwrap();
    }

    #[test]
    fn a_log_without_an_owner_is_never_removed() {
        let fs = disk(1);
        let store = dir().join("00000000000000000000.store");
        fs.put(&store, b"whose?");
        remove_deleted(&fs, Path::new(PARTITIONS), |_| true).unwrap();
        assert!(matches!(claim(&fs, &dir(), 8, |_| true), Err(ClaimError::Foreign(_))));
        assert_eq!(fs.content(&store), b"whose?");
    }

    #[test]
    fn a_crash_while_creating_or_removing_is_made_good() {
        for crash_after in 0..20 {
            for seed in 0..5 {
                let fs = disk(seed);
                let store = dir().join("00000000000000000000.store");
                let crash_after = Some(crash_after);
                fs.arm(dislog_log::fs::SimFaults { crash_after, ..Default::default() });
                let steps = || -> Result<(), ClaimError> {
                    let io = |error| ClaimError::Io { path: dir(), error };
                    claim(&fs, &dir(), 7, |_| false)?;
                    fs.create(&store).map_err(io)?;
                    fs.sync_dir(&dir()).map_err(io)?;
                    remove(&fs, &dir()).map_err(io)
                };
                let _ = steps();
                fs.crash();
                remove_deleted(&fs, Path::new(PARTITIONS), |id| id == 7).unwrap();
                claim(&fs, &dir(), 8, |id| id == 7).unwrap();
                assert_eq!(owner(&fs, &dir()).unwrap(), Owner::Topic(8));
            }
        }
    }
}
