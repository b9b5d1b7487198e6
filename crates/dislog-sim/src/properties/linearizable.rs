//! Appends and linearizable reads happen at one moment between question and answer.
//!
//! A log is easy to judge: an append takes the next offset, a read sees an end. So it is enough
//! that nobody ends up below what was seen by anyone before they asked.

use std::collections::BTreeMap;

use dislog_types::PartitionId;

use super::{Verdict, must};

/// How far each partition was seen to be, by those who have their answers.
#[derive(Debug, Default)]
pub(crate) struct Linearizable {
    seen: BTreeMap<PartitionId, u64>,
}

impl Linearizable {
    /// Somebody asks; to be given back with the answer.
    pub(crate) fn asks(&self, partition: &PartitionId) -> u64 {
        self.seen.get(partition).copied().unwrap_or(0)
    }

    /// An append got these offsets.
    pub(crate) fn appended(
        &mut self,
        partition: &PartitionId,
        floor: u64,
        offsets: std::ops::Range<u64>,
    ) -> Verdict {
        self.see(partition, offsets.end);
        must(offsets.start >= floor, || {
            format!("{partition}: appended at {offsets:?}, when {floor} had been seen before")
        })
    }

    /// A linearizable read saw this end.
    pub(crate) fn read(&mut self, partition: &PartitionId, floor: u64, end: u64) -> Verdict {
        self.see(partition, end);
        must(end >= floor, || {
            format!("{partition}: a linearizable read saw {end}, when {floor} had been seen before")
        })
    }

    fn see(&mut self, partition: &PartitionId, end: u64) {
        let seen = self.seen.entry(partition.clone()).or_default();
        *seen = end.max(*seen);
    }
}
