//! The pure parts: what is batched, stamped, sent, sent again and given up.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use dislog_types::batch::{BatchHeader, records};
use tokio::time::Instant;

use super::accumulator::Accumulator;
use super::batch::{Appended, Batch};
use super::pipeline::{self, Identity, Pipeline};
use super::*;

const LINGER: Duration = Duration::from_millis(5);

fn value(batch: &Bytes) -> Vec<Bytes> {
    let header = BatchHeader::verify(batch).unwrap();
    records(&header, batch).unwrap().into_iter().map(|record| record.value).collect()
}

fn batch(text: &'static str) -> Batch {
    Batch::begin(&Record::new(text), 1, 0, Instant::now())
}

fn pipeline(in_flight_max: usize) -> Pipeline {
    Pipeline::new(in_flight_max, Compression::None, Some(Identity::random()))
}

/// Epoch and sequence of a batch.
fn stamp_of(batch: &Bytes) -> (i16, i32) {
    let producer = BatchHeader::verify(batch).unwrap().producer.unwrap();
    (producer.epoch, producer.sequence)
}

fn send_all(pipeline: &mut Pipeline) -> Vec<Bytes> {
    std::iter::from_fn(|| pipeline.next_to_send()).collect()
}

#[test]
fn options_are_within_limits() {
    assert_eq!(ProducerOptions::default().check(), Ok(()));
    for wrong in [
        ProducerOptions { in_flight_max: 0, ..ProducerOptions::default() },
        ProducerOptions { in_flight_max: IN_FLIGHT_MAX + 1, ..ProducerOptions::default() },
        ProducerOptions { batch_bytes_max: BATCH_BYTES_MAX + 1, ..ProducerOptions::default() },
        ProducerOptions { buffer_bytes_max: 0, ..ProducerOptions::default() },
    ] {
        assert!(matches!(wrong.check(), Err(Error::Options(_))), "{wrong:?}");
    }
}

#[test]
fn records_gather_until_a_batch_is_full() {
    let mut accumulator = Accumulator::new(1000);
    let now = Instant::now();
    let mut push =
        |bytes: usize| accumulator.push(&Record::new(vec![7; bytes]), bytes, || now).unwrap();
    assert!(push(400).wake, "a batch was begun");
    let second = push(400);
    assert!(!second.wake && !second.filled);
    assert!(push(400).filled, "the third does not fit with the others");
    let first = accumulator.take_ready(now, LINGER, false).expect("the full batch is ready");
    assert_eq!(first.record_count(), 2);
    assert!(accumulator.take_ready(now, LINGER, false).is_none(), "the open one lingers");
    assert_eq!(accumulator.ready_at(LINGER), Some(now + LINGER));
    let second = accumulator.take_ready(now + LINGER, LINGER, false).expect("it lingered");
    assert_eq!(second.record_count(), 1);
    assert_eq!(second.resolve(Ok(Appended { partition: 0, offset: 0, timestamp_ms: 0 })), 400);
}

#[test]
fn only_a_batch_that_is_not_full_may_grow() {
    let mut accumulator = Accumulator::new(1000);
    let push = |accumulator: &mut Accumulator| {
        accumulator.push(&Record::new("a"), 1, Instant::now).unwrap();
    };
    assert!(!accumulator.is_filling(), "there is nothing");
    push(&mut accumulator);
    assert!(accumulator.is_filling());
    accumulator.seal();
    assert!(!accumulator.is_filling(), "it is full");
    push(&mut accumulator);
    assert!(!accumulator.is_filling(), "the full one goes first");
}

#[test]
fn a_producer_that_is_not_busy_does_not_linger() {
    let mut accumulator = Accumulator::new(1000);
    let now = Instant::now();
    accumulator.push(&Record::new("a"), 1, || now).unwrap();
    assert!(accumulator.take_ready(now, LINGER, true).is_some());
}

#[test]
fn a_record_larger_than_a_batch_travels_alone() {
    let mut accumulator = Accumulator::new(100);
    let now = Instant::now();
    for bytes in [10, 5_000, 10] {
        accumulator.push(&Record::new(vec![1; bytes]), bytes, || now).unwrap();
    }
    let counts: Vec<u32> =
        std::iter::from_fn(|| accumulator.take_ready(now, LINGER, true).map(|b| b.record_count()))
            .collect();
    assert_eq!(counts, [1, 1, 1]);
}

