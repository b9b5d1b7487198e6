//! What follows from a partition's committed entries, in their order: its start and committed
//! offsets, and its producers. Applying an entry moves no data.
//!
//! A pure structure. Its whole content is a function of the log, so what is stored of it in a
//! checkpoint is a hint that shortens recovery; anything unreadable there is answered by replaying
//! the log.

use bytes::Bytes;
use dislog_log::{Checkpoint, Frame, Kind};
use dislog_types::BatchHeader;
use dislog_types::checksum::crc32c;

use super::producers::{ProducerTable, Remembered};

/// The version of the encoding below.
const STATE_VERSION: u8 = 1;

/// Bytes of the encoding before the producers.
const STATE_HEADER_BYTES: usize = 17;

/// See the module.
///
/// - `applied` is the last entry applied; entries are applied without gaps.
/// - `start_offset` never decreases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateMachine {
    /// The Raft position of the last entry applied.
    pub(crate) applied: u64,
    /// The first offset that is retained.
    pub(crate) start_offset: u64,
    /// One past the last committed record.
    pub(crate) committed_offset: u64,
    /// The timestamp of the last entry applied.
    pub(crate) last_timestamp_ms: i64,
    /// The idempotent producers.
    pub(crate) producers: ProducerTable,
}

/// What applying an entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// There are more records.
    Records,
    /// A leader began.
    LeaderStart,
    /// The start moved.
    Trimmed,
    /// Others belong to the group: for Raft to carry out.
    Membership,
    /// Nothing to be seen.
    None,
}

/// An entry that cannot follow what was applied. The log is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {raft_index} cannot be applied: {message}")]
pub(crate) struct ApplyError {
    /// The entry.
    pub(crate) raft_index: u64,
    /// What is wrong.
    pub(crate) message: String,
}

impl StateMachine {
    /// The state before the entry behind `applied`, knowing nothing of what was before.
    pub(crate) fn new(applied: u64, start_offset: u64, committed_offset: u64) -> StateMachine {
        StateMachine {
            applied,
            start_offset,
            committed_offset,
            last_timestamp_ms: 0,
            producers: ProducerTable::default(),
        }
    }

    /// The state a checkpoint describes; `None` if its bytes are not such a state.
    pub(crate) fn from_checkpoint(checkpoint: &Checkpoint) -> Option<StateMachine> {
        let (body, crc) = checkpoint.state.split_last_chunk::<4>()?;
        if body.len() < STATE_HEADER_BYTES || u32::from_le_bytes(*crc) != crc32c(body) {
            return None;
        }
        let (header, producers) = body.split_at(STATE_HEADER_BYTES);
        let word = |at: usize| header[at..at + 8].try_into().expect("8 bytes");
        if header[0] != STATE_VERSION {
            return None;
        }
        Some(StateMachine {
            applied: checkpoint.raft_index,
            start_offset: checkpoint.start_offset,
            committed_offset: u64::from_le_bytes(word(1)),
            last_timestamp_ms: i64::from_le_bytes(word(9)),
            producers: ProducerTable::decode(producers)?,
        })
    }

    /// A checkpoint of this state.
    ///
    /// ```text
    ///  0  version           u8   1
    ///  1  committed offset  u64
    ///  9  last timestamp    i64
    /// 17  producers
    ///     CRC-32C           u32  of all before it
    /// ```
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let mut state = vec![STATE_VERSION];
        state.extend_from_slice(&self.committed_offset.to_le_bytes());
        state.extend_from_slice(&self.last_timestamp_ms.to_le_bytes());
        self.producers.encode(&mut state);
        let crc = crc32c(&state);
        state.extend_from_slice(&crc.to_le_bytes());
        Checkpoint {
            raft_index: self.applied,
            start_offset: self.start_offset,
            state: Bytes::from(state),
        }
    }

    /// Applies the next committed entry.
    ///
    /// # Errors
    /// If it does not follow what was applied. The state is as before.
    pub(crate) fn apply(&mut self, frame: &Frame) -> Result<Effect, ApplyError> {
        let refuse = |message| Err(ApplyError { raft_index: frame.raft_index, message });
        if frame.raft_index != self.applied + 1 {
            return refuse(format!("{} comes next", self.applied + 1));
        }
        if frame.base_offset != self.committed_offset {
            return refuse(format!(
                "its offset is {}, the log ends at {}",
                frame.base_offset, self.committed_offset
            ));
        }
        let effect = match frame.kind {
            Kind::Batch => match BatchHeader::parse(&frame.payload) {
                Ok(header) => self.apply_batch(frame, &header),
                Err(error) => return refuse(error.to_string()),
            },
            Kind::LeaderStart => Effect::LeaderStart,
            Kind::Trim => match trim_offset(&frame.payload) {
                Some(offset) if offset <= self.committed_offset => self.apply_trim(offset),
                _ => return refuse("its new start is not an offset of the log".to_owned()),
            },
            Kind::Membership => Effect::Membership,
        };
        self.applied = frame.raft_index;
        self.last_timestamp_ms = frame.timestamp_ms;
        Ok(effect)
    }

    fn apply_batch(&mut self, frame: &Frame, header: &BatchHeader) -> Effect {
        self.committed_offset = frame.end_offset();
        // A replay meets batches that were trimmed but not yet deleted; their producers are
        // forgotten all the same.
        if let Some(stamp) = header.producer
            && self.committed_offset > self.start_offset
        {
            let batch = Remembered {
                sequence: stamp.sequence,
                record_count: frame.record_count,
                base_offset: frame.base_offset,
                timestamp_ms: frame.timestamp_ms,
            };
            self.producers.remember(stamp, batch);
        }
        Effect::Records
    }

    fn apply_trim(&mut self, offset: u64) -> Effect {
        if offset <= self.start_offset {
            return Effect::None;
        }
        self.start_offset = offset;
        self.producers.forget_below(offset);
        Effect::Trimmed
    }
}

fn trim_offset(payload: &[u8]) -> Option<u64> {
    payload.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
#[path = "state_machine_tests.rs"]
mod tests;
