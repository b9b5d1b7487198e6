//! The log: a list of segments, of which the last is written, and a tail in memory.
//!
//! One mutex guards what everyone reads (`State`), held for moments and never during I/O. Another
//! is held by whoever writes files (`Writer`): flush, truncate and trim take turns. A third is held
//! by whoever syncs, so that the next group can be written meanwhile; it is taken by the holder of
//! the writer, and so syncs come in the order of their writes. Frames enter through `stage` into
//! the tail, where they can be read at once; `flush` writes and syncs all that are staged, so that
//! everyone who staged while the last sync ran shares the next one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use dislog_types::batch::{BatchHeader, stamp};

use crate::checkpoint::{self, Checkpoint, StoredCheckpoint};
use crate::error::{Damage, LogError, SYNC};
use crate::frame::{Frame, Kind};
use crate::fs::Fs;
use crate::open_segments::OpenSegments;
use crate::segment::View;
use crate::store::StoreHeader;
use crate::tail::Tail;
use crate::writer::Writer;

/// The largest segment: positions in an index have 32 bits, and a segment may end one frame late.
pub const SEGMENT_BYTES_MAX: u64 = 2 << 30;

/// The smallest segment: smaller ones would be all header.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 10;

/// Bytes of frames written before they are synced, so that one flush ends in bounded time.
const FLUSH_BYTES_MAX: usize = 32 << 20;

/// Settings of one log.
#[derive(Clone, Debug)]
pub struct Config {
    /// A segment is sealed when it would grow past this many bytes; brought within
    /// [`SEGMENT_BYTES_MIN`] and [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// How many bytes of the newest frames stay in memory for readers.
    pub tail_bytes: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { segment_bytes: 128 << 20, tail_bytes: 1 << 20 }
    }
}

/// Where a log begins and ends. Offsets are of records, raft_index of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that can be read.
    pub start_offset: u64,
    /// One past the last offset, staged frames included.
    pub end_offset: u64,
    /// The first frame still in the log; one past `last_raft_index` if there is none.
    pub first_raft_index: u64,
    /// The last frame, staged ones included; 0 for a new log.
    pub last_raft_index: u64,
    /// The term of the last frame; 0 for a new log.
    pub last_term: u64,
    /// The last frame known to be on stable storage.
    pub durable_raft_index: u64,
    /// The timestamp of the last frame, Unix milliseconds.
    pub last_timestamp_ms: i64,
}

/// The position before a log's first frame: what a log that begins there needs to know of what was
/// before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStart {
    /// The frame before the first; 0 if there never was one.
    pub raft_index: u64,
    /// The term of that frame.
    pub term: u64,
    /// The timestamp of that frame, Unix milliseconds.
    pub timestamp_ms: i64,
    /// The offset of the next record, at most the start offset: segments are deleted whole.
    pub base_offset: u64,
}

/// What opening a log found.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// The newest checkpoint, if it could be read.
    pub checkpoint: Option<Checkpoint>,
    /// Bytes of an unfinished write that were cut off the end.
    pub torn_bytes: u64,
    /// Damage, the first if there is more. The log can be read outside of it, and refuses to be
    /// written.
    pub damage: Option<Damage>,
}

/// A record's place, given by [`Log::append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the batch's first record.
    pub base_offset: u64,
    /// The timestamp it was given.
    pub timestamp_ms: i64,
}

/// A sealed segment, for retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its first offset.
    pub base_offset: u64,
    /// One past its last offset.
    pub end_offset: u64,
    /// Bytes of its store.
    pub bytes: u64,
    /// The timestamp of its last frame.
    pub last_timestamp_ms: i64,
}

/// One log: a cheap handle, shared by its writer and its readers.
#[derive(Clone)]
pub struct Log(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub fs: Arc<dyn Fs>,
    pub dir: PathBuf,
    pub config: Mutex<Config>,
    pub state: Mutex<State>,
    /// `None` in a log that was opened damaged.
    pub writer: Mutex<Option<Writer>>,
    /// Held while a group is synced; taken after `writer`.
    pub syncing: Mutex<()>,
    pub open_segments: OpenSegments,
}

/// What becomes of staged frames that find no room.
#[derive(Clone, Copy)]
enum OnFull {
    /// They wait for it.
    Keep,
    /// They go, and those who staged them are told.
    Drop,
}

