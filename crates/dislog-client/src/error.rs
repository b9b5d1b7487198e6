//! What can go wrong, as a user of this crate sees it.

use std::time::Duration;

use dislog_types::{BatchError, NameError, PartitionId};

/// What is known of a record whose delivery failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is not in the log and will not appear there: sending it again is safe.
    NotAppended,
    /// It may be in the log, or not. Sending it again may double it.
    Unknown,
    /// It is in the log; only its offset is not known.
    Appended,
}

/// Why a call failed. The message names the input and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A server's address cannot be used.
    #[error("server address {given:?}: {problem}; give host:port")]
    Address {
        /// As it was given.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Not a topic name.
    #[error(transparent)]
    TopicName(#[from] NameError),
    /// There is no TLS connection, because one side does not trust or understand the other.
    #[error("no connection to {server}: {why}")]
    Tls {
        /// Which server.
        server: String,
        /// Who refuses whom, and why.
        why: String,
    },
    /// Nobody listens at an address, or it cannot be reached.
    #[error("no connection to {server}: {why}")]
    Unreachable {
        /// Which server.
        server: String,
        /// What the system says.
        why: String,
    },
    /// An option's value cannot be used.
    #[error("{0}")]
    Options(String),
    /// The record is larger than a record may be, or than the producer's buffer.
    #[error("the record has {bytes} bytes, the limit is {bytes_max}; split it")]
    RecordTooLarge {
        /// The bytes of its value, key and headers.
        bytes: usize,
        /// The most there may be.
        bytes_max: usize,
    },
    /// The record has more headers than a record may have.
    #[error("the record has {count} headers, the limit is {count_max}")]
    TooManyHeaders {
        /// How many it has.
        count: usize,
        /// The most there may be.
        count_max: usize,
    },
    /// The topic has no such partition.
    #[error("topic {} has no partition {}, it has {partitions}", id.topic, id.partition)]
    NoPartition {
        /// What was asked for.
        id: PartitionId,
        /// How many there are.
        partitions: u32,
    },
    /// The producer was closed, or its runtime ended, before this record was sent.
    #[error("the producer is closed")]
    Closed,
    /// An earlier record was not delivered, so this one was not appended: there are no holes in
    /// what a producer adds. See `Producer::resume`.
    #[error("not appended, because an earlier record failed: {cause}")]
    Abandoned {
        /// Why the earlier record failed.
        cause: Box<Error>,
    },
    /// No server did what was asked in time. Nothing was appended.
    #[error("{what} was not done within {after:?}: {last}")]
    Timeout {
        /// What was to be done.
        what: String,
        /// How long was tried.
        after: Duration,
        /// The last failure.
        last: String,
    },
    /// The records may or may not have been appended.
    #[error("the outcome is UNKNOWN, the records may or may not be in {id}: {last}")]
    UnknownOutcome {
        /// Where they were to be appended.
        id: PartitionId,
        /// What was heard last.
        last: String,
    },
    /// The records are in the log, but so long ago that their offset is no longer remembered.
    #[error("the records are in {id}, but their offset is no longer known")]
    OffsetUnknown {
        /// Where they are.
        id: PartitionId,
    },
    /// There is no such topic.
    #[error("{0}")]
    TopicNotFound(String),
    /// A topic of this name exists.
    #[error("{0}")]
    TopicExists(String),
    /// The log does not end where the caller expected; nothing was appended.
    #[error(
        "the log of {id} does not end at offset {expected}{}; nothing was appended",
        ends(*.actual)
    )]
    UnexpectedOffset {
        /// The partition.
        id: PartitionId,
        /// What the caller expected.
        expected: u64,
        /// Where it ends, if the server says so.
        actual: Option<u64>,
    },
    /// The offset is outside the log.
    #[error("offset {offset} is outside {id}, which begins at {earliest} and ends before {latest}")]
    OutOfRange {
        /// The partition.
        id: PartitionId,
        /// What was asked for.
        offset: u64,
        /// The first offset there is.
        earliest: u64,
        /// One past the last.
        latest: u64,
    },
    /// The records from `offset` up to `earliest` were trimmed.
    #[error("offsets {offset} up to {earliest} of {id} were trimmed; go on from {earliest}")]
    Trimmed {
        /// The partition.
        id: PartitionId,
        /// What was asked for.
        offset: u64,
        /// The first offset still there.
        earliest: u64,
    },
    /// The records of a range are damaged where they are stored.
    #[error("offsets {from_offset} up to {to_offset} of {id} are damaged: {message}")]
    Damaged {
        /// The partition.
        id: PartitionId,
        /// The first damaged offset.
        from_offset: u64,
        /// One past the last.
        to_offset: u64,
        /// What the server says.
        message: String,
    },
    /// A batch arrived that does not verify or does not fit its place.
    #[error("{id} at offset {offset}: {problem}")]
    BadBatch {
        /// The partition.
        id: PartitionId,
        /// The offset that was to come next.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The server refused for another reason.
    #[error("the server refused ({reason}): {message}")]
    Refused {
        /// The reason in the error's `ErrorInfo`, or the status code.
        reason: String,
        /// What the server says.
        message: String,
    },
}

impl Error {
    /// What is known of the record whose delivery failed with this error.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::UnknownOutcome { .. } => Outcome::Unknown,
            Error::OffsetUnknown { .. } => Outcome::Appended,
            _ => Outcome::NotAppended,
        }
    }

    pub(crate) fn bad_batch(id: &PartitionId, offset: u64, error: &BatchError) -> Error {
        Error::BadBatch { id: id.clone(), offset, problem: error.to_string() }
    }
}

fn ends(actual: Option<u64>) -> String {
    actual.map_or_else(String::new, |offset| format!(" but at {offset}"))
}
