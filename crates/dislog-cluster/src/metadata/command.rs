//! What changes the metadata: commands, each the value of one record in the metadata log.
//!
//! Encoded as Protocol Buffers so that later versions can add to them. A command that this version
//! does not know is an error, never skipped: what follows from it would be missing.

use dislog_types::TopicName;
use prost::{Enumeration, Message, Oneof};

use crate::settings::{TopicChange, TopicSettings};

/// One change.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Command {
    #[prost(oneof = "Change", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
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
    #[prost(message, tag = "4")]
    Register(RegisterNode),
    #[prost(message, tag = "5")]
    Mark(MarkNode),
    #[prost(message, tag = "6")]
    Remove(RemoveNode),
    #[prost(message, tag = "7")]
    Assign(AssignPartition),
    #[prost(message, tag = "8")]
    Replace(ReplaceReplica),
    #[prost(message, tag = "9")]
    Report(ReportMembers),
    #[prost(message, tag = "10")]
    CreateToken(CreateToken),
    #[prost(message, tag = "11")]
    RevokeToken(RevokeToken),
}

/// There is to be a topic, with these settings, complete.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateTopic {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// The nodes of each partition.
    #[prost(message, repeated, tag = "2")]
    pub(crate) partitions: Vec<Nodes>,
    #[prost(uint64, tag = "3")]
    pub(crate) retention_bytes: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) retention_ms: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) segment_bytes: u64,
    #[prost(uint32, tag = "6")]
    pub(crate) replicas: u32,
}

/// Some nodes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Nodes {
    #[prost(fixed64, repeated, tag = "1")]
    pub(crate) nodes: Vec<u64>,
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
    #[prost(uint32, optional, tag = "6")]
    pub(crate) replicas: Option<u32>,
}

/// A topic is to be no more, with all its records.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteTopic {
    #[prost(uint64, tag = "1")]
    pub(crate) topic_id: u64,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
}

/// A node belongs to the cluster, and is as said here.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct RegisterNode {
    #[prost(fixed64, tag = "1")]
    pub(crate) node_id: u64,
    #[prost(string, tag = "2")]
    pub(crate) address: String,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) rack: String,
    /// Its replica of the metadata.
    #[prost(fixed64, tag = "5")]
    pub(crate) metadata_replica: u64,
}

/// Whether a node is to have replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(crate) enum Standing {
    /// It is.
    Active = 0,
    /// Those it has are to go elsewhere.
    Draining = 1,
    /// It has been gone for so long that they are given to others.
    Absent = 2,
}

/// A node stands otherwise.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct MarkNode {
    #[prost(fixed64, tag = "1")]
    pub(crate) node_id: u64,
    #[prost(enumeration = "Standing", tag = "2")]
    pub(crate) standing: i32,
}

/// A node belongs to the cluster no more. It has no replicas left.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct RemoveNode {
    #[prost(fixed64, tag = "1")]
    pub(crate) node_id: u64,
}

/// A partition is to have its replicas on these nodes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AssignPartition {
    #[prost(uint64, tag = "1")]
    pub(crate) group: u64,
    #[prost(fixed64, repeated, tag = "2")]
    pub(crate) nodes: Vec<u64>,
}

/// A replica lost what it had: another is to take its place, on the same node.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct ReplaceReplica {
    #[prost(uint64, tag = "1")]
    pub(crate) group: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) replica: u64,
}

/// These replicas belong to a group, says its leader.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReportMembers {
    #[prost(uint64, tag = "1")]
    pub(crate) group: u64,
    /// The entry of the group's log that made it so: older reports come to nothing.
    #[prost(uint64, tag = "2")]
    pub(crate) since: u64,
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) replicas: Vec<u64>,
    /// One past the offset of the last command that the leader had carried out.
    #[prost(uint64, optional, tag = "4")]
    pub(crate) knows: Option<u64>,
}

/// Whoever shows the token with this digest is who it names.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct CreateToken {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// The SHA-256 of the token, 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) digest: Vec<u8>,
    /// Unix milliseconds; 0: never.
    #[prost(int64, tag = "3")]
    pub(crate) expires_ms: i64,
    /// Who asked for it.
    #[prost(string, tag = "4")]
    pub(crate) created_by: String,
}

/// A token is worth nothing any more.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct RevokeToken {
    #[prost(uint64, tag = "1")]
    pub(crate) token_id: u64,
}

impl From<Change> for Command {
    fn from(change: Change) -> Command {
        Command { change: Some(change) }
    }
}

impl Command {
    /// Creates a topic whose partitions are on these nodes.
    pub(crate) fn create(
        name: &TopicName,
        partitions: Vec<Vec<u64>>,
        settings: TopicSettings,
    ) -> Command {
        let TopicSettings { retention_bytes, retention_ms, segment_bytes, replicas } = settings;
        Command::from(Change::Create(CreateTopic {
            name: name.as_str().to_owned(),
            partitions: partitions.into_iter().map(|nodes| Nodes { nodes }).collect(),
            retention_bytes,
            retention_ms,
            segment_bytes,
            replicas,
        }))
    }

    /// Alters the topic that had this id and name when it was looked up.
    pub(crate) fn alter(topic_id: u64, name: &TopicName, change: TopicChange) -> Command {
        let TopicChange { retention_bytes, retention_ms, segment_bytes, replicas } = change;
        Command::from(Change::Alter(AlterTopic {
            topic_id,
            retention_bytes,
            retention_ms,
            segment_bytes,
            name: name.as_str().to_owned(),
            replicas,
        }))
    }

    /// Deletes the topic that had this id and name when it was looked up.
    pub(crate) fn delete(topic_id: u64, name: &TopicName) -> Command {
        let name = name.as_str().to_owned();
        Command::from(Change::Delete(DeleteTopic { topic_id, name }))
    }
}
