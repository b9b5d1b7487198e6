//! The order of a partition: decides, on its leader, what is appended next, where, and when.
//!
//! A pure structure without I/O. It lives from the moment the first entry of the leader's term is
//! applied until the leadership ends, and knows everything proposed since: a batch that is under
//! way counts as appended for the next one. It starts from what the state machine knows, so that
//! every leader agrees with the one before.

use dislog_types::BatchHeader;

use super::append::Appended;
use super::producers::{ProducerTable, Remembered};
use crate::error::AppendError;

/// See the module.
///
/// - `end_offset` is one past the last record proposed.
/// - `last_timestamp_ms` is that of the last entry proposed, so timestamps never decrease.
#[derive(Debug)]
pub(crate) struct Sequencer {
    end_offset: u64,
    last_timestamp_ms: i64,
    producers: ProducerTable,
}

/// What becomes of a batch that is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is to be proposed at this place.
    Append(Appended),
    /// It was proposed before, at this place; it may not be committed yet.
    Duplicate(Appended),
}

impl Sequencer {
    /// A sequencer that goes on behind `end_offset`.
    pub(crate) fn new(
        end_offset: u64,
        last_timestamp_ms: i64,
        producers: ProducerTable,
    ) -> Sequencer {
        Sequencer { end_offset, last_timestamp_ms, producers }
    }

    /// Decides on a batch; changes nothing.
    ///
    /// # Errors
    /// If it may not be appended; each says why.
    pub(crate) fn admit(
        &self,
        header: &BatchHeader,
        expected_offset: Option<u64>,
        now_ms: i64,
    ) -> Result<Admission, AppendError> {
        // A retry comes first: the append it repeats met its condition then.
        if let Some(stamp) = header.producer
            && let Some(batch) = self.producers.check(stamp, header.record_count)?
        {
            return Ok(Admission::Duplicate(Appended {
                base_offset: batch.base_offset,
                record_count: batch.record_count,
                timestamp_ms: batch.timestamp_ms,
                duplicate: true,
            }));
        }
        if let Some(expected) = expected_offset
            && expected != self.end_offset
        {
            return Err(AppendError::UnexpectedOffset { expected, actual: self.end_offset });
        }
        Ok(Admission::Append(Appended {
            base_offset: self.end_offset,
            record_count: header.record_count,
            timestamp_ms: self.timestamp_ms(now_ms),
            duplicate: false,
        }))
    }

    /// Takes note that an admitted batch was proposed.
    pub(crate) fn proposed(&mut self, header: &BatchHeader, place: &Appended) {
        assert_eq!(place.base_offset, self.end_offset, "batches are proposed as admitted");
        if let Some(stamp) = header.producer {
            let batch = Remembered {
                sequence: stamp.sequence,
                record_count: place.record_count,
                base_offset: place.base_offset,
                timestamp_ms: place.timestamp_ms,
            };
            self.producers.remember(stamp, batch);
        }
        self.end_offset += u64::from(place.record_count);
        self.last_timestamp_ms = place.timestamp_ms;
    }

    /// The timestamp of an entry proposed now.
    pub(crate) fn timestamp_ms(&self, now_ms: i64) -> i64 {
        now_ms.max(self.last_timestamp_ms)
    }

    /// Takes note that an entry without records was proposed.
    pub(crate) fn proposed_without_records(&mut self, timestamp_ms: i64) {
        self.last_timestamp_ms = timestamp_ms;
    }

    /// Forgets what the state machine forgets when a trim is applied.
    pub(crate) fn forget_below(&mut self, start_offset: u64) {
        self.producers.forget_below(start_offset);
    }
}

#[cfg(test)]
#[path = "sequencer_tests.rs"]
mod tests;
