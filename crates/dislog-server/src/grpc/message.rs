//! An answer of `Consume` as it is on the wire, without a copy of what it carries.
//!
//! ```text
//!  0  compressed       u8     0: never
//!  1  message length   u32    big-endian
//!  5  message          as `prost` would encode it; large values are those of the batches in memory
//! ```

use bytes::{BufMut, Bytes};
use dislog_proto::v1;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::page::{Page, PageBuilder};

/// The numbers of the fields that are taken apart; all come first in their messages or are
/// surrounded as they are here, so that the bytes are in the order of the numbers.
const RESPONSE_RECORDS: u32 = 2;
const RESPONSE_BATCHES: u32 = 12;
const RECORD_VALUE: u32 = 1;
const RAW_BATCH_BATCH: u32 = 1;

/// The message of a response, in its frame.
pub(super) fn page_of(mut response: v1::ConsumeResponse) -> Page {
    let message_bytes = response.encoded_len();
    let mut out = PageBuilder::default();
    out.own().put_u8(0);
    out.own().put_u32(u32::try_from(message_bytes).expect("pages are limited"));
    for mut record in std::mem::take(&mut response.records) {
        head(&mut out, RESPONSE_RECORDS, record.encoded_len());
        content(&mut out, RECORD_VALUE, std::mem::take(&mut record.value));
        encode(&mut out, &record);
    }
    let batches = std::mem::take(&mut response.batches);
    let next_offset = std::mem::take(&mut response.next_offset);
    encode(&mut out, &response);
    for mut batch in batches {
        head(&mut out, RESPONSE_BATCHES, batch.encoded_len());
        content(&mut out, RAW_BATCH_BATCH, std::mem::take(&mut batch.batch));
        encode(&mut out, &batch);
    }
    encode(&mut out, &v1::ConsumeResponse { next_offset, ..v1::ConsumeResponse::default() });
    out.finish()
}

/// A field that is absent when it is empty.
fn content(out: &mut PageBuilder, field: u32, content: Bytes) {
    if !content.is_empty() {
        head(out, field, content.len());
        out.share(content);
    }
}

fn head(out: &mut PageBuilder, field: u32, bytes: usize) {
    encode_key(field, WireType::LengthDelimited, out.own());
    encode_varint(bytes as u64, out.own());
}

fn encode(out: &mut PageBuilder, message: &impl Message) {
    message.encode(out.own()).expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_sent(response: &v1::ConsumeResponse) -> Vec<u8> {
        let mut page = page_of(response.clone());
        let mut sent = Vec::new();
        while let Some(piece) = page.piece(1 << 16) {
            sent.extend_from_slice(&piece);
        }
        sent
    }

    #[test]
    fn messages_are_what_prost_makes_of_them() {
        let record = |offset: u64, bytes: usize, key: Option<Bytes>| v1::Record {
            value: vec![7; bytes].into(),
            offset,
            key,
            headers: vec![v1::Header { key: "h".into(), value: vec![1; bytes / 2].into() }],
            timestamp_ms: -1,
            ..v1::Record::default()
        };
        let records = [0, 1, 5_000, 70_000, 2 << 20].map(|bytes| {
            record(bytes as u64, bytes, (bytes % 2 == 0).then(|| Bytes::from_static(b"key")))
        });
        let batches = [0, 100, 3 << 20]
            .map(|bytes| v1::RawBatch { batch: vec![9; bytes].into(), timestamp_ms: 5 });
        let whole = v1::ConsumeResponse {
            records: records.to_vec(),
            committed_offset: 300,
            start_offset: 1,
            batches: batches.to_vec(),
            next_offset: 77,
        };
        let only_records = v1::ConsumeResponse { batches: Vec::new(), ..whole.clone() };
        for response in [v1::ConsumeResponse::default(), only_records, whole] {
            let mut expected = vec![0];
            expected.extend_from_slice(&(response.encoded_len() as u32).to_be_bytes());
            response.encode(&mut expected).unwrap();
            assert!(as_sent(&response) == expected);
        }
    }
}
