//! What a group acts on: the rim around its decisions. The driver owns one and lends it to each
//! group in turn.

use std::path::PathBuf;
use std::sync::Arc;

use dislog_log::fs::Fs;
use rand::rngs::StdRng;

use super::sync_threads::{AheadJob, SyncJob, Workers};
use super::transport::Transport;
use crate::settings::DISK_HEADROOM_BYTES;

/// See the module.
pub(super) struct Rim {
    pub(super) threads: Box<dyn Workers>,
    /// Syncs to be begun at the end of the turn.
    pub(super) syncs: Vec<SyncJob>,
    /// What is to be written then, for the syncs after those under way.
    pub(super) ahead: Vec<AheadJob>,
    pub(super) transport: Box<dyn Transport>,
    pub(super) disk: DiskSpace,
    pub(super) catch_up: CatchUp,
    /// Tells the rest of the node that a group has another leader or other members.
    pub(super) changed: Box<dyn Fn() + Send>,
    /// Other nodes may share groups with this one.
    pub(super) members_changed: bool,
    /// For the time-outs of elections.
    pub(super) random: StdRng,
    /// Unix milliseconds, as of the input being handled.
    pub(super) now_ms: i64,
}

/// How fast this node reads what followers lack, of all groups together: what they cost in
/// processor time, memory, on the network and on their own disks is taken from those who append.
/// While nobody does, that is no reason to keep them waiting. And logs that grow faster than that
/// are read faster still, or who is behind would stay behind.
#[derive(Default)]
pub(super) struct CatchUp {
    /// When more may be read, microseconds.
    not_before_us: i64,
    /// When something was appended, milliseconds.
    appended_ms: i64,
    /// How fast logs grew in the last full period, ...
    growth_bytes_per_second: u64,
    /// ... when this one began, milliseconds, ...
    period_start_ms: i64,
    /// ... and what was appended since.
    period_bytes: u64,
}

/// How much is read at least while others append, ...
const CATCH_UP_BYTES_PER_SECOND: u64 = 32 << 20;

/// ... and how many times what they append, ...
const CATCH_UP_GROWTHS: u64 = 2;

/// ... and how much while nobody does, ...
const CATCH_UP_ALONE_BYTES_PER_SECOND: u64 = 256 << 20;

/// ... which is known after so long. It is also the period for which growth is taken.
const CATCH_UP_ALONE_MS: i64 = 1_000;

/// What was not read in this time may be read later: timers are not exact.
const CATCH_UP_SLACK_US: i64 = 20_000;

/// Nothing is put off for longer, unless the clock was set back.
const CATCH_UP_PAUSE_MAX_US: i64 = 1_000_000;

impl CatchUp {
    /// Whether so much may be read now; if not, when to ask again, Unix milliseconds.
    pub(super) fn begin(&mut self, bytes: u64, now_ms: i64) -> Result<(), i64> {
        let now_us = now_ms.saturating_mul(1_000);
        let left_us = self.not_before_us.saturating_sub(now_us);
        if (1..=CATCH_UP_PAUSE_MAX_US).contains(&left_us) {
            return Err(now_ms.saturating_add(left_us / 1_000 + 1));
        }
        self.not_before_us =
            self.not_before_us.clamp(now_us.saturating_sub(CATCH_UP_SLACK_US), now_us);
        self.read(bytes, now_ms);
        Ok(())
    }

    /// So much was read beyond what was to be: an entry is read whole, however large it is.
    pub(super) fn read(&mut self, bytes: u64, now_ms: i64) {
        let takes_us = bytes.saturating_mul(1_000_000) / self.bytes_per_second(now_ms);
        let takes_us = i64::try_from(takes_us).unwrap_or(CATCH_UP_PAUSE_MAX_US);
        let latest_us = now_ms.saturating_mul(1_000).saturating_add(CATCH_UP_PAUSE_MAX_US);
        self.not_before_us = self.not_before_us.saturating_add(takes_us).min(latest_us);
    }

    /// Somebody appends so much.
    pub(super) fn appended(&mut self, bytes: u64, now_ms: i64) {
        let period_ms = now_ms.saturating_sub(self.period_start_ms);
        if !(0..CATCH_UP_ALONE_MS).contains(&period_ms) {
            // Nothing is known of a time in which the clock was set back.
            let period_ms = u64::try_from(period_ms).unwrap_or(u64::MAX);
            self.growth_bytes_per_second = self.period_bytes.saturating_mul(1_000) / period_ms;
            (self.period_start_ms, self.period_bytes) = (now_ms, 0);
        }
        self.period_bytes = self.period_bytes.saturating_add(bytes);
        self.appended_ms = now_ms;
    }

    fn bytes_per_second(&self, now_ms: i64) -> u64 {
        let is_recent = self.appended_ms..self.appended_ms.saturating_add(CATCH_UP_ALONE_MS);
        if !is_recent.contains(&now_ms) {
            return CATCH_UP_ALONE_BYTES_PER_SECOND;
        }
        let growing = self.growth_bytes_per_second.saturating_mul(CATCH_UP_GROWTHS);
        growing.max(CATCH_UP_BYTES_PER_SECOND)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_are_read_for_at_a_rate_whatever_the_clock_does() {
        const ASKED: u64 = 256 << 10;
        // One entry is larger than what is asked for.
        const READ: u64 = 1 << 20;
        // In a period that is not over nothing is known of how fast logs grow.
        const WARM_UP_MS: i64 = 2 * CATCH_UP_ALONE_MS;
        let mut catch_up = CatchUp::default();
        let mut read_for_two_seconds = |appended_per_second: u64, from_ms: i64| {
            let (mut read, mut again_ms) = (0, i64::MIN);
            for now_ms in from_ms - WARM_UP_MS..from_ms + 2_000 {
                if appended_per_second > 0 {
                    catch_up.appended(appended_per_second / 1_000, now_ms);
                }
                while now_ms >= again_ms {
                    match catch_up.begin(ASKED, now_ms) {
                        Ok(()) => {
                            read += if now_ms < from_ms { 0 } else { READ };
                            catch_up.read(READ - ASKED, now_ms);
                        }
                        Err(later_ms) => {
                            assert!(later_ms > now_ms);
                            again_ms = later_ms;
                        }
                    }
                }
            }
            read
        };
        for (appended_per_second, from_ms, rate) in [
            (1 << 20, 1_000_000, CATCH_UP_BYTES_PER_SECOND),
            (0, 1_010_000, CATCH_UP_ALONE_BYTES_PER_SECOND),
            (1 << 30, 1_020_000, CATCH_UP_GROWTHS << 30),
            // The clock was set back.
            (1 << 20, 5_000, CATCH_UP_BYTES_PER_SECOND),
        ] {
            let read = read_for_two_seconds(appended_per_second, from_ms);
            let (wanted, slack) = (2 * rate, 2 * rate / 40);
            let range = wanted - slack..wanted + slack;
            assert!(range.contains(&read), "{appended_per_second}: {read} of {wanted}");
        }
    }
}
