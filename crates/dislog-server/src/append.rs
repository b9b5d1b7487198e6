//! From what a client sent to an append: limits are checked here, so that nothing unreadable is
//! ever stored.

use bytes::{Bytes, BytesMut};
use dislog_cluster::{Append, Appended, PendingAppend};
use dislog_proto::v1;
use dislog_types::batch::{self, HEADER_BYTES, ProducerStamp};
use dislog_types::limits::{RECORD_BYTES_MAX, RECORD_HEADERS_MAX};
use dislog_types::time::{Clock, SystemClock};
use dislog_types::{BatchBuilder, BatchHeader, Compression, Record};
use tokio::task::JoinHandle;

use crate::forward::{self, Hops};
use crate::node::{Node, Place};
use crate::status::{Failure, kinds};

/// A batch larger than this is decompressed on a thread that may block: it takes milliseconds.
const INLINE_DECOMPRESS_BYTES_MAX: usize = 32 << 10;

/// What one record adds to its batch beside its content, at most: lengths, deltas, counts.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// Header keys that begin so are the log's own.
const RESERVED_HEADER_PREFIX: &str = "dislog.";

/// The append that a gRPC request asks for.
pub(crate) async fn from_request(request: v1::ProduceRequest) -> Result<Append, Failure> {
    let v1::ProduceRequest { records, batch, idempotence, expected_offset, .. } = request;
    if batch.is_empty() {
        let producer = idempotence.as_ref().map(stamp).transpose()?;
        return from_records(&wire_records(records)?, producer, expected_offset);
    }
    if !records.is_empty() {
        return Err(Failure::invalid(
            "the request has both `records` and `batch`: send one of them",
        ));
    }
    if idempotence.is_some() {
        return Err(Failure::invalid(
            "the request has both `batch` and `idempotence`: stamp the producer inside the batch",
        ));
    }
    from_batch(batch, expected_offset).await
}

/// The append of records as one batch.
pub(crate) fn from_records(
    records: &[Record],
    producer: Option<ProducerStamp>,
    expected_offset: Option<u64>,
) -> Result<Append, Failure> {
    if records.is_empty() {
        return Err(Failure::invalid(
            "the request has no records: send at least one (it may be empty)",
        ));
    }
    let bytes: usize = records.iter().map(|r| r.content_bytes() + RECORD_OVERHEAD_BYTES).sum();
    let mut builder = BatchBuilder::with_capacity(bytes);
    for (number, record) in records.iter().enumerate() {
        check_record(number, record)?;
        if !builder.push(record) {
            return Err(Failure::batch_too_large());
        }
    }
    Ok(finish(builder, producer, expected_offset))
}

/// The append of what was gathered; the builder is not empty.
pub(crate) fn finish(
    builder: BatchBuilder,
    producer: Option<ProducerStamp>,
    expected_offset: Option<u64>,
) -> Append {
    let batch = builder.finish(Compression::None, producer);
    let header = BatchHeader::parse(&batch).expect("a builder makes valid batches");
    Append { batch, header, expected_offset }
}

/// A record's own limits.
pub(crate) fn check_record(number: usize, record: &Record) -> Result<(), Failure> {
    let bytes = record.content_bytes();
    if bytes > RECORD_BYTES_MAX {
        return Err(Failure::record_too_large(number, bytes));
    }
    if record.headers.len() > RECORD_HEADERS_MAX {
        let count = record.headers.len();
        let message =
            format!("record {number} has {count} headers, the limit is {RECORD_HEADERS_MAX}");
        return Err(Failure::new(&kinds::TOO_LARGE, message));
    }
    Ok(())
}

/// The time records get that have none of their own, Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    SystemClock.now_ms()
}