/// How far a flush goes.
#[derive(Clone, Copy)]
struct Target {
    raft_index: u64,
    /// Frames of later terms stay staged.
    term_max: u64,
}

/// What readers see.
///
/// - `views` are in order and meet; the last is the active segment's, as far as it is durable.
/// - The tail, if it has frames, ends where the log ends, and whatever is not in `views` is in the
///   tail.
pub(crate) struct State {
    pub bounds: Bounds,
    pub views: Vec<View>,
    pub tail: Tail,
    /// Why the log takes no more writes.
    pub fault: Option<LogError>,
    pub damage: Vec<Damage>,
    /// How often staged frames were dropped, so that those who staged them notice.
    pub dropped: u64,
}

impl Log {
    /// Opens the log in `dir`, creating it if it isn't there, and recovers it. Damage is not an
    /// error here: it is reported, and the log can be read around it.
    ///
    /// # Errors
    /// If the directory cannot be read, or its recovery cannot be written.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path, config: Config) -> Result<(Log, Recovery), LogError> {
        crate::open::open(fs, dir, config)
    }

    /// For embedded use, without Raft: appends one batch and returns when it is durable. Concurrent
    /// callers share syncs. `now_ms` is the time of day; the batch gets it, or that of the batch
    /// before if that is later.
    ///
    /// # Errors
    /// If the batch does not verify, or the log can't be written. After `DiskFull` nothing was
    /// appended.
    pub fn append(&self, mut batch: BytesMut, now_ms: i64) -> Result<Appended, LogError> {
        const TERM: u64 = 1;
        let header = BatchHeader::verify(&batch)?;
        let (frame, dropped) = {
            let mut state = self.state();
            state.writable()?;
            let bounds = state.bounds;
            stamp(&mut batch, bounds.end_offset, TERM);
            let frame = Frame {
                kind: Kind::Batch,
                term: TERM.max(bounds.last_term),
                raft_index: bounds.last_raft_index + 1,
                base_offset: bounds.end_offset,
                record_count: header.record_count,
                timestamp_ms: now_ms.max(bounds.last_timestamp_ms),
                payload: batch.freeze(),
            };
            state.push(frame.clone());
            (frame, state.dropped)
        };
        self.flush_until(frame.raft_index, dropped)?;
        Ok(Appended { base_offset: frame.base_offset, timestamp_ms: frame.timestamp_ms })
    }

    /// Puts frames behind the end, in memory: readable at once, durable after `flush`.
    ///
    /// # Errors
    /// If the log takes no more writes.
    ///
    /// # Panics
    /// If the frames do not extend the end: raft index, offset and timestamp.
    pub fn stage(&self, frames: Vec<Frame>) -> Result<(), LogError> {
        let mut state = self.state();
        state.writable()?;
        for frame in frames {
            state.push(frame);
        }
        Ok(())
    }

    /// Writes and syncs everything staged when it begins; returns the last durable raft index.
    /// Blocks, and waits for another that runs.
    ///
    /// # Errors
    /// `DiskFull` leaves the frames staged; anything else ends the log's writes for good.
    pub fn flush(&self) -> Result<u64, LogError> {
        self.flush_terms(u64::MAX)
    }

    /// As `flush`, but leaves frames of terms after `term_max` staged, also those that come while
    /// it runs: they must not be on disk before it is there that their term was entered.
    ///
    /// # Errors
    /// As `flush`.
    pub fn flush_terms(&self, term_max: u64) -> Result<u64, LogError> {
        let target = Target { raft_index: self.state().end_of_terms(term_max), term_max };
        self.flush_to(self.writer(), target, OnFull::Keep)
    }

    /// Writes what is staged while a sync runs, so that the next one finds it written; frames of
    /// terms after `term_max` stay staged. Does not wait for anybody who writes, or for the sync
    /// unless the disk is full: what it leaves, the next `flush` does.
    pub fn write_ahead(&self, term_max: u64) {
        if let Ok(mut writer) = self.0.writer.try_lock()
            && let Some(writer) = &mut *writer
        {
            // A failure that lasts is found again, and told, by the flush.
            let _ = self.write(writer, term_max, false);
        }
    }

    fn flush_until(&self, raft_index: u64, dropped: u64) -> Result<(), LogError> {
        let writer = self.writer();
        {
            let state = self.state();
            if state.dropped != dropped {
                return Err(LogError::DiskFull { path: self.0.dir.clone() });
            }
            if state.bounds.durable_raft_index >= raft_index {
                return Ok(());
            }
        }
        let raft_index = self.state().bounds.last_raft_index;
        let target = Target { raft_index, term_max: u64::MAX };
        self.flush_to(writer, target, OnFull::Drop).map(drop)
    }

    fn flush_to<'a>(
        &'a self,
        mut writer: MutexGuard<'a, Option<Writer>>,
        target: Target,
        on_full: OnFull,
    ) -> Result<u64, LogError> {
        loop {
            if let Some(durable) = self.reached(target)? {
                return Ok(durable);
            }
            let active =
                writer.as_mut().expect("only a damaged log has none, and it takes no frames");
            if let Err(error) = self.write(active, target.term_max, true) {
                if let (LogError::DiskFull { .. }, OnFull::Drop) = (&error, on_full) {
                    self.drop_unwritten(active);
                }
                return Err(error);
            }
            active.group_ends();
            let (view, store) = (active.view(), active.store());
            let syncing = self.syncing();
            drop(writer);
            // The sync before this one may have failed.
            self.state().writable()?;
            store.sync_data().map_err(|error| {
                self.stopped(LogError::of(SYNC, &view.segment.store_path, &error))
            })?;
            self.publish(view);
            drop(syncing);
            if let Some(durable) = self.reached(target)? {
                return Ok(durable);
            }
            writer = self.writer();
        }
    }

    /// The last durable frame, if that is `target` or as far as there are such frames.
    fn reached(&self, target: Target) -> Result<Option<u64>, LogError> {
        let state = self.state();
        let durable = state.writable()?.durable_raft_index;
        let end = target.raft_index.min(state.end_of_terms(target.term_max));
        Ok(Some(durable).filter(|&durable| durable >= end))
    }

    /// Drops the staged frames that found no room.
    fn drop_unwritten(&self, writer: &Writer) {
        let mut state = self.state();
        if state.bounds.last_raft_index >= writer.extent.end_raft_index {
            state.drop_staged(writer.extent.end_raft_index);
            state.dropped += 1;
        }
    }

    /// Writes what is staged and not yet written, up to a term, in as many segments as it needs if
    /// `may_roll`.
    fn write(&self, writer: &mut Writer, term_max: u64, may_roll: bool) -> Result<(), LogError> {
        let segment_bytes = self.segment_bytes();
        let written = writer.extent.end_raft_index - 1;
        let frames = {
            let state = self.state();
            state.writable()?;
            state.tail.after(written, term_max, FLUSH_BYTES_MAX)
        };
        let mut rest = &frames[..];
        loop {
            let mut extent = writer.extent;
            let fitting = rest.iter().take_while(|frame| {
                let fits = writer.fits(&extent, frame, segment_bytes);
                extent.end_position += frame.frame_bytes() as u64;
                extent.rows += 1;
                fits
            });
            let (now, later) = rest.split_at(fitting.count());
            if !now.is_empty() {
                let durable = self.state().bounds.durable_raft_index;
                writer.write(now, durable, segment_bytes).or_else(|error| {
                    // Whole frames of it may be in the file, and must not come to stand behind
                    // those that follow once there is room. After any other failure none follow.
                    if let LogError::DiskFull { .. } = error {
                        // Of two syncs at a time only one would be told that the disk failed.
                        let _syncing = self.syncing();
                        writer.cut(writer.extent).map_err(|error| self.stopped(error))?;
                    }
                    Err(self.stopped(error))
                })?;
            }
            if later.is_empty() || !may_roll {
                return Ok(());
            }
            self.roll(writer).map_err(|error| self.stopped(error))?;
            rest = later;
        }
    }

    /// Takes note of a failure: but for a full disk it ends the log's writes for good.
    fn stopped(&self, error: LogError) -> LogError {
        if !matches!(error, LogError::DiskFull { .. }) {
            self.state().fault.get_or_insert(error.clone());
        }
        error
    }

    /// Makes known to readers that the active segment is durable as far as `view`.
    fn publish(&self, view: View) {
        let tail_bytes = self.0.config.lock().expect("no panic while it is held").tail_bytes;
        let mut state = self.state();
        let durable = view.extent.end_raft_index - 1;
        *state.views.last_mut().expect("a log has an active segment") = view;
        state.bounds.durable_raft_index = durable;
        state.tail.shrink(durable, tail_bytes);
    }

    /// Seals the active segment and begins another.
    fn roll(&self, writer: &mut Writer) -> Result<(), LogError> {
        let _syncing = self.syncing();
        self.state().writable()?;
        writer.seal()?;
        self.publish(writer.view());
        let next = writer.create_next(&*self.0.fs, &self.0.dir, self.0.fs.random())?;
        let sealed = std::mem::replace(writer, next);
        self.0.open_segments.touch(&sealed.segment);
        self.state().views.push(writer.view());
        Ok(())
    }

    /// Removes all frames from `raft_index` on (a Raft conflict), durably. Waits for a running
    /// flush. The caller asserts that none of them was committed.
    ///
    /// # Errors
    /// If the files cannot be cut; the log then takes no more writes.
    pub fn truncate(&self, raft_index: u64) -> Result<(), LogError> {
        let mut writer = self.writer();
        let _syncing = self.syncing();
        let mut state = self.state();
        state.writable()?;
        assert!(raft_index >= state.bounds.first_raft_index, "a cut within the log");
        let writer = writer.as_mut().expect("only a damaged log has none, and it takes no cuts");
        let unwritten = writer.extent.end_raft_index;
        state.drop_staged(raft_index.max(unwritten));
        state.dropped += 1;
        drop(state);
        if raft_index >= unwritten {
            return Ok(());
        }
        self.cut_files(writer, raft_index).map_err(|error| self.stopped(error))
    }

    fn cut_files(&self, writer: &mut Writer, raft_index: u64) -> Result<(), LogError> {
        let fs = &*self.0.fs;
        while writer.segment.header.base_raft_index > raft_index {
            let (emptied, before) = {
                let mut state = self.state();
                let emptied = state.views.pop().expect("the active segment");
                (emptied, state.views.last().expect("the cut lies within the log").clone())
            };
            for path in [&emptied.segment.store_path, &emptied.segment.index_path] {
                fs.remove(path).map_err(|e| LogError::of("remove", path, &e))?;
            }
            fs.sync_dir(&self.0.dir).map_err(|e| LogError::of(SYNC, &self.0.dir, &e))?;
            *writer = Writer::resume(fs, before)?;
        }
        let view = writer.view();
        let extent = crate::read::extent_before(fs, &view, raft_index).map_err(|error| {
            LogError::Stopped {
                operation: "read",
                path: view.segment.store_path.clone(),
                message: error.to_string(),
            }
        })?;
        writer.cut(extent)?;
        let mut state = self.state();
        *state.views.last_mut().expect("the active segment") = writer.view();
        state.tail.clear();
        state.bounds.durable_raft_index = extent.end_raft_index - 1;
        state.end_at(&extent);
        Ok(())
    }

    /// Moves the start to that of `checkpoint` (never back, at most the end), durably, and deletes
    /// the segments wholly below it. The checkpoint describes an applied position, behind which no
    /// frame is deleted.
    ///
    /// # Errors
    /// If the checkpoint cannot be written, or a file not be deleted. The start has moved only if
    /// the checkpoint was written; what was not deleted is at the next start.
    pub fn trim(&self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let _writer = self.writer();
        self.put_checkpoint(checkpoint)?;
        let removed: Vec<View> = {
            let mut state = self.state();
            // A log that began anew may end below its start: what is between is still to come.
            let bounds = &mut state.bounds;
            let start = checkpoint.start_offset.min(bounds.end_offset).max(bounds.start_offset);
            bounds.start_offset = start;
            let sealed = state.views.len().saturating_sub(1);
            let below = state.views[..sealed].iter().take_while(|view| {
                let applied = view.extent.end_raft_index <= checkpoint.raft_index + 1;
                applied && view.extent.end_offset <= start
            });
            let count = below.count();
            let removed = state.views.drain(..count).collect();
            if let Some(first) = state.views.first() {
                state.bounds.first_raft_index = first.segment.header.base_raft_index;
            }
            removed
        };
        for view in &removed {
            self.0.open_segments.forget(&view.segment);
            for path in [&view.segment.store_path, &view.segment.index_path] {
                self.0.fs.remove(path).map_err(|e| LogError::of("remove", path, &e))?;
            }
        }
        Ok(())
    }

    /// Where the log begins.
    #[must_use]
    pub fn start(&self) -> LogStart {
        let state = self.state();
        let header = state.views.first().expect("a log has an active segment").segment.header;
        LogStart {
            raft_index: header.base_raft_index - 1,
            term: header.previous_term,
            timestamp_ms: header.previous_timestamp_ms,
            base_offset: header.base_offset,
        }
    }

    /// Gives up everything in the log and begins anew at `start`, of which `checkpoint` speaks,
    /// durably: its peers have nothing before that any more. Interrupted by a crash, the log is
    /// left as it was, shorter, or empty.
    ///
    /// # Errors
    /// If a file cannot be removed or created; the log then takes no more writes.
    ///
    /// # Panics
    /// If the checkpoint is of another position.
    pub fn reset(&self, start: &LogStart, checkpoint: &Checkpoint) -> Result<(), LogError> {
        assert_eq!(checkpoint.raft_index, start.raft_index, "the checkpoint is of the start");
        let mut writer = self.writer();
        let syncing = self.syncing();
        self.state().writable()?;
        let writer_slot = writer.as_mut().expect("only a damaged log has none");
        self.begin_anew(writer_slot, start).map_err(|error| self.stopped(error))?;
        self.state().bounds.start_offset = checkpoint.start_offset.max(start.base_offset);
        drop(syncing);
        self.put_checkpoint(checkpoint).map_err(|error| self.stopped(error))
    }

    fn begin_anew(&self, writer: &mut Writer, start: &LogStart) -> Result<(), LogError> {
        let (fs, dir) = (&*self.0.fs, &self.0.dir);
        checkpoint::remove(fs, dir)?;
        let views = {
            let mut state = self.state();
            state.tail.clear();
            state.dropped += 1;
            state.views.clone()
        };
        // The last first: whatever is left by a crash is a log.
        for view in views.iter().rev() {
            self.0.open_segments.forget(&view.segment);
            for path in [&view.segment.store_path, &view.segment.index_path] {
                fs.remove(path).map_err(|e| LogError::of("remove", path, &e))?;
            }
            fs.sync_dir(dir).map_err(|e| LogError::of(SYNC, dir, &e))?;
        }
        let header = StoreHeader {
            segment_id: fs.random(),
            base_offset: start.base_offset,
            base_raft_index: start.raft_index + 1,
            previous_term: start.term,
            previous_timestamp_ms: start.timestamp_ms,
        };
        *writer = Writer::create(fs, dir, header)?;
        let mut state = self.state();
        state.views = vec![writer.view()];
        state.end_at(&writer.extent);
        state.bounds.first_raft_index = header.base_raft_index;
        state.bounds.durable_raft_index = start.raft_index;
        Ok(())
    }

    /// Replaces the checkpoint, durably.
    ///
    /// # Errors
    /// If it cannot be written; the old one is then still there. The log itself goes on.
    pub fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let _writer = self.writer();
        self.put_checkpoint(checkpoint)
    }

    fn put_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let bounds = {
            let state = self.state();
            if let Some(damage) = state.damage.first() {
                return Err(LogError::Damaged(damage.clone()));
            }
            state.bounds
        };
        assert!(
            checkpoint.raft_index <= bounds.durable_raft_index,
            "a checkpoint at {} of a log that is durable up to {}",
            checkpoint.raft_index,
            bounds.durable_raft_index
        );
        let end_offset =
            self.end_offset_at(checkpoint.raft_index).unwrap_or(checkpoint.start_offset);
        let stored = StoredCheckpoint { checkpoint: checkpoint.clone(), end_offset };
        checkpoint::write(&*self.0.fs, &self.0.dir, &stored)
    }

    /// Where the log begins and ends.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.state().bounds
    }

    /// Bytes of the store files, as far as they are durable.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.state().views.iter().map(|view| view.extent.end_position).sum()
    }

    /// How many segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.state().views.len()
    }

    /// The Raft index that the segment which is written to begins with: another one once that
    /// segment was sealed.
    #[must_use]
    pub fn active_segment_raft_index(&self) -> u64 {
        let state = self.state();
        let active = state.views.last().expect("there is always one that is written to");
        active.segment.header.base_raft_index
    }

    /// The sealed segments, oldest first: what retention decides on.
    #[must_use]
    pub fn sealed_segments(&self) -> Vec<SealedSegment> {
        let state = self.state();
        let sealed = state.views.len().saturating_sub(1);
        let describe = |view: &View| SealedSegment {
            base_offset: view.segment.header.base_offset,
            end_offset: view.extent.end_offset,
            bytes: view.extent.end_position,
            last_timestamp_ms: view.extent.last_timestamp_ms,
        };
        state.views[..sealed].iter().map(describe).collect()
    }

    /// From the next frame on, seal segments at another size.
    pub fn set_segment_bytes(&self, segment_bytes: u64) {
        self.0.config.lock().expect("no panic while it is held").segment_bytes = segment_bytes;
    }

    fn segment_bytes(&self) -> u64 {
        let config = self.0.config.lock().expect("no panic while it is held");
        config.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no thread panics while it holds the state")
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.0.writer.lock().expect("no thread panics while it writes")
    }

    fn syncing(&self) -> MutexGuard<'_, ()> {
        self.0.syncing.lock().expect("no thread panics while it syncs")
    }
}