#[test]
fn a_failure_refuses_records_until_resumed_and_closing_for_ever() {
    let mut accumulator = Accumulator::new(1000);
    let now = Instant::now();
    accumulator.push(&Record::new("a"), 1, || now).unwrap();
    assert_eq!(accumulator.fail(Error::TopicNotFound("no".into())).len(), 1);
    let refused = accumulator.push(&Record::new("b"), 1, || now).unwrap_err();
    assert!(matches!(refused, Error::Abandoned { .. }), "{refused}");
    assert!(accumulator.last().is_some());
    accumulator.resume();
    assert!(accumulator.last().is_none(), "what failed is not waited for any more");
    accumulator.push(&Record::new("c"), 1, || now).unwrap();
    accumulator.close();
    assert_eq!(accumulator.push(&Record::new("d"), 1, || now).unwrap_err(), Error::Closed);
    assert!(!accumulator.is_finished());
    assert!(accumulator.take_ready(now, LINGER, false).is_some());
    assert!(accumulator.is_finished());
}

#[tokio::test]
async fn deliveries_of_a_batch_are_dense() {
    let mut accumulator = Accumulator::new(1000);
    let now = Instant::now();
    let mut deliveries = VecDeque::new();
    for value in ["a", "b", "c"] {
        deliveries.push_back(accumulator.push(&Record::new(value), 1, || now).unwrap().delivery);
    }
    let batch = accumulator.take_ready(now, LINGER, true).unwrap();
    assert_eq!(batch.resolve(Ok(Appended { partition: 2, offset: 40, timestamp_ms: 9 })), 3);
    for offset in 40..43 {
        let delivered = deliveries.pop_front().unwrap().await.unwrap();
        assert_eq!(delivered, Delivered { partition: 2, offset, timestamp_ms: 9 });
    }
}

#[tokio::test]
async fn a_batch_that_vanishes_has_an_unknown_outcome() {
    let batch = batch("a");
    let delivery = batch.delivery_of_last();
    drop(batch);
    assert_eq!(delivery.await.unwrap_err().outcome(), crate::Outcome::Unknown);
}

#[test]
fn the_window_bounds_what_is_on_the_wire() {
    let mut pipeline = pipeline(2);
    for text in ["a", "b", "c"] {
        pipeline.push(batch(text));
    }
    assert_eq!(send_all(&mut pipeline).len(), 2);
    assert!(!pipeline.has_room());
    assert!(pipeline.answered().is_some());
    assert_eq!(send_all(&mut pipeline).iter().map(stamp_of).collect::<Vec<_>>(), [(0, 2)]);
}

#[test]
fn what_was_not_answered_is_sent_again_in_order_and_unchanged() {
    let mut pipeline = pipeline(8);
    for text in ["a", "b", "c"] {
        pipeline.push(batch(text));
    }
    let first = send_all(&mut pipeline);
    assert_eq!(first.iter().map(stamp_of).collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 2)]);
    assert!(pipeline.answered().is_some());
    pipeline.interrupted(pipeline::Appended::Perhaps);
    assert!(pipeline.oldest_may_be_appended());
    pipeline.push(batch("d"));
    let second = send_all(&mut pipeline);
    assert_eq!(second[..2], first[1..]);
    assert_eq!(stamp_of(&second[2]), (0, 3));
    assert_eq!(value(&second[2]), ["d"]);
}

#[test]
fn an_answer_to_nothing_is_noticed() {
    let mut pipeline = pipeline(8);
    assert!(pipeline.answered().is_none());
    pipeline.push(batch("a"));
    assert!(pipeline.answered().is_none(), "it was not sent");
    assert!(!pipeline.is_empty());
}

#[test]
fn a_pipeline_is_busy_with_two_batches_until_one_is_answered() {
    let mut pipeline = pipeline(8);
    for value in ["a", "b"] {
        assert!(!pipeline.is_busy());
        pipeline.push(batch(value));
    }
    assert!(pipeline.is_busy());
    pipeline.next_to_send().unwrap();
    pipeline.answered().unwrap();
    assert!(!pipeline.is_busy());
}

#[test]
fn an_attempt_without_effect_leaves_the_outcome_known() {
    let mut pipeline = pipeline(8);
    pipeline.push(batch("a"));
    send_all(&mut pipeline);
    pipeline.interrupted(pipeline::Appended::Nothing);
    assert!(!pipeline.oldest_may_be_appended());
}

