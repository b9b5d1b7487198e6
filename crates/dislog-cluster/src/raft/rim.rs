//! What a group acts on: the rim around its decisions. The driver owns one and lends it to each
//! group in turn.

use std::path::PathBuf;
use std::sync::Arc;

use dislog_log::fs::Fs;

use super::sync_threads::{SyncJob, SyncThreads};
use super::transport::Transport;
use crate::settings::DISK_HEADROOM_BYTES;

/// See the module.
pub(super) struct Rim {
    pub(super) threads: SyncThreads,
    /// Syncs to be begun at the end of the turn.
    pub(super) syncs: Vec<SyncJob>,
    pub(super) transport: Box<dyn Transport>,
    pub(super) disk: DiskSpace,
    /// Unix milliseconds, as of the input being handled.
    pub(super) now_ms: i64,
}

/// What the disk has left, less what is on its way there.
pub(super) struct DiskSpace {
    fs: Arc<dyn Fs>,
    data_dir: PathBuf,
    available_bytes: u64,
    /// Bytes staged and not yet written.
    on_the_way_bytes: u64,
}

impl DiskSpace {
    pub(super) fn new(fs: Arc<dyn Fs>, data_dir: PathBuf) -> DiskSpace {
        let mut disk = DiskSpace { fs, data_dir, available_bytes: 0, on_the_way_bytes: 0 };
        disk.measure();
        disk
    }

    /// Whether `bytes` more leave the headroom free. Asks the disk before it says no, so that freed
    /// space is seen at once.
    pub(super) fn has_room(&mut self, bytes: u64) -> bool {
        let wanted = bytes.saturating_add(DISK_HEADROOM_BYTES);
        if self.free_bytes() >= wanted {
            return true;
        }
        self.measure();
        self.free_bytes() >= wanted
    }

    /// Takes note of bytes that were staged.
    pub(super) fn stage(&mut self, bytes: u64) {
        self.on_the_way_bytes += bytes;
    }

    /// Takes note of bytes that were written, or never will be, and of what the disk said it has
    /// left then.
    pub(super) fn settle(&mut self, bytes: u64, available_bytes: Option<u64>) {
        self.on_the_way_bytes -= bytes;
        self.available_bytes = available_bytes.unwrap_or(self.available_bytes);
    }

    fn free_bytes(&self) -> u64 {
        self.available_bytes.saturating_sub(self.on_the_way_bytes)
    }

    /// A disk that doesn't say what it has left is taken to have room: the write itself will tell.
    fn measure(&mut self) {
        self.available_bytes = self.fs.available_bytes(&self.data_dir).unwrap_or(u64::MAX);
    }
}
