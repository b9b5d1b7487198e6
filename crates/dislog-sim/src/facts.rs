//! What is known to be true, because somebody was told so: the committed entries of each group.

use std::collections::BTreeMap;

use dislog_log::{Frame, Kind};
use dislog_types::PartitionId;
use dislog_types::batch::{BatchHeader, records};
use dislog_types::checksum::crc32c;

use crate::workload;

/// An entry that some replica has applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) kind: Kind,
    pub(crate) base_offset: u64,
    pub(crate) record_count: u32,
    pub(crate) timestamp_ms: i64,
    pub(crate) payload_crc: u32,
}

impl Entry {
    pub(crate) fn of(frame: &Frame) -> Entry {
        Entry {
            term: frame.term,
            kind: frame.kind,
            base_offset: frame.base_offset,
            record_count: frame.record_count,
            timestamp_ms: frame.timestamp_ms,
            payload_crc: crc32c(&frame.payload),
        }
    }
}

/// A record, by the attempt that brought it, and its number in that.
pub(crate) type Identity = (u64, u32);

/// The committed entries of a group and what follows from them.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) partition: PartitionId,
    /// By raft_index, from 1 on.
    pub(crate) entries: Vec<Entry>,
    /// In which term each was first known to be committed: at least that.
    pub(crate) committed_in: Vec<u64>,
    /// By offset.
    pub(crate) records: Vec<Identity>,
    pub(crate) timestamps_ms: Vec<i64>,
    /// The highest start that a committed trim brought.
    pub(crate) start_offset: u64,
}

/// The groups, by number.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) groups: BTreeMap<u64, Group>,
}

impl Facts {
    pub(crate) fn group(&mut self, number: u64, partition: &PartitionId) -> &mut Group {
        self.groups.entry(number).or_insert_with(|| Group {
            partition: partition.clone(),
            entries: Vec::new(),
            committed_in: Vec::new(),
            records: Vec::new(),
            timestamps_ms: Vec::new(),
            start_offset: 0,
        })
    }

    pub(crate) fn of(&self, partition: &PartitionId) -> Option<&Group> {
        self.groups.values().find(|group| group.partition == *partition)
    }
}

impl Group {
    pub(crate) fn entry(&self, raft_index: u64) -> Option<&Entry> {
        let at = usize::try_from(raft_index.checked_sub(1)?).ok()?;
        self.entries.get(at)
    }

    /// The last entry that was known to be committed before anyone was in `term`.
    pub(crate) fn last_before(&self, term: u64) -> Option<(u64, &Entry)> {
        // The terms in which entries are committed grow with them.
        let count = self.committed_in.partition_point(|committed_in| *committed_in < term);
        let entry = self.entries.get(count.checked_sub(1)?)?;
        Some((count as u64, entry))
    }

    /// Takes in the next entry; returns the attempt that it is of, if it is one of the workload.
    pub(crate) fn push(&mut self, frame: &Frame, term: u64) -> Result<Option<u64>, String> {
        self.entries.push(Entry::of(frame));
        let committed_in = self.committed_in.last().map_or(term, |last| term.max(*last));
        self.committed_in.push(committed_in);
        match frame.kind {
            Kind::Batch => self.push_records(frame),
            Kind::Trim => {
                let start = frame.payload.first_chunk().copied().map(u64::from_le_bytes);
                self.start_offset = self.start_offset.max(start.unwrap_or(0));
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn push_records(&mut self, frame: &Frame) -> Result<Option<u64>, String> {
        let header = BatchHeader::verify(&frame.payload).map_err(|error| error.to_string())?;
        let records = records(&header, &frame.payload).map_err(|error| error.to_string())?;
        let mut attempt = None;
        for record in &records {
            let identity = workload::identity(record).unwrap_or((u64::MAX, 0));
            attempt = Some(identity.0);
            self.records.push(identity);
            self.timestamps_ms.push(frame.timestamp_ms);
        }
        Ok(attempt.filter(|_| self.partition.topic == workload::topic()))
    }
}
