//! Timestamps never go back in a partition, whatever clocks do.

use dislog_log::Frame;

use super::{Verdict, must};
use crate::facts::Group;

/// The next committed entry of a group.
pub(crate) fn check(group: &Group, frame: &Frame) -> Verdict {
    let before_ms = group.entries.last().map_or(i64::MIN, |entry| entry.timestamp_ms);
    must(frame.timestamp_ms >= before_ms, || {
        let at = (&group.partition, frame.raft_index);
        format!("{at:?} has timestamp {}, the one before {before_ms}", frame.timestamp_ms)
    })
}
