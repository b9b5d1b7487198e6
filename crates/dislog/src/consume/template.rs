//! The template of `consume --format`: what is written for each record.
//!
//! ```text
//! %v value         %V its length in bytes      %t topic        %T timestamp, Unix milliseconds
//! %k key           %K its length in bytes      %p partition    %d timestamp, RFC 3339 in UTC
//! %h headers       %H how many there are       %o offset       %% a percent sign
//! ```
//!
//! Headers are `name=value`, joined by commas. A record without a key writes nothing for `%k` and
//! -1 for `%K`. Escapes (`\n`, `\t`, `\0`, `\x1f`, …) are those of [`crate::escape`]. Nothing is
//! added after a record: a template for lines ends in `\n`.

use std::io::Write;

use dislog_client::Header;

use crate::consume::format::{Located, rfc3339};
use crate::escape::unescape;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Verb(Verb),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Value,
    ValueLength,
    Key,
    KeyLength,
    Headers,
    HeaderCount,
    Topic,
    Partition,
    Offset,
    TimestampMs,
    Timestamp,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// If a verb or an escape is unknown; the message names it.
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut parts = text.split('%');
        push_text(&mut pieces, parts.next().unwrap_or_default())?;
        while let Some(part) = parts.next() {
            let Some(letter) = part.chars().next() else {
                // Two percent signs in a row: the part between them is empty, the one after them is
                // text.
                let Some(text) = parts.next() else {
                    return Err("a template ends in a single %; write %% for a percent sign".into());
                };
                pieces.push(Piece::Text(b"%".to_vec()));
                push_text(&mut pieces, text)?;
                continue;
            };
            pieces.push(Piece::Verb(verb(letter)?));
            push_text(&mut pieces, &part[letter.len_utf8()..])?;
        }
        Ok(Template { pieces })
    }

    /// Appends one record to `out`.
    pub(crate) fn write(&self, record: &Located<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Verb(verb) => verb.write(record, out),
            }
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) -> Result<(), String> {
    if !text.is_empty() {
        pieces.push(Piece::Text(unescape(text)?));
    }
    Ok(())
}

fn verb(letter: char) -> Result<Verb, String> {
    Ok(match letter {
        'v' => Verb::Value,
        'V' => Verb::ValueLength,
        'k' => Verb::Key,
        'K' => Verb::KeyLength,
        'h' => Verb::Headers,
        'H' => Verb::HeaderCount,
        't' => Verb::Topic,
        'p' => Verb::Partition,
        'o' => Verb::Offset,
        'T' => Verb::TimestampMs,
        'd' => Verb::Timestamp,
        _ => {
            return Err(format!(
                "unknown verb %{letter}; there are %v %V (value, its length), %k %K (key), %h %H \
                 (headers), %t (topic), %p (partition), %o (offset), %T %d (timestamp) and %%"
            ));
        }
    })
}

impl Verb {
    fn write(self, located: &Located<'_>, out: &mut Vec<u8>) {
        let record = located.record;
        match self {
            Verb::Value => out.extend_from_slice(&record.value),
            Verb::ValueLength => number(out, record.value.len()),
            Verb::Key => out.extend_from_slice(record.key.as_deref().unwrap_or_default()),
            Verb::KeyLength => match &record.key {
                Some(key) => number(out, key.len()),
                None => out.extend_from_slice(b"-1"),
            },
            Verb::Headers => headers(out, &record.headers),
            Verb::HeaderCount => number(out, record.headers.len()),
            Verb::Topic => out.extend_from_slice(located.topic.as_bytes()),
            Verb::Partition => number(out, located.partition),
            Verb::Offset => number(out, record.offset),
            Verb::TimestampMs => number(out, record.timestamp_ms),
            Verb::Timestamp => out.extend_from_slice(rfc3339(record.timestamp_ms).as_bytes()),
        }
    }
}

fn headers(out: &mut Vec<u8>, headers: &[Header]) {
    for (number, header) in headers.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(header.key.as_bytes());
        out.push(b'=');
        out.extend_from_slice(&header.value);
    }
}

fn number(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    write!(out, "{number}").expect("a Vec takes every byte");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dislog_client::ConsumedRecord;

    use super::*;

    fn record() -> ConsumedRecord {
        ConsumedRecord {
            offset: 17,
            timestamp_ms: 1_769_817_600_250,
            created_ms: 5,
            key: None,
            value: Bytes::new(),
            headers: Vec::new(),
            type_number: 0,
        }
    }

    fn show(template: &str, record: &ConsumedRecord) -> String {
        let mut out = Vec::new();
        let located = Located { topic: "demo", partition: 2, record };
        Template::parse(template).unwrap().write(&located, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn header(key: &str, value: &'static str) -> Header {
        Header { key: key.into(), value: Bytes::from_static(value.as_bytes()) }
    }

    #[test]
    fn every_verb() {
        let record = ConsumedRecord {
            key: Some("key".into()),
            value: "value".into(),
            headers: vec![header("a", "1"), header("b", "")],
            ..record()
        };
        assert_eq!(show("%v|%V|%k|%K|%h|%H", &record), "value|5|key|3|a=1,b=|2");
        assert_eq!(
            show(r"%t\t%p\t%o\t%T\t%d\n", &record),
            "demo\t2\t17\t1769817600250\t2026-01-31T00:00:00.250Z\n"
        );
    }

    #[test]
    fn a_record_may_have_nothing() {
        assert_eq!(show("[%v][%k]%K[%h]%H", &record()), "[][]-1[]0");
        assert_eq!(show("", &record()), "");
    }

    #[test]
    fn percent_signs() {
        let record = ConsumedRecord { value: "x".into(), ..record() };
        assert_eq!(show("%%v %%%v%% 100%%", &record), "%v %x% 100%");
        assert_eq!(show("%%", &record), "%");
    }

    #[test]
    fn mistakes_are_named() {
        for (template, named) in
            [("%", "%"), ("%v%", "%"), ("%z", "%z"), (r"%v\q", r"\q"), ("%é", "%é")]
        {
            let refused = Template::parse(template).expect_err(template);
            assert!(refused.contains(named), "{template}: {refused}");
        }
    }
}
