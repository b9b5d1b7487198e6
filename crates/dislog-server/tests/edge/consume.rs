//! `Consume` and `ConsumeStream`.

use std::time::Duration;

use dislog_proto::v1::consume_request::Start;
use dislog_proto::{reason, v1};
use tonic::Code;

use crate::node::{Node, assert_fails, consume_from, produce_to, soon, start, values};

/// A topic `t` with batches of two records: 0 and 1, 2 and 3, …
async fn pairs(count: u64) -> Node {
    let node = start().await;
    let mut log = node.log().await;
    for pair in 0..count {
        let (first, second) = ((2 * pair).to_string(), (2 * pair + 1).to_string());
        soon(log.produce(produce_to("t", &[&first, &second]))).await.unwrap();
    }
    node
}

async fn consume(node: &Node, request: v1::ConsumeRequest) -> v1::ConsumeResponse {
    soon(node.log().await.consume(request)).await.unwrap().into_inner()
}

#[tokio::test]
async fn without_limits_a_request_gets_exactly_one_record() {
    let node = pairs(2).await;
    for offset in 0..4 {
        let consumed = consume(&node, consume_from("t", offset)).await;
        assert_eq!(values(&consumed.records), [offset.to_string()]);
        assert_eq!(consumed.records[0].offset, offset);
        assert_eq!((consumed.next_offset, consumed.committed_offset), (offset + 1, 4));
    }
}

#[tokio::test]
async fn limits_count_records_and_bytes() {
    let node = pairs(3).await;
    let request = |offset, max_records, max_bytes| v1::ConsumeRequest {
        max_records,
        max_bytes,
        ..consume_from("t", offset)
    };
    let consumed = consume(&node, request(1, 3, 0)).await;
    assert_eq!(values(&consumed.records), ["1", "2", "3"]);
    assert_eq!(consumed.next_offset, 4);
    assert_eq!(consume(&node, request(0, 0, u32::MAX)).await.records.len(), 6);
    assert_eq!(consume(&node, request(0, u32::MAX, u32::MAX)).await.records.len(), 6);
    assert_eq!(consume(&node, request(3, 0, 1)).await.records.len(), 1, "at least one");
}

#[tokio::test]
async fn a_read_may_start_anywhere() {
    let node = pairs(2).await;
    let from =
        |start| v1::ConsumeRequest { start: Some(start), max_records: 10, ..consume_from("t", 99) };
    let first = consume(&node, from(Start::Earliest(true))).await;
    assert_eq!(values(&first.records), ["0", "1", "2", "3"]);
    assert_eq!(values(&consume(&node, from(Start::Last(3))).await.records), ["1", "2", "3"]);
    assert_eq!(consume(&node, from(Start::Last(u64::MAX))).await.records.len(), 4);
    let then = first.records[2].timestamp_ms;
    let at = consume(&node, from(Start::TimestampMs(then))).await;
    assert_eq!(at.records.last().unwrap().offset, 3);
    assert!(at.records.iter().all(|record| record.timestamp_ms >= then));
    assert_eq!(consume(&node, from(Start::TimestampMs(i64::MIN))).await.records.len(), 4);
    for nothing in [Start::TimestampMs(i64::MAX), Start::Latest(true), Start::Last(0)] {
        let consumed = consume(&node, from(nothing)).await;
        assert_eq!((consumed.records.len(), consumed.next_offset), (0, 4));
    }
}

#[tokio::test]
async fn beyond_the_end_is_out_of_range_and_says_what_is_in_range() {
    let node = pairs(2).await;
    let mut log = node.log().await;
    for offset in [4, 5, u64::MAX] {
        let refused = soon(log.consume(consume_from("t", offset))).await;
        let facts = assert_fails(refused, Code::OutOfRange, reason::OFFSET_OUT_OF_RANGE);
        assert_eq!((facts["earliest"].as_str(), facts["latest"].as_str()), ("0", "4"));
    }
    let missing = soon(log.consume(consume_from("missing", 0))).await;
    assert_fails(missing, Code::NotFound, reason::TOPIC_NOT_FOUND);
    let invalid = soon(log.consume(consume_from("a b", 0))).await;
    assert_fails(invalid, Code::InvalidArgument, reason::INVALID_REQUEST);
}

#[tokio::test]
async fn a_wait_ends_with_the_first_record_or_in_vain() {
    let node = pairs(1).await;
    let waiting = |wait_ms| v1::ConsumeRequest { wait_ms, ..consume_from("t", 2) };
    let consumed = consume(&node, waiting(50)).await;
    assert_eq!((consumed.records.len(), consumed.next_offset), (0, 2));
    let mut log = node.log().await;
    let waiting = tokio::spawn(async move { log.consume(waiting(60_000)).await });
    soon(node.log().await.produce(produce_to("t", &["2"]))).await.unwrap();
    let consumed = soon(waiting).await.unwrap().unwrap().into_inner();
    assert_eq!(values(&consumed.records), ["2"]);
    // An offset that is still to come is waited for, but not for ever.
    let beyond = v1::ConsumeRequest { wait_ms: 50, ..consume_from("t", 9) };
    let refused = soon(node.log().await.consume(beyond)).await;
    assert_fails(refused, Code::OutOfRange, reason::OFFSET_OUT_OF_RANGE);
}

#[tokio::test]
async fn linearizable_reads_see_what_was_acknowledged() {
    let node = pairs(1).await;
    let mut log = node.log().await;
    for offset in 2..50 {
        soon(log.produce(produce_to("t", &["x"]))).await.unwrap();
        let request = v1::ConsumeRequest { linearizable: true, ..consume_from("t", offset) };
        assert_eq!(consume(&node, request).await.records.len(), 1);
    }
}

