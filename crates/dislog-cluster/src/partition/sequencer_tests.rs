//! The sequencer against a model: producers that retry, lose answers and go on, on one log.

use std::collections::HashMap;

use dislog_types::Compression;
use dislog_types::batch::ProducerStamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn header(producer: Option<ProducerStamp>, record_count: u32) -> BatchHeader {
    BatchHeader {
        base_offset: 0,
        term: 0,
        batch_bytes: 100,
        compression: Compression::None,
        base_timestamp_ms: 0,
        max_timestamp_ms: 0,
        producer,
        record_count,
    }
}

fn fresh() -> Sequencer {
    Sequencer::new(0, 0, ProducerTable::default())
}

fn append(sequencer: &mut Sequencer, record_count: u32, now_ms: i64) -> Appended {
    let header = header(None, record_count);
    match sequencer.admit(&header, None, now_ms).unwrap() {
        Admission::Append(place) => {
            sequencer.proposed(&header, &place);
            place
        }
        Admission::Duplicate(_) => panic!("it has no producer"),
    }
}

#[test]
fn offsets_are_dense_and_time_never_goes_back() {
    let mut sequencer = fresh();
    let places = [(3, 100), (1, 50), (2, 200)].map(|(n, now_ms)| append(&mut sequencer, n, now_ms));
    assert_eq!(places.map(|place| place.base_offset), [0, 3, 4]);
    assert_eq!(places.map(|place| place.timestamp_ms), [100, 100, 200]);
    sequencer.proposed_without_records(300);
    assert_eq!(append(&mut sequencer, 1, 0).timestamp_ms, 300);
}

#[test]
fn admitting_changes_nothing() {
    let sequencer = fresh();
    let header = header(None, 3);
    let first = sequencer.admit(&header, None, 7).unwrap();
    assert_eq!(sequencer.admit(&header, None, 7).unwrap(), first);
}

#[test]
fn a_condition_is_about_the_end_of_what_was_proposed() {
    let mut sequencer = fresh();
    append(&mut sequencer, 5, 0);
    assert!(sequencer.admit(&header(None, 1), Some(5), 0).is_ok());
    let error = AppendError::UnexpectedOffset { expected: 4, actual: 5 };
    assert_eq!(sequencer.admit(&header(None, 1), Some(4), 0), Err(error));
}

#[test]
fn a_retry_does_not_need_to_meet_its_condition_again() {
    let mut sequencer = fresh();
    let header = header(Some(ProducerStamp { id: 1, epoch: 0, sequence: 0 }), 2);
    let Admission::Append(place) = sequencer.admit(&header, Some(0), 9).unwrap() else {
        panic!("it is new")
    };
    sequencer.proposed(&header, &place);
    let again = Admission::Duplicate(Appended { duplicate: true, ..place });
    assert_eq!(sequencer.admit(&header, Some(0), 10), Ok(again));
}

/// What a producer does next.
#[derive(Clone, Debug)]
enum Step {
    /// Sends a batch of so many records.
    Send { producer: i64, record_count: u32 },
    /// Repeats a batch sent before, so many batches ago.
    Retry { producer: i64, ago: usize },
    /// Raises its epoch.
    Restart { producer: i64 },
    /// The leader changes: another begins with what follows from the log.
    Leader,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let producer = 0..3_i64;
    let step = prop_oneof![
        6 => (producer.clone(), 1..20_u32)
            .prop_map(|(producer, record_count)| Step::Send { producer, record_count }),
        4 => (producer.clone(), 0..80_usize)
            .prop_map(|(producer, ago)| Step::Retry { producer, ago }),
        1 => producer.prop_map(|producer| Step::Restart { producer }),
        1 => Just(Step::Leader),
    ];
    vec(step, 1..300)
}

/// What a producer knows of itself: its epoch, and the batches of it that were appended.
#[derive(Default)]
struct Known {
    epoch: i16,
    next: i32,
    sent: Vec<(i32, Appended)>,
}

proptest! {
    #[test]
    fn retries_never_double_and_always_agree(steps in steps()) {
        let mut sequencer = fresh();
        let mut known: HashMap<i64, Known> = HashMap::new();
        let mut end_offset = 0;
        for step in steps {
            match step {
                Step::Send { producer, record_count } => {
                    let known = known.entry(producer).or_default();
                    let (epoch, sequence) = (known.epoch, known.next);
                    let stamp = ProducerStamp { id: producer, epoch, sequence };
                    let header = header(Some(stamp), record_count);
                    let admission = sequencer.admit(&header, None, 1).unwrap();
                    let Admission::Append(place) = admission else {
                        panic!("{sequence} of {producer} is new")
                    };
                    prop_assert_eq!(place.base_offset, end_offset);
                    sequencer.proposed(&header, &place);
                    end_offset += u64::from(record_count);
                    known.next += i32::try_from(record_count).unwrap();
                    known.sent.push((sequence, place));
                }
                Step::Retry { producer, ago } => {
                    let Some(known) = known.get(&producer) else { continue };
                    let Some(at) = known.sent.len().checked_sub(ago + 1) else { continue };
                    let (sequence, place) = known.sent[at];
                    let stamp = ProducerStamp { id: producer, epoch: known.epoch, sequence };
                    let again = sequencer.admit(&header(Some(stamp), place.record_count), None, 2);
                    if ago < dislog_types::limits::PRODUCER_BATCHES_REMEMBERED {
                        let first = Appended { duplicate: true, ..place };
                        prop_assert_eq!(again, Ok(Admission::Duplicate(first)));
                    } else {
                        let producer_id = producer;
                        let error = AppendError::SequenceForgotten { producer_id, sequence };
                        prop_assert_eq!(again, Err(error));
                    }
                }
                Step::Restart { producer } => {
                    // An epoch takes hold with its first batch; before that there is nothing to
                    // retry.
                    if let Some(known) = known.get_mut(&producer).filter(|known| known.next > 0) {
                        *known = Known { epoch: known.epoch + 1, ..Known::default() };
                    }
                }
                Step::Leader => {
                    let producers = sequencer.producers.clone();
                    sequencer = Sequencer::new(end_offset, 1, producers);
                }
            }
        }
    }
}
