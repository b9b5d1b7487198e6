//! Entries for a follower that is far behind: read by a thread, not by the driver.
//!
//! What Raft wants to send and is not in memory it does not get at once. It is noted here, a thread
//! reads it, and then Raft asks again. So a follower that catches up on many segments makes nobody
//! wait who appends. One read per group is under way at a time.

use std::collections::BTreeMap;

use dislog_log::{Frame, Log, ReadError};
use raft::GetEntriesContext;
use raft::eraftpb::Entry;

use super::entry;
use super::group::Group;
use super::rim::{CatchUp, Rim};
use super::sync_threads::Job;

/// Positions that are asked for and not read yet: about as many as a group has followers. Whoever
/// finds no place asks again with the next heartbeat.
const WANTED_MAX: usize = 8;

/// Who asked for one position, followers in turn or the same one repeatedly; as above.
const ASKED_MAX: usize = 8;

/// Reads entries from a log.
pub(crate) struct FetchJob {
    pub(super) group: u64,
    pub(super) log: Log,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) bytes_max: u64,
}

/// What a [`FetchJob`] came to.
pub(crate) struct Fetched {
    pub(super) group: u64,
    pub(super) from: u64,
    /// What was read beyond what was to be.
    pub(super) beyond_bytes: u64,
    pub(super) result: Result<Vec<Frame>, ReadError>,
}

impl FetchJob {
    /// Reads; blocks.
    pub(super) fn work(&self) -> Fetched {
        let result = self.log.frames(self.from, self.to, self.bytes_max);
        let bytes = result.iter().flatten().map(|frame| frame.payload.len() as u64).sum::<u64>();
        let beyond_bytes = bytes.saturating_sub(self.bytes_max);
        Fetched { group: self.group, from: self.from, beyond_bytes, result }
    }
}

/// What is wanted, what is being read, and what was read last.
#[derive(Default)]
pub(super) struct Fetches {
    /// By the first entry.
    wanted: BTreeMap<u64, Wanted>,
    under_way: Option<UnderWay>,
    /// When to go on, if others had their turn first, Unix milliseconds.
    put_off_ms: Option<i64>,
    read: Vec<Entry>,
}

struct Wanted {
    to: u64,
    bytes_max: u64,
    asked: Vec<GetEntriesContext>,
}

struct UnderWay {
    from: u64,
    asked: Vec<GetEntriesContext>,
    /// The log was cut meanwhile: what is read may not be what it has.
    stale: bool,
}

impl Fetches {
    /// The entries from `from` on if they were read; otherwise takes note that they are wanted.
    pub(super) fn ask(
        &mut self,
        from: u64,
        to: u64,
        bytes_max: u64,
        context: GetEntriesContext,
    ) -> Option<Vec<Entry>> {
        if self.read.first().is_some_and(|entry| entry.index == from) {
            let mut entries = self.read.clone();
            entries.truncate(usize::try_from(to - from).unwrap_or(usize::MAX));
            raft::util::limit_size(&mut entries, Some(bytes_max));
            return Some(entries);
        }
        let under_way = self.under_way.as_mut().filter(|reading| reading.from == from);
        let asked = if let Some(reading) = under_way.filter(|reading| !reading.stale) {
            &mut reading.asked
        } else if self.wanted.len() < WANTED_MAX || self.wanted.contains_key(&from) {
            let wanted = || Wanted { to, bytes_max, asked: Vec::new() };
            &mut self.wanted.entry(from).or_insert_with(wanted).asked
        } else {
            return None;
        };
        if asked.len() < ASKED_MAX {
            asked.push(context);
        }
        None
    }

    /// Forgets what was read: the log is to be another.
    pub(super) fn clear(&mut self) {
        self.read.clear();
        self.wanted.clear();
        if let Some(under_way) = &mut self.under_way {
            under_way.stale = true;
        }
    }

    /// Whether a thread reads.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// When there is more to read, if it was put off.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        self.put_off_ms
    }

    /// What is to be read next, if it may be now: from, to, and how much.
    pub(super) fn next(&mut self, catch_up: &mut CatchUp, now_ms: i64) -> Option<(u64, u64, u64)> {
        self.put_off_ms = None;
        let (_, first) = self.wanted.first_key_value().filter(|_| self.under_way.is_none())?;
        if let Err(again_ms) = catch_up.begin(first.bytes_max, now_ms) {
            self.put_off_ms = Some(again_ms);
            return None;
        }
        let (from, Wanted { to, bytes_max, asked }) = self.wanted.pop_first()?;
        self.under_way = Some(UnderWay { from, asked, stale: false });
        Some((from, to, bytes_max))
    }

    /// Reading ended: who is to ask again, and whether what was read is still worth anything.
    pub(super) fn end(&mut self) -> (Vec<GetEntriesContext>, bool) {
        self.read.clear();
        let ended = self.under_way.take();
        ended.map_or_else(Default::default, |UnderWay { asked, stale, .. }| (asked, !stale))
    }

    /// Keeps what was read for those who ask again.
    pub(super) fn keep(&mut self, frames: Vec<Frame>) {
        self.read = frames.into_iter().map(entry::from_frame).collect();
    }
}

impl Group {
    /// Has a thread read what followers lack, if one is to be read for.
    pub(super) fn begin_fetch(&mut self, rim: &mut Rim) {
        if let Some(job) = self.node.mut_store().next_fetch(self.shared.group, rim) {
            rim.threads.take(Job::Fetch(job));
        }
    }

    /// A thread has read.
    pub(super) fn fetched(&mut self, fetched: Fetched, rim: &mut Rim) {
        rim.catch_up.read(fetched.beyond_bytes, rim.now_ms);
        let asked = self.node.mut_store().fetched(fetched);
        if self.stopped || self.installing.is_some() {
            return;
        }
        for context in asked {
            self.node.on_entries_fetched(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_read_is_not_read_again() {
        let (mut fetches, mut catch_up) = (Fetches::default(), CatchUp::default());
        let ask = |fetches: &mut Fetches, from| {
            assert!(fetches.ask(from, 9, 1, GetEntriesContext::empty(true)).is_none());
        };
        ask(&mut fetches, 5);
        assert_eq!(fetches.next(&mut catch_up, 0), Some((5, 9, 1)));
        ask(&mut fetches, 5);
        let (asked, is_current) = fetches.end();
        assert_eq!((asked.len(), is_current), (2, true));
        assert_eq!(fetches.next(&mut catch_up, 0), None);

        // Unless it is that of a log that was cut.
        ask(&mut fetches, 5);
        assert_eq!(fetches.next(&mut catch_up, 0), Some((5, 9, 1)));
        fetches.clear();
        ask(&mut fetches, 5);
        let (asked, is_current) = fetches.end();
        assert_eq!((asked.len(), is_current), (1, false));
        assert_eq!(fetches.next(&mut catch_up, 0), Some((5, 9, 1)));
    }
}