impl State {
    /// The bounds, if the log takes writes.
    fn writable(&self) -> Result<Bounds, LogError> {
        self.fault.clone().map_or(Ok(self.bounds), Err)
    }

    /// The last frame of a term up to `term_max`; or the last durable one, if that is later.
    fn end_of_terms(&self, term_max: u64) -> u64 {
        let Bounds { last_term, last_raft_index, durable_raft_index, .. } = self.bounds;
        if last_term <= term_max {
            return last_raft_index;
        }
        self.tail
            .end_of_terms(term_max)
            .map_or(durable_raft_index, |end| end.max(durable_raft_index))
    }

    fn push(&mut self, frame: Frame) {
        let bounds = &mut self.bounds;
        assert_eq!(frame.raft_index, bounds.last_raft_index + 1, "a frame extends the log");
        assert_eq!(frame.base_offset, bounds.end_offset, "a frame begins where the log ends");
        assert!(frame.timestamp_ms >= bounds.last_timestamp_ms, "time never goes back in a log");
        assert!(frame.kind == Kind::Batch || frame.record_count == 0, "only batches have records");
        bounds.last_raft_index = frame.raft_index;
        bounds.last_term = frame.term;
        bounds.end_offset = frame.end_offset();
        bounds.last_timestamp_ms = frame.timestamp_ms;
        self.tail.push(frame);
    }

