//! How far a group's Readies have come to the disk.
//!
//! Raft hands out *Readies*, numbered, each with entries and perhaps a vote to make durable. They
//! are staged at once and synced by a thread, one sync at a time per log; whatever is staged
//! meanwhile goes with the next sync. That is the group commit: under load, a sync carries
//! everything that arrived during the one before.

use super::vote_file::Vote;

/// While the disk is full, how long until the next attempt to write what is staged.
const DISK_FULL_RETRY_MS: i64 = 500;

/// How long callers wait for a full disk to take what was already proposed, before they are told
/// that the outcome is unknown.
const DISK_FULL_WAIT_MS: i64 = 5_000;

/// See the module.
///
/// - `in_flight` is what a thread is working on; at most one sync at a time.
/// - A Ready up to `persisted` is durable, or had nothing to make durable.
#[derive(Debug, Default)]
pub(super) struct Persist {
    /// The newest Ready that was staged.
    pub(super) last_ready: u64,
    persisted: u64,
    staged: Staged,
    in_flight: Option<(u64, Staged)>,
    disk_full: Option<DiskFull>,
}

/// What waits to be synced.
#[derive(Debug, Default)]
struct Staged {
    entries: bool,
    bytes: u64,
    vote: Option<Vote>,
}

#[derive(Clone, Copy, Debug)]
struct DiskFull {
    since_ms: i64,
    retry_ms: i64,
}

impl Persist {
    /// Takes note of staged entries.
    pub(super) fn stage_entries(&mut self, bytes: u64) {
        self.staged.entries = true;
        self.staged.bytes += bytes;
    }

    /// Takes note of a vote to be written.
    pub(super) fn stage_vote(&mut self, vote: Vote) {
        self.staged.vote = Some(vote);
    }

    /// Begins a sync if there is something to sync and it is time; returns how many bytes and the
    /// vote that go with it.
    pub(super) fn begin(&mut self, now_ms: i64) -> Option<(u64, Option<Vote>)> {
        let waiting = self.disk_full.is_some_and(|full| now_ms < full.retry_ms);
        let idle = !self.staged.entries && self.staged.vote.is_none();
        if self.in_flight.is_some() || waiting || idle {
            return None;
        }
        let staged = std::mem::take(&mut self.staged);
        let begun = (staged.bytes, staged.vote);
        self.in_flight = Some((self.last_ready, staged));
        Some(begun)
    }

    /// The sync under way succeeded; returns the newest Ready that is durable now, and the bytes
    /// written.
    pub(super) fn succeeded(&mut self) -> (u64, u64) {
        let (ready, staged) = self.in_flight.take().expect("one sync was under way");
        self.disk_full = None;
        self.persisted = ready;
        (ready, staged.bytes)
    }

    /// The sync under way found no room: what it covered waits for the next.
    pub(super) fn found_no_room(&mut self, now_ms: i64) {
        let (_, staged) = self.in_flight.take().expect("one sync was under way");
        self.staged.entries |= staged.entries;
        self.staged.bytes += staged.bytes;
        // A newer vote supersedes the one that could not be written.
        self.staged.vote = self.staged.vote.or(staged.vote);
        let since_ms = self.disk_full.map_or(now_ms, |full| full.since_ms);
        let retry_ms = now_ms.saturating_add(DISK_FULL_RETRY_MS);
        self.disk_full = Some(DiskFull { since_ms, retry_ms });
    }

    /// The sync under way failed for good; returns the bytes that are no longer on their way.
    pub(super) fn failed(&mut self) -> u64 {
        let in_flight = self.in_flight.take().map_or(0, |(_, staged)| staged.bytes);
        in_flight + std::mem::take(&mut self.staged).bytes
    }

    /// The newest Ready, if nothing stands between it and being durable but that nobody said so.
    pub(super) fn skip(&mut self) -> Option<u64> {
        let busy = self.in_flight.is_some() || self.staged.entries || self.staged.vote.is_some();
        if busy || self.persisted == self.last_ready {
            return None;
        }
        self.persisted = self.last_ready;
        Some(self.last_ready)
    }

    /// There is room again, or may be: the next attempt is not put off any longer.
    pub(super) fn retry_now(&mut self) {
        if let Some(full) = &mut self.disk_full {
            full.retry_ms = i64::MIN;
        }
    }

    pub(super) fn is_disk_full(&self) -> bool {
        self.disk_full.is_some()
    }

    /// Callers have waited for room long enough.
    pub(super) fn waited_enough(&self, now_ms: i64) -> bool {
        self.disk_full.is_some_and(|full| now_ms >= give_up_ms(full))
    }

    /// Bytes that wait for the sync under way to end.
    pub(super) fn waiting_bytes(&self) -> u64 {
        if self.is_syncing() { self.staged.bytes } else { 0 }
    }

    pub(super) fn is_syncing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Nothing is under way or waits to be.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && !self.staged.entries && self.staged.vote.is_none()
    }

    /// When there is something to do without any input.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        let full = self.disk_full.filter(|_| self.in_flight.is_none())?;
        Some(full.retry_ms)
    }
}

fn give_up_ms(full: DiskFull) -> i64 {
    full.since_ms.saturating_add(DISK_FULL_WAIT_MS)
}
