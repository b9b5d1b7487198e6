//! Getting records back out of batches.

use bytes::Bytes;

use super::compression::{Compression, decompress};
use super::header::{BatchError, BatchHeader, HEADER_BYTES};
use super::varint;
use crate::limits::{BATCH_PARTS_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_MAX};
use crate::record::{Header, Record};

/// The records of a verified batch, at dense offsets from its base offset on. Their contents share
/// `batch`'s memory unless it is compressed.
///
/// # Errors
/// If the compressed data or a record is malformed, or the records are not as many as the header
/// says.
pub fn records(header: &BatchHeader, batch: &Bytes) -> Result<Vec<Record>, BatchError> {
    let body = body(header, batch)?;
    // Each record has at least seven bytes, so a lying count cannot reserve more than the data
    // justifies.
    let mut records = Vec::with_capacity((header.record_count as usize).min(body.len() / 7));
    walk(header, &body, |_, view| {
        records.push(view.to_record(&body));
        Ok(())
    })?;
    Ok(records)
}

/// Checks that [`records`] will give back the records of a verified batch, that each is within
/// [`RECORD_BYTES_MAX`] and all together within [`BATCH_PARTS_MAX`], without making them.
///
/// # Errors
/// As [`records`], and if a record is too large or there are too many.
pub fn validate(header: &BatchHeader, batch: &Bytes) -> Result<(), BatchError> {
    let mut parts = 0;
    walk(header, &body(header, batch)?, |number, view| {
        parts += 1 + view.headers.count;
        match view.content_bytes {
            _ if parts > BATCH_PARTS_MAX => Err(BatchError::Parts),
            0..=RECORD_BYTES_MAX => Ok(()),
            bytes => Err(BatchError::RecordTooLarge { number, bytes }),
        }
    })
}

/// The records of a batch as bytes, decompressed.
fn body(header: &BatchHeader, batch: &Bytes) -> Result<Bytes, BatchError> {
    if batch.len() < HEADER_BYTES {
        return Err(BatchError::Length { needed: HEADER_BYTES, actual: batch.len() });
    }
    let body = batch.slice(HEADER_BYTES..);
    match header.compression {
        Compression::None => Ok(body),
        compression => decompress(compression, &body).map(Bytes::from),
    }
}

/// Shows every record to `see`, in order.
fn walk<'a>(
    header: &BatchHeader,
    body: &'a [u8],
    mut see: impl FnMut(usize, RecordView<'a>) -> Result<(), BatchError>,
) -> Result<(), BatchError> {
    let mut cursor = Cursor(body);
    for number in 0..header.record_count as usize {
        let view = cursor.record(number, header.base_timestamp_ms);
        see(number, view.map_err(|what| BatchError::Record { number, what })?)?;
    }
    match cursor.0.len() {
        0 => Ok(()),
        trailing => Err(BatchError::Trailing(trailing)),
    }
}

/// A record where it lies in its batch.
struct RecordView<'a> {
    key: Option<&'a [u8]>,
    value: &'a [u8],
    headers: Headers<'a>,
    /// Bytes of value, key and headers together: what limits count.
    content_bytes: usize,
    created_ms: i64,
}

/// The headers of a record, checked.
struct Headers<'a> {
    count: usize,
    encoded: &'a [u8],
    content_bytes: usize,
}

impl RecordView<'_> {
    /// The record; its contents share the memory of `body`, in which it lies.
    fn to_record(&self, body: &Bytes) -> Record {
        let mut cursor = Cursor(self.headers.encoded);
        let mut next = || cursor.header().expect("the headers were checked");
        let headers = (0..self.headers.count)
            .map(|_| next())
            .map(|(key, value)| Header { key: key.to_owned(), value: body.slice_ref(value) });
        Record {
            key: self.key.map(|key| body.slice_ref(key)),
            value: body.slice_ref(self.value),
            headers: headers.collect(),
            created_ms: self.created_ms,
        }
    }
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn record(
        &mut self,
        number: usize,
        base_timestamp_ms: i64,
    ) -> Result<RecordView<'a>, &'static str> {
        let body_bytes = self.length("its length is not a length")?;
        let end = self.0.len() - body_bytes;
        self.take(1).ok_or("it has no attributes")?;
        let timestamp_delta = self.integer("its timestamp is cut off")?;
        if self.integer("its offset is cut off")? != number as i64 {
            return Err("its offset is not dense");
        }
        let key = match self.integer("its key length is cut off")? {
            -1 => None,
            len => Some(self.bytes(len, "its key is cut off")?),
        };
        let value = self.nullable("its value is cut off")?;
        let headers = self.headers()?;
        if self.0.len() != end {
            return Err("its length is wrong");
        }
        let created_ms = base_timestamp_ms.wrapping_add(timestamp_delta);
        let content_bytes = key.map_or(0, <[u8]>::len) + value.len() + headers.content_bytes;
        Ok(RecordView { key, value, headers, content_bytes, created_ms })
    }

    fn headers(&mut self) -> Result<Headers<'a>, &'static str> {
        let count = self.length("its header count is cut off or too large")?;
        if count > RECORD_HEADERS_MAX {
            return Err("it has too many headers");
        }
        let start = self.0;
        let mut content_bytes = 0;
        for _ in 0..count {
            let (key, value) = self.header()?;
            content_bytes += key.len() + value.len();
        }
        let encoded = &start[..start.len() - self.0.len()];
        Ok(Headers { count, encoded, content_bytes })
    }

    fn header(&mut self) -> Result<(&'a str, &'a [u8]), &'static str> {
        let len = self.integer("a header key length is cut off")?;
        let key = self.bytes(len, "a header key is cut off")?;
        let key = std::str::from_utf8(key).map_err(|_| "a header key is not UTF-8")?;
        Ok((key, self.nullable("a header value is cut off")?))
    }

    /// Bytes with their length in front; null is empty.
    fn nullable(&mut self, what: &'static str) -> Result<&'a [u8], &'static str> {
        match self.integer(what)? {
            -1 => Ok(&[]),
            len => self.bytes(len, what),
        }
    }

    fn integer(&mut self, what: &'static str) -> Result<i64, &'static str> {
        varint::take(&mut self.0).ok_or(what)
    }

    /// An integer that counts something still to come, so at most the bytes left.
    fn length(&mut self, what: &'static str) -> Result<usize, &'static str> {
        let length = usize::try_from(self.integer(what)?).map_err(|_| what)?;
        if length > self.0.len() { Err(what) } else { Ok(length) }
    }

    fn bytes(&mut self, len: i64, what: &'static str) -> Result<&'a [u8], &'static str> {
        let len = usize::try_from(len).map_err(|_| what)?;
        self.take(len).ok_or(what)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}
