//! The newest frames, in memory: those not yet durable, and some behind them for readers.

use std::collections::VecDeque;

use crate::frame::{Frame, Kind};

/// Frames at consecutive raft indexes up to the end of the log.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    frames: VecDeque<Frame>,
    frames_bytes: usize,
}

impl Tail {
    /// Adds the next frame.
    pub(crate) fn push(&mut self, frame: Frame) {
        if let Some(last) = self.frames.back() {
            assert_eq!(frame.raft_index, last.raft_index + 1, "the tail has no gaps");
        }
        self.frames_bytes += frame.frame_bytes();
        self.frames.push_back(frame);
    }

    /// Lets go of the oldest durable frames until `bytes_max` are left.
    pub(crate) fn shrink(&mut self, durable_raft_index: u64, bytes_max: usize) {
        while self.frames_bytes > bytes_max {
            match self.frames.front() {
                Some(frame) if frame.raft_index <= durable_raft_index => {
                    self.frames_bytes -= frame.frame_bytes();
                    self.frames.pop_front();
                }
                _ => break,
            }
        }
    }

    /// Drops the frames from `raft_index` on.
    pub(crate) fn truncate(&mut self, raft_index: u64) {
        while let Some(frame) = self.frames.back().filter(|last| last.raft_index >= raft_index) {
            self.frames_bytes -= frame.frame_bytes();
            self.frames.pop_back();
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Tail::default();
    }

    /// The first frame's raft index.
    pub(crate) fn first_raft_index(&self) -> Option<u64> {
        self.frames.front().map(|frame| frame.raft_index)
    }

    /// The last frame.
    pub(crate) fn last(&self) -> Option<&Frame> {
        self.frames.back()
    }

    /// The frame at `raft_index`.
    pub(crate) fn get(&self, raft_index: u64) -> Option<&Frame> {
        let number = raft_index.checked_sub(self.first_raft_index()?)?;
        self.frames.get(usize::try_from(number).ok()?)
    }

    /// The raft index of the last frame of a term up to `term_max`, or that before the first frame.
    pub(crate) fn end_of_terms(&self, term_max: u64) -> Option<u64> {
        let count = self.frames.partition_point(|frame| frame.term <= term_max);
        Some(self.first_raft_index()? + count as u64 - 1)
    }

    /// The frames behind `raft_index` of terms up to `term_max`, about `bytes_max` of them but at
    /// least one.
    pub(crate) fn after(&self, raft_index: u64, term_max: u64, bytes_max: usize) -> Vec<Frame> {
        let start = self.frames.partition_point(|frame| frame.raft_index <= raft_index);
        let frames = self.frames.range(start..).take_while(|frame| frame.term <= term_max);
        within(frames, bytes_max)
    }

    /// Frames from `from` up to, not including, `to`; `None` if the first is not here.
    pub(crate) fn frames(&self, from: u64, to: u64, bytes_max: usize) -> Option<Vec<Frame>> {
        self.get(from)?;
        let start = self.frames.partition_point(|frame| frame.raft_index < from);
        let frames = self.frames.range(start..).take_while(|frame| frame.raft_index < to);
        Some(within(frames, bytes_max))
    }

    /// Batches from the one that holds `offset`, ending by `limit_offset`; `None` if the first is
    /// not here.
    pub(crate) fn batches(
        &self,
        offset: u64,
        limit_offset: u64,
        bytes_max: usize,
    ) -> Option<Vec<Frame>> {
        if self.frames.front()?.base_offset > offset {
            return None;
        }
        let start = self.frames.partition_point(|frame| frame.end_offset() <= offset);
        let frames = self
            .frames
            .range(start..)
            .filter(|frame| frame.kind == Kind::Batch)
            .take_while(|frame| frame.end_offset() <= limit_offset);
        Some(within(frames, bytes_max))
    }

    /// The first frame with a timestamp at or after `timestamp_ms`, if the one before it is here
    /// too.
    pub(crate) fn at_time(&self, timestamp_ms: i64) -> Option<&Frame> {
        let number = self.frames.partition_point(|frame| frame.timestamp_ms < timestamp_ms);
        if number == 0 { None } else { self.frames.get(number) }
    }
}

fn within<'a>(frames: impl Iterator<Item = &'a Frame>, bytes_max: usize) -> Vec<Frame> {
    let mut bytes = 0;
    frames
        .take_while(|frame| {
            let first = bytes == 0;
            bytes += frame.frame_bytes();
            first || bytes <= bytes_max
        })
        .cloned()
        .collect()
}
