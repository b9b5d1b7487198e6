//! What is remembered of idempotent producers: enough to answer a retry with the first answer.
//!
//! A pure function of the log: it changes only by the batches of a log in order, and by trims. So
//! every replica, and a replica that was rebuilt from its log alone, has the same. A producer is
//! forgotten when none of its records are retained, never by time.

use std::collections::{HashMap, VecDeque};

use dislog_types::batch::ProducerStamp;
use dislog_types::limits::PRODUCER_BATCHES_REMEMBERED;

use crate::error::AppendError;

/// The sequence numbers of a producer are 31 bits and wrap to 0.
const SEQUENCES: i64 = 1 << 31;

/// Bytes of one producer without its batches, and of one batch, in the encoding.
const PRODUCER_BYTES: usize = 11;
const BATCH_BYTES: usize = 24;

/// A batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// The sequence of its first record.
    pub(crate) sequence: i32,
    /// How many records it has.
    pub(crate) record_count: u32,
    /// The offset of its first record.
    pub(crate) base_offset: u64,
    /// The timestamp it was given.
    pub(crate) timestamp_ms: i64,
}

impl Remembered {
    fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.record_count)
    }
}

/// One producer.
///
/// - `batches` is never empty, holds at most `PRODUCER_BATCHES_REMEMBERED`, all of `epoch`, oldest
///   first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    batches: VecDeque<Remembered>,
}

/// The producers of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProducerTable {
    producers: HashMap<i64, Producer>,
}

impl ProducerTable {
    /// What a batch is to this table: `None` if it is the next of its producer, the batch
    /// remembered if it was appended before.
    ///
    /// # Errors
    /// If it may not be appended; each says why.
    pub(crate) fn check(
        &self,
        stamp: ProducerStamp,
        record_count: u32,
    ) -> Result<Option<Remembered>, AppendError> {
        let Some(producer) = self.producers.get(&stamp.id) else {
            return match stamp.sequence {
                0 => Ok(None),
                _ => Err(AppendError::ProducerUnknown { producer_id: stamp.id }),
            };
        };
        if stamp.epoch < producer.epoch {
            return Err(AppendError::ProducerFenced {
                producer_id: stamp.id,
                epoch: stamp.epoch,
                current: producer.epoch,
            });
        }
        let expected = if stamp.epoch > producer.epoch { 0 } else { producer.next_sequence() };
        if stamp.sequence == expected {
            return Ok(None);
        }
        if stamp.epoch == producer.epoch {
            let same =
                |b: &&Remembered| b.sequence == stamp.sequence && b.record_count == record_count;
            if let Some(remembered) = producer.batches.iter().rev().find(same) {
                return Ok(Some(*remembered));
            }
            if is_before(stamp.sequence, expected) {
                return Err(AppendError::SequenceForgotten {
                    producer_id: stamp.id,
                    sequence: stamp.sequence,
                });
            }
        }
        Err(AppendError::SequenceGap { producer_id: stamp.id, sequence: stamp.sequence, expected })
    }

    /// Remembers a batch that is now in the log.
    pub(crate) fn remember(&mut self, stamp: ProducerStamp, batch: Remembered) {
        let fresh = || Producer { epoch: stamp.epoch, batches: VecDeque::with_capacity(1) };
        let producer = self.producers.entry(stamp.id).or_insert_with(fresh);
        if producer.epoch != stamp.epoch {
            producer.epoch = stamp.epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == PRODUCER_BATCHES_REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(batch);
    }

    /// Forgets the batches, and then the producers, of which nothing is at or above `start_offset`.
    pub(crate) fn forget_below(&mut self, start_offset: u64) {
        self.producers.retain(|_, producer| {
            while producer.batches.front().is_some_and(|b| b.end_offset() <= start_offset) {
                producer.batches.pop_front();
            }
            !producer.batches.is_empty()
        });
    }

    /// Appends the table to `out`, producers in the order of their ids.
    ///
    /// ```text
    /// count u32, then for each producer:
    ///   id i64, epoch i16, batches u8, then for each batch:
    ///     sequence i32, record count u32, base offset u64, timestamp i64
    /// ```
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let count = u32::try_from(self.producers.len()).expect("memory holds fewer producers");
        out.extend_from_slice(&count.to_le_bytes());
        let mut sorted: Vec<_> = self.producers.iter().collect();
        sorted.sort_unstable_by_key(|(id, _)| **id);
        for (id, producer) in sorted {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&producer.epoch.to_le_bytes());
            out.push(u8::try_from(producer.batches.len()).expect("few batches are remembered"));
            for batch in &producer.batches {
                out.extend_from_slice(&batch.sequence.to_le_bytes());
                out.extend_from_slice(&batch.record_count.to_le_bytes());
                out.extend_from_slice(&batch.base_offset.to_le_bytes());
                out.extend_from_slice(&batch.timestamp_ms.to_le_bytes());
            }
        }
    }

    /// The table that `bytes` encode, or `None` if they are anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<ProducerTable> {
        let mut rest = bytes;
        let count = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
        // What a lying count can reserve is bounded by what is there.
        let mut producers = HashMap::with_capacity(count.min(rest.len() / PRODUCER_BYTES));
        for _ in 0..count {
            let id = i64::from_le_bytes(take(&mut rest)?);
            let producer = Producer::decode(&mut rest)?;
            if id < 0 || producers.insert(id, producer).is_some() {
                return None;
            }
        }
        rest.is_empty().then_some(ProducerTable { producers })
    }
}

impl Producer {
    fn next_sequence(&self) -> i32 {
        let last = self.batches.back().expect("a producer is known by its batches");
        let next = (i64::from(last.sequence) + i64::from(last.record_count)) % SEQUENCES;
        i32::try_from(next).expect("a sequence has 31 bits")
    }

    fn decode(rest: &mut &[u8]) -> Option<Producer> {
        let epoch = i16::from_le_bytes(take(rest)?);
        let [count] = take(rest)?;
        let count = usize::from(count);
        if epoch < 0 || count == 0 || count > PRODUCER_BATCHES_REMEMBERED {
            return None;
        }
        if rest.len() < count * BATCH_BYTES {
            return None;
        }
        let mut batches = VecDeque::with_capacity(count);
        for _ in 0..count {
            let batch = Remembered {
                sequence: i32::from_le_bytes(take(rest)?),
                record_count: u32::from_le_bytes(take(rest)?),
                base_offset: u64::from_le_bytes(take(rest)?),
                timestamp_ms: i64::from_le_bytes(take(rest)?),
            };
            let end = batch.base_offset.checked_add(u64::from(batch.record_count));
            if batch.sequence < 0 || batch.record_count == 0 || end.is_none() {
                return None;
            }
            batches.push_back(batch);
        }
        Some(Producer { epoch, batches })
    }
}

/// Whether `sequence` was before `expected`, given that they are less than half of all sequences
/// apart.
fn is_before(sequence: i32, expected: i32) -> bool {
    let distance = (i64::from(expected) - i64::from(sequence)).rem_euclid(SEQUENCES);
    distance < SEQUENCES / 2
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*first)
}

#[cfg(test)]
#[path = "producers_tests.rs"]
mod tests;
