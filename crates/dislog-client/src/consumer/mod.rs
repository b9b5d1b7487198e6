//! Getting records back.

use std::time::Duration;

use bytes::Bytes;

use crate::{Error, Header, PartitionId};

/// Where a consumer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this offset.
    Offset(u64),
    /// At the first record there is.
    Earliest,
    /// At the next record to be appended.
    Latest,
    /// At the last so many records.
    Last(u64),
    /// At the first record appended at or after this time, Unix milliseconds.
    Timestamp(i64),
}

/// Where a consumer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After the last record that is committed when reading begins.
    Committed,
    /// Before this offset, which may still have to be appended.
    Offset(u64),
    /// Never: it follows the end of the log.
    Never,
}

/// How a consumer behaves.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Where to start. [`Start::Earliest`].
    pub start: Start,
    /// Where to end. [`End::Committed`].
    pub end: End,
    /// Bytes that the server may send ahead of what was taken. 4 MiB.
    pub prefetch_bytes: u32,
    /// See every record acknowledged before reading begins, whichever server answers. Off.
    pub linearizable: bool,
    /// How long to try to reach a server again after a failure. 120 s.
    pub reconnect_timeout: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> ConsumerOptions {
        ConsumerOptions {
            start: Start::Earliest,
            end: End::Committed,
            prefetch_bytes: 4 << 20,
            linearizable: false,
            reconnect_timeout: Duration::from_secs(120),
        }
    }
}

/// A record at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its offset.
    pub offset: u64,
    /// When it was appended, Unix milliseconds.
    pub timestamp_ms: i64,
    /// When its producer made it, Unix milliseconds.
    pub created_ms: i64,
    /// What it is about. No key and an empty key differ.
    pub key: Option<Bytes>,
    /// Its content.
    pub value: Bytes,
    /// Its metadata in order; keys may repeat.
    pub headers: Vec<Header>,
    /// The number that the book's clients may give a record; 0 if none.
    pub type_number: u32,
}

/// Records at dense offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedBatch {
    /// The records, at least one.
    pub records: Vec<ConsumedRecord>,
    /// One past the last committed record when these were read: how far behind the consumer is.
    pub committed_offset: u64,
}

/// Reads one partition, in order.
///
/// Its methods are safe to cancel: nothing is lost when the future of a `next` is dropped.
pub struct Consumer {}

impl Consumer {
    /// The partition it reads.
    #[must_use]
    pub fn partition(&self) -> &PartitionId {
        todo!()
    }

    /// The next record; `None` at the end that was asked for.
    ///
    /// # Errors
    /// [`Error::Trimmed`], [`Error::Damaged`] or [`Error::OutOfRange`] if the next record is gone: asking again fails again,
    /// until [`Consumer::seek`]. [`Error::Timeout`] if no server answers in time; asking again tries again.
    pub async fn next(&mut self) -> Result<Option<ConsumedRecord>, Error> {
        todo!()
    }

    /// The records that have arrived together, at least one; `None` at the end. Several times faster than
    /// [`Consumer::next`], with which it may be mixed.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn next_batch(&mut self) -> Result<Option<ConsumedBatch>, Error> {
        todo!()
    }

    /// The offset of the record that comes next; `None` until the start was found.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        todo!()
    }

    /// Goes on from another offset, e.g. behind a range that is gone.
    pub fn seek(&mut self, offset: u64) {
        let _ = offset;
        todo!()
    }
}