#[test]
fn a_forgotten_producer_starts_again_with_the_same_records() {
    let mut pipeline = pipeline(8);
    pipeline.push(batch("a"));
    send_all(&mut pipeline);
    assert!(pipeline.answered().is_some());
    for text in ["b", "c"] {
        pipeline.push(batch(text));
    }
    assert_eq!(send_all(&mut pipeline).iter().map(stamp_of).collect::<Vec<_>>(), [(0, 1), (0, 2)]);
    pipeline.interrupted(pipeline::Appended::Nothing);
    pipeline.start_again();
    pipeline.push(batch("d"));
    let sent = send_all(&mut pipeline);
    assert_eq!(sent.iter().map(stamp_of).collect::<Vec<_>>(), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(sent.iter().flat_map(value).collect::<Vec<_>>(), ["b", "c", "d"]);
}

#[test]
fn after_giving_up_a_new_epoch_begins() {
    let mut pipeline = pipeline(8);
    for text in ["a", "b"] {
        pipeline.push(batch(text));
    }
    send_all(&mut pipeline);
    assert_eq!(pipeline.give_up().len(), 2);
    assert!(pipeline.is_empty());
    pipeline.push(batch("c"));
    assert_eq!(send_all(&mut pipeline).iter().map(stamp_of).collect::<Vec<_>>(), [(1, 0)]);
}

#[test]
fn sequences_do_not_overflow_while_something_is_under_way() {
    let identity = Identity::at(5, 7, i32::MAX - 1);
    let mut pipeline = Pipeline::new(8, Compression::None, Some(identity));
    for text in ["a", "b", "c"] {
        pipeline.push(batch(text));
    }
    assert_eq!(
        send_all(&mut pipeline).iter().map(stamp_of).collect::<Vec<_>>(),
        [(7, i32::MAX - 1)]
    );
    assert!(pipeline.answered().is_some());
    assert_eq!(send_all(&mut pipeline).iter().map(stamp_of).collect::<Vec<_>>(), [(8, 0), (8, 1)]);
}

#[test]
fn without_idempotence_a_second_attempt_could_double() {
    let mut pipeline = Pipeline::new(8, Compression::None, None);
    pipeline.push(batch("a"));
    let sent = send_all(&mut pipeline);
    assert_eq!(BatchHeader::verify(&sent[0]).unwrap().producer, None);
    assert!(!pipeline.could_double());
    pipeline.interrupted(pipeline::Appended::Nothing);
    assert!(!pipeline.could_double());
    send_all(&mut pipeline);
    pipeline.interrupted(pipeline::Appended::Perhaps);
    assert!(pipeline.could_double());
}

#[test]
fn without_idempotence_a_refusal_says_nothing_of_those_behind() {
    let mut pipeline = Pipeline::new(8, Compression::None, None);
    for text in ["a", "b", "c"] {
        pipeline.push(batch(text));
    }
    pipeline.next_to_send().unwrap();
    pipeline.interrupted(pipeline::Appended::PerhapsBehindOldest);
    assert!(!pipeline.could_double(), "there was none behind it");
    for _ in ["a", "b"] {
        pipeline.next_to_send().unwrap();
    }
    pipeline.interrupted(pipeline::Appended::PerhapsBehindOldest);
    assert!(pipeline.could_double());
    let appended: Vec<bool> = pipeline.give_up().iter().map(|b| b.maybe_appended).collect();
    assert_eq!(appended, [false, true, false]);
}

#[test]
fn what_takes_for_ever_is_waited_for() {
    let mut accumulator = Accumulator::new(1_000);
    accumulator.push(&Record::new("a"), 1, Instant::now).unwrap();
    assert!(accumulator.take_ready(Instant::now(), Duration::MAX, false).is_none());
    assert!(accumulator.ready_at(Duration::MAX) > accumulator.ready_at(LINGER));
    let mut pipeline = pipeline(8);
    pipeline.push(batch("a"));
    assert!(pipeline.expires_at(Duration::MAX) > pipeline.expires_at(LINGER));
}

#[test]
fn the_oldest_batch_decides_when_time_is_up() {
    let begun = Instant::now();
    let mut pipeline = pipeline(8);
    assert_eq!(pipeline.expires_at(LINGER), None);
    pipeline.push(Batch::begin(&Record::new("a"), 1, 0, begun));
    pipeline.push(Batch::begin(&Record::new("b"), 1, 0, begun + LINGER));
    assert_eq!(pipeline.expires_at(LINGER), Some(begun + LINGER));
}
