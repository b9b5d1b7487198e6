//! A tail sees every record once, in order, from whichever nodes it reads; it misses only what was
//! trimmed.

use dislog_cluster::{ReadError, StoredBatch};

use super::{Verdict, must};
use crate::facts::Group;

/// Where a tail is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    /// The offset that comes next.
    pub(crate) next: u64,
}

impl Tail {
    /// The answer to a read at `next`.
    pub(crate) fn read(&mut self, batches: &[StoredBatch]) -> Verdict {
        for (number, batch) in batches.iter().enumerate() {
            let end = batch.base_offset + u64::from(batch.record_count);
            // Only the first may begin before what was asked for.
            let starts = match number {
                0 => (batch.base_offset..end).contains(&self.next),
                _ => batch.base_offset == self.next,
            };
            must(starts, || format!("a tail at {} reads {}..{end}", self.next, batch.base_offset))?;
            self.next = end;
        }
        Ok(())
    }

    /// What was asked for is no longer there.
    pub(crate) fn refused(&mut self, group: Option<&Group>, error: &ReadError) -> Verdict {
        if let ReadError::Trimmed { offset, start_offset, .. } = error {
            let start = group.map_or(0, |group| group.start_offset);
            let right = *offset == self.next && self.next < *start_offset && *start_offset <= start;
            must(right, || format!("a tail at {}: {error}, trimmed up to {start}", self.next))?;
            self.next = *start_offset;
        }
        Ok(())
    }
}
