//! What changes the metadata: commands, each the value of one record in the metadata log.
//!
//! Encoded as Protocol Buffers so that later versions can add to them. A command that this version
//! does not know is an error, never skipped: what follows from it would be missing.

use dislog_types::TopicName;
use prost::{Message, Oneof};

use crate::settings::{TopicChange, TopicSettings};

/// One change.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Command {
    #[prost(oneof = "Change", tags = "1, 2, 3")]
    pub(crate) change: Option<Change>,
}

/// What changes.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Change {
    #[prost(message, tag = "1")]
    Create(CreateTopic),
    #[prost(message, tag = "2")]
    Alter(AlterTopic),
    #[prost(message, tag = "3")]
    Delete(DeleteTopic),
}

/// There is to be a topic, with these settings, complete.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateTopic {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(uint32, tag = "2")]
    pub(crate) partitions: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) retention_bytes: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) retention_ms: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) segment_bytes: u64,
}

/// A topic is to have other settings: only those given.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AlterTopic {
    #[prost(uint64, tag = "1")]
    pub(crate) topic_id: u64,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) retention_bytes: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) retention_ms: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    pub(crate) segment_bytes: Option<u64>,
    #[prost(string, tag = "5")]
    pub(crate) name: String,
}

/// A topic is to be no more, with all its records.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteTopic {
    #[prost(uint64, tag = "1")]
    pub(crate) topic_id: u64,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
}

impl Command {
    /// Creates a topic.
    pub(crate) fn create(name: &TopicName, partitions: u32, settings: TopicSettings) -> Command {
        let TopicSettings { retention_bytes, retention_ms, segment_bytes } = settings;
        let name = name.as_str().to_owned();
        Command {
            change: Some(Change::Create(CreateTopic {
                name,
                partitions,
                retention_bytes,
                retention_ms,
                segment_bytes,
            })),
        }
    }

    /// Alters the topic that had this id and name when it was looked up.
    pub(crate) fn alter(topic_id: u64, name: &TopicName, change: TopicChange) -> Command {
        let TopicChange { retention_bytes, retention_ms, segment_bytes } = change;
        let name = name.as_str().to_owned();
        Command {
            change: Some(Change::Alter(AlterTopic {
                topic_id,
                retention_bytes,
                retention_ms,
                segment_bytes,
                name,
            })),
        }
    }

    /// Deletes the topic that had this id and name when it was looked up.
    pub(crate) fn delete(topic_id: u64, name: &TopicName) -> Command {
        let name = name.as_str().to_owned();
        Command { change: Some(Change::Delete(DeleteTopic { topic_id, name })) }
    }
}
