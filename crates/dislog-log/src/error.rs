//! What can go wrong with a log.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Frames that were durable and can no longer be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The store file.
    pub file: PathBuf,
    /// Where in it the damage begins.
    pub position: u64,
    /// The first offset that may be lost.
    pub from_offset: u64,
    /// One past the last offset that may be lost.
    pub to_offset: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { file, position, from_offset, to_offset } = self;
        write!(f, "{} at byte {position}, offsets {from_offset} to {to_offset}", file.display())
    }
}

/// Why a log was not opened or written. After `Stopped` or `Damaged` the log refuses all writes
/// until it is opened again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No space left. Nothing became durable, and the log goes on: staged frames stay staged,
    /// `flush` may be called again.
    #[error("the disk of {} is full: free some space or trim the log", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// A write or sync failed; what it covered may or may not be on disk.
    #[error("log stopped: {operation} of {} failed: {message}", path.display())]
    Stopped {
        /// Which operation failed.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// Durable frames cannot be verified.
    #[error("log damaged: {0}")]
    Damaged(Damage),
    /// Not a record batch that may be appended.
    #[error("not appended: {0}")]
    Batch(#[from] dislog_types::BatchError),
}

/// Why records were not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Below the start.
    #[error("offset {offset} was trimmed; the log starts at {start_offset}")]
    Trimmed {
        /// What was asked for.
        offset: u64,
        /// The first offset there is.
        start_offset: u64,
    },
    /// Beyond the end.
    #[error("offset {offset} is beyond the end {end_offset}")]
    BeyondEnd {
        /// What was asked for.
        offset: u64,
        /// One past the last offset.
        end_offset: u64,
    },
    /// It cannot be verified.
    #[error("damaged: {0}")]
    Damaged(Damage),
    /// The system failed to read.
    #[error("reading {} failed: {message}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
}

impl ReadError {
    pub(crate) fn failed(path: &Path, error: &io::Error) -> ReadError {
        ReadError::Failed { path: path.to_owned(), message: error.to_string() }
    }
}

impl LogError {
    /// What a failed `operation` on `path` means: a full disk is not the end, everything else is.
    pub(crate) fn of(operation: &'static str, path: &Path, error: &io::Error) -> LogError {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded if operation != SYNC => {
                LogError::DiskFull { path }
            }
            _ => LogError::Stopped { operation, path, message: error.to_string() },
        }
    }
}

/// The operation whose failure is always the end: what it covered may be lost, whatever the reason.
pub(crate) const SYNC: &str = "sync";
