//! Adding records.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::{Compression, Error, Record};

/// How a producer behaves.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// Send everything to this partition. `None`: by the hash of the key, as Kafka's Java client does; records without a key
    /// go to one partition until a batch is full, then to another.
    pub partition: Option<u32>,
    /// How batches are compressed. None.
    pub compression: Compression,
    /// A batch is sent when it has this many bytes, before compression. 256 KiB.
    pub batch_bytes_max: usize,
    /// A batch that is not full waits at most this long for more records, and does not wait at all
    /// while nothing else of its partition is under way. 5 ms.
    pub linger: Duration,
    /// Bytes of records that may be accepted and not yet acknowledged; `send` waits for room. 32 MiB.
    pub buffer_bytes_max: usize,
    /// Batches of one partition that may be under way at once. At most 32. 8.
    pub in_flight_max: usize,
    /// How long the delivery of a record is tried, from when its batch was begun. 120 s.
    pub delivery_timeout: Duration,
    /// Retries never double a record. If off, a broken connection fails what was under way. On.
    pub idempotent: bool,
}

impl Default for ProducerOptions {
    fn default() -> ProducerOptions {
        ProducerOptions {
            partition: None,
            compression: Compression::None,
            batch_bytes_max: 256 << 10,
            linger: Duration::from_millis(5),
            buffer_bytes_max: 32 << 20,
            in_flight_max: 8,
            delivery_timeout: Duration::from_secs(120),
            idempotent: true,
        }
    }
}

/// Where a record was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: u32,
    /// The record's offset.
    pub offset: u64,
    /// When it was appended, Unix milliseconds.
    pub timestamp_ms: i64,
}

/// The delivery of one record: a future that resolves once the record is on stable storage, or failed. Dropping it
/// does not cancel the delivery.
#[must_use = "a delivery that is not awaited may fail unseen; `flush` reports failures too"]
pub struct Delivery {}

impl Future for Delivery {
    type Output = Result<Delivered, Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

/// Adds records to a topic. A cheap handle: clones share buffer, batches and order.
#[derive(Clone)]
pub struct Producer {}

impl Producer {
    /// Accepts a record: waits for room in the buffer, then puts it into a batch, and returns its delivery.
    ///
    /// # Errors
    /// If the record is too large, the producer is closed, or an earlier delivery failed: see [`Producer::resume`].
    pub async fn send(&self, record: Record) -> Result<Delivery, Error> {
        let _ = record;
        todo!()
    }

    /// Sends what is waiting in batches and waits until everything accepted before this call was delivered.
    ///
    /// # Errors
    /// The first failure, if any delivery failed since the producer was made or resumed.
    pub async fn flush(&self) -> Result<(), Error> {
        todo!()
    }

    /// Flushes and ends the producer: later sends fail with [`Error::Closed`].
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(&self) -> Result<(), Error> {
        todo!()
    }

    /// Goes on after a failed delivery. Until this is called, everything sent to that partition after the failed
    /// record fails too, so that no record follows one that is missing.
    pub fn resume(&self) {
        todo!()
    }
}
