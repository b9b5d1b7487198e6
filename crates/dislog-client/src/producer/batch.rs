//! A batch on its way from its first record to its outcome.

use bytes::Bytes;
use dislog_types::batch::{BatchHeader, records};
use dislog_types::{BatchBuilder, BatchError, Compression, Record};
use futures_util::future::{FutureExt, Shared};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Delivery;
use crate::Error;

pub(super) use dislog_types::batch::ProducerStamp;

/// Where a batch was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) timestamp_ms: i64,
}

/// What all deliveries of a batch wait for together.
pub(super) type Waiting = Shared<oneshot::Receiver<Result<Appended, Error>>>;

/// Records that travel together.
///
/// - It has at least one record.
/// - It is resolved exactly once. Dropped unresolved (with its runtime), its deliveries report an
///   unknown outcome.
#[derive(Debug)]
pub(super) struct Batch {
    content: Content,
    record_count: u32,
    /// What it holds of the producer's buffer.
    bytes_held: usize,
    /// When its first record was accepted.
    begun: Instant,
    /// An attempt to send it ended without anybody saying that it was not appended.
    pub(super) maybe_appended: bool,
    outcome: oneshot::Sender<Result<Appended, Error>>,
    waiting: Waiting,
}

#[derive(Debug)]
enum Content {
    /// Records may still be added.
    Open(BatchBuilder),
    /// Encoded, as it is sent.
    Sealed(Bytes),
    /// Between the two.
    Taken,
}

impl Batch {
    /// A batch whose first record is `record`, with room for about `expected_bytes`.
    pub(super) fn begin(
        record: &Record,
        bytes_held: usize,
        expected_bytes: usize,
        now: Instant,
    ) -> Batch {
        let mut builder = BatchBuilder::with_capacity(expected_bytes);
        let fits = builder.push(record);
        assert!(fits, "a record within its limits fits an empty batch");
        let (outcome, waiting) = oneshot::channel();
        Batch {
            content: Content::Open(builder),
            record_count: 1,
            bytes_held,
            begun: now,
            maybe_appended: false,
            outcome,
            waiting: waiting.shared(),
        }
    }

    /// Adds a record, or says no and changes nothing if the batch would become too large with it.
    pub(super) fn push(&mut self, record: &Record, bytes_held: usize, bytes_max: usize) -> bool {
        let Content::Open(builder) = &mut self.content else { return false };
        if builder.batch_bytes() + record.content_bytes() > bytes_max || !builder.push(record) {
            return false;
        }
        self.record_count += 1;
        self.bytes_held += bytes_held;
        true
    }

    /// The bytes to send, stamped for the first time or anew.
    pub(super) fn stamp(
        &mut self,
        compression: Compression,
        producer: Option<ProducerStamp>,
    ) -> Bytes {
        let builder = match std::mem::replace(&mut self.content, Content::Taken) {
            Content::Open(builder) => builder,
            Content::Sealed(bytes) => reopen(&bytes).expect("this batch was made here"),
            Content::Taken => unreachable!("content is put back below"),
        };
        let bytes = builder.finish(compression, producer).freeze();
        self.content = Content::Sealed(bytes.clone());
        bytes
    }

    /// The bytes as they were stamped; `None` if they never were.
    pub(super) fn sealed(&self) -> Option<Bytes> {
        match &self.content {
            Content::Sealed(bytes) => Some(bytes.clone()),
            Content::Open(_) | Content::Taken => None,
        }
    }

    /// The delivery of the record added last.
    pub(super) fn delivery_of_last(&self) -> Delivery {
        Delivery { batch: self.waiting.clone(), position: self.record_count - 1 }
    }

    /// What waits for this batch.
    pub(super) fn waiting(&self) -> Waiting {
        self.waiting.clone()
    }

    pub(super) fn record_count(&self) -> u32 {
        self.record_count
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Encoded bytes so far, not compressed; 0 once sealed.
    pub(super) fn open_bytes(&self) -> usize {
        match &self.content {
            Content::Open(builder) => builder.batch_bytes(),
            Content::Sealed(_) | Content::Taken => 0,
        }
    }

    /// Tells everybody who waits. Returns what the batch held of the buffer.
    pub(super) fn resolve(self, outcome: Result<Appended, Error>) -> usize {
        // Nobody may be waiting: that is their choice.
        let _ = self.outcome.send(outcome);
        self.bytes_held
    }
}

/// The records of a sealed batch, to be stamped anew.
fn reopen(bytes: &Bytes) -> Result<BatchBuilder, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let mut builder = BatchBuilder::with_capacity(bytes.len());
    for record in records(&header, bytes)? {
        let fits = builder.push(&record);
        assert!(fits, "the records fitted one batch before");
    }
    Ok(builder)
}
