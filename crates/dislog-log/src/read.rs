//! Reading a log: from the tail if memory has it, else from the segment that holds it.

use crate::error::{Damage, ReadError};
use crate::frame::Frame;
use crate::fs::Fs;
use crate::log::{Log, State};
use crate::segment::{Extent, View};

impl Log {
    /// The batch that holds `offset` and those behind it, ending by `limit_offset` (where a batch
    /// ends), about `bytes_max` in all but at least one. None at `offset == limit_offset`. What is
    /// returned was verified.
    ///
    /// # Errors
    /// If the offset is outside the log, or its batch is damaged or cannot be read.
    pub fn read(
        &self,
        offset: u64,
        limit_offset: u64,
        bytes_max: usize,
    ) -> Result<Vec<Frame>, ReadError> {
        let view = {
            let state = self.state();
            if let Some(answer) = state.read_cached(offset, limit_offset, bytes_max) {
                return answer;
            }
            state.view_of_offset(offset)?
        };
        self.touch(&view);
        let read = view.read_batches(&*self.0.fs, offset, limit_offset, bytes_max);
        read.map_err(|error| self.explain(error, offset))
    }

    /// As [`read`](Log::read), if memory alone can answer.
    #[must_use]
    pub fn read_cached(
        &self,
        offset: u64,
        limit_offset: u64,
        bytes_max: usize,
    ) -> Option<Vec<Frame>> {
        self.state().read_cached(offset, limit_offset, bytes_max)?.ok()
    }

    /// Frames of every kind from one raft index up to, not including, another; about `bytes_max`
    /// but at least one, and fewer where a segment ends.
    ///
    /// # Errors
    /// If `from` is outside the log, damaged, or cannot be read.
    pub fn frames(&self, from: u64, to: u64, bytes_max: u64) -> Result<Vec<Frame>, ReadError> {
        let view = {
            let state = self.state();
            let bytes = usize::try_from(bytes_max).unwrap_or(usize::MAX);
            if let Some(frames) = state.tail.frames(from, to, bytes) {
                return Ok(frames);
            }
            state.view_of_raft_index(from).ok_or_else(|| state.outside(from))?
        };
        self.touch(&view);
        view.read_frames(&*self.0.fs, from, to, bytes_max)
    }

    /// As [`frames`](Log::frames), if the first of them is in memory; does not block.
    #[must_use]
    pub fn frames_cached(&self, from: u64, to: u64, bytes_max: u64) -> Option<Vec<Frame>> {
        let bytes = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        self.state().tail.frames(from, to, bytes)
    }

    /// The term of a raft index from one before the first frame to the last; `None` outside of
    /// that, and where the log is damaged.
    #[must_use]
    pub fn term(&self, raft_index: u64) -> Option<u64> {
        let view = {
            let state = self.state();
            if let Some(frame) = state.tail.get(raft_index) {
                return Some(frame.term);
            }
            if raft_index == state.bounds.last_raft_index {
                return Some(state.bounds.last_term);
            }
            let first = state.views.first()?.segment.header;
            if raft_index + 1 == first.base_raft_index {
                return Some(first.previous_term);
            }
            state.view_of_raft_index(raft_index)?
        };
        self.touch(&view);
        let fs = &*self.0.fs;
        let number = view
            .segment
            .partition_point(fs, &view.extent, |row| row.raft_index < raft_index)
            .ok()?;
        if number == view.extent.rows {
            return None;
        }
        let row = view.segment.row(fs, &view.extent, number).ok()?;
        (row.raft_index == raft_index).then_some(row.term)
    }

    /// The first offset whose frame has a timestamp at or after `timestamp_ms`, Unix milliseconds,
    /// but not below the start; the end offset if none has.
    ///
    /// # Errors
    /// If an index cannot be read or made anew.
    pub fn offset_at(&self, timestamp_ms: i64) -> Result<u64, ReadError> {
        let (view, bounds) = {
            let state = self.state();
            if timestamp_ms > state.bounds.last_timestamp_ms {
                return Ok(state.bounds.end_offset);
            }
            if let Some(frame) = state.tail.at_time(timestamp_ms) {
                return Ok(frame.base_offset.max(state.bounds.start_offset));
            }
            let number =
                state.views.partition_point(|view| view.extent.last_timestamp_ms < timestamp_ms);
            (state.views.get(number).cloned(), state.bounds)
        };
        // Behind all that is durable, so in the tail, whose first frame it is then.
        let Some(view) = view else {
            let state = self.state();
            let durable = state.views.last().map_or(0, |view| view.extent.end_offset);
            return Ok(durable.max(state.bounds.start_offset));
        };
        self.touch(&view);
        let fs = &*self.0.fs;
        let before = |row: &crate::index::Row| row.timestamp_ms < timestamp_ms;
        let number = view.segment.partition_point(fs, &view.extent, before)?;
        let offset = if number == view.extent.rows {
            view.extent.end_offset
        } else {
            view.segment.row(fs, &view.extent, number)?.base_offset
        };
        Ok(offset.max(bounds.start_offset))
    }

