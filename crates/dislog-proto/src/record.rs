//! Records between their two forms: `v1::Record` on the wire, `dislog_types::Record` in a batch.
//!
//! The book's `type` field has no place in a Kafka record, so it travels as a header with a
//! reserved name, which users never see.

use bytes::Bytes;
use dislog_types as types;

use crate::v1;

const TYPE_HEADER: &str = "dislog.type";

/// The record that a client asked to add. A record without a time of its own gets `now_ms`.
#[must_use]
pub fn from_record(record: v1::Record, now_ms: i64) -> types::Record {
    let mut headers: Vec<types::Header> = record
        .headers
        .into_iter()
        .map(|header| types::Header { key: header.key, value: header.value })
        .collect();
    if record.r#type != 0 {
        let value = Bytes::copy_from_slice(&record.r#type.to_be_bytes());
        headers.push(types::Header { key: TYPE_HEADER.to_owned(), value });
    }
    let created_ms = if record.created_ms == 0 { now_ms } else { record.created_ms };
    types::Record { key: record.key, value: record.value, headers, created_ms }
}

/// The record as a client sees it: at its place in the log, stamped by its leader.
#[must_use]
pub fn to_record(record: types::Record, offset: u64, term: u64, timestamp_ms: i64) -> v1::Record {
    let mut r#type = 0;
    let mut headers = Vec::with_capacity(record.headers.len());
    for header in record.headers {
        match <[u8; 4]>::try_from(&header.value[..]) {
            Ok(bytes) if header.key == TYPE_HEADER => r#type = u32::from_be_bytes(bytes),
            _ => headers.push(v1::Header { key: header.key, value: header.value }),
        }
    }
    v1::Record {
        value: record.value,
        offset,
        term,
        r#type,
        key: record.key,
        headers,
        timestamp_ms,
        created_ms: record.created_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_both_ways() {
        let sent = v1::Record {
            value: Bytes::from_static(b"v"),
            r#type: 7,
            key: Some(Bytes::new()),
            headers: vec![v1::Header { key: "h".into(), value: Bytes::from_static(b"x") }],
            created_ms: 5,
            ..v1::Record::default()
        };
        let seen = to_record(from_record(sent.clone(), 9), 3, 2, 8);
        assert_eq!(seen, v1::Record { offset: 3, term: 2, timestamp_ms: 8, ..sent });
    }
}
