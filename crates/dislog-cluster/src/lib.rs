//! Partitions on Raft: what stands between the log on disk and the network's edge.
//!
//! (signatures; bodies are being written)

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use dislog_log::fs::Fs;
use dislog_types::time::Clock;
use dislog_types::{BatchHeader, PartitionId, TopicName};
use tokio::sync::watch;

/// Settings of a node's partitions.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Settings of topics that do not say otherwise.
    pub topic_defaults: TopicSettings,
    /// Bytes of appends that may be under way on this node; more wait for their turn.
    pub appends_in_flight_bytes_max: usize,
    /// Threads that write and sync logs.
    pub sync_threads: usize,
}

/// Settings of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Keep about this many bytes per partition; 0 keeps all.
    pub retention_bytes: u64,
    /// Keep records about this long, milliseconds; 0 keeps them for ever.
    pub retention_ms: u64,
    /// Seal a segment when it would grow past this.
    pub segment_bytes: u64,
}

/// A change of settings: only what is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    /// See [`TopicSettings`].
    pub retention_bytes: Option<u64>,
    /// See [`TopicSettings`].
    pub retention_ms: Option<u64>,
    /// See [`TopicSettings`].
    pub segment_bytes: Option<u64>,
}

/// A topic as the metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// How many partitions it has.
    pub partitions: u32,
    /// Its settings, complete.
    pub settings: TopicSettings,
    /// When it was created, Unix milliseconds.
    pub created_ms: i64,
}

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
    /// The change was not appended to the metadata.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// This node's part of the cluster: its topics and partitions. A cheap handle.
#[derive(Clone)]
pub struct Cluster {}

/// A batch to append.
#[derive(Debug)]
pub struct Append {
    /// A verified batch, whose records were checked to decode.
    pub batch: BytesMut,
    /// Its header.
    pub header: BatchHeader,
    /// Append only at this offset.
    pub expected_offset: Option<u64>,
}

/// Where a batch was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: u64,
    /// How many records it has.
    pub record_count: u32,
    /// Its timestamp, Unix milliseconds.
    pub timestamp_ms: i64,
    /// It was appended before, by an earlier attempt.
    pub duplicate: bool,
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
    #[error("sequence {sequence} of producer {producer_id} was appended long ago; its offset is not remembered")]
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
    #[error("producer {producer_id} is not known here; raise its epoch and start its sequence at 0")]
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

/// How far a partition has come; readers, acknowledgements and metrics wait on changes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The first offset that can be read.
    pub start_offset: u64,
    /// One past the last committed offset.
    pub committed_offset: u64,
    /// No more will come: the partition is closing or deleted.
    pub ended: bool,
}

/// For people: how a partition is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The term it is in.
    pub term: u64,
    /// The node that leads it.
    pub leader: Option<u64>,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Segments on disk.
    pub segments: usize,
    /// Why it cannot be written, if so.
    pub fault: Option<String>,
}

/// A stored batch.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// The offset of its first record.
    pub base_offset: u64,
    /// How many records it has.
    pub record_count: u32,
    /// The term it was appended in.
    pub term: u64,
    /// When its leader appended it, Unix milliseconds.
    pub timestamp_ms: i64,
    /// Its bytes, stamped.
    pub batch: Bytes,
}

/// One partition. A cheap handle.
#[derive(Clone)]
pub struct Partition {}

/// An append under way. Dropping it does not cancel the append.
#[must_use]
pub struct PendingAppend {}

impl Future for PendingAppend {
    type Output = Result<Appended, AppendError>;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

#[allow(unused_variables, missing_docs, clippy::todo, clippy::missing_errors_doc)]
impl Cluster {
    /// Opens the data directory, recovers every partition and starts the threads. Blocks.
    pub fn open(config: Config, fs: Arc<dyn Fs>, clock: Arc<dyn Clock>) -> Result<Cluster, OpenError> {
        todo!()
    }
    /// As `open`, on the real file system and clock.
    pub fn open_real(config: Config) -> Result<Cluster, OpenError> {
        todo!()
    }
    /// Random, born with the data directory.
    pub fn node_id(&self) -> u64 {
        todo!()
    }
    /// All topics by name, the system's left out.
    pub fn topics(&self) -> Vec<Topic> {
        todo!()
    }
    pub fn topic(&self, name: &TopicName) -> Result<Topic, TopicError> {
        todo!()
    }
    pub async fn create_topic(
        &self,
        name: TopicName,
        partitions: u32,
        settings: TopicChange,
    ) -> Result<Topic, TopicError> {
        todo!()
    }
    pub async fn alter_topic(&self, name: &TopicName, change: TopicChange) -> Result<Topic, TopicError> {
        todo!()
    }
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), TopicError> {
        todo!()
    }
    pub fn partition(&self, id: &PartitionId) -> Result<Partition, TopicError> {
        todo!()
    }
    /// Ends every partition: refuses new appends, waits for those under way, syncs, checkpoints. Idempotent.
    pub async fn close(&self) {
        todo!()
    }
    /// Every partition has a leader that can serve (readiness); the names of those that have not, with the reason.
    pub fn unready(&self) -> Vec<(PartitionId, String)> {
        todo!()
    }
}

#[allow(unused_variables, missing_docs, clippy::todo, clippy::missing_errors_doc)]
impl Partition {
    pub fn id(&self) -> &PartitionId {
        todo!()
    }
    /// Waits for room among the bytes in flight, then queues the append. Appends happen in the order of their submission.
    pub async fn submit(&self, append: Append) -> Result<PendingAppend, AppendError> {
        todo!()
    }
    /// `submit` and wait for the outcome.
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        todo!()
    }
    pub fn progress(&self) -> Progress {
        todo!()
    }
    pub fn watch(&self) -> watch::Receiver<Progress> {
        todo!()
    }
    /// Stored batches from the one that holds `offset`, up to the committed offset, about `bytes_max` but at least one;
    /// none at the committed offset itself.
    pub async fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
        todo!()
    }
    /// Waits until `offset` is committed, trimmed, or never will be. Safe to cancel.
    pub async fn wait_for(&self, offset: u64) -> Result<Progress, ReadError> {
        todo!()
    }
    /// The first committed offset whose timestamp is at or after `timestamp_ms`; the committed offset if none is.
    pub async fn offset_at(&self, timestamp_ms: i64) -> Result<u64, ReadError> {
        todo!()
    }
    /// Returns once everything acknowledged before the call is visible here.
    pub async fn linearize(&self) -> Result<(), ReadError> {
        todo!()
    }
    /// Moves the start up to `offset` (at most the committed offset; below the start nothing happens). Returns the start.
    pub async fn trim(&self, offset: u64) -> Result<u64, AppendError> {
        todo!()
    }
    pub fn status(&self) -> Status {
        todo!()
    }
}
