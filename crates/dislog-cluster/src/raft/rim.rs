//! What a group acts on: the rim around its decisions. The driver owns one and lends it to each
//! group in turn.

use std::path::PathBuf;
use std::sync::Arc;

use dislog_log::fs::Fs;
use rand::rngs::StdRng;

use super::sync_threads::{SyncJob, Workers};
use super::transport::Transport;
use crate::settings::DISK_HEADROOM_BYTES;

/// See the module.
pub(super) struct Rim {
    pub(super) threads: Box<dyn Workers>,
    /// Syncs to be begun at the end of the turn.
    pub(super) syncs: Vec<SyncJob>,
    pub(super) transport: Box<dyn Transport>,
    pub(super) disk: DiskSpace,
    /// Tells the rest of the node that a group has another leader or other members.
    pub(super) changed: Box<dyn Fn() + Send>,
    /// Other nodes may share groups with this one.
    pub(super) members_changed: bool,
    /// For the time-outs of elections.
    pub(super) random: StdRng,
    /// Unix milliseconds, as of the input being handled.
    pub(super) now_ms: i64,
}

/// What the disk has left, less what is on its way there.
///
/// The disk is asked once in a while, not after every sync: in between, what this node writes is
/// counted, and what others write takes at most [`ASK_INTERVAL_MS`] to be seen.
pub(super) struct DiskSpace {
    fs: Arc<dyn Fs>,
    data_dir: PathBuf,
    /// What the disk answered, less what was written since.
    available_bytes: u64,
    /// Bytes staged and not yet written.
    on_the_way_bytes: u64,
    asked_ms: i64,
}

/// How old an answer of the disk may become.
const ASK_INTERVAL_MS: i64 = 1_000;

impl DiskSpace {
    pub(super) fn new(fs: Arc<dyn Fs>, data_dir: PathBuf) -> DiskSpace {
        let asked_ms = i64::MIN;
        DiskSpace { fs, data_dir, available_bytes: 0, on_the_way_bytes: 0, asked_ms }
    }

    /// Whether `bytes` more leave the headroom free. Asks the disk before it says no, so that freed
    /// space is seen at once.
    pub(super) fn has_room(&mut self, bytes: u64, now_ms: i64) -> bool {
        let fresh = self.asked_ms..self.asked_ms.saturating_add(ASK_INTERVAL_MS);
        let wanted = bytes.saturating_add(DISK_HEADROOM_BYTES);
        if fresh.contains(&now_ms) && self.free_bytes() >= wanted {
            return true;
        }
        // A disk that doesn't say what it has left is taken to have room: the write itself will
        // tell.
        self.available_bytes = self.fs.available_bytes(&self.data_dir).unwrap_or(u64::MAX);
        self.asked_ms = now_ms;
        self.free_bytes() >= wanted
    }

    /// Takes note of bytes that were staged.
    pub(super) fn stage(&mut self, bytes: u64) {
        self.on_the_way_bytes += bytes;
    }

    /// Takes note of staged bytes that were written.
    pub(super) fn written(&mut self, bytes: u64) {
        self.on_the_way_bytes -= bytes;
        self.available_bytes = self.available_bytes.saturating_sub(bytes);
    }

    /// Takes note of staged bytes that never will be.
    pub(super) fn dropped(&mut self, bytes: u64) {
        self.on_the_way_bytes -= bytes;
    }

    fn free_bytes(&self) -> u64 {
        self.available_bytes.saturating_sub(self.on_the_way_bytes)
    }
}