    /// One past the last offset when `raft_index` was the last frame.
    pub(crate) fn end_offset_at(&self, raft_index: u64) -> Option<u64> {
        let frames = self.frames(raft_index, raft_index + 1, 1).ok()?;
        frames.first().map(Frame::end_offset)
    }

    /// Notes the use of a sealed segment.
    fn touch(&self, view: &View) {
        let active = {
            let state = self.state();
            state
                .views
                .last()
                .is_some_and(|last| std::sync::Arc::ptr_eq(&last.segment, &view.segment))
        };
        if !active {
            self.0.open_segments.touch(&view.segment);
        }
    }

    /// A segment may be trimmed while it is read; and a damage is reported as recovery found it.
    fn explain(&self, error: ReadError, offset: u64) -> ReadError {
        let state = self.state();
        if offset < state.bounds.start_offset {
            return ReadError::Trimmed { offset, start_offset: state.bounds.start_offset };
        }
        state.damage_at(offset).map_or(error, ReadError::Damaged)
    }
}

impl State {
    /// What can be said of `offset` without a file; `None` if a file is needed.
    fn read_cached(
        &self,
        offset: u64,
        limit_offset: u64,
        bytes_max: usize,
    ) -> Option<Result<Vec<Frame>, ReadError>> {
        let Bounds { start_offset, end_offset, .. } = self.bounds;
        if offset < start_offset {
            return Some(Err(ReadError::Trimmed { offset, start_offset }));
        }
        if offset > end_offset {
            return Some(Err(ReadError::BeyondEnd { offset, end_offset }));
        }
        if offset >= limit_offset.min(end_offset) {
            return Some(Ok(Vec::new()));
        }
        self.tail.batches(offset, limit_offset, bytes_max).map(Ok)
    }

    fn view_of_offset(&self, offset: u64) -> Result<View, ReadError> {
        if let Some(damage) = self.damage_at(offset) {
            return Err(ReadError::Damaged(damage));
        }
        let behind = self.views.partition_point(|view| view.segment.header.base_offset <= offset);
        let start_offset = self.bounds.start_offset;
        let number = behind.checked_sub(1).ok_or(ReadError::Trimmed { offset, start_offset })?;
        Ok(self.views[number].clone())
    }

    fn view_of_raft_index(&self, raft_index: u64) -> Option<View> {
        let behind =
            self.views.partition_point(|view| view.segment.header.base_raft_index <= raft_index);
        let view = &self.views[behind.checked_sub(1)?];
        (raft_index < view.extent.end_raft_index).then(|| view.clone())
    }

    fn damage_at(&self, offset: u64) -> Option<Damage> {
        let holds = |damage: &&Damage| damage.from_offset <= offset && offset < damage.to_offset;
        self.damage.iter().find(holds).cloned()
    }

    fn outside(&self, raft_index: u64) -> ReadError {
        let Bounds { start_offset, end_offset, first_raft_index, .. } = self.bounds;
        if raft_index < first_raft_index {
            ReadError::Trimmed { offset: start_offset, start_offset }
        } else {
            ReadError::BeyondEnd { offset: end_offset, end_offset }
        }
    }
}

use crate::log::Bounds;

/// The extent of the frames of `view` before `raft_index`.
pub(crate) fn extent_before(
    fs: &dyn Fs,
    view: &View,
    raft_index: u64,
) -> Result<Extent, ReadError> {
    let View { segment, extent } = view;
    let rows = segment.partition_point(fs, extent, |row| row.raft_index < raft_index)?;
    let Some(last_row) = rows.checked_sub(1) else {
        return Ok(Extent::empty(&segment.header));
    };
    let wanted = crate::segment::Wanted { first_row: last_row, end_row: rows, bytes_max: 0 };
    let last = segment.read(fs, extent, &wanted)?.pop().expect("a read gives a frame or an error");
    let position = segment.row(fs, extent, last_row)?.position;
    Ok(Extent {
        rows,
        end_position: position + last.frame_bytes() as u64,
        end_offset: last.end_offset(),
        end_raft_index: last.raft_index + 1,
        last_term: last.term,
        last_timestamp_ms: last.timestamp_ms,
    })
}
