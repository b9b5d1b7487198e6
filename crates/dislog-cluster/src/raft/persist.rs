//! How far a group's Readies have come to the disk.
//!
//! Raft hands out *Readies*, numbered, each with entries and perhaps a vote to make durable. They
//! are staged at once and synced by a thread, one sync at a time per log; whatever is staged
//! meanwhile goes with the next sync. That is the group commit: under load, a sync carries
//! everything that arrived during the one before.

use super::members_file::History;
use super::vote_file::Vote;

/// While the disk is full, how long until the next attempt to write what is staged.
const DISK_FULL_RETRY_MS: i64 = 500;

/// How long callers wait for a full disk to take what was already proposed, before they are told
/// that the outcome is unknown.
const DISK_FULL_WAIT_MS: i64 = 5_000;

/// What waits for a sync to end is written meanwhile if it is so much: a copy into the page cache,
/// but one that takes time. Less in simulations, whose groups are small, so that it happens there.
const WRITE_AHEAD_BYTES_MIN: u64 = if cfg!(feature = "sim") { 256 } else { 64 << 10 };

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
    /// Of what was staged while a sync is under way: so much is to be written before it ends.
    ahead_bytes: u64,
    disk_full: Option<DiskFull>,
}

/// What waits to be synced.
#[derive(Debug, Default)]
struct Staged {
    entries: bool,
    bytes: u64,
    vote: Option<Vote>,
    members: Option<History>,
}

/// What a sync makes durable beside what is staged in the log.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) vote: Option<Vote>,
    pub(super) members: Option<History>,
}

impl Staged {
    fn is_empty(&self) -> bool {
        !self.entries && self.vote.is_none() && self.members.is_none()
    }
}

#[derive(Clone, Copy, Debug)]
struct DiskFull {
    since_ms: i64,
    retry_ms: i64,
}

impl DiskFull {
    /// Not if the clock was set back: it could be an hour until it is that time again.
    fn waits(self, now_ms: i64) -> bool {
        (self.retry_ms.saturating_sub(DISK_FULL_RETRY_MS)..self.retry_ms).contains(&now_ms)
    }
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

    /// Takes note of other members to be written.
    pub(super) fn stage_members(&mut self, members: History) {
        self.staged.members = Some(members);
    }

    /// Begins a sync if there is something to sync and it is time; returns how many bytes, and what
    /// goes with them.
    pub(super) fn begin(&mut self, now_ms: i64) -> Option<(u64, Beside)> {
        let waiting = self.disk_full.is_some_and(|full| full.waits(now_ms));
        if self.in_flight.is_some() || waiting || self.staged.is_empty() {
            return None;
        }
        let staged = std::mem::take(&mut self.staged);
        let beside = Beside { vote: staged.vote, members: staged.members.clone() };
        let begun = (staged.bytes, beside);
        self.ahead_bytes = 0;
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
        self.staged.members = self.staged.members.take().or(staged.members);
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
        let busy = self.in_flight.is_some() || !self.staged.is_empty();
        if busy || self.persisted == self.last_ready {
            return None;
        }
        self.persisted = self.last_ready;
        Some(self.last_ready)
    }

    /// Everything up to a Ready is durable by other means, and what was staged is gone; returns its
    /// bytes.
    pub(super) fn began_anew(&mut self, ready: u64) -> u64 {
        self.last_ready = ready;
        self.persisted = ready;
        self.disk_full = None;
        std::mem::take(&mut self.staged).bytes
    }

    /// Members are on their way to the disk, behind which no checkpoint may be written yet.
    pub(super) fn has_members(&self) -> bool {
        let in_flight = self.in_flight.as_ref().and_then(|(_, staged)| staged.members.as_ref());
        in_flight.or(self.staged.members.as_ref()).is_some()
    }

    /// A vote is on its way to the disk, before which no entry of its term may be there.
    pub(super) fn has_vote(&self) -> bool {
        let in_flight = self.in_flight.as_ref().and_then(|(_, staged)| staged.vote);
        in_flight.or(self.staged.vote).is_some()
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
        let is_soon = |full: DiskFull| {
            (full.since_ms..full.since_ms.saturating_add(DISK_FULL_WAIT_MS)).contains(&now_ms)
        };
        self.disk_full.is_some_and(|full| !is_soon(full))
    }

    /// Whether enough waits for the sync under way to end that it is to be written meanwhile; it is
    /// taken for written then.
    pub(super) fn take_ahead(&mut self) -> bool {
        let bytes = self.staged.bytes.saturating_sub(self.ahead_bytes);
        let is_due = self.is_syncing() && !self.has_vote() && bytes >= WRITE_AHEAD_BYTES_MIN;
        if is_due {
            self.ahead_bytes = self.staged.bytes;
        }
        is_due
    }

    pub(super) fn is_syncing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Nothing is under way or waits to be.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.staged.is_empty()
    }

    /// When there is something to do without any input.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        let full = self.disk_full.filter(|_| self.in_flight.is_none())?;
        Some(full.retry_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_written_ahead_once() {
        let mut persist = Persist::default();
        persist.stage_entries(WRITE_AHEAD_BYTES_MIN);
        assert!(!persist.take_ahead(), "no sync is under way: one can begin");
        persist.begin(0).unwrap();
        assert!(!persist.take_ahead(), "nothing waits");
        for _ in 0..2 {
            persist.stage_entries(WRITE_AHEAD_BYTES_MIN - 1);
            assert!(!persist.take_ahead(), "it is little");
            persist.stage_entries(1);
            assert!(persist.take_ahead() && !persist.take_ahead());
        }
        persist.stage_vote(Vote { term: 2, voted_for: 1 });
        persist.stage_entries(WRITE_AHEAD_BYTES_MIN);
        assert!(!persist.take_ahead(), "entries of a term wait for its vote");
        persist.succeeded();
        persist.begin(0).unwrap();
        persist.stage_entries(WRITE_AHEAD_BYTES_MIN);
        assert!(!persist.take_ahead(), "the vote is under way");
        persist.succeeded();
        persist.begin(0).unwrap();
        persist.stage_entries(WRITE_AHEAD_BYTES_MIN);
        assert!(persist.take_ahead());
    }

    fn full_at(now_ms: i64) -> Persist {
        let mut persist = Persist::default();
        persist.stage_entries(7);
        persist.begin(now_ms).unwrap();
        persist.found_no_room(now_ms);
        persist
    }

    #[test]
    fn a_full_disk_is_asked_again_after_a_while() {
        let mut persist = full_at(1_000);
        assert!(persist.begin(1_000).is_none() && persist.begin(1_499).is_none());
        assert!(!persist.waited_enough(5_999) && persist.waited_enough(6_000));
        assert!(persist.begin(1_500).is_some());
    }

    #[test]
    fn a_log_that_began_anew_has_nothing_to_write_again() {
        let mut persist = full_at(1_000);
        assert!(persist.deadline_ms().is_some());
        persist.began_anew(9);
        assert_eq!(persist.deadline_ms(), None);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nobody_wait() {
        let mut persist = full_at(3_600_000);
        assert!(persist.waited_enough(1_000));
        assert!(persist.begin(1_000).is_some());
    }
}
