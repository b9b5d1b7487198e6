//! The directory of a replica: whose it is.
//!
//! ```text
//! data/partitions/<topic>-<p>/topic              the ids of the topic and of the replica, decimal
//! data/partitions/<topic>-<p>+<replica>/topic    of one that came while another had that name
//! ```
//!
//! A topic that is deleted and created anew has the same name and another id, and so a directory is
//! never taken for that of the other; the same goes for a replica that lost its data and the one
//! that took its place. Nothing is removed because it is not recognised: only what belongs to a
//! topic known to be deleted, or to a replica known to be given up.
//!
//! Creating: directory, then `topic`, then the log. Removing: everything else, then `topic`, then
//! the directory. A crash between two steps leaves a directory that the next start finishes
//! creating or removing.

use std::io;
use std::path::{Path, PathBuf};

use dislog_log::fs::Fs;
use dislog_types::PartitionId;

use crate::atomic_file;

/// The name of the file.
const FILE_NAME: &str = "topic";

/// Who a directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The topic's id.
    pub(crate) topic_id: u64,
    /// The replica's.
    pub(crate) replica: u64,
}

/// What a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It is not there.
    Absent,
    /// It has no log and no owner yet.
    Nobody,
    /// It is somebody's.
    Owned(Owner),
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

/// The directory of `owner`'s partition, made if it is not there; one that nobody needs any more is
/// removed first.
pub(crate) fn claim(
    fs: &dyn Fs,
    partitions_dir: &Path,
    id: &PartitionId,
    owner: Owner,
    is_over: impl Fn(Owner) -> bool,
) -> Result<PathBuf, ClaimError> {
    let plain = partitions_dir.join(id.to_string());
    let beside = beside(partitions_dir, id, owner.replica);
    let find =
        |dir: &Path| found(fs, dir).map_err(|error| ClaimError::Io { path: dir.to_owned(), error });
    if find(&beside)? == Found::Owned(owner) {
        return Ok(beside);
    }
    let io = |error| ClaimError::Io { path: plain.clone(), error };
    match find(&plain)? {
        Found::Owned(found) if found == owner => Ok(plain),
        Found::Owned(found) if is_over(found) => {
            remove(fs, &plain).map_err(io)?;
            create(fs, &plain, owner).map_err(io)?;
            Ok(plain)
        }
        Found::Owned(found) if found.topic_id == owner.topic_id => {
            let io = |error| ClaimError::Io { path: beside.clone(), error };
            create(fs, &beside, owner).map_err(io)?;
            Ok(beside)
        }
        Found::Owned(_) | Found::Unknown => Err(ClaimError::Foreign(plain)),
        Found::Absent | Found::Nobody => {
            create(fs, &plain, owner).map_err(io)?;
            Ok(plain)
        }
    }
}

/// Whether there is a directory of `owner`'s partition, as far as it can be read.
pub(crate) fn is_owned(fs: &dyn Fs, partitions_dir: &Path, id: &PartitionId, owner: Owner) -> bool {
    let dirs = [partitions_dir.join(id.to_string()), beside(partitions_dir, id, owner.replica)];
    dirs.iter().any(|dir| found(fs, dir).is_ok_and(|found| found == Found::Owned(owner)))
}

