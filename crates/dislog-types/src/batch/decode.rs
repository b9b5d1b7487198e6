//! Getting records back out of batches.

use bytes::Bytes;

use super::compression::{Compression, decompress};
use super::header::{BatchError, BatchHeader, HEADER_BYTES};
use super::varint;
use crate::limits::RECORD_HEADERS_MAX;
use crate::record::{Header, Record};

/// The records of a verified batch, at dense offsets from its base offset on. Their contents share `batch`'s
/// memory unless it is compressed.
///
/// # Errors
/// If the compressed data or a record is malformed, or the records are not as many as the header says.
pub fn records(header: &BatchHeader, batch: &Bytes) -> Result<Vec<Record>, BatchError> {
    let body = match batch.len() {
        0..HEADER_BYTES => {
            return Err(BatchError::Length { needed: HEADER_BYTES, actual: batch.len() });
        }
        _ => batch.slice(HEADER_BYTES..),
    };
    let body = match header.compression {
        Compression::None => body,
        compression => Bytes::from(decompress(compression, &body)?),
    };
    let mut cursor = Cursor { whole: &body, rest: &body };
    // Each record has at least seven bytes, so a lying count cannot reserve more than the data justifies.
    let mut records = Vec::with_capacity((header.record_count as usize).min(body.len() / 7));
    for number in 0..header.record_count as usize {
        let malformed = |what| BatchError::Record { number, what };
        records.push(cursor.record(number, header.base_timestamp_ms).map_err(malformed)?);
    }
    match cursor.rest.len() {
        0 => Ok(records),
        trailing => Err(BatchError::Trailing(trailing)),
    }
}

struct Cursor<'a> {
    whole: &'a Bytes,
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn record(&mut self, number: usize, base_timestamp_ms: i64) -> Result<Record, &'static str> {
        let body_bytes = self.length("its length is not a length")?;
        let end = self.rest.len() - body_bytes;
        self.take(1).ok_or("it has no attributes")?;
        let timestamp_delta = self.integer("its timestamp is cut off")?;
        if self.integer("its offset is cut off")? != number as i64 {
            return Err("its offset is not dense");
        }
        let key = match self.integer("its key length is cut off")? {
            -1 => None,
            len => Some(self.bytes(len, "its key is cut off")?),
        };
        let value = match self.integer("its value length is cut off")? {
            -1 => Bytes::new(),
            len => self.bytes(len, "its value is cut off")?,
        };
        let headers = self.headers()?;
        if self.rest.len() != end {
            return Err("its length is wrong");
        }
        let created_ms = base_timestamp_ms.wrapping_add(timestamp_delta);
        Ok(Record { key, value, headers, created_ms })
    }

    fn headers(&mut self) -> Result<Vec<Header>, &'static str> {
        let count = self.length("its header count is cut off or too large")?;
        if count > RECORD_HEADERS_MAX {
            return Err("it has too many headers");
        }
        (0..count).map(|_| self.header()).collect()
    }

    fn header(&mut self) -> Result<Header, &'static str> {
        let len = self.integer("a header key length is cut off")?;
        let key = self.bytes(len, "a header key is cut off")?;
        let key = std::str::from_utf8(&key).map_err(|_| "a header key is not UTF-8")?.to_owned();
        let value = match self.integer("a header value length is cut off")? {
            -1 => Bytes::new(),
            len => self.bytes(len, "a header value is cut off")?,
        };
        Ok(Header { key, value })
    }

    fn integer(&mut self, what: &'static str) -> Result<i64, &'static str> {
        varint::take(&mut self.rest).ok_or(what)
    }

    /// An integer that counts something still to come, so at most the bytes left.
    fn length(&mut self, what: &'static str) -> Result<usize, &'static str> {
        let length = usize::try_from(self.integer(what)?).map_err(|_| what)?;
        if length > self.rest.len() { Err(what) } else { Ok(length) }
    }

    fn bytes(&mut self, len: i64, what: &'static str) -> Result<Bytes, &'static str> {
        let len = usize::try_from(len).map_err(|_| what)?;
        self.take(len).ok_or(what)
    }

    fn take(&mut self, len: usize) -> Option<Bytes> {
        let start = self.whole.len() - self.rest.len();
        self.rest = self.rest.get(len..)?;
        Some(self.whole.slice(start..start + len))
    }
}
