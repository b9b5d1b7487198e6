//! Raft's view of the stored log.
//!
//! The log itself is `dislog-log`; this adapter adds what Raft asks for on top: entries that were
//! staged and not yet applied stay here in memory (their payloads are shared with the log, not
//! copied), so that delivering what was just committed never reads the disk in the driver.
//!
//! A snapshot is where the log starts, and nothing else: what a replica needs whose peers no longer
//! have what it lacks is the position to begin at. All that is retained follows as entries.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::Bytes;
use dislog_log::{Log, LogError, LogStart, ReadError};
use prost::Message;
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::entry::{self, EntryError, LogEnd};
use super::fetch::{FetchJob, Fetched, Fetches};
use super::members_file::History;
use super::rim::Rim;
use super::vote_file::Vote;
use crate::partition::shared::Fault;

/// See the module.
///
/// - `recent` holds the entries behind `applied` up to `last_index`, without gaps.
/// - `first_index`, `last_index` and `end` are the log's; kept here so that Raft sees them change
///   only between steps.
pub(super) struct LogStorage {
    log: Log,
    initial: RaftState,
    first_index: u64,
    last_index: u64,
    last_term: u64,
    end: LogEnd,
    recent: VecDeque<Entry>,
    history: History,
    /// Why reading failed. Raft panics on a failed read, so it gets nothing instead, and the group
    /// stops.
    fault: RefCell<Option<Fault>>,
    /// What followers lack that is not in memory.
    fetches: RefCell<Fetches>,
}

/// Where a log starts, in the data of a snapshot; the position and its term are Raft's to carry.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SnapshotStart {
    /// The offset of the first record behind it, which may be below the start offset.
    #[prost(uint64, tag = "1")]
    base_offset: u64,
    /// The first offset that is retained.
    #[prost(uint64, tag = "2")]
    pub(super) start_offset: u64,
    /// The timestamp of the entry at the position, Unix milliseconds.
    #[prost(sint64, tag = "3")]
    timestamp_ms: i64,
    /// The newest replica that ever belonged to the group.
    #[prost(uint64, tag = "4")]
    pub(super) newest_replica: u64,
}

impl SnapshotStart {
    /// What a snapshot says; `None` if its data is not that.
    pub(super) fn of(snapshot: &Snapshot) -> Option<(LogStart, SnapshotStart)> {
        let this = SnapshotStart::decode(&snapshot.data[..]).ok()?;
        let metadata = snapshot.get_metadata();
        let start = LogStart {
            raft_index: metadata.index,
            term: metadata.term,
            timestamp_ms: this.timestamp_ms,
            base_offset: this.base_offset,
        };
        Some((start, this))
    }
}