    /// Drops frames that were staged and are not durable, from `raft_index` on.
    fn drop_staged(&mut self, raft_index: u64) {
        assert!(raft_index > self.bounds.durable_raft_index, "durable frames are not staged");
        self.tail.truncate(raft_index);
        if let Some(last) =
            self.tail.last().map(|frame| (frame.term, frame.timestamp_ms, frame.end_offset()))
        {
            self.bounds.last_raft_index =
                raft_index.saturating_sub(1).min(self.bounds.last_raft_index);
            (self.bounds.last_term, self.bounds.last_timestamp_ms, self.bounds.end_offset) = last;
        } else {
            let extent = self.views.last().expect("a log has an active segment").extent;
            self.end_at(&extent);
        }
    }

    /// The log ends where its files end.
    fn end_at(&mut self, extent: &crate::segment::Extent) {
        self.bounds.last_raft_index = extent.end_raft_index - 1;
        self.bounds.last_term = extent.last_term;
        self.bounds.end_offset = extent.end_offset;
        self.bounds.last_timestamp_ms = extent.last_timestamp_ms;
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.0.dir).field("bounds", &self.bounds()).finish()
    }
}

/// The payload of a trim frame: the first offset to keep.
#[must_use]
pub fn trim_payload(start_offset: u64) -> Bytes {
    Bytes::copy_from_slice(&start_offset.to_le_bytes())
}
