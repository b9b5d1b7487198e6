//! Offsets are dense: each entry begins where the one before ended, and only batches have records.

use dislog_log::{Frame, Kind};
use dislog_types::batch::BatchHeader;

use super::{Verdict, must};
use crate::facts::Group;

/// The next committed entry of a group.
pub(crate) fn check(group: &Group, frame: &Frame) -> Verdict {
    let end = group.records.len() as u64;
    let at = format!("{} entry {}", group.partition, frame.raft_index);
    must(frame.base_offset == end, || {
        format!("{at} begins at offset {}, not {end}", frame.base_offset)
    })?;
    if frame.kind != Kind::Batch {
        return must(frame.record_count == 0, || format!("{at} is no batch and has records"));
    }
    let header = BatchHeader::verify(&frame.payload).map_err(|error| format!("{at}: {error}"))?;
    must(header.base_offset == end && header.record_count == frame.record_count, || {
        format!("{at}: the batch says {header:?}, the frame {frame:?}")
    })
}