/// Why entries were not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    /// They don't extend the log.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The log takes no more.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl LogStorage {
    /// The storage of a log of which everything up to `committed` was applied.
    pub(super) fn new(log: Log, vote: Vote, history: History, committed: u64) -> LogStorage {
        let bounds = log.bounds();
        assert!(committed <= bounds.last_raft_index, "what is committed is in the log");
        let hard_state = HardState {
            term: vote.term,
            vote: vote.voted_for,
            commit: committed,
            ..HardState::default()
        };
        let conf_state = history.newest().1.to_raft();
        LogStorage {
            initial: RaftState::new(hard_state, conf_state),
            history,
            first_index: bounds.first_raft_index,
            last_index: bounds.last_raft_index,
            last_term: bounds.last_term,
            end: LogEnd { offset: bounds.end_offset, timestamp_ms: bounds.last_timestamp_ms },
            recent: VecDeque::new(),
            fault: RefCell::new(None),
            fetches: RefCell::default(),
            log,
        }
    }

    /// Puts entries behind the log's end, or in place of its tail from the first of them on.
    pub(super) fn stage(&mut self, entries: Vec<Entry>) -> Result<(), StageError> {
        let Some(first) = entries.first() else { return Ok(()) };
        if first.index <= self.last_index {
            self.truncate(first.index)?;
        }
        let mut frames = Vec::with_capacity(entries.len());
        for entry in entries {
            let frame = entry::to_frame(&entry, self.end)?;
            self.end = LogEnd { offset: frame.end_offset(), timestamp_ms: frame.timestamp_ms };
            (self.last_index, self.last_term) = (frame.raft_index, frame.term);
            frames.push(frame);
            self.recent.push_back(entry);
        }
        Ok(self.log.stage(frames)?)
    }

    /// Where the log ends, for the next entry.
    #[cfg(feature = "sim")]
    pub(super) fn end(&self) -> LogEnd {
        self.end
    }

    fn truncate(&mut self, from: u64) -> Result<(), LogError> {
        self.fetches.get_mut().clear();
        self.log.truncate(from)?;
        while self.recent.back().is_some_and(|entry| entry.index >= from) {
            self.recent.pop_back();
        }
        let bounds = self.log.bounds();
        (self.last_index, self.last_term) = (bounds.last_raft_index, bounds.last_term);
        self.end = LogEnd { offset: bounds.end_offset, timestamp_ms: bounds.last_timestamp_ms };
        Ok(())
    }

    /// Forgets entries that were applied.
    pub(super) fn applied_to(&mut self, raft_index: u64) {
        while self.recent.front().is_some_and(|entry| entry.index <= raft_index) {
            self.recent.pop_front();
        }
    }

    /// Takes note that the log's head was deleted.
    pub(super) fn head_moved(&mut self) {
        self.first_index = self.log.bounds().first_raft_index;
        self.history.forget_before(self.first_index - 1);
    }

    /// Takes note that the log began anew, with this history.
    pub(super) fn began_anew(&mut self, history: History) {
        let bounds = self.log.bounds();
        self.first_index = bounds.first_raft_index;
        (self.last_index, self.last_term) = (bounds.last_raft_index, bounds.last_term);
        self.end = LogEnd { offset: bounds.end_offset, timestamp_ms: bounds.last_timestamp_ms };
        self.recent.clear();
        self.fetches.get_mut().clear();
        self.history = history;
    }

    /// Who belonged to the group, and since when.
    pub(super) fn history(&self) -> &History {
        &self.history
    }

    pub(super) fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }

    /// Why reading failed, if it did.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.borrow().clone()
    }

    /// Whether a thread reads the log for followers.
    pub(super) fn is_fetching(&self) -> bool {
        self.fetches.borrow().is_under_way()
    }

    /// When there is more to read for followers, if that was put off.
    pub(super) fn fetch_deadline_ms(&self) -> Option<i64> {
        self.fetches.borrow().deadline_ms()
    }

    /// What a thread is to read for followers now.
    pub(super) fn next_fetch(&mut self, group: u64, rim: &mut Rim) -> Option<FetchJob> {
        let (from, to, bytes_max) = self.fetches.get_mut().next(&mut rim.catch_up, rim.now_ms)?;
        Some(FetchJob { group, log: self.log.clone(), from, to, bytes_max })
    }

    /// Takes what was read: who is to ask again. What was trimmed meanwhile is not there, and Raft
    /// finds that out by itself.
    pub(super) fn fetched(&mut self, fetched: Fetched) -> Vec<GetEntriesContext> {
        let Fetched { from, result, .. } = fetched;
        let fetches = self.fetches.get_mut();
        let (asked, is_current) = fetches.end();
        match result {
            _ if !is_current || from < self.log.bounds().first_raft_index => {}
            Ok(frames) => fetches.keep(frames),
            Err(error) => self.failed(&error),
        }
        asked
    }

    fn failed(&self, error: &ReadError) {
        let fault = match error {
            ReadError::Damaged(_) => Fault::Damaged(error.to_string()),
            _ => Fault::Stopped(error.to_string()),
        };
        *self.fault.borrow_mut() = Some(fault);
    }

    fn recent_from(&self) -> u64 {
        self.recent.front().map_or(self.last_index + 1, |entry| entry.index)
    }

    fn recent(&self, low: u64, high: u64, bytes_max: u64) -> Vec<Entry> {
        let skipped = usize::try_from(low - self.recent_from()).expect("it is in memory");
        let wanted = usize::try_from(high - low).expect("it is in memory");
        let mut bytes = 0;
        self.recent
            .iter()
            .skip(skipped)
            .take(wanted)
            .take_while(|entry| {
                let first = bytes == 0;
                bytes += entry.data.len() as u64 + 1;
                first || bytes <= bytes_max
            })
            .cloned()
            .collect()
    }

    fn stored(&self, low: u64, high: u64, bytes_max: u64) -> Vec<Entry> {
        match self.log.frames(low, high, bytes_max) {
            Ok(frames) => frames.into_iter().map(entry::from_frame).collect(),
            Err(error) => {
                self.failed(&error);
                Vec::new()
            }
        }
    }
}

