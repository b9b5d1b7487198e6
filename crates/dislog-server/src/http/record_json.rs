//! Records as JSON. What is given out can be sent in again.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use dislog_proto::v1;
use dislog_types::Record;
use dislog_types::limits::{BATCH_PARTS_MAX, RECORD_HEADERS_MAX};
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::append::check_header_keys;
use crate::read::Located;
use crate::status::Failure;

/// A record to add. Its content is one of `value`, `json` and `base64`; none of them means an empty
/// record.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RecordIn {
    /// The content, as text.
    #[schema(examples("hi"))]
    value: Option<String>,
    /// The content, as any JSON: its text is stored as it is sent.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    json: Option<Box<RawValue>>,
    /// The content, as any bytes in base64 (RFC 4648 §4). Also called `value_base64`.
    #[serde(alias = "value_base64")]
    base64: Option<String>,
    /// What the record is about, as text.
    key: Option<String>,
    /// What the record is about, as any bytes in base64.
    key_base64: Option<String>,
    /// Metadata in order; keys may repeat.
    #[serde(deserialize_with = "few_headers")]
    headers: Vec<HeaderJson>,
    /// Opaque to the log and kept with the record.
    #[serde(rename = "type")]
    kind: u32,
    /// When it was made, Unix milliseconds; 0 asks the server to use its own time.
    created_ms: i64,
    /// Given by the server; ignored here, so that what was read can be sent.
    #[schema(ignore)]
    offset: Option<IgnoredAny>,
    #[schema(ignore)]
    term: Option<IgnoredAny>,
    #[schema(ignore)]
    timestamp_ms: Option<IgnoredAny>,
    /// Only at the top: many records instead of one.
    #[schema(ignore)]
    #[serde(deserialize_with = "some_records")]
    records: Option<Vec<RecordIn>>,
}

/// One piece of a record's metadata: its value as text, or in base64 if it is not UTF-8.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderJson {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// A record of the log. Contents are given as text if they are UTF-8 and in base64 otherwise.
#[derive(Serialize, ToSchema)]
pub(super) struct RecordOut {
    /// Its position in the partition.
    offset: u64,
    /// When the leader appended it, Unix milliseconds; never decreases within a partition.
    timestamp_ms: i64,
    /// What it is about, if that is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// What it is about, if that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    /// Its content, if that is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// Its content, if that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// Its metadata.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderJson>,
    /// Opaque to the log.
    #[serde(rename = "type", skip_serializing_if = "is_zero")]
    kind: u32,
    /// When its producer made it, Unix milliseconds.
    created_ms: i64,
    /// The Raft term in which it was appended.
    term: u64,
}

/// Tells `"json": null` from no `json` at all.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

fn few_headers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<HeaderJson>, D::Error> {
    from.deserialize_seq(AtMost { count: RECORD_HEADERS_MAX, what: "headers", of: PhantomData })
}

fn few_records<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RecordIn>, D::Error> {
    from.deserialize_seq(AtMost { count: BATCH_PARTS_MAX, what: "records", of: PhantomData })
}

fn some_records<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<RecordIn>>, D::Error> {
    few_records(from).map(Some)
}

/// Reads a list of so many elements at most: they take much more memory than `{}` has bytes.
struct AtMost<T> {
    count: usize,
    what: &'static str,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = Vec<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a list of at most {} {}", self.count, self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            if elements.len() == self.count {
                return Err(A::Error::custom(format!("more than {} {}", self.count, self.what)));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The records of a JSON document: one object, an array of them, or an object with `records`.
pub(super) fn parse_document(text: &[u8], now_ms: i64) -> Result<Vec<Record>, Failure> {
    let malformed =
        |error: serde_json::Error| Failure::invalid(format!("the body is not valid: {error}"));
    let starts_array = text.trim_ascii_start().first() == Some(&b'[');
    let records = if starts_array {
        let mut list = serde_json::Deserializer::from_slice(text);
        few_records(&mut list)
            .and_then(|records| list.end().map(|()| records))
            .map_err(malformed)?
    } else {
        let mut single: RecordIn = serde_json::from_slice(text).map_err(malformed)?;
        match single.records.take() {
            None => vec![single],
            Some(records) if single.is_blank() => records,
            Some(_) => {
                return Err(Failure::invalid(
                    "the body has `records` beside the fields of a single record: give one or the \
                        other",
                ));
            }
        }
    };
    let numbered = records.into_iter().enumerate();
    numbered.map(|(number, record)| record.into_record(number, now_ms)).collect()
}

/// The record of one line; `number` names it in errors.
pub(super) fn parse_line(text: &[u8], number: usize, now_ms: i64) -> Result<Record, Failure> {
    match serde_json::from_slice::<RecordIn>(text) {
        Ok(record) => record.into_record(number, now_ms),
        Err(error) => Err(Failure::invalid(format!(
            "line {} is not a JSON record ({error}): give one such as {{\"value\":\"hi\"}}",
            number + 1
        ))),
    }
}

impl RecordIn {
    fn is_blank(&self) -> bool {
        self.value.is_none()
            && self.json.is_none()
            && self.base64.is_none()
            && self.key.is_none()
            && self.key_base64.is_none()
            && self.headers.is_empty()
            && self.kind == 0
            && self.created_ms == 0
    }

