//! Making batches.

use bytes::BytesMut;

use super::compression::{Compression, compress};
use super::header::{BatchHeader, HEADER_BYTES, ProducerStamp, write_header};
use super::varint;
use crate::limits::{BATCH_BYTES_MAX, BATCH_PARTS_MAX};
use crate::record::Record;

/// Gathers records into one batch.
///
/// - It is never empty when it is finished: `finish` of an empty builder is a bug of the caller and
///   panics.
/// - It never passes [`BATCH_PARTS_MAX`] nor, uncompressed, [`BATCH_BYTES_MAX`]: `push` refuses the
///   record that would.
#[derive(Debug)]
pub struct BatchBuilder {
    /// Room for the header, then the records, not compressed.
    bytes: Vec<u8>,
    record_count: u32,
    /// Records and headers.
    parts: usize,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new()
    }
}

impl BatchBuilder {
    /// A builder without records.
    #[must_use]
    pub fn new() -> BatchBuilder {
        BatchBuilder::with_capacity(0)
    }

    /// A builder without records, with room for `records_bytes` of them.
    #[must_use]
    pub fn with_capacity(records_bytes: usize) -> BatchBuilder {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + records_bytes.min(BATCH_BYTES_MAX));
        bytes.resize(HEADER_BYTES, 0);
        BatchBuilder {
            bytes,
            record_count: 0,
            parts: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: i64::MIN,
        }
    }

    /// How many records were added.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// The bytes of the batch so far, not compressed.
    #[must_use]
    pub fn batch_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a record, or says no (and changes nothing) if the batch would pass its limits with it.
    #[must_use]
    pub fn push(&mut self, record: &Record) -> bool {
        let first = self.record_count == 0;
        let base_timestamp_ms = if first { record.created_ms } else { self.base_timestamp_ms };
        let body = Body {
            record,
            timestamp_delta: record.created_ms.wrapping_sub(base_timestamp_ms),
            offset_delta: i64::from(self.record_count),
        };
        let body_bytes = body.encoded_bytes();
        let total = self.bytes.len() + body_bytes + varint::encoded_bytes(body_bytes as i64);
        let parts = self.parts + 1 + record.headers.len();
        if total > BATCH_BYTES_MAX || parts > BATCH_PARTS_MAX {
            return false;
        }
        varint::put(&mut self.bytes, body_bytes as i64);
        body.put(&mut self.bytes);
        self.base_timestamp_ms = base_timestamp_ms;
        self.max_timestamp_ms = self.max_timestamp_ms.max(record.created_ms);
        self.record_count += 1;
        self.parts = parts;
        true
    }

    /// The batch, with base offset 0 until a leader stamps it. Data that compression does not
    /// shrink stays as it is.
    ///
    /// # Panics
    /// If there are no records.
    #[must_use]
    pub fn finish(mut self, compression: Compression, producer: Option<ProducerStamp>) -> BytesMut {
        assert!(self.record_count > 0, "a batch has at least one record");
        let compression = self.compress(compression);
        let header = BatchHeader {
            base_offset: 0,
            term: 0,
            batch_bytes: self.bytes.len(),
            compression,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            producer,
            record_count: self.record_count,
        };
        write_header(&mut self.bytes, &header);
        // `Bytes` takes the `Vec` over, and nobody shares it yet, so no copy is made.
        BytesMut::from(bytes::Bytes::from(self.bytes))
    }

    fn compress(&mut self, compression: Compression) -> Compression {
        if compression == Compression::None {
            return compression;
        }
        let mut packed = Vec::with_capacity(HEADER_BYTES + self.bytes.len() / 2);
        packed.resize(HEADER_BYTES, 0);
        compress(compression, &self.bytes[HEADER_BYTES..], &mut packed);
        if packed.len() >= self.bytes.len() {
            return Compression::None;
        }
        self.bytes = packed;
        compression
    }
}

/// A record as it is laid out after its length.
struct Body<'a> {
    record: &'a Record,
    timestamp_delta: i64,
    offset_delta: i64,
}

impl Body<'_> {
    fn encoded_bytes(&self) -> usize {
        let key_bytes = self.record.key.as_ref().map_or(1, |key| prefixed_bytes(key.len()));
        let headers_bytes: usize = self
            .record
            .headers
            .iter()
            .map(|header| prefixed_bytes(header.key.len()) + prefixed_bytes(header.value.len()))
            .sum();
        1 + varint::encoded_bytes(self.timestamp_delta)
            + varint::encoded_bytes(self.offset_delta)
            + key_bytes
            + prefixed_bytes(self.record.value.len())
            + varint::encoded_bytes(self.record.headers.len() as i64)
            + headers_bytes
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(0); // attributes, unused
        varint::put(out, self.timestamp_delta);
        varint::put(out, self.offset_delta);
        match &self.record.key {
            Some(key) => put_prefixed(out, key),
            None => varint::put(out, -1),
        }
        put_prefixed(out, &self.record.value);
        varint::put(out, self.record.headers.len() as i64);
        for header in &self.record.headers {
            put_prefixed(out, header.key.as_bytes());
            put_prefixed(out, &header.value);
        }
    }
}

fn prefixed_bytes(len: usize) -> usize {
    varint::encoded_bytes(len as i64) + len
}

fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}