impl Storage for LogStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        assert!(high <= self.last_index + 1, "Raft asks for entries that are there");
        if low < self.first_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let recent_from = self.recent_from();
        Ok(match low {
            low if low >= high => Vec::new(),
            low if low >= recent_from => self.recent(low, high, bytes_max),
            // Raft asks again for what is behind an answer that is shorter than its question.
            low if context.can_async() => {
                let high = high.min(recent_from);
                match self.log.frames_cached(low, high, bytes_max) {
                    Some(frames) => frames.into_iter().map(entry::from_frame).collect(),
                    None => {
                        let read = self.fetches.borrow_mut().ask(low, high, bytes_max, context);
                        read.ok_or(StorageError::LogTemporarilyUnavailable)?
                    }
                }
            }
            low => self.stored(low, high.min(recent_from), bytes_max),
        })
    }

    fn term(&self, raft_index: u64) -> raft::Result<u64> {
        if raft_index == self.last_index {
            return Ok(self.last_term);
        }
        let recent_from = self.recent_from();
        if raft_index >= recent_from && raft_index < self.last_index {
            let at = usize::try_from(raft_index - recent_from).expect("it is in memory");
            return Ok(self.recent[at].term);
        }
        let missing = match raft_index < self.first_index {
            true => StorageError::Compacted,
            false => StorageError::Unavailable,
        };
        self.log.term(raft_index).ok_or(raft::Error::Store(missing))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first_index)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let start = self.log.start();
        let membership = self.history.at(start.raft_index);
        let Some(membership) = membership.filter(|_| start.raft_index >= request_index) else {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let data = SnapshotStart {
            base_offset: start.base_offset,
            start_offset: self.log.bounds().start_offset,
            timestamp_ms: start.timestamp_ms,
            newest_replica: self.history.newest_replica(),
        };
        let mut snapshot =
            Snapshot { data: Bytes::from(data.encode_to_vec()), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (start.raft_index, start.term);
        // Raft takes a start only from a membership that it is in. Whoever came later learns until
        // it meets the entry that says so, and which then changes nothing.
        let mut membership = membership.clone();
        if !membership.replicas().any(|replica| replica == to) {
            membership.learners.push(to);
        }
        metadata.set_conf_state(membership.to_raft());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use dislog_log::Config;
    use dislog_log::fs::SimFs;

    use super::*;
    use crate::raft::transport::Membership;

    #[test]
    fn a_snapshot_says_who_was_given_up_before_the_log_begins() {
        let fs = Arc::new(SimFs::new(1));
        let (log, _) = Log::open(fs, Path::new("/"), Config::default()).unwrap();
        // Replica 4 came and went, and no step says so any more.
        let mut history = History::since(0, Membership::of(vec![1, 2]));
        history.knows(4);
        let storage = LogStorage::new(log, Vote::default(), history, 0);
        let snapshot = storage.snapshot(0, 5).unwrap();
        let (_, said) = SnapshotStart::of(&snapshot).unwrap();
        assert_eq!(said.newest_replica, 4);
    }
}