#[tokio::test]
async fn a_stream_gives_a_record_per_message_and_follows_the_end() {
    let node = pairs(2).await;
    let mut stream =
        soon(node.log().await.consume_stream(consume_from("t", 1))).await.unwrap().into_inner();
    for offset in 1..4 {
        let message = soon(stream.message()).await.unwrap().unwrap();
        assert_eq!(values(&message.records), [offset.to_string()]);
    }
    for offset in 4..10 {
        soon(node.log().await.produce(produce_to("t", &["new"]))).await.unwrap();
        let message = soon(stream.message()).await.unwrap().unwrap();
        assert_eq!((message.records[0].offset, message.next_offset), (offset, offset + 1));
    }
}

#[tokio::test]
async fn streams_start_in_range_and_keep_to_their_limits() {
    let node = pairs(3).await;
    let mut log = node.log().await;
    let refused = soon(log.consume_stream(consume_from("t", 7))).await.map(|_| ());
    assert_fails(refused, Code::OutOfRange, reason::OFFSET_OUT_OF_RANGE);
    let request = v1::ConsumeRequest { max_records: 4, ..consume_from("t", 1) };
    let mut stream = soon(log.consume_stream(request)).await.unwrap().into_inner();
    assert_eq!(soon(stream.message()).await.unwrap().unwrap().records.len(), 4);
    assert_eq!(soon(stream.message()).await.unwrap().unwrap().records.len(), 1);
    let request = v1::ConsumeRequest { raw: true, max_bytes: 1 << 20, ..consume_from("t", 3) };
    let mut stream = soon(log.consume_stream(request)).await.unwrap().into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!((message.batches.len(), message.next_offset), (2, 6));
    let header = dislog_types::BatchHeader::verify(&message.batches[0].batch).unwrap();
    assert_eq!((header.base_offset, header.record_count), (2, 2));
}

#[tokio::test]
async fn trimming_is_never_silent() {
    let node = pairs(3).await;
    let mut admin = node.admin().await;
    let trim = |offset| v1::TrimTopicRequest { topic: "t".into(), partition: 0, offset };
    assert_eq!(soon(admin.trim_topic(trim(3))).await.unwrap().into_inner().start_offset, 3);
    assert_eq!(soon(admin.trim_topic(trim(1))).await.unwrap().into_inner().start_offset, 3);
    assert_fails(
        soon(admin.trim_topic(trim(7))).await,
        Code::OutOfRange,
        reason::OFFSET_OUT_OF_RANGE,
    );
    let mut log = node.log().await;
    let facts = assert_fails(
        soon(log.consume(consume_from("t", 2))).await,
        Code::OutOfRange,
        reason::OFFSET_TRIMMED,
    );
    assert_eq!((facts["earliest"].as_str(), facts["latest"].as_str()), ("3", "6"));
    let stream = soon(log.consume_stream(consume_from("t", 0))).await.map(|_| ());
    assert_fails(stream, Code::OutOfRange, reason::OFFSET_TRIMMED);
    let earliest =
        v1::ConsumeRequest { start: Some(Start::Earliest(true)), ..consume_from("t", 0) };
    assert_eq!(values(&consume(&node, earliest).await.records), ["3"]);
}

#[tokio::test]
async fn a_stream_over_a_deleted_topic_ends() {
    let node = pairs(1).await;
    let mut stream =
        soon(node.log().await.consume_stream(consume_from("t", 2))).await.unwrap().into_inner();
    let delete = v1::DeleteTopicRequest { topic: "t".into() };
    soon(node.admin().await.delete_topic(delete)).await.unwrap();
    assert_fails(soon(stream.message()).await, Code::NotFound, reason::TOPIC_NOT_FOUND);
}

#[tokio::test]
async fn clients_that_know_no_topics_can_follow_before_the_first_record() {
    let node = start().await;
    let mut stream =
        soon(node.log().await.consume_stream(consume_from("", 0))).await.unwrap().into_inner();
    soon(node.log().await.produce(produce_to("", &["first"]))).await.unwrap();
    assert_eq!(values(&soon(stream.message()).await.unwrap().unwrap().records), ["first"]);
}

#[tokio::test]
async fn an_idle_stream_costs_nothing() {
    let node = pairs(1).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let stream = soon(node.log().await.consume_stream(consume_from("t", 2))).await.unwrap();
        streams.push(stream.into_inner());
    }
    // Nothing shall happen for a while, so there is no condition to wait on. A loop that polls
    // wakes the runtime of this test hundreds of times, one that spins keeps it busy.
    // Busy is also who is not scheduled, so one calm while of several will do.
    let metrics = tokio::runtime::Handle::current().metrics();
    let mut seen = Vec::new();
    let calm = |(wakes, busy): &(u64, Duration)| *wakes < 100 && busy.as_millis() < 250;
    while seen.len() < 5 && !seen.iter().any(calm) {
        let (wakes, busy) = (metrics.worker_park_count(0), metrics.worker_total_busy_duration(0));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let wakes = metrics.worker_park_count(0) - wakes;
        let busy = metrics.worker_total_busy_duration(0) - busy;
        seen.push((wakes, busy));
    }
    assert!(seen.iter().any(calm), "20 idle streams, wakes and time in half seconds: {seen:?}");
    soon(node.log().await.produce(produce_to("t", &["2"]))).await.unwrap();
    for stream in &mut streams {
        assert_eq!(soon(stream.message()).await.unwrap().unwrap().records[0].offset, 2);
    }
}
