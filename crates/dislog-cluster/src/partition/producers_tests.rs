//! The producers' table against a model that remembers everything, and its encoding against
//! garbage.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn stamp(id: i64, epoch: i16, sequence: i32) -> ProducerStamp {
    ProducerStamp { id, epoch, sequence }
}

/// Remembers a batch of `record_count` records as the next of its producer, at `base_offset`.
fn append(table: &mut ProducerTable, stamp: ProducerStamp, record_count: u32, base_offset: u64) {
    assert_eq!(table.check(stamp, record_count), Ok(None));
    let sequence = stamp.sequence;
    table.remember(stamp, Remembered { sequence, record_count, base_offset, timestamp_ms: 5 });
}

#[test]
fn a_producer_begins_at_sequence_0() {
    let table = ProducerTable::default();
    assert_eq!(table.check(stamp(1, 3, 0), 1), Ok(None));
    let unknown = Err(AppendError::ProducerUnknown { producer_id: 1 });
    assert_eq!(table.check(stamp(1, 0, 1), 1), unknown);
}

#[test]
fn sequences_follow_each_other() {
    let mut table = ProducerTable::default();
    append(&mut table, stamp(1, 0, 0), 3, 10);
    append(&mut table, stamp(1, 0, 3), 2, 20);
    let first = table.check(stamp(1, 0, 0), 3).unwrap().unwrap();
    assert_eq!((first.base_offset, first.timestamp_ms), (10, 5));
    let gap = |sequence| Err(AppendError::SequenceGap { producer_id: 1, sequence, expected: 5 });
    assert_eq!(table.check(stamp(1, 0, 6), 1), gap(6));
    let forgotten = |sequence| Err(AppendError::SequenceForgotten { producer_id: 1, sequence });
    assert_eq!(table.check(stamp(1, 0, 1), 2), forgotten(1), "no batch began there");
    assert_eq!(table.check(stamp(1, 0, 0), 2), forgotten(0), "it had three records");
}

#[test]
fn only_the_last_batches_are_remembered() {
    let mut table = ProducerTable::default();
    let batches = i32::try_from(PRODUCER_BATCHES_REMEMBERED).unwrap() + 1;
    for sequence in 0..batches {
        append(&mut table, stamp(1, 0, sequence), 1, 0);
    }
    let forgotten = AppendError::SequenceForgotten { producer_id: 1, sequence: 0 };
    assert_eq!(table.check(stamp(1, 0, 0), 1), Err(forgotten));
    for sequence in 1..batches {
        assert!(table.check(stamp(1, 0, sequence), 1).unwrap().is_some());
    }
}

#[test]
fn a_newer_epoch_fences_the_older() {
    let mut table = ProducerTable::default();
    append(&mut table, stamp(1, 0, 0), 1, 0);
    let gap = AppendError::SequenceGap { producer_id: 1, sequence: 1, expected: 0 };
    assert_eq!(table.check(stamp(1, 1, 1), 1), Err(gap), "a new epoch begins at 0");
    append(&mut table, stamp(1, 1, 0), 1, 1);
    let fenced = AppendError::ProducerFenced { producer_id: 1, epoch: 0, current: 1 };
    assert_eq!(table.check(stamp(1, 0, 1), 1), Err(fenced.clone()));
    assert_eq!(table.check(stamp(1, 0, 0), 1), Err(fenced));
    assert_eq!(table.check(stamp(1, 1, 0), 1).unwrap().unwrap().base_offset, 1);
}

#[test]
fn sequences_wrap() {
    let mut table = ProducerTable::default();
    let last =
        Remembered { sequence: i32::MAX - 1, record_count: 3, base_offset: 0, timestamp_ms: 0 };
    table.remember(stamp(1, 0, i32::MAX - 1), last);
    assert_eq!(table.check(stamp(1, 0, 1), 1), Ok(None));
    append(&mut table, stamp(1, 0, 1), 1, 3);
    assert!(table.check(stamp(1, 0, i32::MAX - 1), 3).unwrap().is_some());
    let before = AppendError::SequenceForgotten { producer_id: 1, sequence: i32::MAX - 9 };
    assert_eq!(table.check(stamp(1, 0, i32::MAX - 9), 1), Err(before));
}

#[test]
fn a_producer_is_known_as_long_as_one_of_its_records_is_retained() {
    let mut table = ProducerTable::default();
    append(&mut table, stamp(1, 0, 0), 10, 0);
    append(&mut table, stamp(1, 0, 10), 10, 10);
    table.forget_below(19);
    assert!(table.check(stamp(1, 0, 10), 10).unwrap().is_some());
    assert!(table.check(stamp(1, 0, 0), 10).is_err());
    table.forget_below(20);
    assert_eq!(table, ProducerTable::default());
}

/// A table made by appends of a few producers, and some trims.
fn tables() -> impl Strategy<Value = ProducerTable> {
    let step = (0..5_i64, 0..3_i16, 1..100_u32, any::<bool>());
    (vec(step, 0..300), 0..2_000_u64).prop_map(|(steps, trim)| {
        let mut table = ProducerTable::default();
        let mut end = 0;
        for (id, epoch, record_count, _) in steps {
            let known = table.producers.get(&id).map(|known| (known.epoch, known.next_sequence()));
            let (epoch, sequence) = match known {
                Some((current, next)) if epoch <= current => (current, next),
                _ => (epoch, 0),
            };
            append(&mut table, stamp(id, epoch, sequence), record_count, end);
            end += u64::from(record_count);
        }
        table.forget_below(trim);
        table
    })
}

proptest! {
    #[test]
    fn what_is_encoded_decodes(table in tables()) {
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        prop_assert_eq!(ProducerTable::decode(&bytes), Some(table));
    }

    #[test]
    fn an_encoding_that_is_cut_or_longer_is_refused(table in tables(), cut in any::<u16>()) {
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        let cut = usize::from(cut) % bytes.len();
        prop_assert_eq!(ProducerTable::decode(&bytes[..cut]), None);
        bytes.push(0);
        prop_assert_eq!(ProducerTable::decode(&bytes), None);
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        if let Some(table) = ProducerTable::decode(&bytes) {
            let mut again = Vec::new();
            table.encode(&mut again);
            prop_assert_eq!(again.len(), bytes.len());
        }
    }
}