/// Removes the directories in `partitions_dir` whose owners are over.
pub(crate) fn remove_over(
    fs: &dyn Fs,
    partitions_dir: &Path,
    is_over: impl Fn(Owner) -> bool,
) -> io::Result<()> {
    for dir in fs.list(partitions_dir)? {
        match found(fs, &dir) {
            Ok(Found::Owned(owner)) if is_over(owner) => {
                tracing::info!(dir = %dir.display(), "removing what nobody needs any more");
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

/// Removes the directory of `owner`'s partition with all that is in it, if there is one.
pub(crate) fn remove_own(
    fs: &dyn Fs,
    partitions_dir: &Path,
    id: &PartitionId,
    owner: Owner,
) -> io::Result<()> {
    for dir in [partitions_dir.join(id.to_string()), beside(partitions_dir, id, owner.replica)] {
        if found(fs, &dir)? == Found::Owned(owner) {
            remove(fs, &dir)?;
        }
    }
    Ok(())
}

/// No topic's name has a plus sign in it.
fn beside(partitions_dir: &Path, id: &PartitionId, replica: u64) -> PathBuf {
    partitions_dir.join(format!("{id}+{replica}"))
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

fn create(fs: &dyn Fs, dir: &Path, owner: Owner) -> io::Result<()> {
    fs.create_dir_all(dir)?;
    let content = format!("{} {}\n", owner.topic_id, owner.replica);
    atomic_file::replace(fs, &dir.join(FILE_NAME), content.as_bytes())?;
    sync_parent(fs, dir)
}

fn sync_parent(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    fs.sync_dir(dir.parent().expect("a partition's directory has a parent"))
}

fn found(fs: &dyn Fs, dir: &Path) -> io::Result<Found> {
    let paths = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        paths => paths?,
    };
    let content = atomic_file::read(fs, &dir.join(FILE_NAME))?;
    let has_log = paths.iter().any(|path| path.extension().is_some_and(|name| name == "store"));
    Ok(match content.and_then(|content| parse(&content)) {
        Some(owner) => Found::Owned(owner),
        None if has_log => Found::Unknown,
        None => Found::Nobody,
    })
}

fn parse(content: &[u8]) -> Option<Owner> {
    let (topic_id, replica) = std::str::from_utf8(content).ok()?.trim().split_once(' ')?;
    Some(Owner { topic_id: topic_id.parse().ok()?, replica: replica.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use dislog_log::fs::SimFs;
    use dislog_types::TopicName;

    use super::*;

    const PARTITIONS: &str = "/data/partitions";
    const OLD: Owner = Owner { topic_id: 7, replica: 1 };
    const NEW: Owner = Owner { topic_id: 8, replica: 2 };

    fn dir() -> PathBuf {
        Path::new(PARTITIONS).join("default-0")
    }

    fn id() -> PartitionId {
        PartitionId { topic: TopicName::default_topic(), partition: 0 }
    }

    fn take(
        fs: &SimFs,
        owner: Owner,
        is_over: impl Fn(Owner) -> bool,
    ) -> Result<PathBuf, ClaimError> {
        claim(fs, Path::new(PARTITIONS), &id(), owner, is_over)
    }

    fn drop_own(fs: &SimFs, owner: Owner) {
        remove_own(fs, Path::new(PARTITIONS), &id(), owner).unwrap();
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
        take(&fs, OLD, |_| false).unwrap();
        fs.crash();
        assert_eq!(take(&fs, OLD, |_| false).unwrap(), dir());
        assert!(matches!(take(&fs, NEW, |_| false), Err(ClaimError::Foreign(_))));
        assert_eq!(found(&fs, &dir()).unwrap(), Found::Owned(OLD));
    }

    #[test]
    fn what_a_deleted_topic_left_makes_room() {
        let fs = disk(1);
        take(&fs, OLD, |_| false).unwrap();
        fs.put(&dir().join("00000000000000000000.store"), b"old");
        take(&fs, NEW, |owner| owner == OLD).unwrap();
        assert_eq!(found(&fs, &dir()).unwrap(), Found::Owned(NEW));
        assert_eq!(fs.list(&dir()).unwrap(), [dir().join(FILE_NAME)]);
    }

    #[test]
    fn a_replica_that_takes_anothers_place_has_a_directory_beside_it() {
        let fs = disk(1);
        take(&fs, OLD, |_| false).unwrap();
        let next = Owner { replica: 9, ..OLD };
        let place = take(&fs, next, |_| false).unwrap();
        assert_eq!(place, Path::new(PARTITIONS).join("default-0+9"));
        drop_own(&fs, OLD);
        assert_eq!(take(&fs, next, |_| false).unwrap(), place);
        drop_own(&fs, next);
        assert_eq!(fs.list(Path::new(PARTITIONS)).unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn a_replica_never_removes_what_is_not_its_own() {
        let fs = disk(1);
        take(&fs, OLD, |_| false).unwrap();
        drop_own(&fs, NEW);
        drop_own(&fs, Owner { replica: 3, ..OLD });
        assert_eq!(found(&fs, &dir()).unwrap(), Found::Owned(OLD));
        drop_own(&fs, OLD);
        assert_eq!(found(&fs, &dir()).unwrap(), Found::Absent);
        drop_own(&fs, OLD);
    }

    #[test]
    fn a_log_without_an_owner_is_never_removed() {
        let fs = disk(1);
        let store = dir().join("00000000000000000000.store");
        fs.put(&store, b"whose?");
        remove_over(&fs, Path::new(PARTITIONS), |_| true).unwrap();
        assert!(matches!(take(&fs, NEW, |_| true), Err(ClaimError::Foreign(_))));
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
                    take(&fs, OLD, |_| false)?;
                    fs.create(&store).map_err(io)?;
                    fs.sync_dir(&dir()).map_err(io)?;
                    remove(&fs, &dir()).map_err(io)
                };
                let _ = steps();
                fs.crash();
                remove_over(&fs, Path::new(PARTITIONS), |owner| owner == OLD).unwrap();
                take(&fs, NEW, |owner| owner == OLD).unwrap();
                assert_eq!(found(&fs, &dir()).unwrap(), Found::Owned(NEW));
            }
        }
    }
}
