//! One record as its producer made it.

use bytes::Bytes;

/// What a producer adds: a value, and what describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What the record is about. No key and an empty key differ.
    pub key: Option<Bytes>,
    /// The content: any bytes, none included.
    pub value: Bytes,
    /// Metadata in order; keys may repeat.
    pub headers: Vec<Header>,
    /// When the producer made it, Unix milliseconds.
    pub created_ms: i64,
}

/// One piece of a record's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The name.
    pub key: String,
    /// The content.
    pub value: Bytes,
}

impl Record {
    /// A record with only a value.
    #[must_use]
    pub fn new(value: impl Into<Bytes>) -> Record {
        Record { value: value.into(), ..Record::default() }
    }

    /// The bytes of value, key and headers together: what limits count.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|h| h.key.len() + h.value.len()).sum();
        self.value.len() + self.key.as_ref().map_or(0, Bytes::len) + headers
    }
}