/// A producer's stamp, from its parts as clients send them.
pub(crate) fn stamp(idempotence: &v1::Idempotence) -> Result<ProducerStamp, Failure> {
    let v1::Idempotence { producer_id, producer_epoch, sequence } = *idempotence;
    let invalid = |name: &str, value: i64, range: &str| {
        Failure::invalid(format!("idempotence.{name} is {value}: give {range}"))
    };
    if producer_id < 1 {
        return Err(invalid("producer_id", producer_id, "a random number from 1 to 2^63 - 1"));
    }
    let epoch = i16::try_from(producer_epoch).ok().filter(|epoch| *epoch >= 0);
    let epoch =
        epoch.ok_or_else(|| invalid("producer_epoch", producer_epoch.into(), "0 to 32767"))?;
    if sequence < 0 {
        return Err(invalid("sequence", sequence.into(), "0 to 2^31 - 1"));
    }
    Ok(ProducerStamp { id: producer_id, epoch, sequence })
}

/// An append under way, here or on another node.
pub(crate) enum Pending {
    /// In a partition of this node.
    Here(PendingAppend),
    /// Sent on.
    There(JoinHandle<Result<Appended, Failure>>),
}

/// Creates the topic if need be, waits for room and queues the append, or sends it on.
pub(crate) async fn submit(
    node: &Node,
    topic: &str,
    partition: u32,
    append: Append,
    hops: Hops,
) -> Result<Pending, Failure> {
    match node.place(topic, partition, &hops).await? {
        Place::Here(partition) => Ok(Pending::Here(partition.submit(append).await?)),
        Place::There(id, peer) => {
            let append = node.forwarder.admit(append, node.request_timeout()).await?;
            // A task, because an append is not cancelled with the request that carries it.
            let sending = forward::append(node.clone(), peer, hops, id, append);
            Ok(Pending::There(tokio::spawn(sending)))
        }
    }
}

/// The outcome of an append, awaited no longer than a request may take. Dropping this does not
/// cancel the append.
pub(crate) async fn outcome(
    node: &Node,
    pending: Pending,
    idempotent: bool,
) -> Result<Appended, Failure> {
    let outcome = async {
        match pending {
            Pending::Here(pending) => pending.await.map_err(Failure::from),
            Pending::There(sent) => sent.await.unwrap_or_else(|_| Err(Failure::shutting_down())),
        }
    };
    match tokio::time::timeout(node.request_timeout(), outcome).await {
        Ok(outcome) => outcome.map_err(|failure| failure.of_idempotent(idempotent)),
        Err(_) => Err(not_acknowledged(node).of_idempotent(idempotent)),
    }
}

/// An append took longer than a request may.
pub(crate) fn not_acknowledged(node: &Node) -> Failure {
    let limit_ms = node.config.request_timeout_ms;
    let message = format!("the append was not acknowledged within {limit_ms} ms");
    Failure::new(&kinds::UNKNOWN_OUTCOME, message)
}

fn wire_records(records: Vec<v1::Record>) -> Result<Vec<Record>, Failure> {
    let now_ms = now_ms();
    let mut converted = Vec::with_capacity(records.len());
    for (number, record) in records.into_iter().enumerate() {
        check_header_keys(number, record.headers.iter().map(|header| header.key.as_str()))?;
        converted.push(dislog_proto::from_record(record, now_ms));
    }
    Ok(converted)
}

/// Refuses keys that mean something to the log itself: they would not come back as they were sent.
pub(crate) fn check_header_keys<'a>(
    number: usize,
    mut keys: impl Iterator<Item = &'a str>,
) -> Result<(), Failure> {
    match keys.find(|key| key.starts_with(RESERVED_HEADER_PREFIX)) {
        None => Ok(()),
        Some(key) => Err(Failure::invalid(format!(
            "record {number} has header {key:?}: keys that start with {RESERVED_HEADER_PREFIX:?} \
                are reserved"
        ))),
    }
}

async fn from_batch(batch: Bytes, expected_offset: Option<u64>) -> Result<Append, Failure> {
    let header = BatchHeader::verify(&batch)?;
    let compressed = header.compression != Compression::None;
    if compressed && batch.len() - HEADER_BYTES > INLINE_DECOMPRESS_BYTES_MAX {
        let (header, batch) = (header.clone(), batch.clone());
        let checked = tokio::task::spawn_blocking(move || batch::validate(&header, &batch)).await;
        checked.map_err(|_| Failure::shutting_down())??;
    } else {
        batch::validate(&header, &batch)?;
    }
    Ok(Append { batch: BytesMut::from(batch), header, expected_offset })
}
