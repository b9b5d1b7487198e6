//! The `new-start` file: where a log is to begin anew, as long as it has not.
//!
//! ```text
//!  0  magic     u32  "DLS1"
//!  4  CRC-32C   u32  of all that follows
//!  8  start          Protocol Buffers, see [`NewStart`]
//! ```
//!
//! To begin anew takes many steps: members, the segments one by one, the first of the new log, a
//! checkpoint. A replica that was interrupted between them would have lost what it acknowledged and
//! not have what was to take its place, and count for nothing; of two such replicas the group would
//! not recover. So the file comes first and goes last, and opening the log finishes what it says.

use std::io;
use std::path::{Path, PathBuf};

use dislog_log::fs::Fs;
use dislog_log::{Checkpoint, Log, LogError, LogStart};
use dislog_types::checksum::crc32c;
use prost::Message;

use super::members_file::{self, History};
use super::sync_threads::file_error;
use crate::atomic_file;
use crate::partition::state_machine::StateMachine;

/// The name of the file in a partition's directory.
const FILE_NAME: &str = "new-start";

const MAGIC: [u8; 4] = *b"DLS1";
const HEADER_BYTES: usize = 8;

/// Where a log begins, and who belongs to its group there.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct NewStart {
    #[prost(uint64, tag = "1")]
    raft_index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    /// Of the entry at `raft_index`.
    #[prost(sint64, tag = "3")]
    timestamp_ms: i64,
    /// The offset of the first record behind it.
    #[prost(uint64, tag = "4")]
    base_offset: u64,
    /// The first offset that is retained.
    #[prost(uint64, tag = "5")]
    start_offset: u64,
    #[prost(message, required, tag = "6")]
    pub(super) history: History,
}

impl NewStart {
    pub(super) fn new(start: &LogStart, start_offset: u64, history: History) -> NewStart {
        let LogStart { raft_index, term, timestamp_ms, base_offset } = *start;
        NewStart { raft_index, term, timestamp_ms, base_offset, start_offset, history }
    }

    /// The state at the start.
    pub(super) fn machine(&self) -> StateMachine {
        let mut machine = StateMachine::new(self.raft_index, self.start_offset, self.base_offset);
        machine.last_timestamp_ms = self.timestamp_ms;
        machine
    }

    /// Has the log in `dir` begin here. Interrupted behind its first step, it is finished when the
    /// log is opened.
    ///
    /// # Errors
    /// If something cannot be written.
    pub(super) fn begin(&self, fs: &dyn Fs, dir: &Path, log: &Log) -> Result<(), LogError> {
        let failed = |error: io::Error| file_error(path(dir), &error);
        atomic_file::replace(fs, &path(dir), &encode(self)).map_err(failed)?;
        self.go_on(fs, dir, log)
    }

    fn go_on(&self, fs: &dyn Fs, dir: &Path, log: &Log) -> Result<(), LogError> {
        members_file::write(fs, dir, &self.history)
            .map_err(|error| file_error(members_file::path(dir), &error))?;
        log.reset(&self.log_start(), &self.machine().checkpoint())?;
        // Before anything is appended: it would be given up with what was there before.
        let removed = fs.remove(&path(dir)).and_then(|()| fs.sync_dir(dir));
        removed.map_err(|error| file_error(path(dir), &error))
    }

    fn log_start(&self) -> LogStart {
        LogStart {
            raft_index: self.raft_index,
            term: self.term,
            timestamp_ms: self.timestamp_ms,
            base_offset: self.base_offset,
        }
    }
}

/// Finishes what was interrupted, if anything was; the log then has this checkpoint. A file that is
/// not as it was written is ignored: what it was about shows in the log and its members.
///
/// # Errors
/// If something cannot be read or written.
pub(super) fn finish(fs: &dyn Fs, dir: &Path, log: &Log) -> Result<Option<Checkpoint>, LogError> {
    let content = atomic_file::read(fs, &path(dir));
    let content = content.map_err(|error| file_error(path(dir), &error))?;
    let Some(start) = content.as_deref().and_then(decode) else { return Ok(None) };
    let raft_index = start.raft_index;
    tracing::info!(dir = %dir.display(), raft_index, "goes on with beginning anew");
    start.go_on(fs, dir, log)?;
    Ok(Some(start.machine().checkpoint()))
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

fn encode(start: &NewStart) -> Vec<u8> {
    let mut content = vec![0; HEADER_BYTES];
    start.encode(&mut content).expect("a vector grows as needed");
    let crc = crc32c(&content[HEADER_BYTES..]);
    content[0..4].copy_from_slice(&MAGIC);
    content[4..8].copy_from_slice(&crc.to_le_bytes());
    content
}

fn decode(content: &[u8]) -> Option<NewStart> {
    let (header, body) = content.split_first_chunk::<HEADER_BYTES>()?;
    if header[0..4] != MAGIC || header[4..8] != crc32c(body).to_le_bytes() {
        return None;
    }
    NewStart::decode(body).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dislog_log::fs::{SimFaults, SimFs};
    use dislog_log::{Config, Log};

    use super::super::transport::Membership;
    use super::*;

    const STEPS_MAX: u64 = 60;

    fn start() -> NewStart {
        let history = History::since(122, Membership::of(vec![1, 2, 3]));
        let start = LogStart { raft_index: 122, term: 2, timestamp_ms: 7, base_offset: 230 };
        NewStart::new(&start, 236, history)
    }

    /// A log that was to begin anew when the power was cut, `steps` steps later.
    fn interrupted(seed: u64, steps: u64) -> (SimFs, bool) {
        let (fs, dir) = (SimFs::new(seed), Path::new("/data/t-0"));
        let (log, _) = Log::open(Arc::new(fs.clone()), dir, Config::default()).unwrap();
        fs.arm(SimFaults { crash_after: Some(steps), ..SimFaults::default() });
        let done = start().begin(&fs, dir, &log).is_ok();
        fs.crash();
        (fs, done)
    }

    #[test]
    fn interrupted_anywhere_it_is_as_before_or_finished_at_the_next_start() {
        let dir = Path::new("/data/t-0");
        let (mut before, mut finished) = (0, 0);
        for (seed, steps) in (0..20).flat_map(|seed| (0..STEPS_MAX).map(move |it| (seed, it))) {
            let (fs, done) = interrupted(seed, steps);
            let (log, recovery) = Log::open(Arc::new(fs.clone()), dir, Config::default()).unwrap();
            assert_eq!(recovery.damage, None);
            let begun = finish(&fs, dir, &log).unwrap();
            let first = log.bounds().first_raft_index;
            if first == 1 {
                assert!(!done && begun.is_none(), "seed {seed}, {steps} steps");
                before += 1;
                continue;
            }
            let members = members_file::read(&fs, dir).unwrap();
            assert_eq!(members, members_file::StoredHistory::History(start().history));
            assert_eq!((first, log.bounds().start_offset), (123, 236));
            finished += u64::from(begun.is_some());
            assert_eq!(finish(&fs, dir, &log).unwrap(), None, "it is done once");
        }
        assert!(before > 20 && finished > 20, "{before} as before, {finished} finished");
    }

    #[test]
    fn a_file_that_is_not_as_it_was_written_says_nothing() {
        let good = encode(&start());
        assert_eq!(decode(&good), Some(start()));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
    }
}
