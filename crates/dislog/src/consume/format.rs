//! How `consume` writes records: values, JSON lines, or a template.

use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dislog_client::{ConsumedRecord, Header};
use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::consume::template::Template;

/// A record and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located<'a> {
    /// Its topic.
    pub(crate) topic: &'a str,
    /// Its partition.
    pub(crate) partition: u32,
    /// The record, with its offset.
    pub(crate) record: &'a ConsumedRecord,
}

/// What is written for each record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordFormat {
    /// The value, and a delimiter.
    Value,
    /// One JSON object on a line.
    Json,
    /// What a template says.
    Template(Template),
}

impl FromStr for RecordFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<RecordFormat, String> {
        match text {
            "value" => Ok(RecordFormat::Value),
            "json" => Ok(RecordFormat::Json),
            template if template.contains('%') => {
                Ok(RecordFormat::Template(Template::parse(text)?))
            }
            _ => Err(r"give value, json, or a template with verbs, such as '%o %v\n'".to_owned()),
        }
    }
}

impl RecordFormat {
    /// Appends one record to `out`; `delimiter` ends a value.
    pub(crate) fn write(&self, record: &Located<'_>, delimiter: &[u8], out: &mut Vec<u8>) {
        match self {
            RecordFormat::Value => {
                out.extend_from_slice(&record.record.value);
                out.extend_from_slice(delimiter);
            }
            RecordFormat::Json => {
                serde_json::to_writer(&mut *out, record).expect("a Vec takes every byte");
                out.push(b'\n');
            }
            RecordFormat::Template(template) => template.write(record, out),
        }
    }
}

/// A time as RFC 3339 in UTC; one that no calendar has stays a number of milliseconds.
pub(crate) fn rfc3339(timestamp_ms: i64) -> String {
    match Timestamp::from_millisecond(timestamp_ms) {
        Ok(timestamp) => format!("{timestamp:.3}"),
        Err(_) => timestamp_ms.to_string(),
    }
}

impl Serialize for Located<'_> {
    /// Text as text; bytes that are no UTF-8 in base64, under a name that says so.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("topic", self.topic)?;
        map.serialize_entry("partition", &self.partition)?;
        map.serialize_entry("offset", &self.record.offset)?;
        map.serialize_entry("timestamp", &rfc3339(self.record.timestamp_ms))?;
        map.serialize_entry("timestamp_ms", &self.record.timestamp_ms)?;
        if let Some(key) = &self.record.key {
            content(&mut map, ["key", "key_base64"], key)?;
        }
        if !self.record.headers.is_empty() {
            map.serialize_entry("headers", &Headers(&self.record.headers))?;
        }
        if self.record.type_number != 0 {
            map.serialize_entry("type", &self.record.type_number)?;
        }
        content(&mut map, ["value", "value_base64"], &self.record.value)?;
        map.end()
    }
}

fn content<M: SerializeMap>(map: &mut M, names: [&str; 2], bytes: &[u8]) -> Result<(), M::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => map.serialize_entry(names[0], text),
        Err(_) => map.serialize_entry(names[1], &BASE64_STANDARD.encode(bytes)),
    }
}

struct Headers<'a>(&'a [Header]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(OneHeader))
    }
}

struct OneHeader<'a>(&'a Header);

impl Serialize for OneHeader<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("key", &self.0.key)?;
        content(&mut map, ["value", "value_base64"], &self.0.value)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(value: &'static [u8]) -> ConsumedRecord {
        ConsumedRecord {
            offset: 7,
            timestamp_ms: 1_000,
            created_ms: 0,
            key: None,
            value: Bytes::from_static(value),
            headers: Vec::new(),
            type_number: 0,
        }
    }

    fn show(format: &str, delimiter: &[u8], record: &ConsumedRecord) -> Vec<u8> {
        let mut out = Vec::new();
        let located = Located { topic: "demo", partition: 0, record };
        format.parse::<RecordFormat>().unwrap().write(&located, delimiter, &mut out);
        out
    }

    #[test]
    fn values_are_written_as_they_are() {
        assert_eq!(show("value", b"\n", &record(b"\xff\n\0")), b"\xff\n\0\n");
        assert_eq!(show("value", b"", &record(b"\xff\n\0")), b"\xff\n\0");
        assert_eq!(show("value", b"::", &record(b"")), b"::");
    }

    #[test]
    fn json_says_what_is_text_and_what_is_not() {
        let plain = String::from_utf8(show("json", b"ignored", &record(b"hi"))).unwrap();
        assert_eq!(
            plain,
            "{\"topic\":\"demo\",\"partition\":0,\"offset\":7,\
             \"timestamp\":\"1970-01-01T00:00:01.000Z\",\"timestamp_ms\":1000,\"value\":\"hi\"}\n"
        );
        let full = ConsumedRecord {
            key: Some(Bytes::new()),
            headers: vec![Header { key: "h".into(), value: Bytes::from_static(b"\"x\"\n") }],
            type_number: 5,
            ..record(b"\xff")
        };
        let full = String::from_utf8(show("json", b"ignored", &full)).unwrap();
        assert!(
            full.ends_with(
                "\"key\":\"\",\"headers\":[{\"key\":\"h\",\"value\":\"\\\"x\\\"\\n\"}],\"type\":5,\
             \"value_base64\":\"/w==\"}\n"
            ),
            "{full}"
        );
    }

    #[test]
    fn a_format_is_value_json_or_a_template() {
        assert_eq!("value".parse(), Ok(RecordFormat::Value));
        assert_eq!("json".parse(), Ok(RecordFormat::Json));
        assert!(matches!("%o".parse(), Ok(RecordFormat::Template(_))));
        for wrong in ["", "yaml", "%q"] {
            assert!(wrong.parse::<RecordFormat>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_outside_the_calendar_is_still_shown() {
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    }
}