    fn into_record(self, number: usize, now_ms: i64) -> Result<Record, Failure> {
        if self.records.is_some() {
            let message = format!("record {number} has `records`: records do not nest");
            return Err(Failure::invalid(message));
        }
        let value = match (self.value, self.json, self.base64) {
            (None, None, None) => Bytes::new(),
            (Some(text), None, None) => Bytes::from(text),
            (None, Some(json), None) => Bytes::from(Box::<str>::from(json).into_string()),
            (None, None, Some(base64)) => decoded(number, "base64", &base64)?,
            _ => return Err(one_of(number, "`value`, `json` and `base64`")),
        };
        let key = match (self.key, self.key_base64) {
            (None, None) => None,
            (Some(text), None) => Some(Bytes::from(text)),
            (None, Some(base64)) => Some(decoded(number, "key_base64", &base64)?),
            _ => return Err(one_of(number, "`key` and `key_base64`")),
        };
        check_header_keys(number, self.headers.iter().map(|header| header.key.as_str()))?;
        let headers = self.headers.into_iter().map(|header| header.into_header(number));
        let record = v1::Record {
            value,
            key,
            headers: headers.collect::<Result<_, _>>()?,
            r#type: self.kind,
            created_ms: self.created_ms,
            ..v1::Record::default()
        };
        Ok(dislog_proto::from_record(record, now_ms))
    }
}

impl HeaderJson {
    fn into_header(self, number: usize) -> Result<v1::Header, Failure> {
        let value = match (self.value, self.value_base64) {
            (None, None) => Bytes::new(),
            (Some(text), None) => Bytes::from(text),
            (None, Some(base64)) => decoded(number, "headers.value_base64", &base64)?,
            _ => return Err(one_of(number, "a header's `value` and `value_base64`")),
        };
        Ok(v1::Header { key: self.key, value })
    }
}

fn decoded(number: usize, field: &str, base64: &str) -> Result<Bytes, Failure> {
    match BASE64.decode(base64) {
        Ok(bytes) => Ok(Bytes::from(bytes)),
        Err(error) => {
            let message =
                format!("record {number}: `{field}` is not base64 (RFC 4648 §4): {error}");
            Err(Failure::invalid(message))
        }
    }
}

fn one_of(number: usize, fields: &str) -> Failure {
    Failure::invalid(format!("record {number} has more than one of {fields}: give one"))
}

impl From<Located> for RecordOut {
    fn from(located: Located) -> RecordOut {
        let Located { offset, term, timestamp_ms, record } = located;
        let record = dislog_proto::to_record(record, offset, term, timestamp_ms);
        let (value, value_base64) = shown(&record.value);
        let (key, key_base64) = record.key.as_ref().map_or((None, None), shown);
        let headers = record.headers.into_iter().map(|header| {
            let (value, value_base64) = shown(&header.value);
            HeaderJson { key: header.key, value, value_base64 }
        });
        RecordOut {
            offset,
            timestamp_ms,
            key,
            key_base64,
            value,
            value_base64,
            headers: headers.collect(),
            kind: record.r#type,
            created_ms: record.created_ms,
            term,
        }
    }
}

/// Content as text if it is UTF-8, else in base64.
fn shown(bytes: &Bytes) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Result<Vec<Bytes>, String> {
        let records = parse_document(text.as_bytes(), 7).map_err(|failure| failure.message)?;
        Ok(records.into_iter().map(|record| record.value).collect())
    }

    #[test]
    fn one_or_many_records() {
        assert_eq!(values(r#"{"value":"a"}"#).unwrap(), ["a"]);
        assert_eq!(values(r#" [{"value":"a"},{}]"#).unwrap(), ["a", ""]);
        assert_eq!(values(r#"{"records":[{"base64":"AAE="}]}"#).unwrap(), [&[0u8, 1][..]]);
        assert_eq!(values(r#"{"json":{"b": 1.50,"a":[]}}"#).unwrap(), [r#"{"b": 1.50,"a":[]}"#]);
        assert_eq!(values(r#"{"json":null}"#).unwrap(), ["null"]);
        assert_eq!(values("{}").unwrap(), [""]);
        assert_eq!(values("[]").unwrap(), [""; 0]);
    }

    #[test]
    fn refusals_name_the_record_and_the_field() {
        for (text, expected) in [
            ("", "EOF"),
            ("{", "EOF"),
            ("7", "invalid type"),
            (r#"{"value":7}"#, "invalid type: integer"),
            (r#"{"valeu":"a"}"#, "unknown field `valeu`"),
            (r#"[{},{"value":"a","json":1}]"#, "record 1 has more than one of"),
            (r#"{"base64":"a b"}"#, "`base64` is not base64"),
            (r#"{"records":[],"value":"a"}"#, "`records` beside"),
            (r#"[{"records":[]}]"#, "do not nest"),
            (r#"{"headers":[{"key":"dislog.type"}]}"#, "reserved"),
            (r#"{"value":"\ud800"}"#, "hex escape"),
        ] {
            let message = values(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn what_is_given_out_can_be_sent_in() {
        let record = Record {
            key: Some(Bytes::from_static(b"\xff")),
            value: Bytes::from_static(b"text"),
            headers: vec![dislog_types::Header {
                key: "h".into(),
                value: Bytes::from_static(b"\xfe"),
            }],
            created_ms: 3,
        };
        let located = Located { offset: 5, term: 1, timestamp_ms: 9, record: record.clone() };
        let line = serde_json::to_vec(&RecordOut::from(located)).unwrap();
        assert_eq!(parse_line(&line, 0, 7).unwrap(), record);
    }
}
