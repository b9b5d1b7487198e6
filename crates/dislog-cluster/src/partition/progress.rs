//! How far a partition has come and how it is, for those who watch.

use bytes::Bytes;

/// How far a partition has come; readers, acknowledgements and metrics wait on changes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The first offset that can be read.
    pub start_offset: u64,
    /// One past the last committed offset.
    pub committed_offset: u64,
    /// No more will come: the partition is closing or deleted.
    pub ended: bool,
}

/// For people: how a partition is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The term it is in.
    pub term: u64,
    /// One past the last record that the replica has, committed or not.
    pub end_offset: u64,
    /// When that was appended, Unix milliseconds.
    pub last_timestamp_ms: i64,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Segments on disk.
    pub segments: usize,
    /// Why it cannot be written, if so.
    pub fault: Option<String>,
    /// What was done since it was opened.
    pub counters: Counters,
}

/// What was appended since the partition was opened, and how many syncs it took: appends that wait
/// together share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Committed batches.
    pub batches: u64,
    /// Committed records.
    pub records: u64,
    /// Bytes of the committed batches.
    pub bytes: u64,
    /// Times the log was written and synced.
    pub syncs: u64,
}

/// A stored batch.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// The offset of its first record.
    pub base_offset: u64,
    /// How many records it has.
    pub record_count: u32,
    /// The term it was appended in.
    pub term: u64,
    /// When its leader appended it, Unix milliseconds.
    pub timestamp_ms: i64,
    /// Its bytes, stamped.
    pub batch: Bytes,
}
