//! The position of a consumer: decides what of an arriving batch is yielded. Pure.

use dislog_proto::{to_record, v1};
use dislog_types::batch::{BatchHeader, records};
use dislog_types::{Header, PartitionId, Record};

use super::ConsumedRecord;
use crate::Error;

/// Where a consumer is, and where it ends.
///
/// - Yields every offset from the start to the end once, in order: `next_offset` only ever moves by
///   what was yielded.
#[derive(Debug)]
pub(super) struct Cursor {
    next_offset: u64,
    /// One past the last offset to yield.
    end_offset: Option<u64>,
}

impl Cursor {
    pub(super) fn new(next_offset: u64, end_offset: Option<u64>) -> Cursor {
        Cursor { next_offset, end_offset }
    }

    pub(super) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.end_offset.is_some_and(|end| self.next_offset >= end)
    }

    pub(super) fn seek(&mut self, offset: u64) {
        self.next_offset = offset;
    }

    /// The records of a batch that come next. The batch may begin before them and end after the
    /// end.
    ///
    /// # Errors
    /// If the batch does not verify or leaves a gap; the position stays.
    pub(super) fn accept(
        &mut self,
        id: &PartitionId,
        raw: &v1::RawBatch,
    ) -> Result<Vec<ConsumedRecord>, Error> {
        let next = self.next_offset;
        let bad = |error| Error::bad_batch(id, next, &error);
        let header = BatchHeader::verify(&raw.batch).map_err(bad)?;
        let base = header.base_offset;
        if base > next {
            let problem = format!("the batch that arrived begins at offset {base}: a gap");
            return Err(Error::BadBatch { id: id.clone(), offset: next, problem });
        }
        let batch_end = base.saturating_add(u64::from(header.record_count));
        let end = self.end_offset.map_or(batch_end, |end| end.min(batch_end));
        if end <= next {
            return Ok(Vec::new());
        }
        let all = records(&header, &raw.batch).map_err(bad)?;
        let wanted = all.into_iter().zip(base..end).skip((next - base) as usize);
        let timestamp_ms = raw.timestamp_ms;
        let yielded =
            wanted.map(|(record, offset)| consumed(record, offset, timestamp_ms)).collect();
        self.next_offset = end;
        Ok(yielded)
    }
}

fn consumed(record: Record, offset: u64, timestamp_ms: i64) -> ConsumedRecord {
    if record.headers.is_empty() {
        return ConsumedRecord {
            offset,
            timestamp_ms,
            created_ms: record.created_ms,
            key: record.key,
            value: record.value,
            headers: Vec::new(),
            type_number: 0,
        };
    }
    // The record's type hides among the headers; only the protocol knows where.
    let record = to_record(record, offset, 0, timestamp_ms);
    let headers = record.headers.into_iter();
    ConsumedRecord {
        offset,
        timestamp_ms,
        created_ms: record.created_ms,
        key: record.key,
        value: record.value,
        headers: headers.map(|h| Header { key: h.key, value: h.value }).collect(),
        type_number: record.r#type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dislog_types::batch::stamp;
    use dislog_types::{BatchBuilder, Compression};

    fn id() -> PartitionId {
        PartitionId { topic: "t".parse().unwrap(), partition: 0 }
    }

    /// A batch whose records' values are their offsets.
    fn batch(base: u64, count: u64) -> v1::RawBatch {
        let mut builder = BatchBuilder::new();
        for offset in base..base + count {
            assert!(builder.push(&Record::new(offset.to_be_bytes().to_vec())));
        }
        let mut bytes = builder.finish(Compression::Lz4, None);
        stamp(&mut bytes, base, 3);
        v1::RawBatch { batch: bytes.freeze(), timestamp_ms: 77 }
    }

    fn offsets(records: &[ConsumedRecord]) -> Vec<u64> {
        for record in records {
            assert_eq!(&record.value[..], record.offset.to_be_bytes());
            assert_eq!(record.timestamp_ms, 77);
        }
        records.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn a_batch_is_cut_to_what_was_asked_for() {
        let mut cursor = Cursor::new(12, Some(15));
        assert_eq!(offsets(&cursor.accept(&id(), &batch(10, 4)).unwrap()), [12, 13]);
        assert!(!cursor.is_at_end());
        assert_eq!(offsets(&cursor.accept(&id(), &batch(14, 4)).unwrap()), [14]);
        assert!(cursor.is_at_end());
        assert_eq!(cursor.next_offset(), 15);
    }

    #[test]
    fn what_was_yielded_is_not_yielded_again() {
        let mut cursor = Cursor::new(0, None);
        assert_eq!(offsets(&cursor.accept(&id(), &batch(0, 3)).unwrap()), [0, 1, 2]);
        assert!(cursor.accept(&id(), &batch(0, 3)).unwrap().is_empty());
        assert_eq!(offsets(&cursor.accept(&id(), &batch(0, 5)).unwrap()), [3, 4]);
    }

    #[test]
    fn a_gap_is_an_error_and_the_position_stays() {
        let mut cursor = Cursor::new(5, None);
        let error = cursor.accept(&id(), &batch(6, 1)).unwrap_err();
        assert!(matches!(error, Error::BadBatch { offset: 5, .. }), "{error}");
        assert_eq!(cursor.next_offset(), 5);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = batch(0, 2);
        // The epoch (12 to 16) is not covered by the checksum and not shown.
        for position in (0..good.batch.len()).filter(|position| !(12..16).contains(position)) {
            for bit in 0..8 {
                let mut bytes = good.batch.to_vec();
                bytes[position] ^= 1 << bit;
                let raw = v1::RawBatch { batch: bytes.into(), timestamp_ms: 77 };
                let mut cursor = Cursor::new(0, None);
                assert!(cursor.accept(&id(), &raw).is_err(), "byte {position} bit {bit}");
            }
        }
    }
}
