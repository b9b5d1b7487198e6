//! What goes wrong, one enum per operation. Each variant says whether anything was done, so that
//! the edge can tell its clients whether to try again.

use std::path::PathBuf;

use dislog_types::{PartitionId, TopicName};

/// Why a node's data was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the data directory open.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The directory cannot be used as it is.
    #[error("{}: {message}", path.display())]
    Unusable {
        /// What cannot be used.
        path: PathBuf,
        /// Why, and what to do.
        message: String,
    },
}

/// Why something was not done to a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No such topic.
    #[error("there is no topic {0}")]
    NotFound(TopicName),
    /// The topic has no such partition.
    #[error("topic {} has no partition {}, it has {partitions}", id.topic, id.partition)]
    NoPartition {
        /// What was asked for.
        id: PartitionId,
        /// How many there are.
        partitions: u32,
    },
    /// It exists.
    #[error("topic {0} exists already")]
    Exists(TopicName),
    /// Settings that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The leadership did not go where it was to go.
    #[error("node {node_id} did not take over the leadership of {id}")]
    NotHandedOver {
        /// Which partition.
        id: PartitionId,
        /// Who was to lead it.
        node_id: u64,
    },
    /// The change was not appended to the metadata.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why a batch was not appended, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// This replica does not lead; not appended.
    #[error("no leader for {0} at the moment")]
    NoLeader(PartitionId),
    /// The node is shutting down; not appended.
    #[error("the node is shutting down")]
    Closing,
    /// The topic was deleted; not appended.
    #[error("{0} was deleted")]
    Deleted(PartitionId),
    /// The log's end is another; not appended.
    #[error("expected the end of the log at offset {expected}, it is {actual}")]
    UnexpectedOffset {
        /// What the request said.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// Records of this producer are missing before these; not appended.
    #[error("producer {producer_id} sent sequence {sequence}, {expected} comes next")]
    SequenceGap {
        /// Whose.
        producer_id: i64,
        /// What it sent.
        sequence: i32,
        /// What comes next.
        expected: i32,
    },
    /// Appended too long ago to know its offset.
    #[error(
        "sequence {sequence} of producer {producer_id} was appended long ago; its offset is not \
         remembered"
    )]
    SequenceForgotten {
        /// Whose.
        producer_id: i64,
        /// Which.
        sequence: i32,
    },
    /// A newer epoch of the producer has appended; not appended.
    #[error("producer {producer_id} has epoch {current}, not {epoch}")]
    ProducerFenced {
        /// Whose.
        producer_id: i64,
        /// What it sent.
        epoch: i16,
        /// What it is.
        current: i16,
    },
    /// No records of this producer are retained and the sequence is not 0; not appended.
    #[error(
        "producer {producer_id} is not known here; raise its epoch and start its sequence at 0"
    )]
    ProducerUnknown {
        /// Whose.
        producer_id: i64,
    },
    /// Proposed, but leadership or the node went before it was known to be committed.
    #[error("the outcome of the append is unknown")]
    UnknownOutcome,
    /// No space left; not appended.
    #[error("the disk is full; nothing was appended")]
    DiskFull,
    /// A write or sync failed; this append may or may not survive.
    #[error("{0}")]
    Stopped(String),
    /// The log is damaged and takes no appends; not appended.
    #[error("{0}")]
    Damaged(String),
}

/// Why records were not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Below the start.
    #[error("offset {offset} was trimmed; the log starts at {start_offset}")]
    Trimmed {
        /// What was asked for.
        offset: u64,
        /// The first offset there is.
        start_offset: u64,
        /// One past the last.
        committed_offset: u64,
    },
    /// Beyond the committed end.
    #[error("offset {offset} is beyond the end of the log, {committed_offset}")]
    BeyondEnd {
        /// What was asked for.
        offset: u64,
        /// The first offset there is.
        start_offset: u64,
        /// One past the last.
        committed_offset: u64,
    },
    /// The records cannot be verified.
    #[error("offsets {from_offset} to {to_offset} are damaged: {message}")]
    Damaged {
        /// The first damaged offset.
        from_offset: u64,
        /// One past the last.
        to_offset: u64,
        /// File and position.
        message: String,
    },
    /// The disk failed to read.
    #[error("{0}")]
    Failed(String),
    /// The topic was deleted.
    #[error("{0} was deleted")]
    Deleted(PartitionId),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Closing,
    /// No leader to ask (linearizable reads).
    #[error("no leader for {0} at the moment")]
    NoLeader(PartitionId),
}
