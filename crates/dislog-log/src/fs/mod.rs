//! The seam to the file system: everything this crate does to a disk goes through [`Fs`].
//!
//! Two twins: [`RealFs`], and [`SimFs`], a disk in memory that loses what was not synced, tears
//! writes, flips bits, fills up and fails syncs, as told. One conformance suite runs on both.

mod mapped;
mod real;
mod sim;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use real::RealFs;
pub use sim::{SimFaults, SimFs};

/// Files in directories.
///
/// Durability is that of POSIX: bytes survive a power cut once `sync_data` on their file returned,
/// a created, renamed or removed name once `sync_dir` on its directory returned.
pub trait Fs: Debug + Send + Sync {
    /// Opens an existing file to read and write.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Creates a file, empty; fails if it exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Renames a file, over an existing one if there is one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and those above it that are missing; not an error if it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The paths in a directory, sorted; files and directories.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Bytes that may still be written to the file system that holds `path`.
    fn available_bytes(&self, path: &Path) -> io::Result<u64>;
    /// A random number, to tell things apart that have the same name.
    fn random(&self) -> u64;
    /// Removes a file, if there is one.
    fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
    /// Opens a file to read and write, or creates it, empty, if there is none.
    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        match self.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(path),
            other => other,
        }
    }
    /// Maps the first `len` bytes of a file to read them; later writes within show through. It may
    /// be shorter than `len`; only what is within the file may be copied.
    fn map(&self, path: &Path, len: u64) -> io::Result<Arc<dyn Mapping>>;
}

/// An open file. Reads and writes say where.
#[expect(clippy::len_without_is_empty, reason = "asking a file whether it is empty is a read")]
pub trait File: Debug + Send + Sync {
    /// Reads up to `buffer.len()` bytes at `position`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes `parts` one after the other at `position`.
    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()>;
    /// Makes what was written durable, and the file's length.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
}

/// A mapped file.
pub trait Mapping: Debug + Send + Sync {
    /// Fills `buffer` from `position`; the range lies within the mapping and the file.
    fn copy_to(&self, buffer: &mut [u8], position: u64);
}
